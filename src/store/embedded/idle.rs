//! Whether anybody is at work who may write more.
//!
//! A sync costs the processor as much as several requests. So where more than one client writes, the committer lets the threads
//! that serve requests finish their turn, all that has arrived, before it writes what has gathered: as an event loop does that
//! syncs before it sleeps. Where many write it does not wait for all of them, but whether it had to tells it how many they are.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

type Wake = Box<dyn Fn() + Send + Sync>;

/// The threads that serve requests, as they tell when they go to rest and when they rise.
pub struct Idleness {
    threads: usize,
    resting: AtomicUsize,
    wake: OnceLock<Wake>,
}

impl Idleness {
    /// So many threads, all at work.
    pub fn new(threads: usize) -> Self {
        Self { threads, resting: AtomicUsize::new(0), wake: OnceLock::new() }
    }

    /// One of the threads goes to rest.
    pub fn rest(&self) {
        let resting = self.resting.fetch_add(1, Ordering::SeqCst) + 1;
        if resting >= self.threads
            && let Some(wake) = self.wake.get()
        {
            wake();
        }
    }

    /// One of the threads rises.
    pub fn rise(&self) {
        self.resting.fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether all of them rest.
    pub(super) fn is_complete(&self) -> bool {
        self.resting.load(Ordering::SeqCst) >= self.threads
    }

    /// Has something done whenever the last of them goes to rest.
    pub(super) fn when_complete(&self, wake: impl Fn() + Send + Sync + 'static) {
        // One store is told. Another one in the same process would have its committer wait a little longer.
        let _ = self.wake.set(Box::new(wake));
    }
}
