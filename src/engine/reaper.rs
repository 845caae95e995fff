//! Removes tombstones when their time has come.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep_until};

use super::{DeleteMode, EngineError, Inner};
use crate::domain::cell::Selection;
use crate::domain::context::CausalContext;
use crate::domain::key::ObjectName;
use crate::domain::object;
use crate::store::Horizon;

/// Tombstones that wait at a time. What does not fit is noticed by the next read of its key.
const WAITING_MAX: usize = 1 << 16;
/// Removals at a time.
const REMOVALS_MAX: usize = 64;

/// Takes note of tombstones.
#[derive(Clone)]
pub(super) struct Reaper {
    /// The way to the task that removes them, and how long each waits; `None` where they are kept.
    waiting: Option<(mpsc::Sender<Due>, Duration)>,
}

struct Due {
    at: Instant,
    name: ObjectName,
    /// The tombstones as they were noticed. Has the object changed since, they stay.
    context: CausalContext,
}

impl Reaper {
    pub(super) fn start(inner: Arc<Inner>) -> Self {
        let DeleteMode::After(delay) = inner.options.delete_mode else { return Self { waiting: None } };
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        tokio::spawn(run(inner, receiver));
        Self { waiting: Some((sender, delay)) }
    }

    /// Asks for the removal of an object's tombstones after the configured time.
    pub(super) fn notice(&self, name: &ObjectName, context: CausalContext) {
        if let Some((sender, delay)) = &self.waiting {
            // A full queue is no error: see WAITING_MAX.
            let _ = sender.try_send(Due { at: Instant::now() + *delay, name: name.clone(), context });
        }
    }
}

/// Every tombstone waits equally long, so they come due in the order in which they were noticed.
async fn run(inner: Arc<Inner>, mut waiting: mpsc::Receiver<Due>) {
    let removals = Arc::new(Semaphore::new(REMOVALS_MAX));
    while let Some(due) = waiting.recv().await {
        sleep_until(due.at).await;
        let Ok(permit) = removals.clone().acquire_owned().await else { return };
        let inner = inner.clone();
        tokio::spawn(async move {
            if let Err(error) = inner.reap(due.name, due.context).await {
                tracing::warn!(%error, "a tombstone could not be removed");
            }
            drop(permit);
        });
    }
}

impl Inner {
    async fn reap(&self, name: ObjectName, context: CausalContext) -> Result<(), EngineError> {
        let _turn = self.lock(&name, 0, self.options.request_timeout_default).await?;
        let seen = self.store.read(&name, &Selection::values(), &Horizon::default()).await?;
        if object::context_of(&seen) != context {
            return Ok(());
        }
        let dot = self.clock.draw()?;
        if let Some(delta) = object::reap(&seen, dot) {
            self.store.commit(name, delta)?;
        }
        Ok(())
    }
}
