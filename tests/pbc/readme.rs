//! The examples of README.md, run as they stand there but for the port.

use std::process::{Command, Stdio};

use crate::support::{Server, text};

/// The code blocks of a language.
fn blocks(language: &str) -> Vec<String> {
    let readme = std::fs::read_to_string("README.md").unwrap();
    let opening = format!("```{language}\n");
    readme.split(opening.as_str()).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// The indented command lines that start with `ombak`.
fn commands() -> Vec<String> {
    let readme = std::fs::read_to_string("README.md").unwrap();
    readme.lines().filter(|line| line.starts_with("    ombak ")).map(|line| line.trim().to_owned()).collect()
}

/// What an interpreter prints for a script; none where there is no such interpreter.
fn run(interpreter: &str, script: &str, server: &Server) -> Option<String> {
    let script = script.replace("8087", &server.address.port().to_string());
    if Command::new(interpreter).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        println!("skipped: there is no {interpreter} here");
        return None;
    }
    let output = Command::new(interpreter).args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{script}\n{output:?}");
    Some(text(&output.stdout))
}

#[test]
fn bash_alone_is_client_enough_in_both_layouts() {
    let scripts = blocks("bash");
    let [expected] = &blocks("text")[..] else { panic!("one output for both") };
    let released = scripts.iter().find(|script| script.contains(r"\x12\x09\x0a")).expect("the released layout");
    let preview = scripts.iter().find(|script| script.contains(r"\x1a\x09\x0a")).expect("the preview layout");
    for script in [released, preview] {
        let server = Server::start();
        if let Some(printed) = run("bash", script, &server) {
            assert_eq!(&printed, expected, "{script}");
        }
    }
}

#[test]
fn a_raw_socket_in_twenty_lines() {
    let scripts = blocks("python");
    let script = scripts.iter().find(|script| script.contains("import socket")).expect("the raw socket");
    let server = Server::start();
    if let Some(printed) = run("python3", script, &server) {
        assert_eq!(printed, "(2, b'')\n81 15\n");
    }
}

#[test]
fn command_lines() {
    let (server, standby) = (Server::start(), Server::start());
    let commands: Vec<_> = commands().into_iter().filter(|command| !command.contains(" serve")).collect();
    assert!(commands.len() >= 7, "{commands:?}");
    for command in commands {
        let script = command.replacen("ombak", env!("CARGO_BIN_EXE_ombak"), 1);
        // It follows for as long as it runs.
        let script = script.replace("--to standby.example:5678", &format!("--to {} --once", standby.grpc.unwrap()));
        let mut shell = Command::new("sh");
        shell.env("OMBAK_DATA_DIR", &server.data_dir).env("OMBAK_PBC_LISTEN", server.address.to_string());
        let output = shell.args(["-c", &script]).current_dir("/").output().unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
    }
}
