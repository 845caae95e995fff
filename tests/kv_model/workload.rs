//! Random requests, the same for the same seed.

use bytes::Bytes;
use ombak::message::Request;
use ombak::message::generated::*;

use crate::rules::{Name, QUORUM};

/// SplitMix64: enough for choices, and the same everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }

    /// True once in so many times.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    /// A value once in so many times.
    fn rarely<T: Clone>(&mut self, times: usize, from: &[T]) -> Option<T> {
        self.once_in(times).then(|| self.pick(from))
    }
}

/// A request, or something that happens to the server.
#[derive(Clone, Debug)]
pub enum Step {
    Ask(Box<Request>),
    /// Tombstones come to their end.
    WaitForReaping,
    /// The server stops and starts again on its data.
    Restart,
}

/// Contexts that the workload may send.
pub trait Contexts {
    /// The last contexts of this object, the newest last.
    fn of(&self, name: &Name) -> &[Bytes];
    /// Any context of any object.
    fn any(&self, random: &mut Random) -> Option<Bytes>;
}

const TYPES: [Option<&str>; 8] =
    [None, Some("default"), Some("plain"), Some("plain"), Some("plain"), Some("single"), Some("once"), None];
const BUCKETS: [&str; 3] = ["b", "c", "b\0d"];
const KEYS: [&str; 4] = ["k", "l", "\0", "a longer key"];
const QUORUMS: [u32; 9] = [0, 1, 2, 3, 4, QUORUM + 1, QUORUM, QUORUM - 1, QUORUM - 2];
const INDEXES: [(&str, &str); 9] = [
    ("w_bin", "x"),
    ("w_bin", "y"),
    ("W_BIN", "x"),
    ("w_bin", ""),
    ("n_int", "7"),
    ("n_int", "-07"),
    ("n_int", "+12"),
    ("n_int", "seven"),
    ("strange", "1"),
];

pub fn step(random: &mut Random, number: usize, contexts: &dyn Contexts) -> Step {
    let request = match random.below(100) {
        0..40 => Request::Put(Box::new(put(random, number, contexts))),
        40..68 => Request::Get(get(random, contexts)),
        68..80 => Request::Delete(delete(random, contexts)),
        80..83 => Request::Index(Box::new(query(random))),
        83 => {
            let (bucket_type, bucket, _) = name(random);
            Request::ListKeys(RpbListKeysReq { bucket, r#type: bucket_type, ..RpbListKeysReq::default() })
        }
        84..87 => {
            let (bucket_type, ..) = name(random);
            let stream = random.rarely(2, &[true, false]);
            Request::ListBuckets(RpbListBucketsReq { r#type: bucket_type, stream, timeout: None })
        }
        87..91 => {
            let ((bucket_type, bucket, _), props) = (name(random), Some(props(random)));
            Request::SetBucket(Box::new(RpbSetBucketReq { bucket, r#type: bucket_type, props }))
        }
        91..93 => {
            let (bucket_type, bucket, _) = name(random);
            Request::GetBucket(RpbGetBucketReq { bucket, r#type: bucket_type })
        }
        93..95 => {
            let (bucket_type, bucket, _) = name(random);
            Request::ResetBucket(RpbResetBucketReq { bucket, r#type: bucket_type })
        }
        95 => {
            let bucket_type = Some(name(random).0.unwrap_or("default".into()));
            Request::SetBucketType(Box::new(RpbSetBucketTypeReq { r#type: bucket_type, props: Some(props(random)) }))
        }
        96 => {
            let bucket_type = Some(name(random).0.unwrap_or("default".into()));
            Request::GetBucketType(RpbGetBucketTypeReq { r#type: bucket_type })
        }
        97 if random.once_in(3) => return Step::Restart,
        _ => return Step::WaitForReaping,
    };
    Step::Ask(Box::new(request))
}

type Parts = (Option<Bytes>, Option<Bytes>, Option<Bytes>);

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// A name, now and then one that is refused.
fn name(random: &mut Random) -> Parts {
    let bucket_type = random.pick(&TYPES).map(bytes);
    let (bucket, key) = (random.pick(&BUCKETS), random.pick(&KEYS));
    match random.below(200) {
        0 => (Some("unknown".into()), Some(bytes(bucket)), Some(bytes(key))),
        1 => (bucket_type, Some(Bytes::new()), Some(bytes(key))),
        2 => (bucket_type, Some(bytes(bucket)), Some(Bytes::new())),
        3 => (bucket_type, Some(bytes(bucket)), Some(bytes(&"k".repeat(31)))),
        4 => (bucket_type, Some(bytes(bucket)), Some(bytes(&"k".repeat(30)))),
        _ => (bucket_type, Some(bytes(bucket)), Some(bytes(key))),
    }
}

fn full_name((bucket_type, bucket, key): &Parts) -> Name {
    (crate::rules::type_of(bucket_type), bucket.clone().unwrap_or_default(), key.clone().unwrap_or_default())
}

/// Mostly the newest context of the object; often an old one or none; now and then another object's, or no context at all.
fn context(random: &mut Random, name: &Parts, contexts: &dyn Contexts) -> Option<Bytes> {
    let own = contexts.of(&full_name(name));
    match random.below(20) {
        0..5 => None,
        5..13 => own.last().cloned(),
        13..17 if !own.is_empty() => Some(random.pick(own)),
        17 => contexts.any(random),
        18 => Some(Bytes::new()),
        19 if random.once_in(4) => Some(bytes("no context")),
        _ => None,
    }
}

fn put(random: &mut Random, number: usize, contexts: &dyn Contexts) -> RpbPutReq {
    let name = name(random);
    let vclock = context(random, &name, contexts);
    let key = if random.once_in(50) { None } else { name.2 };
    let pair = |(name, value): (&str, &str)| RpbPair { key: Some(bytes(name)), value: Some(bytes(value)) };
    // Values repeat, so that they alone do not tell writes apart; the metadata does.
    let values = ["", "a", "b", "\u{ff}\0"].map(str::to_owned);
    let value = if random.once_in(12) { "v".repeat(random.below(400)) } else { random.pick(&values) };
    // The last two of them are refused.
    let offered = if random.once_in(6) { &INDEXES[..] } else { &INDEXES[..7] };
    let indexes: Vec<_> = (0..random.below(3)).map(|_| pair(random.pick(offered))).collect();
    let content = RpbContent {
        value: value.into(),
        content_type: random.rarely(3, &[bytes("text/plain"), Bytes::new()]),
        indexes,
        usermeta: vec![pair(("step", &number.to_string()))],
        deleted: random.rarely(12, &[true, false]),
        ..RpbContent::default()
    };
    RpbPutReq {
        bucket: name.1,
        key,
        r#type: name.0,
        vclock,
        content: Some(content),
        w: random.rarely(20, &QUORUMS),
        dw: random.rarely(20, &QUORUMS),
        pw: random.rarely(20, &QUORUMS),
        n_val: random.rarely(20, &[0, 1, 2, 3, 4]),
        node_confirms: random.rarely(30, &QUORUMS),
        return_body: random.rarely(2, &[true, true, false]),
        return_head: random.rarely(6, &[true, false]),
        if_none_match: random.rarely(10, &[true, true, false]),
        if_not_modified: random.rarely(8, &[true, true, false]),
        ..RpbPutReq::default()
    }
}

fn get(random: &mut Random, contexts: &dyn Contexts) -> RpbGetReq {
    let name = name(random);
    let if_modified = if random.once_in(3) { context(random, &name, contexts) } else { None };
    RpbGetReq {
        bucket: name.1,
        key: name.2,
        r#type: name.0,
        if_modified,
        r: random.rarely(20, &QUORUMS),
        pr: random.rarely(20, &QUORUMS),
        n_val: random.rarely(20, &[0, 1, 2, 3, 4]),
        node_confirms: random.rarely(20, &[0, 1, 2, 9]),
        notfound_ok: random.rarely(4, &[true, false]),
        basic_quorum: random.rarely(4, &[true, false]),
        head: random.rarely(5, &[true, false]),
        deletedvclock: random.rarely(2, &[true, true, false]),
        ..RpbGetReq::default()
    }
}

fn delete(random: &mut Random, contexts: &dyn Contexts) -> RpbDelReq {
    let name = name(random);
    RpbDelReq {
        vclock: context(random, &name, contexts),
        bucket: name.1,
        key: name.2,
        r#type: name.0,
        rw: random.rarely(10, &QUORUMS),
        r: random.rarely(10, &QUORUMS),
        w: random.rarely(10, &QUORUMS),
        pr: random.rarely(20, &QUORUMS),
        pw: random.rarely(20, &QUORUMS),
        dw: random.rarely(20, &QUORUMS),
        n_val: random.rarely(20, &[0, 1, 2, 3, 4]),
        ..RpbDelReq::default()
    }
}

/// A query that may be refused for its index or a bound, not for both.
fn query(random: &mut Random) -> RpbIndexReq {
    let (bucket_type, bucket, _) = name(random);
    let (index, bounds): (&str, &[&str]) = match random.below(12) {
        0..5 => ("w_bin", &["", "x", "y"]),
        5..9 => ("N_int", &["-7", "0", "7", "+12", "99"]),
        9 => ("$key", &["", "k", "l"]),
        10 => ("$bucket", &["_"]),
        _ => random.pick(&[("strange", &["1"][..]), ("n_int", &["seven"][..])]),
    };
    let mut bound = || Some(bytes(random.pick(bounds)));
    let (key, range_min, range_max) = (bound(), bound(), bound());
    let is_range = random.once_in(2);
    RpbIndexReq {
        bucket,
        r#type: bucket_type,
        index: Some(bytes(index)),
        qtype: Some(i32::from(is_range)),
        key: key.filter(|_| !is_range),
        range_min: range_min.filter(|_| is_range),
        range_max: range_max.filter(|_| is_range),
        return_terms: random.rarely(2, &[true, false]),
        stream: random.rarely(2, &[true, false]),
        max_results: random.rarely(2, &[1, 2, 3, 100]),
        ..RpbIndexReq::default()
    }
}

/// One property, so that at most one is refused; siblings are switched most often.
fn props(random: &mut Random) -> RpbBucketProps {
    let mut props = RpbBucketProps::default();
    let quorum = Some(random.pick(&[QUORUM, QUORUM - 1, QUORUM + 1, 1, 2, 3, 0, QUORUM - 2]));
    match random.below(16) {
        0..6 => props.allow_mult = Some(random.below(4) > 0),
        6..8 => props.last_write_wins = Some(random.once_in(3)),
        8 | 9 => props.n_val = Some(random.pick(&[0, 1, 3, 3, 5])),
        10 => props.r = quorum,
        11 => props.w = quorum,
        12 => props.dw = quorum,
        13 => props.pr = quorum,
        14 => props.pw = quorum,
        _ => props.rw = quorum,
    }
    props
}
