//! The applier: the thread that carries rows from memory to the engine's tables, and sweeps while there is nothing to carry.

use std::sync::atomic::Ordering;

use super::churn::Churn;
use super::commit::{Commits, Frozen, Task};
use crate::store::StoreError;

pub(super) struct Applier<'a> {
    commits: &'a Commits,
    churn: Churn,
    /// The log may grow by this much before the tables are persisted so that its files can be written again.
    log_kept_bytes: u64,
    /// What the log had taken of what was last persisted, in bytes.
    persisted_at_bytes: u64,
}

impl<'a> Applier<'a> {
    pub(super) fn new(commits: &'a Commits, log_kept_bytes: u64) -> Self {
        Self { commits, churn: Churn::new(), log_kept_bytes, persisted_at_bytes: 0 }
    }

    /// Works until the store closes or fails. Whether the tables then hold everything durably.
    pub(super) fn run(mut self) -> bool {
        loop {
            let Task::Apply(frozen) = self.commits.next_task() else { return false };
            match self.apply(&frozen) {
                Ok(()) if frozen.is_last => return true,
                Ok(()) => {}
                Err(error) => {
                    self.commits.fail(&error);
                    return false;
                }
            }
        }
    }

    pub(super) fn apply(&mut self, frozen: &Frozen) -> Result<(), StoreError> {
        let &Frozen { ref overlay, position, logged_bytes, is_last } = frozen;
        let Commits { rows, durable, .. } = self.commits;
        // The log first: tables that hold more than it could not be brought back to what was acknowledged.
        durable.wait(position).blocking_recv().unwrap_or(Err(StoreError::Closed))?;
        rows.apply(overlay, position)?;
        self.commits.made_room();
        self.churn.note(overlay.last_versions().map(|(key, _)| key));
        let is_churned = self.churn.is_due();
        if is_last || is_churned || logged_bytes - self.persisted_at_bytes >= self.log_kept_bytes {
            rows.persist()?;
            self.persisted_at_bytes = logged_bytes;
            self.commits.released.store(position.0, Ordering::Release);
        }
        if is_churned && rows.write_table_early() {
            self.churn.forget();
        }
        Ok(())
    }
}
