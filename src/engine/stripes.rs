//! Stripes: locks that serialize the updates of one object without a lock for each object.

use std::time::Duration;

use ahash::RandomState;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

use super::EngineError;
use crate::domain::key::ObjectName;

/// A stripe is held for some microseconds, not while a disk works: objects that share one seldom meet. Few enough stay in a
/// processor's cache.
const STRIPES: usize = 1 << 10;

pub(super) struct Stripes {
    locks: Box<[Mutex<()>]>,
    // Random for each process, so that nobody can aim at one stripe.
    hasher: RandomState,
}

impl Stripes {
    pub(super) fn new() -> Self {
        Self { locks: (0..STRIPES).map(|_| Mutex::new(())).collect(), hasher: RandomState::new() }
    }

    /// Waits for the object's stripe. Waiters get it in the order in which they asked.
    pub(super) async fn lock(&self, name: &ObjectName, patience: Duration) -> Result<MutexGuard<'_, ()>, EngineError> {
        // The remainder is below the number of stripes.
        let index = (self.hasher.hash_one(name) % STRIPES as u64) as usize;
        // Fair but first tried without a timer: most requests do not wait.
        match self.locks[index].try_lock() {
            Ok(guard) => Ok(guard),
            Err(_) => timeout(patience, self.locks[index].lock()).await.map_err(|_| EngineError::Timeout),
        }
    }
}
