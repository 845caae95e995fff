//! What is remembered of a partition beside its numbers, in a record of its own.
//!
//! Where a power failure may take what was answered ([`Store::answers_before_sync`](crate::store::Store::answers_before_sync)),
//! the partition's numbers go back with it, and what was told under them would be told again of something else. So numbers are
//! reserved ahead: those up to a bound that is synced may be used, and a start goes on behind the bound.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Inner, MapError};
use crate::domain::map::{Numbers, Partition};
use crate::store::{Position, StoreError};

/// Begins the names of the records.
const RECORDS: &str = "map_partition/";

/// Numbers that are reserved at a time. A start that follows no clean end leaves out at most so many.
const RESERVED_AHEAD: u64 = 1 << 16;

/// The record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marks {
    /// Timestamps up to this may have been used.
    #[serde(default)]
    pub(super) reserved_to: u64,
    /// Removals at positions up to this may have been forgotten.
    #[serde(default)]
    pub(super) forgotten_to: u64,
}

/// What the lock of a partition holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ledger {
    pub(super) numbers: Numbers,
    pub(super) marks: Marks,
    /// Where the record of the marks stands.
    recorded_at: Position,
    /// Timestamps up to this may be used.
    usable_to: u64,
}

impl Ledger {
    /// Goes on behind all that was reserved.
    pub(super) fn new(mut numbers: Numbers, marks: Marks) -> Self {
        numbers.timestamp = numbers.timestamp.max(marks.reserved_to);
        Self { numbers, marks, recorded_at: Position::default(), usable_to: numbers.timestamp }
    }
}

/// The marks of a partition, among all records.
///
/// # Errors
/// [`StoreError::Damaged`] where there are some that do not decode: a number might be used twice.
pub(super) fn find(records: &[(Bytes, Bytes)], partition: Partition) -> Result<Marks, StoreError> {
    let name = record_name(partition);
    let found = records.iter().find(|(key, _)| *key == name);
    let decode = |value: &Bytes| serde_json::from_slice(value).map_err(|_| damaged());
    found.map_or(Ok(Marks::default()), |(_, value)| decode(value))
}

fn record_name(partition: Partition) -> Bytes {
    format!("{RECORDS}{}", partition.number()).into()
}

fn damaged() -> StoreError {
    StoreError::Damaged { what: "marks of a map's partition" }
}

impl Inner {
    /// Waits until all timestamps up to one may be used. For one who holds the partition.
    pub(super) async fn reserve(
        &self,
        ledger: &mut Ledger,
        partition: Partition,
        timestamp: u64,
    ) -> Result<(), MapError> {
        if !self.store.answers_before_sync() {
            return Ok(());
        }
        // While the one half is used the other becomes synced, and nobody waits.
        if timestamp.saturating_add(RESERVED_AHEAD / 2) > ledger.marks.reserved_to {
            let reserved_to = timestamp.saturating_add(RESERVED_AHEAD);
            self.put_marks(ledger, partition, Marks { reserved_to, ..ledger.marks })?;
        }
        if timestamp > ledger.usable_to && !self.store.is_synced(ledger.recorded_at) {
            self.store.hasten_sync();
            self.store.synced(ledger.recorded_at).await?;
        }
        if self.store.is_synced(ledger.recorded_at) {
            ledger.usable_to = ledger.marks.reserved_to;
        }
        Ok(())
    }

    /// Gives back what was reserved and not used, so that the next start leaves out no number.
    pub(super) fn give_back(&self, ledger: &mut Ledger, partition: Partition) -> Result<(), StoreError> {
        let reserved_to = ledger.numbers.timestamp;
        if ledger.marks.reserved_to <= reserved_to {
            return Ok(());
        }
        ledger.usable_to = reserved_to;
        self.put_marks(ledger, partition, Marks { reserved_to, ..ledger.marks })
    }

    /// Writes that removals at positions up to one may be forgotten from now on. For one who holds the partition.
    pub(super) fn note_forgotten(
        &self,
        ledger: &mut Ledger,
        partition: Partition,
        position: u64,
    ) -> Result<(), StoreError> {
        if position <= ledger.marks.forgotten_to {
            return Ok(());
        }
        // Those who feed a standby look whether it has been reached after they have looked for what to send.
        self.cell(partition).forgotten_to.store(position, Ordering::SeqCst);
        self.put_marks(ledger, partition, Marks { forgotten_to: position, ..ledger.marks })
    }

    fn put_marks(&self, ledger: &mut Ledger, partition: Partition, marks: Marks) -> Result<(), StoreError> {
        let value = serde_json::to_vec(&marks).map_err(|_| damaged())?;
        ledger.recorded_at = self.store.put_record(record_name(partition), Some(value.into()))?;
        ledger.marks = marks;
        Ok(())
    }
}
