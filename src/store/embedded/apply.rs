//! The threads that look after the tables. The *applier* carries rows from memory to them, and sweeps while there is nothing to
//! carry; the *merger* merges tables, so that a look-up need not ask many, and deletes those that nobody looks at any more.

use std::time::Duration;

use super::commit::{Commits, Frozen, Task};
use crate::store::StoreError;

/// How long what readers still hold waits until it is seen whether it can go.
const LET_GO_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Applier<'a> {
    commits: &'a Commits,
}

impl<'a> Applier<'a> {
    pub(super) fn new(commits: &'a Commits) -> Self {
        Self { commits }
    }

    /// Works until the store closes or fails. Whether the tables then hold everything.
    pub(super) fn run(self) -> bool {
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

    pub(super) fn apply(&self, frozen: &Frozen) -> Result<(), StoreError> {
        let Commits { rows, durable, .. } = self.commits;
        // The log first: tables that hold more than it could not be brought back to what was acknowledged.
        durable.wait(frozen.position).blocking_recv().unwrap_or(Err(StoreError::Closed))?;
        match frozen.is_last {
            false => rows.apply(&frozen.overlay, frozen.position)?,
            true => rows.apply_last(&frozen.overlay, frozen.position)?,
        }
        self.commits.release(frozen.position);
        self.commits.tables_changed();
        self.commits.merging.want();
        Ok(())
    }
}

pub(super) struct Merger<'a> {
    commits: &'a Commits,
}

impl<'a> Merger<'a> {
    pub(super) fn new(commits: &'a Commits) -> Self {
        Self { commits }
    }

    /// Works until the store closes or fails.
    pub(super) fn run(self) {
        let Commits { rows, merging, .. } = self.commits;
        let mut has_more = false;
        while merging.wait(has_more.then_some(LET_GO_INTERVAL)) {
            loop {
                match rows.tables().merge_some() {
                    Ok(true) => {
                        rows.show_tables();
                        self.commits.tables_changed();
                    }
                    Ok(false) => break,
                    Err(error) => return self.commits.fail(&error),
                }
                if self.commits.failure().is_some() {
                    return;
                }
            }
            has_more = rows.let_go();
            self.commits.tables_changed();
        }
    }
}
