//! One object's cells and floors in memory: the merge of the design, and the state behind the memory store.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::cell::{Cell, CellKey, FloorTarget, Floors, LiveCells, Selection};
use super::context::CausalContext;
use super::delta::Delta;
use super::dot::ActorId;

/// A replica of one object. Merging takes the greater time cell by cell and floor by floor; no type has a merge of its
/// own, and every order of deltas gives the same state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replica {
    cells: BTreeMap<(CellKey, ActorId), Cell>,
    floors: Floors,
}

impl Replica {
    /// Takes in one request's effect, its own or one that arrives from elsewhere, again or out of order.
    pub fn apply(&mut self, delta: &Delta) {
        for floor in &delta.floors {
            self.raise(&floor.target, &floor.context);
        }
        for cell in &delta.puts {
            self.put(cell);
        }
    }

    /// Takes in another replica's whole state.
    pub fn merge(&mut self, other: &Replica) {
        for (target, context) in other.floors.iter() {
            self.raise(target, context);
        }
        for cell in other.cells.values() {
            self.put(cell);
        }
    }

    /// The live cells that are asked for.
    pub fn select(&self, selections: &[Selection]) -> LiveCells {
        let wanted = |cell: &&Cell| selections.iter().any(|selection| selection.takes(&cell.key));
        LiveCells::new(self.cells.values().filter(wanted).cloned().collect())
    }

    /// Whether nothing is known of the object.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty() && self.floors.is_empty()
    }

    /// Forgets the floors: right where the only writer's every cell is here already (`design.md` §1).
    pub fn forget_floors(&mut self) {
        self.floors = Floors::default();
    }

    /// The number of cells held.
    pub fn cell_count(&self) -> usize {
        self.cells.len()
    }

    fn raise(&mut self, target: &FloorTarget, context: &CausalContext) {
        self.cells.retain(|_, cell| !(context.covers(cell.dot) && target.reaches(&cell.key)));
        self.floors.raise(target.clone(), context);
    }

    fn put(&mut self, cell: &Cell) {
        if self.floors.end(&cell.key, cell.dot) {
            return;
        }
        match self.cells.entry((cell.key.clone(), cell.dot.actor)) {
            Entry::Vacant(entry) => {
                entry.insert(cell.clone());
            }
            Entry::Occupied(mut entry) if entry.get().dot.time < cell.dot.time => {
                entry.insert(cell.clone());
            }
            Entry::Occupied(_) => {}
        }
    }
}
