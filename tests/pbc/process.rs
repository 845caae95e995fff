//! Start and stop: what is printed, what the exit code says, what a signal leaves behind.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use ombak::message::Reply;

use crate::requests::{counter, fetch, in_counter, map, put, update};
use crate::support::{Server, frame, ombak, serve, text};

/// A server that must not start: its one line on standard error.
#[track_caller]
fn refused_start(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(!output.status.success(), "{output:?}");
    assert!(output.stdout.is_empty(), "nothing is promised: {output:?}");
    let lines = text(&output.stderr);
    let lines: Vec<_> = lines.lines().collect();
    let [line] = lines[..] else { panic!("not one line: {lines:#?}") };
    assert!(line.starts_with("ombak: "), "{line}");
    line.to_owned()
}

fn dir() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    (dir, data)
}

#[test]
fn a_busy_port() {
    let (_dir, data) = dir();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let line = refused_start(ombak().arg("--data-dir").arg(&data).args(["serve", "--pbc", &address]));
    assert!(line.contains(&address) && line.contains("in use"), "{line}");
}

#[test]
fn a_bad_key_in_the_configuration() {
    let (dir, data) = dir();
    let file = dir.path().join("ombak.toml");
    for (content, named) in
        [("ring_sizes = 64\n", "`ring_sizes`"), ("ring_size = 7\n", "`ring_size`"), ("=\n", "line 1")]
    {
        fs::write(&file, content).unwrap();
        let line = refused_start(serve(&data).arg("--config").arg(&file));
        assert!(line.contains(named) && line.contains(file.to_str().unwrap()), "{line}");
    }
    let line = refused_start(serve(&data).env("OMBAK_NO_SUCH_KEY", "1"));
    assert!(line.contains("`no_such_key`") && line.contains("OMBAK_NO_SUCH_KEY"), "{line}");
    let line = refused_start(serve(&data).arg("--config").arg(dir.path().join("absent.toml")));
    assert!(line.contains("absent.toml"), "{line}");
    assert!(!data.exists(), "nothing was begun");
}

#[test]
fn a_data_directory_that_cannot_be_used() {
    let (_dir, data) = dir();
    // Permissions stop nobody who is root; a file in its place stops everybody.
    fs::write(&data, "").unwrap();
    let line = refused_start(&mut serve(&data));
    assert!(line.contains(data.to_str().unwrap()), "{line}");
    let line = refused_start(&mut serve(&data.join("below")));
    assert!(line.contains("below"), "{line}");
}

#[test]
fn a_data_directory_in_use() {
    let server = Server::start();
    let line = refused_start(&mut serve(&server.data_dir));
    assert!(line.contains("in use by another process") && line.contains(server.data_dir.to_str().unwrap()), "{line}");
    server.connect().expect_alive();
}

#[test]
fn a_data_directory_of_another_format() {
    let (_dir, data) = dir();
    drop(Server::start_on(&data, &[]));
    fs::write(data.join("FORMAT"), "ombak 999\n").unwrap();
    let line = refused_start(&mut serve(&data));
    assert!(line.contains("ombak 999") && line.contains(data.to_str().unwrap()), "{line}");
    assert_eq!(fs::read(data.join("FORMAT")).unwrap(), b"ombak 999\n", "it is left as it is");
    fs::remove_file(data.join("FORMAT")).unwrap();
    let line = refused_start(&mut serve(&data));
    assert!(line.contains("FORMAT"), "{line}");
}

#[test]
fn sigterm_answers_what_was_begun_and_exits_0() {
    const BURST: u64 = 2_000;
    let (_dir, data) = dir();
    for signal in ["TERM", "INT"] {
        let mut server = Server::start_on(&data, &[]);
        let request = update("maps", signal, map(&[], &[in_counter("c", 1)]));
        let one = frame(request.code().number(), &request.encode());
        let mut connection = server.connect();
        let mut idle = server.connect();
        idle.expect_alive();
        let mut sender = connection.stream.try_clone().unwrap();
        let sending = std::thread::spawn(move || {
            // The server may stop to read at any point.
            let _ = std::io::Write::write_all(&mut sender, &one.repeat(BURST as usize));
        });
        let mut acknowledged = 0;
        while let Some(reply) = connection.receive_or_end() {
            assert_eq!(reply, (83, vec![]));
            acknowledged += 1;
            if acknowledged == 10 {
                server.signal(signal);
            }
        }
        sending.join().unwrap();
        drop(connection);
        idle.expect_end();
        assert_eq!(server.wait().code(), Some(0));
        assert!(acknowledged < BURST, "the signal came too late to show anything");

        let server = Server::start_on(&data, &[]);
        let Reply::DtFetch(reply) = server.connect().ask(&fetch("maps", signal)) else { panic!("a fetch") };
        let value = reply.value.unwrap().map_value[0].counter_value.unwrap();
        // Nothing was begun that was not answered.
        assert_eq!(value, acknowledged as i64);
    }
}

#[test]
fn what_was_stored_is_there_after_a_restart() {
    let (_dir, data) = dir();
    let mut server = Server::start_on(&data, &[]);
    server.create_type("plain", "{}");
    let mut connection = server.connect();
    assert!(matches!(connection.ask(&put("plain", "b", "k", "v")), Reply::Put(_)));
    assert!(matches!(connection.ask(&update("counters", "k", counter(7))), Reply::DtUpdate(_)));
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));

    let server = Server::start_on(&data, &[]);
    assert!(server.printed(&["bucket-type", "list"]).contains("plain (active)\n"));
    let mut connection = server.connect();
    assert_eq!(connection.call_hex("50 0a0162 12016b 1a08636f756e74657273"), "5110011a02080e");
    assert!(matches!(connection.ask(&put("plain", "b", "k", "v")), Reply::Put(_)));
}

#[test]
fn a_data_directory_with_a_long_path() {
    let (dir, _) = dir();
    // The system's addresses of unix sockets end at 107 bytes.
    let data = dir.path().join("d".repeat(120)).join("e".repeat(120));
    fs::create_dir_all(data.parent().unwrap()).unwrap();
    let server = Server::start_on(&data, &[]);
    assert!(data.as_os_str().len() > 107);
    server.create_type("carts", r#"{"datatype":"set"}"#);
    assert!(server.printed(&["bucket-type", "status", "carts"]).starts_with("carts is active\n"));
    assert!(server.printed(&["status"]).contains(data.to_str().unwrap()));
}

#[test]
fn commands_without_a_server_say_so() {
    let (_dir, data) = dir();
    for arguments in [&["status"][..], &["bucket-type", "list"], &["get", "b", "k", "--host", "127.0.0.1:1"]] {
        let line = refused_start(ombak().arg("--data-dir").arg(&data).args(arguments));
        assert!(line.contains("server"), "{line}");
    }
    assert!(!Path::new(&data).exists(), "asking creates nothing");
}

#[test]
fn several_addresses() {
    let (_dir, data) = dir();
    let server = Server::start_on(&data, &[]);
    drop(server);
    let mut command = serve(&data);
    command.args(["--pbc", "127.0.0.2:0"]).stdout(std::process::Stdio::piped());
    let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    for _ in 0..2 {
        let line = lines.next().unwrap().unwrap();
        let (_, address) = line.split_once(" serves Riak clients on ").unwrap();
        crate::support::Connection::open(address.parse().unwrap()).expect_alive();
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_listener_to_which_nobody_comes_keeps_no_connection_from_another() {
    let (_dir, data) = dir();
    let mut command = serve(&data);
    command.args(["--pbc", "127.0.0.2:0"]).env("OMBAK_CONNECTIONS_MAX", "1").stdout(std::process::Stdio::piped());
    let mut child = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let addresses = [(); 2].map(|()| {
        let line = lines.next().unwrap().unwrap();
        let (_, address) = line.split_once(" serves Riak clients on ").unwrap();
        address.parse().unwrap()
    });
    for address in addresses {
        crate::support::Connection::open(address).expect_alive();
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
