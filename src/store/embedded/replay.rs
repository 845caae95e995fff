//! Replay: what a start makes again of the entries that the log of an earlier process has and the tables lack.

use super::RowLimits;
use super::batch::Batch;
use super::entry::LogEntry;
use super::log::{LogError, Recovered};
use super::rows::Rows;
use crate::store::Position;

/// Brings the tables to what the log of an earlier process holds, behind the position up to which they hold everything. Where
/// there was any they then hold it durably, and say that they need the log no more. The last position there is.
pub(super) fn replay(
    rows: &Rows,
    mut recovered: Recovered,
    held: Position,
    limits: RowLimits,
    unapplied_size_bytes_max: usize,
) -> Result<Position, LogError> {
    let mut last = held;
    let mut active = rows.active();
    while let Some((position, entry)) = recovered.next()? {
        let mut batch = Batch::new(rows.view());
        batch.add(&LogEntry::decode(entry)?, None, limits)?;
        rows.write(&active, batch.into_prepared().changes, position);
        last = position;
        let in_memory = rows.in_memory(&active);
        if in_memory.size_bytes() >= unapplied_size_bytes_max || in_memory.has_many_runs() {
            let frozen = rows.freeze(&mut active);
            rows.apply(&frozen, position)?;
        }
    }
    // Most starts follow a clean end, and find nothing.
    if last > held {
        let frozen = rows.freeze(&mut active);
        rows.apply_last(&frozen, last)?;
    }
    Ok(last)
}
