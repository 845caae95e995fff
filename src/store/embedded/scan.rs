//! Reading content of any size: its live cells in key order, a page at a time, as one moment shows them.

use std::collections::VecDeque;
use std::ops::Bound;

use bytes::Bytes;

use super::layout::{self, CellRow, KEY_BYTES_MAX};
use super::record::{self, Header};
use super::rows::{floor_at, floors_above};
use super::view::{Range, StoredRows, View};
use crate::domain::cell::{Cell, CellKey, Floor, FloorTarget, Path};
use crate::domain::dot::Dot;
use crate::store::{CellPages, StoreError, StoreFuture};

/// Cells of one page: some tens of kilobytes, and a fraction of a millisecond.
const CELLS_PER_PAGE: usize = 256;

/// The live cells of an object's content at or under a path.
pub(super) struct LiveScan {
    rows: Rows,
    path: Path,
    /// Cells before this are left out.
    from: Option<CellKey>,
    /// Those above the path, and those that the scan has met and whose fields it has not left.
    floors: Vec<Floor>,
    /// The row that was read last where it does not belong to what was asked for.
    ahead: Option<(Bytes, Bytes)>,
    /// Rows that share a cut key's beginning, in the order of their whole keys.
    group: VecDeque<(Bytes, Bytes)>,
}

/// Where rows come from.
pub(super) enum Rows {
    /// A packed object's own.
    Packed(std::vec::IntoIter<(Bytes, Bytes)>),
    /// The engine's, of a snapshot that lives as long as this.
    Stored(Box<StoredRows>),
    /// There is no content.
    None,
}

impl Rows {
    fn next(&mut self) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        match self {
            Self::Packed(rows) => Ok(rows.next()),
            Self::Stored(rows) => rows.next(),
            Self::None => Ok(None),
        }
    }
}

impl LiveScan {
    /// A scan of the content at or under `path`, without what lies before `from`. `stored` opens the engine's rows.
    pub(super) fn new(
        view: &dyn View,
        header: &Header,
        path: Path,
        from: Option<CellKey>,
        stored: impl FnOnce(Range) -> StoredRows,
    ) -> Result<Self, StoreError> {
        let (ahead, group) = (None, VecDeque::new());
        let Some(content) = header.content else {
            return Ok(Self { rows: Rows::None, path, from, floors: Vec::new(), ahead, group });
        };
        let view = header.rows(view);
        let deepest = from.as_ref().map(|key| &key.path).filter(|at| at.is_within(&path)).unwrap_or(&path);
        let floors = floors_above(view, header, content, deepest)?;
        let prefix = layout::subtree(content, &path);
        let mut range = Range::prefix(layout::scan_prefix(&prefix));
        if let Some(from) = &from {
            let start = layout::cells(content, from);
            let start = layout::scan_prefix(&start);
            if *start > prefix[..] {
                range.start = Bound::Included(start.to_vec());
            }
        }
        let rows = match &header.packed {
            Some(packed) => Rows::Packed(packed.range(&range).into_iter()),
            None => Rows::Stored(Box::new(stored(range))),
        };
        Ok(Self { rows, path, from, floors, ahead, group })
    }

    /// The next live cell.
    pub(super) fn next_cell(&mut self) -> Result<Option<Cell>, StoreError> {
        while let Some((key, mut value)) = self.next_row()? {
            let time = record::take_time(&mut value)?;
            match layout::parse_cell(&key)? {
                // The scan of a cut prefix meets the rows of other fields too.
                CellRow::Floor(at, actor) if at.is_within(&self.path) => {
                    self.leave_fields(&at);
                    self.floors.push(floor_at(at, Dot { actor, time }));
                }
                CellRow::Cell(key, actor) if key.path.is_within(&self.path) => {
                    let dot = Dot { actor, time };
                    self.leave_fields(&key.path);
                    let is_before = self.from.as_ref().is_some_and(|from| key < *from);
                    if !is_before && !self.floors.iter().any(|floor| floor.ends(&key, dot)) {
                        let payload = record::decode_payload(&key.element, value)?;
                        return Ok(Some(Cell { key, dot, payload }));
                    }
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// Drops the floors of fields that the scan has left: rows come field by field.
    fn leave_fields(&mut self, at: &Path) {
        self.floors.retain(|floor| matches!(&floor.target, FloorTarget::Subtree(above) if at.is_within(above)));
    }

    /// The next row's whole key and what follows its version, in the order of whole keys.
    fn next_row(&mut self) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        if let Some(row) = self.group.pop_front() {
            return Ok(Some(row));
        }
        let Some((row, value)) = self.take_ahead()? else { return Ok(None) };
        if row.len() <= KEY_BYTES_MAX {
            return record::open(&row, value).map(Some);
        }
        // Cut keys lie in the order of their hashes, so all that share this one's beginning are sorted by what they are.
        let beginning = row.slice(..KEY_BYTES_MAX);
        let mut group = vec![record::open(&row, value)?];
        while let Some((row, value)) = self.take_ahead()? {
            if !row.starts_with(&beginning) {
                self.ahead = Some((row, value));
                break;
            }
            group.push(record::open(&row, value)?);
        }
        group.sort_by(|(a, _), (b, _)| a.cmp(b));
        self.group = group.into();
        Ok(self.group.pop_front())
    }

    fn take_ahead(&mut self) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        match self.ahead.take() {
            Some(row) => Ok(Some(row)),
            None => self.rows.next(),
        }
    }
}

impl CellPages for LiveScan {
    fn next(&mut self) -> StoreFuture<'_, Vec<Cell>> {
        let mut page = Vec::new();
        let result = loop {
            match self.next_cell() {
                Ok(Some(cell)) => page.push(cell),
                Ok(None) => break Ok(page),
                Err(error) => break Err(error),
            }
            if page.len() == CELLS_PER_PAGE {
                break Ok(page);
            }
        };
        Box::pin(std::future::ready(result))
    }
}
