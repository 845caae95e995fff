//! A journalled run of the server: everything is asked of it while its tables are written and compacted and its log comes
//! round; it is stopped, killed, and started again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use crate::journal::{Marks, preload};
use crate::load::{KINDS, Progress, Progresses, Witness, check, work};
use crate::maps;
use crate::support::{Server, serve};

pub const CONNECTIONS: u64 = 4;
/// Little is kept in memory, so that the tables are written often.
pub const ENV: &[(&str, &str)] = &[("OMBAK_STORE_MEMORY_BYTES_MAX", "33554432")];
/// The type that is made while the server runs.
pub const MADE_TYPE: &str = "made";

/// What a run asks for.
pub struct Plan {
    /// For each life of the server: batches that each connection sends, and whether it is then killed.
    pub lives: &'static [(usize, bool)],
    /// Keys of the configuration beside [`ENV`].
    pub env: &'static [(&'static str, &'static str)],
}

/// The first log comes round; then starts after a clean end, after a kill, and after another one.
pub const LONG: Plan = Plan { lives: &[(150, false), (30, true), (30, true), (5, false)], env: &[] };

/// Where a run lies in a directory.
pub struct Run {
    pub journal: PathBuf,
    /// What the server writes to, and what is known to be on disk with its name.
    pub root: PathBuf,
}

impl Run {
    /// In a directory that is empty.
    pub fn new(dir: &Path) -> Run {
        let dir = dir.canonicalize().unwrap();
        let root = dir.join("root");
        std::fs::create_dir(&root).unwrap();
        Run { journal: dir.join("journal"), root }
    }

    pub fn data(&self) -> PathBuf {
        data(&self.root)
    }

    /// A server that journals.
    pub fn serve(&self, library: &Path) -> Command {
        let mut command = serve(&self.data());
        command.envs(ENV.iter().copied());
        preload(&mut command, library, &self.journal, &self.root);
        command
    }

    /// Runs a command of [`serve`](Self::serve). It logs beside what it is journalled for.
    pub fn start(&self, command: Command) -> Result<Server, String> {
        Server::try_spawn(command, &self.data(), &self.journal.with_extension("log"))
    }

    /// Runs a plan. What a mark says is told by [`Expected`].
    pub fn record(&self, plan: &Plan, library: &Path) {
        let marks = Marks::of(&self.journal);
        let mut known = Expected::default();
        for (life, &(batches, is_killed)) in plan.lives.iter().enumerate() {
            let mut command = self.serve(library);
            command.envs(plan.env.iter().copied());
            let mut server = self.start(command).unwrap();
            if life > 0 {
                let connections = check(&mut server.connect(), &known.connections);
                let shown = Shown { connections, maps: maps::check(&server, known.maps) };
                marks.note(shown.mark().as_bytes());
                known.shown(&shown);
            }
            let told = Told { marks: &marks, known: Mutex::new(known) };
            thread::scope(|scope| {
                for own in 0..CONNECTIONS {
                    let (address, told) = (server.address, &told);
                    let start = told.known.lock().unwrap().connections[own as usize];
                    // Who is killed is asked until it is gone.
                    let batches = if is_killed { usize::MAX } else { batches };
                    scope.spawn(move || work(address, own, start, batches, told));
                }
                let puts = scope.spawn(|| maps::work(&server, &told, batches as u64));
                if life == 0 {
                    server.create_type(MADE_TYPE, r#"{"allow_mult":false}"#);
                    told.note("type");
                }
                puts.join().unwrap();
                if is_killed {
                    server.signal("USR2");
                }
            });
            known = told.known.into_inner().unwrap();
            if !is_killed {
                server.signal("TERM");
            }
            assert_eq!(server.wait().success(), !is_killed);
        }
    }
}

pub fn data(root: &Path) -> PathBuf {
    root.join("data")
}

/// What a server must show, as far as the marks have come.
#[derive(Clone, Debug)]
pub struct Expected {
    pub connections: Vec<Progresses>,
    /// Puts to maps over gRPC.
    pub maps: Progress,
    pub has_type: bool,
}

impl Default for Expected {
    fn default() -> Self {
        let connections = vec![Progresses::default(); CONNECTIONS as usize];
        Self { connections, maps: Progress::default(), has_type: false }
    }
}

/// What a server has shown after its start.
pub struct Shown {
    connections: Vec<[u64; KINDS]>,
    maps: u64,
}

impl Shown {
    fn mark(&self) -> String {
        let numbers = self.connections.iter().flatten().chain([&self.maps]).map(u64::to_string);
        format!("shown {}", numbers.collect::<Vec<_>>().join(" "))
    }
}

impl Expected {
    pub fn mark(&mut self, text: &[u8]) {
        let text = std::str::from_utf8(text).unwrap();
        let mut words = text.split(' ');
        let what = words.next().unwrap();
        let numbers: Vec<u64> = words.map(|word| word.parse().unwrap()).collect();
        match (what, &numbers[..]) {
            ("sends", [own]) => self.connections[*own as usize].iter_mut().for_each(|progress| progress.sent += 1),
            ("answered", [own, kind]) => self.connections[*own as usize][*kind as usize].acknowledged += 1,
            ("puts", []) => self.maps.sent += 1,
            ("put", []) => self.maps.acknowledged += 1,
            ("type", []) => self.has_type = true,
            ("shown", [connections @ .., maps]) => {
                let connections = connections.chunks(KINDS).map(|shown| shown.try_into().unwrap()).collect();
                self.shown(&Shown { connections, maps: *maps });
            }
            _ => panic!("a mark that says {text}"),
        }
    }

    /// What was seen must not go, and what was not will not come.
    fn shown(&mut self, shown: &Shown) {
        let known = |number: &u64| Progress { acknowledged: *number, sent: *number };
        self.connections = shown.connections.iter().map(|shown| shown.each_ref().map(known)).collect();
        self.maps = known(&shown.maps);
    }
}

/// Notes in the journal what clients see.
pub struct Told<'a> {
    marks: &'a Marks,
    known: Mutex<Expected>,
}

impl Told<'_> {
    pub fn note(&self, text: &str) {
        self.marks.note(text.as_bytes());
        self.known.lock().unwrap().mark(text.as_bytes());
    }

    pub fn maps(&self) -> Progress {
        self.known.lock().unwrap().maps
    }
}

impl Witness for Told<'_> {
    fn sends(&self, connection: u64) {
        self.note(&format!("sends {connection}"));
    }

    fn answered(&self, connection: u64, kind: usize) {
        self.note(&format!("answered {connection} {kind}"));
    }
}
