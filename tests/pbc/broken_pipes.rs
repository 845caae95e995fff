//! Standard output and standard error that nobody reads: what cannot be written there is lost, and nothing else.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::{broken_pipe, ombak, serve};

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_server_whose_greeting_nobody_reads_serves_and_stops() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut child = serve(&data).stdout(broken_pipe()).stderr(broken_pipe()).spawn().unwrap();
    let status = || {
        let mut command = ombak();
        command.arg("--data-dir").arg(&data).arg("status").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().unwrap().code()
    };
    let deadline = Instant::now() + PATIENCE;
    while status() != Some(0) {
        assert_eq!(child.try_wait().unwrap(), None, "the server has ended");
        assert!(Instant::now() < deadline, "the server does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(status(), Some(1), "nobody serves the directory any more");
}

#[test]
fn a_refusal_that_nobody_reads_has_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = serve(&dir.path().join("data"));
    let status = command.args(["--grpc", "nowhere"]).stdout(Stdio::null()).stderr(broken_pipe()).status().unwrap();
    assert_eq!(status.code(), Some(1));
}
