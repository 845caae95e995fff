//! SIGKILL at random times under a load of everything, pipelined: what was acknowledged is there, each request whole or not
//! at all, and the indexes say what the objects say. The same where the next server is killed too, again and again, while it
//! makes what the log of the one before holds.

use std::path::Path;
use std::thread;
use std::time::Duration;

use fastrand::Rng;

use crate::load::{KINDS, NoWitness, Progress, Progresses, check, work};
use crate::setting;
use crate::starts::Starts;
use crate::support::Server;

const CONNECTIONS: u64 = 16;

/// A data directory under load, and what its connections know.
struct Load<'a> {
    data: &'a Path,
    server: Server,
    done: Vec<[u64; KINDS]>,
    total: u64,
    lost_in_flight: u64,
}

impl<'a> Load<'a> {
    fn start(data: &'a Path) -> Self {
        let server = Server::start_on(data, &[]);
        Self { data, server, done: vec![[0; KINDS]; CONNECTIONS as usize], total: 0, lost_in_flight: 0 }
    }

    /// Works for so long, and kills the server.
    fn kill_after(&mut self, length: Duration) -> Vec<Progresses> {
        let (address, server) = (self.server.address, &mut self.server);
        let start = |own: u64| self.done[own as usize].map(|done| Progress { acknowledged: done, sent: done });
        thread::scope(|scope| {
            let clients: Vec<_> = (0..CONNECTIONS)
                .map(|own| {
                    let start = start(own);
                    scope.spawn(move || work(address, own, start, usize::MAX, &NoWitness))
                })
                .collect();
            thread::sleep(length);
            server.kill();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        })
    }

    fn start_and_check(&mut self, progresses: &[Progresses], starts: &mut Starts) {
        self.server = starts.start(self.data, &[]);
        let shown = check(&mut self.server.connect(), progresses);
        for ((done, shown), progresses) in self.done.iter_mut().zip(shown).zip(progresses) {
            self.total +=
                progresses.iter().zip(&*done).map(|(progress, done)| progress.acknowledged - done).sum::<u64>();
            self.lost_in_flight +=
                progresses.iter().zip(shown).map(|(progress, shown)| progress.sent - shown).sum::<u64>();
            // Whether those in flight were stored is known now, and must not change any more.
            *done = shown;
        }
    }
}

#[test]
fn everything_is_whole_after_a_kill_at_any_time() {
    let rounds = setting("OMBAK_CRASH_MIXED_ROUNDS", 5);
    let mut random = seeded();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (mut load, mut starts) = (Load::start(&data), Starts::default());
    for _ in 0..rounds {
        let progresses = load.kill_after(Duration::from_millis(random.u64(20..800)));
        load.start_and_check(&progresses, &mut starts);
    }
    let Load { total, lost_in_flight, .. } = load;
    println!(
        "{rounds} kills, {total} requests acknowledged, none lost; {lost_in_flight} in flight were not made; {starts}"
    );
}

#[test]
fn everything_is_whole_after_kills_while_the_log_is_replayed() {
    let rounds = setting("OMBAK_CRASH_REPLAY_ROUNDS", 5);
    let mut random = seeded();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (mut load, mut starts) = (Load::start(&data), Starts::default());
    for _ in 0..rounds {
        let progresses = load.kill_after(Duration::from_millis(random.u64(500..1500)));
        for _ in 0..random.u32(1..4) {
            starts.kill_in_start(&data, &[], &mut random);
        }
        load.start_and_check(&progresses, &mut starts);
    }
    println!("{rounds} kills, {} requests acknowledged, none lost; {starts}", load.total);
}

/// With a seed that is told.
pub fn seeded() -> Rng {
    let seed = setting("OMBAK_CRASH_SEED", fastrand::u64(..));
    println!("seed {seed}");
    Rng::with_seed(seed)
}
