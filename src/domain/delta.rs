//! The effect of one request: cells to put and floors to raise, applied whole or not at all.

use super::cell::{Cell, Floor};
use super::dot::Dot;

/// What one accepted request writes to one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Delta {
    /// The request's dot: that of every cell put here.
    pub dot: Dot,
    /// Cells to put.
    pub puts: Vec<Cell>,
    /// Floors to raise. None covers the request's own dot.
    pub floors: Vec<Floor>,
}

impl Delta {
    /// A delta that writes nothing.
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.floors.is_empty()
    }
}
