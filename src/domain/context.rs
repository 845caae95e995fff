//! Causal contexts: what a client has seen of an object, and the opaque bytes that carry it.

use std::cmp::{Ordering, Reverse};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::dot::{ActorId, Dot, Time};
use super::key::ObjectName;

/// For each actor the time up to which its writes have been seen. Entries are sorted by actor, one an actor.
///
/// Clones share the entries: a request that removes many things raises a floor at each with the one context that its client
/// sent, however long that is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CausalContext(Entries);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Entries {
    /// None, or one: nearly every context, since a server writes as one actor.
    Short(Option<(ActorId, Time)>),
    /// More than one.
    Long(Arc<Vec<(ActorId, Time)>>),
}

impl Default for Entries {
    fn default() -> Self {
        Self::Short(None)
    }
}

impl CausalContext {
    /// The context that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing has been seen.
    pub fn is_empty(&self) -> bool {
        self.entries().is_empty()
    }

    /// The entries, sorted by actor.
    pub fn entries(&self) -> &[(ActorId, Time)] {
        match &self.0 {
            Entries::Short(entry) => entry.as_slice(),
            Entries::Long(entries) => entries,
        }
    }

    fn entry_mut(&mut self, at: usize) -> &mut (ActorId, Time) {
        match &mut self.0 {
            Entries::Short(entry) => &mut entry.as_mut_slice()[at],
            Entries::Long(entries) => &mut Arc::make_mut(entries)[at],
        }
    }

    /// Where an actor's entry is, or where it would be.
    fn position(&self, actor: ActorId) -> Result<usize, usize> {
        self.entries().binary_search_by_key(&actor, |entry| entry.0)
    }

    /// The time seen of one actor.
    pub fn time_of(&self, actor: ActorId) -> Option<Time> {
        self.position(actor).ok().map(|at| self.entries()[at].1)
    }

    /// Whether this context has seen the dot.
    pub fn covers(&self, dot: Dot) -> bool {
        self.time_of(dot.actor).is_some_and(|time| time >= dot.time)
    }

    /// Whether this context has seen everything that the other one has.
    pub fn covers_all(&self, other: &CausalContext) -> bool {
        other.entries().iter().all(|&(actor, time)| self.covers(Dot { actor, time }))
    }

    /// Takes in a dot: the entry of its actor becomes the later of the two times.
    pub fn see(&mut self, dot: Dot) {
        let entry = (dot.actor, dot.time);
        match self.position(dot.actor) {
            Ok(at) if self.entries()[at].1 >= dot.time => {}
            Ok(at) => *self.entry_mut(at) = entry,
            Err(at) => match &mut self.0 {
                Entries::Short(none @ None) => *none = Some(entry),
                Entries::Short(Some(other)) => {
                    let mut entries = vec![*other];
                    entries.insert(at, entry);
                    self.0 = Entries::Long(Arc::new(entries));
                }
                Entries::Long(entries) => Arc::make_mut(entries).insert(at, entry),
            },
        }
    }

    /// Takes in everything that the other context has seen.
    pub fn join(&mut self, other: &CausalContext) {
        // A request that removes something twice raises its floor by the same context again, however long that is.
        if let (Entries::Long(own), Entries::Long(others)) = (&self.0, &other.0)
            && Arc::ptr_eq(own, others)
        {
            return;
        }
        for &(actor, time) in other.entries() {
            self.see(Dot { actor, time });
        }
    }

    /// Lowers the entry of one actor to what that actor has issued, so that a context never covers a dot that does
    /// not exist yet.
    pub fn clamp_to_issued(&mut self, actor: ActorId, issued: Time) {
        if let Ok(at) = self.position(actor)
            && self.entries()[at].1 > issued
        {
            self.entry_mut(at).1 = issued;
        }
    }
}

impl FromIterator<Dot> for CausalContext {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> Self {
        let mut dots = dots.into_iter().map(|dot| (dot.actor, dot.time));
        let Some(first) = dots.next() else { return Self::new() };
        let Some(second) = dots.next() else { return Self(Entries::Short(Some(first))) };
        let mut entries = vec![first, second];
        entries.extend(dots);
        // One sort and no insertions, because a client may send very many entries in the worst order. Of one actor the
        // latest comes first and is kept.
        entries.sort_unstable_by_key(|&(actor, time)| (actor, Reverse(time)));
        entries.dedup_by_key(|entry| entry.0);
        match entries[..] {
            [only] => Self(Entries::Short(Some(only))),
            _ => Self(Entries::Long(Arc::new(entries))),
        }
    }
}

impl Ord for CausalContext {
    fn cmp(&self, other: &Self) -> Ordering {
        self.entries().cmp(other.entries())
    }
}

impl PartialOrd for CausalContext {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// First byte of every context. Riak's own begin with 0x83 or 0x6b, so theirs are told apart.
const MAGIC: u8 = 0x0b;
/// Second byte: the layout below.
const VERSION: u8 = 1;
/// Magic, version, object identity.
const HEAD_BYTES: usize = 2 + 8;
/// Actor and time.
const ENTRY_BYTES: usize = 8 + 8;
/// CRC-32 of all before it.
const CHECKSUM_BYTES: usize = 4;

/// Why bytes are no context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ContextError {
    /// The length fits no context.
    #[error("a context has {HEAD_BYTES} + n * {ENTRY_BYTES} + {CHECKSUM_BYTES} bytes, not {0}")]
    Length(usize),
    /// The first two bytes are not those of a context of this version.
    #[error("not a context of a known version")]
    Version,
    /// The bytes were changed on their way.
    #[error("the context's checksum does not match its content")]
    Checksum,
}

/// The object whose context this is, as 64 bits: a context of another object is *foreign* and counts as empty, because
/// with one actor a server its times would cover cells that the client never saw (`datatypes.md` §16.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectIdentity(u64);

impl ObjectIdentity {
    /// The identity of the object of this name.
    pub fn of(name: &ObjectName) -> Self {
        // FNV-1a over length-prefixed parts: stable for ever and good enough to tell two keys of one client apart.
        let parts: [&[u8]; 3] = [&name.bucket.bucket_type, &name.bucket.bucket, &name.key];
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for part in parts {
            let length = (part.len() as u64).to_be_bytes();
            for &byte in length.iter().chain(part) {
                hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
        Self(hash)
    }
}

impl CausalContext {
    /// The bytes a client is handed: equal contexts of one object have equal bytes, in every process and release.
    pub fn encode(&self, object: ObjectIdentity) -> Bytes {
        let mut out = BytesMut::with_capacity(HEAD_BYTES + self.entries().len() * ENTRY_BYTES + CHECKSUM_BYTES);
        out.put_u8(MAGIC);
        out.put_u8(VERSION);
        out.put_u64(object.0);
        for (actor, time) in self.entries() {
            out.put_u64(actor.0);
            out.put_u64(time.0);
        }
        let checksum = crc32fast::hash(&out);
        out.put_u32(checksum);
        out.freeze()
    }

    /// How many actors a context of so many bytes names, told without reading it. What is no context may get any answer.
    pub fn actors_in(bytes: &[u8]) -> usize {
        bytes.len().saturating_sub(HEAD_BYTES + CHECKSUM_BYTES) / ENTRY_BYTES
    }

    /// Reads what [`encode`](Self::encode) wrote. Zero bytes and a context of another object are the empty context.
    /// Most writers send none, so `object` is asked only where there is one.
    pub fn decode(bytes: &[u8], object: impl FnOnce() -> ObjectIdentity) -> Result<Self, ContextError> {
        if bytes.is_empty() {
            return Ok(Self::new());
        }
        let entries = bytes.len().checked_sub(HEAD_BYTES + CHECKSUM_BYTES).filter(|n| n % ENTRY_BYTES == 0);
        if entries.is_none() {
            return Err(ContextError::Length(bytes.len()));
        }
        if bytes[..2] != [MAGIC, VERSION] {
            return Err(ContextError::Version);
        }
        let (content, checksum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
        if crc32fast::hash(content).to_be_bytes() != checksum {
            return Err(ContextError::Checksum);
        }
        if be_u64(&content[2..HEAD_BYTES]) != object().0 {
            return Ok(Self::new());
        }
        let entry = |e: &[u8]| Dot { actor: ActorId(be_u64(&e[..8])), time: Time(be_u64(&e[8..])) };
        Ok(content[HEAD_BYTES..].chunks_exact(ENTRY_BYTES).map(entry).collect())
    }
}

fn be_u64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |n, &byte| n << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::key::BucketName;

    fn dot(actor: u64, time: u64) -> Dot {
        Dot { actor: ActorId(actor), time: Time(time) }
    }

    fn identity(key: &'static str) -> ObjectIdentity {
        let bucket = BucketName::new(None, Bytes::from_static(b"b"));
        ObjectIdentity::of(&ObjectName { bucket, key: Bytes::from_static(key.as_bytes()) })
    }

    #[test]
    fn equal_contexts_are_equal_however_they_came_about() {
        let dots = [dot(2, 7), dot(1, 3), dot(1, 5)];
        for count in 0..=dots.len() {
            let gathered = CausalContext::from_iter(dots[..count].iter().copied());
            let mut seen = CausalContext::new();
            dots[..count].iter().for_each(|&dot| seen.see(dot));
            assert_eq!(gathered, seen);
            assert_eq!(gathered.cmp(&seen), Ordering::Equal);
        }
        assert_eq!(CausalContext::from_iter([dot(1, 3), dot(1, 5)]), CausalContext::from_iter([dot(1, 5)]));
        let ordered = [vec![], vec![dot(1, 3)], vec![dot(1, 3), dot(2, 1)], vec![dot(1, 4)], vec![dot(2, 1)]];
        assert!(ordered.map(CausalContext::from_iter).is_sorted());
    }

    #[test]
    fn covers_what_it_has_seen_and_no_more() {
        let context: CausalContext = [dot(1, 5), dot(2, 7), dot(1, 3)].into_iter().collect();
        assert!(context.covers(dot(1, 5)) && context.covers(dot(1, 1)) && context.covers(dot(2, 7)));
        assert!(!context.covers(dot(1, 6)) && !context.covers(dot(3, 1)));
        assert!(context.covers_all(&CausalContext::new()));
        assert!(!CausalContext::new().covers_all(&context));
    }

    #[test]
    fn many_entries_in_the_worst_order_are_read_at_once() {
        let dots = || (0..200_000).rev().flat_map(|actor| [dot(actor, 1), dot(actor, 2)]);
        let bytes = dots().collect::<CausalContext>().encode(identity("k"));
        let context = CausalContext::decode(&bytes, || identity("k")).unwrap();
        assert!(context.entries().iter().map(|&(actor, _)| actor).eq((0..200_000).map(ActorId)));
        assert!(dots().all(|dot| context.covers(dot)));
    }

    #[test]
    fn clamp_lowers_one_actor_only() {
        let mut context: CausalContext = [dot(1, 9), dot(2, 9)].into_iter().collect();
        context.clamp_to_issued(ActorId(1), Time(4));
        assert!(!context.covers(dot(1, 5)) && context.covers(dot(1, 4)) && context.covers(dot(2, 9)));
    }

    #[test]
    fn bytes_come_back_for_the_same_object_only() {
        let context: CausalContext = [dot(u64::MAX, 1), dot(2, u64::MAX)].into_iter().collect();
        let bytes = context.encode(identity("k"));
        assert_eq!(CausalContext::decode(&bytes, || identity("k")), Ok(context));
        assert_eq!(CausalContext::decode(&bytes, || identity("other")), Ok(CausalContext::new()));
        assert_eq!(CausalContext::decode(b"", || identity("k")), Ok(CausalContext::new()));
    }

    #[test]
    fn the_actors_of_a_context_are_counted_unread() {
        for count in 0..4 {
            let context: CausalContext = (0..count).map(|actor| dot(actor, 1)).collect();
            assert_eq!(CausalContext::actors_in(&context.encode(identity("k"))), count as usize);
        }
        assert_eq!(CausalContext::actors_in(b""), 0);
    }

    #[test]
    fn damaged_or_strange_bytes_are_refused() {
        let context: CausalContext = [dot(1, 1)].into_iter().collect();
        let bytes = context.encode(identity("k"));
        for end in 1..bytes.len() {
            assert!(CausalContext::decode(&bytes[..end], || identity("k")).is_err(), "cut at {end}");
        }
        for i in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[i] ^= 0x40;
            assert!(CausalContext::decode(&damaged, || identity("k")).is_err(), "byte {i}");
        }
        assert_eq!(CausalContext::decode(&[0x83; 14], || identity("k")), Err(ContextError::Version));
    }
}
