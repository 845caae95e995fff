//! What the outer tests have in common: a real server of their own, and connections that speak raw frames to it.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use ombak::message::{Reply, Request};
use tempfile::TempDir;

/// A server that does not answer is a failure, not a test that never ends.
const PATIENCE: Duration = Duration::from_secs(60);

pub type Env<'a> = &'a [(&'a str, &'a str)];

/// `ombak` without what the surroundings may configure.
pub fn ombak() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ombak"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OMBAK_") {
            command.env_remove(name);
        }
    }
    // No ombak.toml there.
    command.current_dir("/");
    command
}

/// A running server. Dropping it kills it, and fails the test if the server has logged a warning.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    /// Where it serves maps over gRPC; none where that is off.
    pub grpc: Option<SocketAddr>,
    pub data_dir: PathBuf,
    log: PathBuf,
    dir: Option<TempDir>,
    /// Whether the log may hold warnings.
    warns: bool,
}

impl Server {
    /// On a fresh data directory.
    pub fn start() -> Server {
        Server::start_with(&[])
    }

    /// On a fresh data directory, with keys of the configuration given as variables of the environment.
    pub fn start_with(env: Env) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Server::start_on(&dir.path().join("data"), env);
        server.dir = Some(dir);
        server
    }

    /// On a data directory that outlives the server.
    pub fn start_on(data_dir: &Path, env: Env) -> Server {
        let mut command = serve(data_dir);
        command.envs(env.iter().copied());
        Server::spawn(command, data_dir, log_file(data_dir).into())
    }

    /// On a data directory whose disk takes no file larger than so many bytes, as if it were full: what it warns of is no failure.
    pub fn start_on_small_disk(data_dir: &Path, file_size_bytes_max: u64) -> Server {
        let log = log_file(data_dir).into();
        Server::start_on_small_disk_logging_to(data_dir, file_size_bytes_max, log)
    }

    /// The same, with its log going somewhere else.
    pub fn start_on_small_disk_logging_to(data_dir: &Path, file_size_bytes_max: u64, log: Stdio) -> Server {
        let server = serve(data_dir);
        let mut command = Command::new("sh");
        // In units of 512 bytes; without the signal the write reports an error.
        let limit = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", file_size_bytes_max / 512);
        command.args(["-c", &limit]).arg(server.get_program()).args(server.get_args());
        for (name, value) in server.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.current_dir("/");
        let mut server = Server::spawn(command, data_dir, log);
        server.warns = true;
        server
    }

    #[track_caller]
    fn spawn(command: Command, data_dir: &Path, stderr: Stdio) -> Server {
        let log = data_dir.with_extension("log");
        Server::try_spawn_telling(command, data_dir, &log, stderr).unwrap_or_else(|why| panic!("{why}"))
    }

    /// Runs a command of [`serve`] that logs to a file, and waits until everything listens; or says why it does not.
    pub fn try_spawn(command: Command, data_dir: &Path, log: &Path) -> Result<Server, String> {
        let stderr = std::fs::File::options().create(true).append(true).open(log).unwrap();
        Server::try_spawn_telling(command, data_dir, log, stderr.into())
    }

    fn try_spawn_telling(mut command: Command, data_dir: &Path, log: &Path, stderr: Stdio) -> Result<Server, String> {
        let mut child = command.stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // The last line of the start-up: everything listens.
                let is_last = line.starts_with("data in ");
                if tell.send(line).is_err() || is_last {
                    return;
                }
            }
        });
        let began = Instant::now();
        let (mut address, mut grpc, mut listens) = (None, None, false);
        let ended = loop {
            match told.recv_timeout(PATIENCE.saturating_sub(began.elapsed())) {
                Ok(line) => {
                    if let Some((_, bound)) = line.split_once(" serves Riak clients on ") {
                        address = Some(bound.parse().unwrap());
                    }
                    if let Some((_, bound)) = line.split_once(" serves maps over gRPC on ") {
                        grpc = Some(bound.parse().unwrap());
                    }
                    listens |= line.starts_with("data in ");
                }
                Err(end) => break end,
            }
        };
        match address.filter(|_| listens) {
            Some(address) => {
                let (data_dir, log) = (data_dir.to_owned(), log.to_owned());
                Ok(Server { child, address, grpc, data_dir, log, dir: None, warns: false })
            }
            None => {
                let _ = child.kill();
                let _ = child.wait();
                let log = std::fs::read_to_string(log).unwrap();
                Err(format!("the server did not start ({ended}):\n{log}"))
            }
        }
    }

    pub fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    /// Runs a command of `ombak` against this server.
    pub fn ombak(&self, arguments: &[&str]) -> Output {
        let mut command = ombak();
        command.arg("--data-dir").arg(&self.data_dir).env("OMBAK_PBC_LISTEN", self.address.to_string());
        command.args(arguments).output().unwrap()
    }

    /// What a command prints that succeeds.
    #[track_caller]
    pub fn printed(&self, arguments: &[&str]) -> String {
        let output = self.ombak(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        text(&output.stdout)
    }

    #[track_caller]
    pub fn create_type(&self, name: &str, props: &str) {
        self.printed(&["bucket-type", "create", name, &format!(r#"{{"props":{props}}}"#)]);
        self.printed(&["bucket-type", "activate", name]);
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// SIGKILL, as `kill -9` sends it.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// A line of `/proc/PID/status` in bytes, where there is such a file.
    pub fn memory(&self, key: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status.lines().find(|line| line.starts_with(key))?;
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !self.warns && !std::thread::panicking() {
            let log = std::fs::read_to_string(&self.log).unwrap();
            let warnings: Vec<_> = log.lines().filter(|l| l.contains(" WARN ") || l.contains(" ERROR ")).collect();
            assert!(warnings.is_empty(), "the server warned:\n{}", warnings.join("\n"));
        }
    }
}

/// Where the servers of a data directory log to.
fn log_file(data_dir: &Path) -> std::fs::File {
    std::fs::File::options().create(true).append(true).open(data_dir.with_extension("log")).unwrap()
}

/// A pipe that nobody reads, as `tee` leaves it when it dies.
pub fn broken_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// `ombak serve` on a data directory and free ports, not yet started.
pub fn serve(data_dir: &Path) -> Command {
    let mut command = ombak();
    command.arg("--data-dir").arg(data_dir).args(["serve", "--pbc", "127.0.0.1:0"]);
    command.env("OMBAK_GRPC_LISTEN", "127.0.0.1:0");
    command
}

/// A connection that sends what it is told, be it a request or not.
pub struct Connection {
    pub stream: TcpStream,
}

/// A code and a payload.
pub type RawFrame = (u8, Vec<u8>);

impl Connection {
    pub fn open(address: SocketAddr) -> Connection {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Connection { stream }
    }

    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    #[track_caller]
    pub fn send_frame(&mut self, code: u8, payload: &[u8]) {
        self.send(&frame(code, payload));
    }

    /// No more will be sent.
    pub fn half_close(&mut self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// The next frame, or none when the server has closed the connection between two frames.
    #[track_caller]
    pub fn receive_or_end(&mut self) -> Option<RawFrame> {
        let mut header = [0; 5];
        if self.stream.read(&mut header[..1]).expect("a frame, or an end that is no reset") == 0 {
            return None;
        }
        self.stream.read_exact(&mut header[1..]).expect("the rest of a frame's header");
        let length = u32::from_be_bytes(header[..4].try_into().unwrap()) as usize;
        let mut payload = vec![0; length - 1];
        self.stream.read_exact(&mut payload).expect("the rest of a frame");
        Some((header[4], payload))
    }

    #[track_caller]
    pub fn receive(&mut self) -> RawFrame {
        self.receive_or_end().expect("a reply instead of the end")
    }

    #[track_caller]
    pub fn expect_end(&mut self) {
        assert_eq!(self.receive_or_end(), None, "the connection should be closed");
    }

    /// The server still answers here: what came before has cost nothing but its own request.
    #[track_caller]
    pub fn expect_alive(&mut self) {
        assert_eq!(self.call(1, b""), (2, vec![]));
    }

    #[track_caller]
    pub fn call(&mut self, code: u8, payload: &[u8]) -> RawFrame {
        self.send_frame(code, payload);
        self.receive()
    }

    /// Sends code and payload in hex, and returns the reply's in hex: the notation of the golden bytes.
    #[track_caller]
    pub fn call_hex(&mut self, request: &str) -> String {
        let request = unhex(request);
        let (code, payload) = self.call(request[0], &request[1..]);
        hex(&[&[code], payload.as_slice()].concat())
    }

    #[track_caller]
    pub fn ask(&mut self, request: &Request) -> Reply {
        let (code, payload) = self.call(request.code().number(), &request.encode());
        Reply::decode(code, payload.into()).unwrap()
    }

    /// The text of the error that answers a request.
    #[track_caller]
    pub fn refused(&mut self, request: &Request) -> String {
        match self.ask(request) {
            Reply::Error(error) => {
                assert_eq!(error.errcode, 0);
                text(&error.errmsg)
            }
            reply => panic!("{request:?} was answered by {reply:?}"),
        }
    }
}

pub fn frame(code: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(1 + payload.len()).unwrap();
    [&length.to_be_bytes()[..], &[code], payload].concat()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Blanks are for the reader.
pub fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter(|c| !c.is_whitespace()).map(|c| c.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Frames of the error reply, to compare byte for byte.
pub fn error_frame(text: &str) -> RawFrame {
    let mut payload = vec![0x0a, u8::try_from(text.len()).unwrap()];
    assert!(text.len() < 128, "a longer text has a longer length");
    payload.extend_from_slice(text.as_bytes());
    payload.extend_from_slice(&[0x10, 0]);
    (0, payload)
}
