//! Bounds on one update. A data type itself may grow as it likes.

use bytes::Bytes;
use thiserror::Error;

use super::{FieldOperation, MapOperation, Operation, SetOperation};
use crate::domain::cell::FieldName;

/// What one update may hold.
#[derive(Clone, Copy, Debug)]
pub struct UpdateLimits {
    /// Members, removes and fields named in it, those of nested maps included.
    pub elements_max: usize,
    /// Bytes of one member.
    pub member_size_bytes_max: usize,
    /// Bytes of one field's name.
    pub field_name_size_bytes_max: usize,
    /// Bytes that the names of the fields around members and fields take, counted for each of them: a cell is kept under the
    /// whole way to it, so that a long name around many members is as much work as many long members.
    pub names_size_bytes_max: usize,
}

/// Which bound an update breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LimitError {
    /// Too much at once.
    #[error("an update may name {max} members and fields")]
    Elements {
        /// The bound.
        max: usize,
    },
    /// A member is too long.
    #[error("a member may have {max} bytes")]
    Member {
        /// The bound.
        max: usize,
    },
    /// A field's name is too long.
    #[error("the name of a field may have {max} bytes")]
    FieldName {
        /// The bound.
        max: usize,
    },
    /// Long names around too much.
    #[error(
        "the names around the members and fields of an update may have {max} bytes in all, counted for each of them"
    )]
    Names {
        /// The bound.
        max: usize,
    },
}

impl UpdateLimits {
    /// Checks an update, and counts the members and fields that it names.
    pub fn check(self, operation: &Operation) -> Result<usize, LimitError> {
        let mut check = Check { limits: self, elements: 0, around_bytes: 0, names_bytes: 0 };
        match operation {
            Operation::Counter(_) => {}
            Operation::Set(operation) => check.set(operation)?,
            Operation::GSet(adds) | Operation::Hll(adds) => check.members(adds)?,
            Operation::Map(operation) => check.map(operation)?,
        }
        Ok(check.elements)
    }
}

struct Check {
    limits: UpdateLimits,
    elements: usize,
    /// What the names of the fields around take, in bytes.
    around_bytes: usize,
    /// The same for everything so far, counted for each.
    names_bytes: usize,
}

impl Check {
    fn set(&mut self, operation: &SetOperation) -> Result<(), LimitError> {
        self.members(&operation.adds)?;
        self.members(&operation.removes)
    }

    fn map(&mut self, operation: &MapOperation) -> Result<(), LimitError> {
        for FieldName { name, .. } in operation.adds.iter().chain(&operation.removes) {
            self.field(name)?;
        }
        for update in &operation.updates {
            self.field(&update.name)?;
            self.around_bytes += update.name.len();
            match &update.operation {
                FieldOperation::Set(operation) => self.set(operation)?,
                FieldOperation::Map(operation) => self.map(operation)?,
                FieldOperation::Counter(_) | FieldOperation::Register(_) | FieldOperation::Flag(_) => {}
            }
            self.around_bytes -= update.name.len();
        }
        Ok(())
    }

    fn members(&mut self, members: &[Bytes]) -> Result<(), LimitError> {
        let max = self.limits.member_size_bytes_max;
        if members.iter().any(|member| member.len() > max) {
            return Err(LimitError::Member { max });
        }
        self.count(members.len())
    }

    fn field(&mut self, name: &Bytes) -> Result<(), LimitError> {
        let max = self.limits.field_name_size_bytes_max;
        if name.len() > max {
            return Err(LimitError::FieldName { max });
        }
        self.count(1)
    }

    fn count(&mut self, elements: usize) -> Result<(), LimitError> {
        self.elements += elements;
        self.names_bytes = self.names_bytes.saturating_add(elements.saturating_mul(self.around_bytes));
        let (max, names_max) = (self.limits.elements_max, self.limits.names_size_bytes_max);
        if self.elements > max {
            return Err(LimitError::Elements { max });
        }
        if self.names_bytes > names_max { Err(LimitError::Names { max: names_max }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::datatype::FieldUpdate;

    const LIMITS: UpdateLimits = UpdateLimits {
        elements_max: 3,
        member_size_bytes_max: 2,
        field_name_size_bytes_max: 1,
        names_size_bytes_max: 3,
    };

    fn set(members: &[&'static str]) -> SetOperation {
        SetOperation { adds: members.iter().map(|member| Bytes::from(*member)).collect(), removes: Vec::new() }
    }

    #[test]
    fn the_elements_of_all_depths_count_together() {
        let nested = |members: &[&'static str]| {
            let inside = FieldUpdate { name: "s".into(), operation: FieldOperation::Set(set(members)) };
            let inside = MapOperation { updates: vec![inside], ..MapOperation::default() };
            let field = FieldUpdate { name: "m".into(), operation: FieldOperation::Map(inside) };
            Operation::Map(MapOperation { updates: vec![field], ..MapOperation::default() })
        };
        assert_eq!(LIMITS.check(&nested(&["a"])), Ok(3));
        assert_eq!(LIMITS.check(&nested(&["a", "b"])), Err(LimitError::Elements { max: 3 }));
    }

    #[test]
    fn names_count_for_all_that_they_are_around() {
        let limits = UpdateLimits { elements_max: 100, field_name_size_bytes_max: 100, ..LIMITS };
        let sets = |names: &[&'static str]| {
            let field = |name: &&'static str| FieldUpdate {
                name: (*name).into(),
                operation: FieldOperation::Set(set(&["a", "b"])),
            };
            Operation::Map(MapOperation { updates: names.iter().map(field).collect(), ..MapOperation::default() })
        };
        assert_eq!(limits.check(&sets(&["f"])), Ok(3));
        assert_eq!(limits.check(&sets(&["f", "g"])), Err(LimitError::Names { max: 3 }));
        assert_eq!(limits.check(&sets(&["fg"])), Err(LimitError::Names { max: 3 }));
    }

    #[test]
    fn names_and_members_have_their_own_lengths() {
        assert_eq!(LIMITS.check(&Operation::Set(set(&["ab"]))), Ok(1));
        assert_eq!(LIMITS.check(&Operation::Hll(vec!["abc".into()])), Err(LimitError::Member { max: 2 }));
        let field = FieldUpdate { name: "ab".into(), operation: FieldOperation::Counter(1) };
        let operation = Operation::Map(MapOperation { updates: vec![field], ..MapOperation::default() });
        assert_eq!(LIMITS.check(&operation), Err(LimitError::FieldName { max: 1 }));
    }
}
