//! Quorum values, and the checks that Riak makes of them (`kv.md` §8).

use thiserror::Error;

/// A number of replicas as the protocol writes it: plain, or one of four symbols at the top of the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quorum(pub u32);

impl Quorum {
    /// One replica.
    pub const ONE: Self = Self(4_294_967_294);
    /// More than half of them.
    pub const QUORUM: Self = Self(4_294_967_293);
    /// All of them.
    pub const ALL: Self = Self(4_294_967_292);
    /// What the bucket says. As a bucket property it is invalid.
    pub const DEFAULT: Self = Self(4_294_967_291);

    /// The number of replicas meant where there are `n_val`; `None` for [`DEFAULT`](Self::DEFAULT).
    pub fn replicas(self, n_val: u32) -> Option<u32> {
        match self {
            Self::ONE => Some(1),
            Self::QUORUM => Some(n_val / 2 + 1),
            Self::ALL => Some(n_val),
            Self::DEFAULT => None,
            Self(number) => Some(number),
        }
    }

    /// The symbol's name, where it is one.
    pub fn symbol(self) -> Option<&'static str> {
        match self {
            Self::ONE => Some("one"),
            Self::QUORUM => Some("quorum"),
            Self::ALL => Some("all"),
            Self::DEFAULT => Some("default"),
            _ => None,
        }
    }
}

/// A quorum that cannot be met. One store answers as if `n_val` healthy replicas stood on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum QuorumError {
    /// More replicas wanted than there are, or an `n_val` out of range.
    #[error("{{n_val_violation,{0}}}")]
    NVal(u32),
    /// More distinct nodes wanted than the one there is, on a read.
    #[error("{{insufficient_nodes,{have},need,{want}}}")]
    InsufficientNodes {
        /// Nodes that could confirm.
        have: u32,
        /// Nodes wanted.
        want: u32,
    },
    /// The same on a write. Nothing was stored.
    #[error("{{node_confirms_val_unsatisfied,{want},1}}")]
    NodeConfirms {
        /// Nodes wanted.
        want: u32,
    },
}

/// The replicas that a request works with: the bucket's number, or a smaller one that the request asks for.
pub fn effective_n_val(bucket_n_val: u32, requested: Option<u32>) -> Result<u32, QuorumError> {
    match requested {
        None => Ok(bucket_n_val),
        Some(n_val) if (1..=bucket_n_val).contains(&n_val) => Ok(n_val),
        Some(n_val) => Err(QuorumError::NVal(n_val)),
    }
}

/// Checks one quorum: the request's value where it has one, else the bucket's.
pub fn check(n_val: u32, requested: Option<Quorum>, bucket: Quorum) -> Result<(), QuorumError> {
    let wanted = requested.and_then(|quorum| quorum.replicas(n_val)).or_else(|| bucket.replicas(n_val));
    if wanted.is_some_and(|replicas| replicas > n_val) { Err(QuorumError::NVal(n_val)) } else { Ok(()) }
}

/// Checks how many distinct nodes must confirm a read. There is one.
pub fn check_read_confirms(requested: Option<u32>) -> Result<(), QuorumError> {
    match requested {
        Some(want @ 2..) => Err(QuorumError::InsufficientNodes { have: 1, want }),
        _ => Ok(()),
    }
}

/// Checks how many distinct nodes must confirm a write, before anything is stored.
pub fn check_write_confirms(n_val: u32, requested: Option<Quorum>) -> Result<(), QuorumError> {
    match requested.and_then(|quorum| quorum.replicas(n_val)) {
        Some(want) if want > n_val => Err(QuorumError::NVal(n_val)),
        Some(want @ 2..) => Err(QuorumError::NodeConfirms { want }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_count_replicas_of_the_effective_n() {
        assert_eq!(Quorum::QUORUM.replicas(3), Some(2));
        assert_eq!(Quorum::QUORUM.replicas(4), Some(3));
        assert_eq!(Quorum::ALL.replicas(1), Some(1));
        assert_eq!(Quorum(4_294_967_295).replicas(3), Some(4_294_967_295));
    }

    #[test]
    fn more_than_n_is_a_violation_and_names_n() {
        assert_eq!(check(3, Some(Quorum(4)), Quorum::QUORUM), Err(QuorumError::NVal(3)));
        assert_eq!(check(3, Some(Quorum::ALL), Quorum::QUORUM), Ok(()));
        assert_eq!(check(1, None, Quorum(3)), Err(QuorumError::NVal(1)));
        assert_eq!(check(3, Some(Quorum::DEFAULT), Quorum(3)), Ok(()));
    }

    #[test]
    fn n_val_must_be_between_one_and_the_buckets() {
        assert_eq!(effective_n_val(3, Some(0)), Err(QuorumError::NVal(0)));
        assert_eq!(effective_n_val(3, Some(4)), Err(QuorumError::NVal(4)));
        assert_eq!(effective_n_val(3, Some(1)), Ok(1));
    }

    #[test]
    fn one_node_confirms_and_no_second() {
        assert_eq!(check_read_confirms(Some(1)), Ok(()));
        assert_eq!(check_read_confirms(Some(2)), Err(QuorumError::InsufficientNodes { have: 1, want: 2 }));
        assert_eq!(check_write_confirms(3, Some(Quorum(2))), Err(QuorumError::NodeConfirms { want: 2 }));
        assert_eq!(check_write_confirms(3, Some(Quorum(4))), Err(QuorumError::NVal(3)));
    }
}
