//! SIGKILL while a server starts: for the first time on a directory, or on one of an earlier format. The next server starts on
//! what it left, and takes a write.

use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fastrand::Rng;
use ombak::message::Reply;

use crate::mixed::seeded;
use crate::requests::*;
use crate::setting;
use crate::support::{Connection, Env, Server, serve, text};

/// As long as a start is thought to take before one was seen.
const FIRST_GUESS: Duration = Duration::from_millis(200);

/// Starts, how long they took, and those that were killed.
#[derive(Default)]
pub struct Starts {
    longest: Duration,
    /// Of the last one.
    length: Option<Duration>,
    killed: u64,
    killed_before_ready: u64,
}

impl Starts {
    pub fn start(&mut self, data: &Path, env: Env) -> Server {
        let began = Instant::now();
        let server = Server::start_on(data, env);
        self.length = Some(began.elapsed());
        self.longest = self.longest.max(began.elapsed());
        server
    }

    /// Starts a server and kills it after a random part of the time that a start takes.
    pub fn kill_in_start(&mut self, data: &Path, env: Env, random: &mut Rng) {
        let length = self.length.unwrap_or(FIRST_GUESS).as_micros() as u64;
        let errors = std::fs::File::options().create(true).append(true).open(data.with_extension("log")).unwrap();
        let mut child = serve(data).envs(env.iter().copied()).stdout(Stdio::piped()).stderr(errors).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(random.u64(..=length)));
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        let log = || std::fs::read_to_string(data.with_extension("log")).unwrap();
        assert_eq!(output.status.code(), None, "the server ended by itself:\n{}", log());
        self.killed += 1;
        self.killed_before_ready += u64::from(!text(&output.stdout).contains("data in "));
    }
}

impl fmt::Display for Starts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { longest, killed, killed_before_ready, .. } = self;
        write!(
            f,
            "{killed} starts killed, {killed_before_ready} of them before they were done; the longest start of the others took {longest:?}"
        )
    }
}

/// The server takes a write, and the next one shows it.
fn takes_a_write(data: &Path, starts: &mut Starts, check: impl Fn(&mut Connection)) {
    for number in 0..2 {
        let mut server = starts.start(data, &[]);
        let mut connection = server.connect();
        check(&mut connection);
        let written = |key: u32| get("default", "starts", &key.to_string());
        if number == 1 {
            let Reply::Get(reply) = connection.ask(&written(0)) else { panic!("no object") };
            assert_eq!(reply.content[0].value, "written");
        }
        let reply = connection.ask(&put("default", "starts", &number.to_string(), "written"));
        assert!(matches!(reply, Reply::Put(_)), "{reply:?}");
        server.kill();
    }
}

#[test]
fn a_directory_whose_first_start_was_killed_is_started_on() {
    let rounds = setting("OMBAK_CRASH_FIRST_START_ROUNDS", 5);
    let (mut random, mut starts) = (seeded(), Starts::default());
    let dir = tempfile::tempdir().unwrap();
    drop(starts.start(&dir.path().join("unkilled"), &[]));
    for round in 0..rounds {
        let data = dir.path().join(round.to_string());
        for _ in 0..random.u32(1..4) {
            starts.kill_in_start(&data, &[], &mut random);
        }
        takes_a_write(&data, &mut starts, has_the_default_types);
        std::fs::remove_dir_all(&data).unwrap();
    }
    println!("{rounds} directories; {starts}");
}

/// All of them: a first start that was cut short has made some.
fn has_the_default_types(connection: &mut Connection) {
    for name in ["counters", "sets", "gsets", "hlls", "maps"] {
        let reply = connection.ask(&fetch(name, "absent"));
        assert!(matches!(reply, Reply::DtFetch(_)), "{name}: {reply:?}");
    }
}

/// Unpacks a directory of an earlier format: `tests/store/fixtures`.
fn unpack(archive: &str, data: &Path) {
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store/fixtures").join(archive);
    std::fs::create_dir(data).unwrap();
    assert!(Command::new("tar").arg("-xzSf").arg(archive).arg("-C").arg(data).status().unwrap().success());
}

/// What `fixtures/make.sh` has written.
fn check_fixture(connection: &mut Connection) {
    let siblings = |connection: &mut Connection| match connection.ask(&get("kept", "b", "siblings")) {
        Reply::Get(reply) => {
            let mut values: Vec<_> = reply.content.into_iter().map(|content| content.value).collect();
            values.sort();
            values
        }
        reply => panic!("{reply:?}"),
    };
    assert_eq!(siblings(connection), ["one", "two"]);
    let mut value = |bucket_type: &str, key: &str| match connection.ask(&fetch(bucket_type, key)) {
        Reply::DtFetch(reply) => reply.value.unwrap_or_else(|| panic!("{bucket_type}/{key} is lost")),
        reply => panic!("{reply:?}"),
    };
    assert_eq!(value("counters", "c").counter_value, Some(5));
    assert_eq!(value("sets", "small").set_value, ["a", "b", "c"]);
    assert_eq!(value("sets", "large").set_value.len(), 400);
    assert_eq!(value("maps", "m").map_value.len(), 2);
}

/// Kills servers that start on a directory of an earlier format.
fn is_taken_over(archive: &str) {
    let rounds = setting("OMBAK_CRASH_TAKE_OVER_ROUNDS", 5);
    let (mut random, mut starts) = (seeded(), Starts::default());
    let dir = tempfile::tempdir().unwrap();
    let unkilled = dir.path().join("unkilled");
    unpack(archive, &unkilled);
    check_fixture(&mut starts.start(&unkilled, &[]).connect());
    for round in 0..rounds {
        let data = dir.path().join(round.to_string());
        unpack(archive, &data);
        for _ in 0..random.u32(1..4) {
            starts.kill_in_start(&data, &[], &mut random);
        }
        takes_a_write(&data, &mut starts, check_fixture);
        std::fs::remove_dir_all(&data).unwrap();
    }
    println!("{rounds} directories of {archive}; {starts}");
}

#[test]
fn a_directory_without_a_commit_log_whose_take_over_was_killed_is_started_on() {
    is_taken_over("v1.tar.gz");
}

#[test]
fn a_directory_of_format_2_whose_take_over_was_killed_is_started_on() {
    is_taken_over("v2.tar.gz");
}
