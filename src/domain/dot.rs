//! Who wrote, and when: actors, hybrid logical times and dots.

use std::fmt;

use bytes::Bytes;

use super::base62;

/// The identity of one server's data directory: drawn once at random and kept, so that no two writers share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActorId(pub u64);

/// A reading of an actor's hybrid logical clock: microseconds since 1970, strictly increasing for each actor.
/// (Kulkarni et al., *Logical Physical Clocks*.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

impl Time {
    /// The reading just before this one; zero stays zero.
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// The name of one accepted write request: no other request of any actor ever has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dot {
    /// The server that accepted the request.
    pub actor: ActorId,
    /// When, by that server's clock.
    pub time: Time,
}

impl Dot {
    /// A name for the version of a value that the request wrote, in base 62. No other version ever has it.
    pub fn vtag(self) -> Bytes {
        let number = u128::from(self.actor.0) << 64 | u128::from(self.time.0);
        base62::encode(number.to_be_bytes()).into()
    }
}

impl fmt::Display for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}@{}", self.actor.0, self.time.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vtags_are_short_and_tell_dots_apart() {
        let tag = |actor, time| Dot { actor: ActorId(actor), time: Time(time) }.vtag();
        assert_ne!(tag(1, 2), tag(2, 1));
        assert_ne!(tag(1, 2), tag(1, 3));
        assert!(tag(u64::MAX, u64::MAX).len() <= 22);
    }
}
