//! The journal against what the kernel saw: `strace -f` beside the library. A call that changes a file and is in no journal, or
//! one that nobody here knows, fails.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::journal::{Journal, Record, Target, build_library};
use crate::load::{NoWitness, Progresses, work};
use crate::run::{CONNECTIONS, ENV, Run};
use crate::support::serve;

/// Calls that change no file, or what no power failure harms: times and permissions.
const HARMLESS: &str = "access chmod close connect epoll_ctl epoll_pwait2 epoll_wait execve faccessat faccessat2 fadvise64 fchmod \
    fchmodat fcntl flock fstat fstatfs getcwd getdents64 ioctl lseek lstat newfstatat poll pread64 preadv \
    read readahead readlink readlinkat readv stat statfs statx utimensat";

/// Calls that change files, and how often each was made: its name in the journal's words, the paths, and what it was about.
type Changes = BTreeMap<String, usize>;

/// A line of strace's, put together where it was cut.
#[derive(Debug, PartialEq, Eq)]
struct Call<'a> {
    name: &'a str,
    arguments: &'a str,
    result: &'a str,
}

impl<'a> Call<'a> {
    fn parse(line: &'a str) -> Option<Call<'a>> {
        let (name, rest) = line.split_once('(')?;
        let (arguments, result) = rest.rsplit_once(") = ").or_else(|| {
            // It pads short calls with blanks.
            let at = rest.rfind(" = ")?;
            Some((rest[..at].trim_end().strip_suffix(')')?, &rest[at + 3..]))
        })?;
        Some(Call { name, arguments, result })
    }

    /// The number that it returned; below zero where it failed.
    fn returned(&self) -> i64 {
        let end = self.result.find(|c: char| c != '-' && !c.is_ascii_alphanumeric()).unwrap_or(self.result.len());
        let number = &self.result[..end];
        number.strip_prefix("0x").map_or_else(|| number.parse().unwrap_or(-1), |_| 0)
    }

    /// What the file descriptor in front is of.
    fn of_descriptor(&self) -> &'a str {
        let path = self.arguments.split_once('<').and_then(|(_, rest)| rest.split_once('>')).unwrap_or_default().0;
        path.strip_suffix(" (deleted)").unwrap_or(path)
    }

    /// The names in it as whole paths: each starts where the descriptor before it says.
    fn names(&self, open: &BTreeMap<String, String>) -> Vec<String> {
        let pieces: Vec<_> = self.arguments.split('"').collect();
        let name = |(dir, name): (&str, &str)| {
            if let Some((fd, rest)) = name.strip_prefix("/proc/self/fd/").and_then(|name| name.split_once('/')) {
                return format!("{}/{rest}", open.get(fd).map_or("", String::as_str));
            }
            match dir.rsplit_once('<').and_then(|(_, rest)| rest.split_once('>')) {
                Some((dir, _)) if !name.starts_with('/') => format!("{dir}/{name}"),
                _ => name.to_owned(),
            }
        };
        pieces.chunks_exact(2).map(|piece| name((piece[0], piece[1]))).collect()
    }
}

/// Joins the two halves of calls during which another thread's were told.
fn joined(text: &str) -> Vec<String> {
    let mut halves = BTreeMap::new();
    let mut calls = Vec::new();
    for line in text.lines() {
        let Some((pid, line)) = line.split_once(' ') else { continue };
        let line = line.trim_start();
        if let Some(first) = line.strip_suffix("<unfinished ...>") {
            halves.insert(pid, first.to_owned());
        } else if let Some(second) = line.strip_prefix("<... ") {
            let second = second.split_once("resumed>").unwrap().1;
            calls.push(halves.remove(pid).unwrap_or_default() + second);
        } else {
            calls.push(line.to_owned());
        }
    }
    calls
}

/// What the kernel saw of changes under a directory; and calls that nobody here knows.
fn seen(text: &str, root: &str) -> (Changes, Vec<String>) {
    let (mut changes, mut unknown) = (Changes::new(), Vec::new());
    let mut open = BTreeMap::new();
    for line in joined(text) {
        let Some(call) = Call::parse(&line) else { continue };
        if call.name.starts_with("io_uring") {
            unknown.push(line.clone());
        }
        if call.returned() < 0 {
            continue;
        }
        let (file, names) = (call.of_descriptor(), call.names(&open));
        if let ("open" | "openat", Some((fd, _))) = (call.name, call.result.split_once('<')) {
            open.insert(fd.to_owned(), names[0].clone());
        }
        let last_argument = || call.arguments.rsplit(", ").next().unwrap_or_default();
        let has = |flags: &[&str]| flags.iter().any(|flag| call.arguments.contains(flag));
        let change = match call.name {
            "open" | "openat" if !has(&["O_CREAT", "O_TRUNC", "O_WRONLY", "O_RDWR", "O_TMPFILE"]) => continue,
            "open" | "openat" | "creat" => ("open", names),
            "write" | "writev" | "pwrite64" | "pwritev" => ("write", vec![file.into(), call.returned().to_string()]),
            "ftruncate" => ("truncate", vec![file.into(), last_argument().into()]),
            "truncate" => ("truncate", vec![names[0].clone(), last_argument().into()]),
            "fallocate" => ("allocate", vec![file.into()]),
            "fsync" | "fdatasync" => ("sync", vec![file.into()]),
            "rename" | "renameat" | "renameat2" => ("rename", names),
            "link" | "linkat" => ("link", names),
            "unlink" | "unlinkat" | "rmdir" => ("unlink", names),
            "mkdir" | "mkdirat" => ("make", names),
            "bind" => ("socket", names),
            "mmap" if !(has(&["MAP_SHARED"]) && has(&["PROT_WRITE"])) => continue,
            name if HARMLESS.split(' ').any(|harmless| harmless == name) => continue,
            _ => {
                if call.arguments.contains(root) {
                    unknown.push(line.clone());
                }
                continue;
            }
        };
        let (what, about) = change;
        if about.iter().any(|path| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
        {
            *changes.entry(format!("{what} {}", about.join(" "))).or_default() += 1;
        }
    }
    (changes, unknown)
}

/// The same of a journal.
fn journalled(journal: &Journal) -> Changes {
    let mut changes = Changes::new();
    let mut open: BTreeMap<i32, PathBuf> = BTreeMap::new();
    let mut syncs = BTreeMap::new();
    for record in journal.records() {
        let change = match record {
            Record::Start | Record::Mark(_) => None,
            Record::Open { path, fd, flags } => {
                open.insert(*fd, path.clone());
                let writes = flags & (libc::O_CREAT | libc::O_TRUNC | libc::O_WRONLY | libc::O_RDWR) != 0;
                writes.then(|| format!("open {}", path.display()))
            }
            Record::Close { fd } => {
                open.remove(fd);
                None
            }
            Record::Dup { fd, other } => {
                open.insert(*other, open[fd].clone());
                None
            }
            Record::Write { fd, bytes, .. } => Some(format!("write {} {}", open[fd].display(), bytes.len())),
            Record::Truncate { target: Target::Fd(fd), length } => {
                Some(format!("truncate {} {length}", open[fd].display()))
            }
            Record::Truncate { target: Target::Path(path), length } => {
                Some(format!("truncate {} {length}", path.display()))
            }
            Record::Allocate { fd, .. } => Some(format!("allocate {}", open[fd].display())),
            Record::SyncBegin { fd, call } => {
                syncs.insert(*call, open[fd].clone());
                None
            }
            Record::SyncEnd { call } => Some(format!("sync {}", syncs[call].display())),
            Record::Rename { from, to } => {
                // Who has it open goes on under the new name, as strace tells it.
                open.values_mut().filter(|path| *path == from).for_each(|path| path.clone_from(to));
                Some(format!("rename {} {}", from.display(), to.display()))
            }
            Record::Link { from, to } => Some(format!("link {} {}", from.display(), to.display())),
            Record::Unlink { path } => Some(format!("unlink {}", path.display())),
            Record::MakeDir { path } => Some(format!("make {}", path.display())),
            Record::Socket { path } => Some(format!("socket {}", path.display())),
        };
        if let Some(change) = change {
            *changes.entry(change).or_default() += 1;
        }
    }
    changes
}

/// What is in one and not in the other, with both counts.
fn differences(seen: &Changes, journalled: &Changes) -> Vec<String> {
    let count = |changes: &Changes, change: &String| changes.get(change).copied().unwrap_or_default();
    let mut all: Vec<_> = seen.keys().chain(journalled.keys()).collect();
    all.sort();
    all.dedup();
    let differing = all.into_iter().filter(|change| count(seen, change) != count(journalled, change));
    differing
        .map(|change| format!("{change}: made {} times, journalled {}", count(seen, change), count(journalled, change)))
        .collect()
}

/// Runs the server under strace with the library. What strace says.
fn trace(dir: &Path, run: &Run, library: &Path) -> String {
    let trace = dir.join("trace");
    for life in 0..2 {
        let server = serve(&run.data());
        // As a grandchild, so that the child is the server; the library is for the server alone.
        let mut command = Command::new("strace");
        command.args([
            "-D",
            "-f",
            "-y",
            "-qq",
            "-s",
            "16",
            "-A",
            "-e",
            "trace=%file,%desc,bind",
            "-e",
            "signal=none",
            "-o",
        ]);
        command.arg(&trace);
        for (name, value) in [("LD_PRELOAD", library), ("JOURNAL_FILE", &run.journal), ("JOURNAL_ROOT", &run.root)] {
            command.arg("-E").arg(format!("{name}={}", value.display()));
        }
        command.arg(server.get_program()).args(server.get_args()).current_dir("/");
        for (name, value) in server.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.envs(ENV.iter().copied());
        let mut server = run.start(command).unwrap();
        thread::scope(|scope| {
            for own in 0..CONNECTIONS {
                let address = server.address;
                scope.spawn(move || work(address, own + life * CONNECTIONS, Progresses::default(), 8, &NoWitness));
            }
        });
        server.signal("TERM");
        assert!(server.wait().success());
    }
    // The tracer ends behind the server.
    let mut last = 0;
    loop {
        thread::sleep(Duration::from_millis(200));
        let length = fs::metadata(&trace).unwrap().len();
        if length == last {
            return fs::read_to_string(&trace).unwrap();
        }
        last = length;
    }
}

#[test]
fn no_call_that_changes_a_file_is_missing_from_the_journal() {
    let has_strace = Command::new("strace").arg("-V").output().is_ok_and(|output| output.status.success());
    assert!(has_strace, "this test needs strace");
    let dir = tempfile::tempdir().unwrap();
    let library = build_library(dir.path());
    let run = Run::new(dir.path());
    let text = trace(dir.path(), &run, &library);
    let (seen, unknown) = seen(&text, run.root.to_str().unwrap());
    let journalled = journalled(&Journal::read(&run.journal));
    assert_eq!(unknown, [""; 0], "calls that are not known here");
    let differences = differences(&seen, &journalled);
    assert!(differences.is_empty(), "strace and the journal differ:\n{}", differences.join("\n"));
    for what in ["open", "write", "sync", "rename", "unlink", "make", "socket"] {
        assert!(seen.keys().any(|change| change.starts_with(what)), "the run has made no call of the kind {what}");
    }
    println!(
        "{} calls of {} kinds and places were made, and all are journalled",
        seen.values().sum::<usize>(),
        seen.len()
    );
}

#[test]
fn a_call_that_only_strace_saw_is_told() {
    let text = r#"
7 openat(AT_FDCWD</>, "/r/a", O_WRONLY|O_CREAT|O_TRUNC, 0666) = 5</r/a>
8 pwrite64(5</r/a>, "xxxx"..., 512, 0 <unfinished ...>
7 fdatasync(5</r/a>)                 = 0
8 <... pwrite64 resumed>)         = 512
7 read(5</r/a>, ""..., 32) = 0
7 openat(AT_FDCWD</>, "/r/b", O_RDONLY|O_CLOEXEC) = -1 ENOENT (No such file or directory)
7 rename("/r/a", "/r/b")                = 0
7 renameat(3</r>, "b", 3</r>, "c")      = 0
7 unlinkat(3</r>, "c", 0) = 0
7 write(2</elsewhere>, "/r/a", 4) = 4
7 openat(AT_FDCWD</>, "/r", O_RDONLY) = 11</r>
7 bind(9<UNIX:[1]>, {sa_family=AF_UNIX, sun_path="/proc/self/fd/11/s"}, 110) = 0
7 mmap(NULL, 4096, PROT_READ|PROT_WRITE, MAP_SHARED, 5</r/m>, 0) = 0x7f0000000000
7 copy_file_range(3</r/x>, NULL, 5</r/y>, NULL, 7, 0) = 7
"#;
    let (seen, unknown) = seen(text, "/r");
    let changes: Vec<_> = seen.keys().map(String::as_str).collect();
    let expected = [
        "open /r/a",
        "rename /r/a /r/b",
        "rename /r/b /r/c",
        "socket /r/s",
        "sync /r/a",
        "unlink /r/c",
        "write /r/a 512",
    ];
    assert_eq!(changes, expected);
    assert_eq!(unknown.len(), 2, "{unknown:?}");
    let mut journalled = seen.clone();
    assert_eq!(differences(&seen, &journalled), [""; 0]);
    journalled.remove("rename /r/a /r/b");
    assert_eq!(differences(&seen, &journalled), ["rename /r/a /r/b: made 1 times, journalled 0"]);
}
