//! Up to where writes are durable, and who waits for it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam_utils::CachePadded;
use tokio::sync::oneshot;

use crate::store::{Position, StoreError};

type Waiter = oneshot::Sender<Result<(), StoreError>>;

/// The position up to which every write is durable.
#[derive(Default)]
pub(super) struct DurableMark {
    reached: AtomicU64,
    // Apart, since every reply looks at the one, and those that wait write to the other.
    waiting: CachePadded<Mutex<Waiting>>,
}

#[derive(Default)]
struct Waiting {
    waiters: Vec<(Position, Waiter)>,
    /// Why the mark rises no more.
    ended: Option<StoreError>,
}

impl DurableMark {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Every change below is complete before anything can panic.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reached(&self) -> Position {
        Position(self.reached.load(Ordering::Acquire))
    }

    pub(super) fn is_reached(&self, position: Position) -> bool {
        position <= self.reached()
    }

    /// Raises the mark, and tells those who wait for it.
    pub(super) fn reach(&self, position: Position) {
        let mut waiting = self.waiting();
        self.reached.store(position.0, Ordering::Release);
        let woken: Vec<_> = waiting.waiters.extract_if(.., |(wanted, _)| *wanted <= position).collect();
        drop(waiting);
        woken.into_iter().for_each(|(_, waiter)| tell(waiter, Ok(())));
    }

    /// Ends the mark. Those who wait are told `now`, and who asks later is told `later`.
    pub(super) fn end(&self, now: &StoreError, later: StoreError) {
        let mut waiting = self.waiting();
        waiting.ended.get_or_insert(later);
        let woken = std::mem::take(&mut waiting.waiters);
        drop(waiting);
        woken.into_iter().for_each(|(_, waiter)| tell(waiter, Err(now.clone())));
    }

    /// Tells when the mark reaches a position, or that it never will.
    pub(super) fn wait(&self, position: Position) -> oneshot::Receiver<Result<(), StoreError>> {
        let (waiter, told) = oneshot::channel();
        let mut waiting = self.waiting();
        match &waiting.ended {
            _ if self.is_reached(position) => tell(waiter, Ok(())),
            Some(ended) => tell(waiter, Err(ended.clone())),
            None => waiting.waiters.push((position, waiter)),
        }
        told
    }
}

fn tell(waiter: Waiter, result: Result<(), StoreError>) {
    // A client that left does not wait.
    let _ = waiter.send(result);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiters_are_told_in_time_and_not_before() {
        let mark = DurableMark::default();
        let mut waits: Vec<_> = (0..4).map(|position| mark.wait(Position(position))).collect();
        assert_eq!(waits[0].try_recv(), Ok(Ok(())));
        mark.reach(Position(2));
        assert_eq!((waits[1].try_recv(), waits[2].try_recv()), (Ok(Ok(())), Ok(Ok(()))));
        assert!(waits[3].try_recv().is_err());
        mark.end(&StoreError::Engine { reason: "now".into() }, StoreError::ReadOnly { reason: "later".into() });
        assert_eq!(waits[3].try_recv(), Ok(Err(StoreError::Engine { reason: "now".into() })));
        assert_eq!(mark.wait(Position(3)).try_recv(), Ok(Err(StoreError::ReadOnly { reason: "later".into() })));
        assert_eq!(mark.wait(Position(2)).try_recv(), Ok(Ok(())));
    }
}
