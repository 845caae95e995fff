//! The requests of a workload.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use fastrand::Rng;

use super::{BenchArgs, EachOnce, Workload};
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
/// What values say where they are not random: text as objects of JSON are, which compression finds again in each of them.
const TEXT: &[u8] = br#"{"name":"Ombak","state":"active","visits":1024,"tags":["a","b"]},"#;

/// A workload's requests, encoded.
pub(super) struct Templates {
    /// Whether numbers of keys are those of the members of one set.
    are_keys_members: bool,
    /// Each as often as it is to be chosen.
    choices: Vec<Arc<Template>>,
}

impl Templates {
    pub(super) fn new(args: &BenchArgs, workload: Workload) -> Result<Self, ClientError> {
        let keys = args.keys;
        let template =
            |keys, members, request: fn(&Maker, u64, u64) -> Request| Template::new(args, keys, members, request);
        let get = || template(keys, 1, |make, key, _| make.get(key));
        let put = || template(keys, 1, |make, key, _| make.put(key));
        let counter = || template(keys, 1, |make, key, _| make.counter(key));
        let set = || template(keys, SET_MEMBERS, |make, key, member| make.set(name_of_key(key), member));
        let map = || template(keys, MAP_MEMBERS, |make, key, member| make.map(key, member));
        let bigset = || template(1, keys, |make, _, member| make.set(Bytes::from_static(b"bigset"), member));
        let weighted = match workload {
            // Fsync asks nobody.
            Workload::Ping | Workload::Fsync => vec![(1, template(1, 1, |_, _, _| Request::Ping)?)],
            Workload::Get => vec![(1, get()?)],
            Workload::Put => vec![(1, put()?)],
            Workload::Counter => vec![(1, counter()?)],
            Workload::Set => vec![(1, set()?)],
            Workload::Map => vec![(1, map()?)],
            Workload::Bigset => vec![(1, bigset()?)],
            Workload::Mixed => vec![(5, get()?), (2, put()?), (1, counter()?), (1, set()?), (1, map()?)],
        };
        let repeated = |(weight, template)| std::iter::repeat_n(Arc::new(template), weight);
        let are_keys_members = workload == Workload::Bigset;
        Ok(Self { are_keys_members, choices: weighted.into_iter().flat_map(repeated).collect() })
    }
}

/// Draws requests.
pub(super) struct Load {
    templates: Arc<Templates>,
    random: Rng,
    each_once: Option<Arc<EachOnce>>,
}

/// A request that was drawn.
pub(super) struct Drawn {
    choice: usize,
    /// Of those that ask for each number once.
    turn: Option<u64>,
}

impl Load {
    /// Draws requests of any key, or for each key once together with all that share this.
    pub(super) fn new(templates: Arc<Templates>, seed: u64, each_once: Option<Arc<EachOnce>>) -> Self {
        Self { templates, random: Rng::with_seed(seed), each_once }
    }

    /// Whether there will be no more.
    pub(super) fn is_exhausted(&self) -> bool {
        self.each_once.as_ref().is_some_and(|each_once| each_once.is_exhausted())
    }

    /// The next request, if there is another.
    pub(super) fn draw(&mut self) -> Option<Drawn> {
        let turn = match &self.each_once {
            None => None,
            Some(each_once) => Some(each_once.take_turn()?),
        };
        let choices = self.templates.choices.len();
        Some(Drawn { choice: if choices == 1 { 0 } else { self.random.usize(..choices) }, turn })
    }

    /// Writes a request.
    pub(super) fn write(&mut self, drawn: &Drawn, out: &mut Vec<u8>) {
        let Self { templates, random, each_once } = self;
        let template = &templates.choices[drawn.choice];
        let any_member = |random: &mut Rng| random.u64(..template.members);
        match (drawn.turn, each_once) {
            (Some(turn), Some(each_once)) => {
                let mut numbers = each_once.numbers(turn);
                if templates.are_keys_members {
                    template.write(0, |_| numbers.next().unwrap_or(0), random, out);
                } else {
                    template.write(numbers.next().unwrap_or(0), any_member, random, out);
                }
            }
            _ => {
                let key = random.u64(..template.keys);
                template.write(key, any_member, random, out);
            }
        }
    }
}

/// A request that is encoded once. Then only some of it changes: the digits of its key and of the members that it adds, and the
/// part of its value that is random.
struct Template {
    frame: Vec<u8>,
    keys: u64,
    members: u64,
    key_digits: Range<usize>,
    member_digits: Vec<Range<usize>>,
    random_bytes: Range<usize>,
}

impl Template {
    /// `request` makes it of a key and a member, which are below these numbers.
    fn new(
        args: &BenchArgs,
        keys: u64,
        members: u64,
        request: impl Fn(&Maker, u64, u64) -> Request,
    ) -> Result<Self, ClientError> {
        let size = args.value_bytes as usize;
        let maker =
            |value: Bytes| Maker { bucket: args.bucket.clone().into(), value, elements: args.elements as usize };
        let make = maker(TEXT.iter().copied().cycle().take(size).collect());
        let frame = encode_request(&request(&make, 0, 0))?.to_vec();
        let key_digits = changed(&frame, &encode_request(&request(&make, NUMBERS - 1, 0))?);
        let member_digits = changed_runs(&frame, &encode_request(&request(&make, 0, NUMBERS - 1))?);
        // No byte of the text is zero.
        let value = changed(&frame, &encode_request(&request(&maker(vec![0; size].into()), 0, 0))?);
        let random_bytes = value.start..value.start + value.len() * args.value_random_percent as usize / 100;
        Ok(Self { frame, keys, members, key_digits, member_digits, random_bytes })
    }

    fn write(&self, key: u64, mut member: impl FnMut(&mut Rng) -> u64, random: &mut Rng, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.frame);
        let frame = &mut out[start..];
        write_digits(key, &mut frame[self.key_digits.clone()]);
        for digits in &self.member_digits {
            write_digits(member(random), &mut frame[digits.clone()]);
        }
        random.fill(&mut frame[self.random_bytes.clone()]);
    }
}

/// Where encoded requests differ from the first to the last byte: of the digits of a key, when it is nothing but zeros in one and
/// nothing but nines in the other.
fn changed(one: &[u8], other: &[u8]) -> Range<usize> {
    let runs = changed_runs(one, other);
    match (runs.first(), runs.last()) {
        (Some(first), Some(last)) => first.start..last.end,
        _ => 0..0,
    }
}

/// All places where they differ.
fn changed_runs(one: &[u8], other: &[u8]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (at, _) in one.iter().zip(other).enumerate().filter(|(_, (one, other))| one != other) {
        match runs.last_mut() {
            Some(run) if run.end == at => run.end += 1,
            _ => runs.push(at..at + 1),
        }
    }
    runs
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
    /// Members that one update of a set adds.
    elements: usize,
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
        self.update("sets", key, &Operation::Set(add(member, self.elements)))
    }

    fn map(&self, key: u64, member: u64) -> Request {
        let field = |name: &str, kind| Field { name: name.into(), kind };
        let register = self.value[..self.value.len().min(REGISTER_BYTES_MAX)].into();
        let updates = vec![
            (field("visits", FieldKind::Counter), FieldOperation::Counter(1)),
            (field("name", FieldKind::Register), FieldOperation::Register(register)),
            (field("active", FieldKind::Flag), FieldOperation::Flag(true)),
            (field("tags", FieldKind::Set), FieldOperation::Set(add(member, 1))),
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

fn add(member: u64, times: usize) -> SetOperation {
    SetOperation { adds: vec![format!("member-{member:012}").into(); times], removes: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::super::tests::args;
    use super::*;

    /// Bucket and text look like what has digits that change.
    const LINE: &str = "put --bucket key-000000000000 --value-random-percent 0 --value-bytes";

    type MakeRequest<'a> = &'a dyn Fn(&Maker, u64, u64) -> Request;

    fn decoded_value(frame: &[u8]) -> &[u8] {
        &frame[frame.len() - 1000..]
    }

    fn load(line: &str, each_once: Option<Arc<EachOnce>>) -> Load {
        let args = args(line);
        Load::new(Arc::new(Templates::new(&args, args.workload).unwrap()), 1, each_once)
    }

    fn next(load: &mut Load) -> Option<Vec<u8>> {
        let drawn = load.draw()?;
        let mut frame = Vec::new();
        load.write(&drawn, &mut frame);
        Some(frame)
    }

    #[test]
    fn a_written_request_is_the_encoded_one() {
        let requests: [MakeRequest<'_>; 5] = [
            &|_, _, _| Request::Ping,
            &|make, key, _| make.put(key),
            &|make, key, _| make.counter(key),
            &|make, key, member| make.map(key, member),
            &|make, _, member| make.set("bigset".into(), member),
        ];
        let args = args(&format!("{LINE} 19"));
        let make = Maker { bucket: args.bucket.clone().into(), value: TEXT[..19].into(), elements: 1 };
        let mut random = Rng::with_seed(1);
        for request in requests {
            let template = Template::new(&args, NUMBERS, NUMBERS, request).unwrap();
            let numbers = [0, 1, 909, 123_456_789_012, NUMBERS - 1];
            let pairs: Vec<_> =
                numbers.iter().flat_map(|key| numbers.iter().map(move |member| (*key, *member))).collect();
            let mut written = Vec::new();
            let mut encoded = Vec::new();
            for (key, member) in pairs {
                template.write(key, |_| member, &mut random, &mut written);
                encoded.extend_from_slice(&encode_request(&request(&make, key, member)).unwrap());
            }
            assert_eq!(written, encoded);
        }
    }

    #[test]
    fn an_update_adds_as_many_members_as_it_should() {
        let args = args("bigset --elements 3");
        let make = |make: &Maker, _: u64, member: u64| make.set("bigset".into(), member);
        let template = Template::new(&args, 1, NUMBERS, make).unwrap();
        let mut numbers = 7..;
        let mut written = Vec::new();
        template.write(0, |_| numbers.next().unwrap(), &mut Rng::with_seed(1), &mut written);
        let adds = [7, 8, 9].map(|number| add(number, 1).adds.remove(0)).to_vec();
        let maker = Maker { bucket: args.bucket.into(), value: Bytes::new(), elements: 1 };
        let operation = Operation::Set(SetOperation { adds, removes: Vec::new() });
        let expected = maker.update("sets", "bigset".into(), &operation);
        assert_eq!(written, encode_request(&expected).unwrap());
    }

    #[test]
    fn values_are_random_in_part_and_each_is_another() {
        for percent in [0, 10, 50, 100] {
            let mut load = load(&format!("put --keys 1 --value-bytes 1000 --value-random-percent {percent}"), None);
            let [one, other] = [(); 2].map(|()| next(&mut load).unwrap());
            let pairs = decoded_value(&one).iter().zip(decoded_value(&other));
            let same: Vec<_> = pairs.map(|(one, other)| one == other).collect();
            let (random, text) = same.split_at(percent * 10);
            assert!(text.iter().all(|same| *same), "{percent}");
            // One byte of 256 is the same by chance.
            assert!(random.iter().filter(|same| **same).count() <= random.len() / 20, "{percent}");
        }
    }

    #[test]
    fn each_key_is_asked_for_once() {
        for (line, requests) in [("counter --keys 100", 100), ("bigset --keys 100 --elements 7", 15)] {
            let args = args(line);
            let mut load = load(line, Some(Arc::new(args.each_once())));
            let mut frames: Vec<_> = std::iter::from_fn(|| next(&mut load)).collect();
            assert!(load.is_exhausted());
            frames.sort_unstable();
            frames.dedup();
            assert_eq!(frames.len(), requests, "{line}");
            for number in 0..100 {
                let name = format!("{number:012}");
                let with_name = |frame: &&Vec<u8>| frame.windows(12).any(|window| window == name.as_bytes());
                assert!(frames.iter().any(|frame| with_name(&frame)), "{line}: {name}");
            }
        }
    }
}
