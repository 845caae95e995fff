//! The points of a run at which the power fails, and what is asked of the server that starts afterwards.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, mpsc};
use std::thread;

use fastrand::Rng;
use ombak::message::Reply;

use crate::disk::Disk;
use crate::journal::{Journal, Record, build_library};
use crate::load::check;
use crate::requests::{get, put};
use crate::run::{ENV, Expected, LONG, MADE_TYPE, Plan, Run, data};
use crate::support::{Server, serve};
use crate::{maps, scratch, setting};

/// Each so many-th server that starts after a failure is journalled too, and meets another one.
const SECOND_FAILURE_EVERY: u64 = 10;
/// Directories of failed points that are kept.
const KEPT: usize = 3;

/// A point: how many records of a journal were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    at: usize,
    number: u64,
}

impl Point {
    /// Half of the points stand right behind an answer, where it must be known to be on disk. A quarter stand at changes of
    /// names and at syncs: few among many writes, and most is decided there.
    fn draw(number: u64, seed: u64, journal: &Journal) -> Point {
        let records = journal.records();
        let mut random = Rng::with_seed(seed.wrapping_add(number));
        let anywhere = random.usize(..=records.len());
        let is_wanted = |record: &Record| match number % 4 {
            0 | 1 => matches!(record, Record::Mark(_)),
            2 => !matches!(record, Record::Mark(_) | Record::Write { .. } | Record::Open { .. } | Record::Close { .. }),
            _ => true,
        };
        // From anywhere on, in a ring, the next one that is wanted. Draws among all would need them counted.
        let ring = (0..records.len()).map(|step| (anywhere + step) % records.len().max(1));
        let at = ring.into_iter().find(|&at| is_wanted(&records[at])).map_or(0, |at| at + 1);
        Point { at, number }
    }
}

/// A directory on which a server is to start.
struct Task {
    point: Point,
    dir: PathBuf,
    expected: Expected,
    told: String,
}

/// Starts a server on what each of so many failures left. What is to be said of those that failed; the directories of the
/// first ones are kept as that server left them.
fn fail_at_points(
    journal: &Journal,
    run: &Run,
    library: &Path,
    seed: u64,
    numbers: &[u64],
    kept: &Path,
) -> Vec<String> {
    let work = scratch();
    let mut points: Vec<_> = numbers.iter().map(|&number| Point::draw(number, seed, journal)).collect();
    points.sort_unstable();
    let failed = Mutex::new(Vec::new());
    let workers = thread::available_parallelism().map_or(2, usize::from) + 1;
    let (send, receive) = mpsc::sync_channel::<Task>(1);
    let receive = Mutex::new(receive);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let task = receive.lock().unwrap().recv();
                    let Ok(task) = task else { return };
                    let Err(panic) = catch_unwind(AssertUnwindSafe(|| start_after(&task, library, seed))) else {
                        fs::remove_dir_all(&task.dir).unwrap();
                        continue;
                    };
                    let text = panic.downcast_ref::<String>().map(String::as_str);
                    let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
                    let Task { point: Point { at, number }, dir, told, .. } = task;
                    let line = format!("seed {seed}, point {number} at record {at}: {text}\n    {told}");
                    if failed.lock().unwrap().len() < KEPT {
                        let copied = Command::new("cp").args(["-a", "--sparse=always"]).arg(&dir).arg(kept).status();
                        assert!(copied.unwrap().success());
                    }
                    fs::remove_dir_all(&dir).unwrap();
                    println!("{line}");
                    failed.lock().unwrap().push(line);
                }
            });
        }
        let (mut disk, mut expected, mut made) = (Disk::new(&run.root), Expected::default(), 0);
        for point in points {
            for record in &journal.records()[made..point.at] {
                disk.apply(record, journal);
                if let Record::Mark(text) = record {
                    expected.mark(text);
                }
            }
            made = point.at;
            let dir = work.path().join(format!("point-{}", point.number));
            fs::create_dir(&dir).unwrap();
            let mut random = Rng::with_seed(seed.wrapping_add(point.number).rotate_left(32));
            let root = root_of(&dir);
            fs::create_dir(&root).unwrap();
            let told = disk.fail(journal, &mut random, &root);
            send.send(Task { point, dir, expected: expected.clone(), told }).unwrap();
        }
        drop(send);
    });
    failed.into_inner().unwrap()
}

fn root_of(dir: &Path) -> PathBuf {
    dir.join("root")
}

/// Starts a server on what a failure left, and at times another one where that one failed in its turn.
fn start_after(task: &Task, library: &Path, seed: u64) {
    let number = task.point.number;
    let root = root_of(&task.dir);
    if !number.is_multiple_of(SECOND_FAILURE_EVERY) {
        return holds_what_is_expected(serve(&data(&root)), &root, &task.expected);
    }
    let again = Run { journal: task.dir.join("journal"), root: root.canonicalize().unwrap() };
    let mut disk = Disk::found(&again.root);
    holds_what_is_expected(again.serve(library), &root, &task.expected);
    let journal = Journal::read(&again.journal);
    let mut random = Rng::with_seed(seed.wrapping_add(number).rotate_left(16));
    let at = random.usize(..=journal.records().len());
    journal.records()[..at].iter().for_each(|record| disk.apply(record, &journal));
    let second = task.dir.join("second");
    fs::create_dir(&second).unwrap();
    let told = disk.fail(&journal, &mut random, &second);
    println!("point {number}: a second failure at record {at}: {told}");
    holds_what_is_expected(serve(&data(&second)), &second, &task.expected);
}

/// The server opens, shows what is expected, takes writes, and ends well.
fn holds_what_is_expected(mut command: Command, root: &Path, expected: &Expected) {
    command.envs(ENV.iter().copied());
    let mut server =
        Server::try_spawn(command, &data(root), &root.with_extension("log")).unwrap_or_else(|why| panic!("{why}"));
    let mut connection = server.connect();
    check(&mut connection, &expected.connections);
    maps::check(&server, expected.maps);
    let bucket_type = if expected.has_type { MADE_TYPE } else { "default" };
    let reply = connection.ask(&put(bucket_type, "after", "failure", "written"));
    assert!(matches!(reply, Reply::Put(_)), "{reply:?}");
    match connection.ask(&get(bucket_type, "after", "failure")) {
        Reply::Get(reply) => assert_eq!(reply.content[0].value, "written"),
        reply => panic!("{reply:?}"),
    }
    server.signal("TERM");
    assert!(server.wait().success(), "the server ended with an error");
}

/// Says what a run has done, so that one can see that it met what it is for.
fn describe(journal: &Journal) -> String {
    let count =
        |is_wanted: &dyn Fn(&Record) -> bool| journal.records().iter().filter(|record| is_wanted(record)).count();
    let written: usize = journal
        .records()
        .iter()
        .map(|record| if let Record::Write { bytes, .. } = record { bytes.len() } else { 0 })
        .sum();
    format!(
        "{} records: {} writes of {} MiB, {} syncs, {} files opened, {} renamed, {} removed",
        journal.records().len(),
        count(&|record| matches!(record, Record::Write { .. })),
        written >> 20,
        count(&|record| matches!(record, Record::SyncEnd { .. })),
        count(&|record| matches!(record, Record::Open { .. })),
        count(&|record| matches!(record, Record::Rename { .. })),
        count(&|record| matches!(record, Record::Unlink { .. })),
    )
}

#[test]
fn a_power_failure_at_any_time_takes_nothing_that_was_acknowledged() {
    let seed = setting("OMBAK_POWER_SEED", 15);
    let points = setting("OMBAK_POWER_POINTS", 200);
    let dir = tempfile::tempdir().unwrap();
    let library = build_library(dir.path());
    let run = match std::env::var_os("OMBAK_POWER_RUN") {
        Some(kept) => {
            let dir = PathBuf::from(kept);
            Run { journal: dir.join("journal"), root: fs::read_to_string(dir.join("root")).unwrap().into() }
        }
        None => {
            let run = Run::new(dir.path());
            run.record(&LONG, &library);
            run
        }
    };
    let journal = Journal::read(&run.journal);
    println!("{}", describe(&journal));
    let numbers: Vec<u64> = match std::env::var("OMBAK_POWER_POINT") {
        Ok(number) => vec![number.parse().unwrap()],
        Err(_) => (0..points).collect(),
    };
    let kept = tempfile::tempdir().unwrap();
    let failed = fail_at_points(&journal, &run, &library, seed, &numbers, kept.path());
    println!("{} points, seed {seed}: {} failed", numbers.len(), failed.len());
    if failed.is_empty() {
        return;
    }
    let kept = kept.keep();
    if run.journal.starts_with(dir.path().canonicalize().unwrap()) {
        fs::copy(&run.journal, kept.join("journal")).unwrap();
        fs::write(kept.join("root"), run.root.to_str().unwrap()).unwrap();
    }
    panic!(
        "{} of {} points failed; one of them again by OMBAK_POWER_RUN={} OMBAK_POWER_SEED={seed} OMBAK_POWER_POINT=NUMBER:\n{}",
        failed.len(),
        numbers.len(),
        kept.display(),
        failed.join("\n")
    );
}

#[test]
fn a_server_that_answers_before_it_syncs_is_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let library = build_library(dir.path());
    let run = Run::new(dir.path());
    let plan = Plan { lives: &[(4, false)], env: &[("OMBAK_DURABILITY", "relaxed:60000")] };
    run.record(&plan, &library);
    let journal = Journal::read(&run.journal);
    let kept = tempfile::tempdir().unwrap();
    // Maps have the log synced often all the same, so that a loss is not seen at every point.
    let failed = fail_at_points(&journal, &run, &library, 15, &(0..40).collect::<Vec<_>>(), kept.path());
    assert!(failed.iter().any(|line| line.contains("acknowledged")), "no loss was noticed: {failed:?}");
}
