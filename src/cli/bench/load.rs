//! The requests of a workload.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use fastrand::Rng;

use super::{BenchArgs, Workload};
use crate::client::{
    ClientError, DtUpdateReq, Field, FieldKind, FieldOperation, MapOperation, Operation, Request, RpbContent,
    RpbGetReq, RpbPutReq, SetOperation, encode_request, update_request,
};

/// Numbers of keys and members have twelve digits.
pub(super) const NUMBERS: u64 = 1_000_000_000_000;
/// Members of a set of the workload `set`, and of the set inside a map.
const SET_MEMBERS: u64 = 100;
const MAP_MEMBERS: u64 = 10;
const REGISTER_BYTES_MAX: usize = 64;

/// A workload's requests, encoded.
pub(super) struct Templates {
    put: Template,
    /// Each as often as it is to be chosen.
    choices: Vec<Arc<Template>>,
}

impl Templates {
    pub(super) fn new(args: &BenchArgs) -> Result<Self, ClientError> {
        let make = Maker { bucket: args.bucket.clone().into(), value: value(args) };
        let keys = args.keys;
        let ping = || Template::new(1, 1, |_, _| Request::Ping);
        let get = || Template::new(keys, 1, |key, _| make.get(key));
        let put = || Template::new(keys, 1, |key, _| make.put(key));
        let counter = || Template::new(keys, 1, |key, _| make.counter(key));
        let set = || Template::new(keys, SET_MEMBERS, |key, member| make.set(name_of_key(key), member));
        let map = || Template::new(keys, MAP_MEMBERS, |key, member| make.map(key, member));
        let bigset = || Template::new(1, keys, |_, member| make.set(Bytes::from_static(b"bigset"), member));
        let weighted = match args.workload {
            // Fsync asks nobody.
            Workload::Ping | Workload::Fsync => vec![(1, ping()?)],
            Workload::Get => vec![(1, get()?)],
            Workload::Put => vec![(1, put()?)],
            Workload::Counter => vec![(1, counter()?)],
            Workload::Set => vec![(1, set()?)],
            Workload::Map => vec![(1, map()?)],
            Workload::Bigset => vec![(1, bigset()?)],
            Workload::Mixed => vec![(5, get()?), (2, put()?), (1, counter()?), (1, set()?), (1, map()?)],
        };
        let repeated = |(weight, template)| std::iter::repeat_n(Arc::new(template), weight);
        Ok(Self { put: put()?, choices: weighted.into_iter().flat_map(repeated).collect() })
    }

    /// Writes the put of an object.
    pub(super) fn put(&self, key: u64, out: &mut Vec<u8>) {
        self.put.write(key, 0, out);
    }
}

/// Half random, so that compression neither wins nor loses everything.
fn value(args: &BenchArgs) -> Bytes {
    let mut random = Rng::with_seed(args.seed);
    let byte = |at: u32| if at.is_multiple_of(2) { random.u8(..) } else { b'x' };
    (0..args.value_bytes).map(byte).collect()
}

/// Draws requests.
pub(super) struct Load {
    templates: Arc<Templates>,
    random: Rng,
}

impl Load {
    pub(super) fn new(templates: Arc<Templates>, seed: u64) -> Self {
        Self { templates, random: Rng::with_seed(seed) }
    }

    /// Writes the next request.
    pub(super) fn write_next(&mut self, out: &mut Vec<u8>) {
        let choices = &self.templates.choices;
        let template = match &choices[..] {
            [only] => only,
            _ => &choices[self.random.usize(..choices.len())],
        };
        template.write(self.random.u64(..template.keys), self.random.u64(..template.members), out);
    }
}

/// A request that is encoded once. Then only digits in it change: those of its key, and those of the member that it adds.
struct Template {
    frame: Vec<u8>,
    keys: u64,
    members: u64,
    key_digits: Range<usize>,
    member_digits: Range<usize>,
}

impl Template {
    /// `request` makes it of a key and a member, which are below these numbers.
    fn new(keys: u64, members: u64, request: impl Fn(u64, u64) -> Request) -> Result<Self, ClientError> {
        let frame = encode_request(&request(0, 0))?.to_vec();
        let key_digits = changed(&frame, &encode_request(&request(NUMBERS - 1, 0))?);
        let member_digits = changed(&frame, &encode_request(&request(0, NUMBERS - 1))?);
        Ok(Self { frame, keys, members, key_digits, member_digits })
    }

    fn write(&self, key: u64, member: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.frame);
        let frame = &mut out[start..];
        write_digits(key, &mut frame[self.key_digits.clone()]);
        write_digits(member, &mut frame[self.member_digits.clone()]);
    }
}

/// Where encoded requests differ when a number is nothing but zeros in one and nothing but nines in the other: its digits.
fn changed(zeros: &[u8], nines: &[u8]) -> Range<usize> {
    let differs = |(zero, nine): (&u8, &u8)| zero != nine;
    let pairs = || zeros.iter().zip(nines);
    let first = pairs().position(differs).unwrap_or(0);
    let end = pairs().rposition(differs).map_or(0, |last| last + 1);
    first..end
}

fn write_digits(mut number: u64, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        // A remainder is one digit.
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Makes requests before they are encoded.
struct Maker {
    bucket: Bytes,
    value: Bytes,
}

impl Maker {
    fn get(&self, key: u64) -> Request {
        let (bucket, key) = (Some(self.bucket.clone()), Some(name_of_key(key)));
        Request::Get(RpbGetReq { bucket, key, ..RpbGetReq::default() })
    }

    fn put(&self, key: u64) -> Request {
        let content = Some(RpbContent { value: self.value.clone(), ..RpbContent::default() });
        let (bucket, key) = (Some(self.bucket.clone()), Some(name_of_key(key)));
        Request::Put(Box::new(RpbPutReq { bucket, key, content, ..RpbPutReq::default() }))
    }

    fn counter(&self, key: u64) -> Request {
        self.update("counters", name_of_key(key), &Operation::Counter(1))
    }

    fn set(&self, key: Bytes, member: u64) -> Request {
        self.update("sets", key, &Operation::Set(add(member)))
    }

    fn map(&self, key: u64, member: u64) -> Request {
        let field = |name: &str, kind| Field { name: name.into(), kind };
        let register = self.value[..self.value.len().min(REGISTER_BYTES_MAX)].into();
        let updates = vec![
            (field("visits", FieldKind::Counter), FieldOperation::Counter(1)),
            (field("name", FieldKind::Register), FieldOperation::Register(register)),
            (field("active", FieldKind::Flag), FieldOperation::Flag(true)),
            (field("tags", FieldKind::Set), FieldOperation::Set(add(member))),
        ];
        self.update("maps", name_of_key(key), &Operation::Map(MapOperation { removes: Vec::new(), updates }))
    }

    fn update(&self, bucket_type: &'static str, key: Bytes, operation: &Operation) -> Request {
        let request = DtUpdateReq {
            bucket: Some(self.bucket.clone()),
            key: Some(key),
            r#type: Some(Bytes::from_static(bucket_type.as_bytes())),
            ..DtUpdateReq::default()
        };
        update_request(request, operation)
    }
}

fn name_of_key(number: u64) -> Bytes {
    format!("key-{number:012}").into()
}

fn add(member: u64) -> SetOperation {
    SetOperation { adds: vec![format!("member-{member:012}").into()], removes: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maker() -> Maker {
        // Both look like what has digits that change.
        Maker { bucket: "key-000000000000".into(), value: "member-000000000000".into() }
    }

    #[test]
    fn a_written_request_is_the_encoded_one() {
        let make = maker();
        let requests: [&dyn Fn(u64, u64) -> Request; 5] = [
            &|_, _| Request::Ping,
            &|key, _| make.put(key),
            &|key, _| make.counter(key),
            &|key, member| make.map(key, member),
            &|_, member| make.set("bigset".into(), member),
        ];
        for request in requests {
            let template = Template::new(NUMBERS, NUMBERS, request).unwrap();
            let numbers = [0, 1, 909, 123_456_789_012, NUMBERS - 1];
            let pairs: Vec<_> =
                numbers.iter().flat_map(|key| numbers.iter().map(move |member| (*key, *member))).collect();
            let mut written = Vec::new();
            let mut encoded = Vec::new();
            for (key, member) in pairs {
                template.write(key, member, &mut written);
                encoded.extend_from_slice(&encode_request(&request(key, member)).unwrap());
            }
            assert_eq!(written, encoded);
        }
    }
}
