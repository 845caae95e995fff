//! Writes so large that the thread which makes them would keep others waiting: a runtime's threads serve all clients in turn, and
//! a request that computes for a second takes one away.

use std::thread;
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task;
use tokio::time::timeout;

use super::EngineError;

/// An update that names more members and fields than these is large: it takes some milliseconds.
pub(super) const LARGE_ELEMENTS_MIN: usize = 4096;
/// A value of more bytes than these is large.
pub(super) const LARGE_BYTES_MIN: usize = 1024 * 1024;

/// Large writes take turns, so that half of the processors are left to all the others.
pub(super) struct LargeWrites(Semaphore);

/// A write that has its turn.
pub(super) struct Turn<'a>(Option<SemaphorePermit<'a>>);

impl LargeWrites {
    pub(super) fn new() -> Self {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Self(Semaphore::new(processors.div_ceil(2)))
    }

    /// Waits for a turn, if the write is large.
    pub(super) async fn begin(&self, is_large: bool, patience: Duration) -> Result<Turn<'_>, EngineError> {
        if !is_large {
            return Ok(Turn(None));
        }
        let permit = timeout(patience, self.0.acquire()).await.map_err(|_| EngineError::Timeout)?;
        // It is never closed.
        Ok(Turn(permit.ok()))
    }
}

impl Turn<'_> {
    /// Makes the write; a large one after the thread's other work was handed over to another thread.
    pub(super) async fn run<T>(self, write: impl Future<Output = T>) -> T {
        // A runtime of one thread has nobody to hand it over to.
        if self.0.is_none() || Handle::current().runtime_flavor() != RuntimeFlavor::MultiThread {
            return write.await;
        }
        task::block_in_place(|| Handle::current().block_on(write))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;

    use super::*;

    /// One thread serves all: the write ends only when another task has had its turn meanwhile.
    #[test]
    fn others_are_served_while_a_large_write_is_made() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        let served = runtime.spawn(async {
            let large = LargeWrites::new();
            let (tell, told) = mpsc::channel();
            let turn = large.begin(true, Duration::from_secs(60)).await.unwrap();
            let other = tokio::spawn(async move { tell.send(()).unwrap() });
            let served = turn.run(async move { told.recv_timeout(Duration::from_secs(60)) }).await;
            other.await.unwrap();
            served
        });
        assert_eq!(runtime.block_on(served).unwrap(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn large_writes_take_turns_and_small_ones_wait_for_none() {
        let large = Arc::new(LargeWrites(Semaphore::new(1)));
        let patience = Duration::from_millis(10);
        let turn = large.begin(true, patience).await.unwrap();
        assert!(matches!(large.begin(true, patience).await, Err(EngineError::Timeout)));
        let small = large.begin(false, patience).await.unwrap();
        assert_eq!((small.run(async { 1 }).await, turn.run(async { 2 }).await), (1, 2));
        assert!(large.begin(true, patience).await.is_ok());
    }
}
