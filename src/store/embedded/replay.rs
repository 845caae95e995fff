//! Replay: what a start makes again of the entries that the log of an earlier process has and the tables lack.
//!
//! A row that is damaged harms its object, also here: an entry that cannot be made again because of one is left out, and the
//! object answers from then on that it is damaged. All other entries are made again.

use bytes::Bytes;

use super::RowLimits;
use super::batch::{Batch, ChangedRows, Changes};
use super::entry::LogEntry;
use super::layout;
use super::log::{LogError, Recovered};
use super::maps;
use super::record;
use super::rows::Rows;
use super::view::View;
use crate::store::{Position, StoreError};

/// What a replay came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Replayed {
    /// The last position there is.
    pub(super) last: Position,
    /// Writes that could not be made again, each to one object or one key of a map.
    pub(super) left_out: u64,
}

/// Brings the tables to what the log of an earlier process holds, behind the position up to which they hold everything. Where
/// there was any they then hold it durably, and say that they need the log no more.
pub(super) fn replay(
    rows: &Rows,
    mut recovered: Recovered,
    held: Position,
    limits: RowLimits,
    unapplied_size_bytes_max: usize,
) -> Result<Replayed, LogError> {
    let mut replayed = Replayed { last: held, left_out: 0 };
    let mut active = rows.active();
    while let Some((position, entry)) = recovered.next()? {
        let changes = change(rows, &LogEntry::decode(entry)?, position, limits, &mut replayed.left_out)?;
        rows.write(&active, changes, position);
        replayed.last = position;
        let in_memory = rows.in_memory(&active);
        if in_memory.size_bytes() >= unapplied_size_bytes_max || in_memory.has_many_runs() {
            let frozen = rows.freeze(&mut active);
            rows.apply(&frozen, position)?;
        }
    }
    // Most starts follow a clean end, and find nothing.
    if replayed.last > held {
        let frozen = rows.freeze(&mut active);
        rows.apply_last(&frozen, replayed.last)?;
    }
    if replayed.left_out > 0 {
        let left_out = replayed.left_out;
        tracing::error!(left_out, "acknowledged writes could not be made again, since rows are damaged");
    }
    Ok(replayed)
}

/// The rows that an entry changes, or those that tell of the damage which is in its way.
fn change(
    rows: &Rows,
    entry: &LogEntry,
    position: Position,
    limits: RowLimits,
    left_out: &mut u64,
) -> Result<Changes, StoreError> {
    let mut batch = Batch::new(rows.view());
    if let LogEntry::Map(delta) = entry {
        maps::apply_but(&mut batch, delta, &mut |key, damage| {
            *left_out += 1;
            tracing::error!(?key, position = position.0, error = %damage, "a write to a key of a map is left out");
            Ok(())
        })?;
        return Ok(batch.into_prepared().changes);
    }
    match (batch.add(entry, None, limits), entry) {
        (Ok(()), _) => Ok(batch.into_prepared().changes),
        (Err(damage @ StoreError::Damaged { .. }), LogEntry::Delta(name, _)) => {
            *left_out += 1;
            let row = layout::name(name).row;
            let view = rows.view();
            let before = view.get(&row)?;
            let after = record::encode_lacking(before.as_ref());
            // Told once of each object.
            if before.as_ref() != Some(&after) {
                tracing::error!(?name, position = position.0, error = %damage, "an object is damaged since a write to it is left out");
            }
            Ok(ChangedRows::from([(row, Some::<Bytes>(after))]).into())
        }
        (Err(error), _) => Err(error),
    }
}
