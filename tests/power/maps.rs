//! Maps over gRPC beside the rest: numbers that are put to a few keys in turn.

use tokio::runtime::Runtime;

use crate::client::{connect, get, put};
use crate::load::Progress;
use crate::run::Told;
use crate::support::Server;

const KEYS: u64 = 4;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn key(number: u64) -> String {
    format!("key-{}", number % KEYS)
}

/// Puts so many more numbers.
pub fn work(server: &Server, told: &Told<'_>, count: u64) {
    runtime().block_on(async {
        let mut client = connect(server.grpc.unwrap()).await;
        for number in (told.maps().sent + 1..).take(usize::try_from(count).unwrap()) {
            told.note("puts");
            put(&mut client, &key(number), number.to_string(), 0).await.unwrap();
            told.note("put");
        }
    });
}

/// Checks that the numbers are there up to one that is allowed, and returns that.
pub fn check(server: &Server, progress: Progress) -> u64 {
    let mut numbers = runtime().block_on(async {
        let mut client = connect(server.grpc.unwrap()).await;
        let mut numbers = Vec::new();
        for number in 0..KEYS {
            if let Some((bytes, _)) = get(&mut client, &key(number)).await.unwrap() {
                numbers.push(std::str::from_utf8(&bytes).unwrap().parse::<u64>().unwrap());
            }
        }
        numbers
    });
    numbers.sort_unstable();
    let last = numbers.last().copied().unwrap_or_default();
    let expected: Vec<_> = (last.saturating_sub(KEYS) + 1..=last).collect();
    assert_eq!(numbers, expected, "the keys of a map");
    let Progress { acknowledged, sent } = progress;
    assert!((acknowledged..=sent).contains(&last), "map: {last} is there, {acknowledged} of {sent} acknowledged");
    last
}
