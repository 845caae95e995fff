//! The rules of plain objects as `kv.md` §5 to §11 tells them, over maps and sets in memory: slow, plain, and written
//! without a look at the domain.
//!
//! A write is an *event*, numbered in the order of the writes. A context is the set of the events that a client has seen.
//! Where Riak on one node and Ombak differ on purpose (`kv.md` §16), this is Ombak: dotted siblings everywhere, and
//! tombstones are not listed.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::Bytes;
use ombak::message::Request;
use ombak::message::generated::*;

/// The bounds that the server under test is given, low enough to be met.
pub const SIBLINGS_MAX: usize = 6;
pub const OBJECT_SIZE_BYTES_MAX: usize = 700;
pub const KEY_SIZE_BYTES_MAX: usize = 30;

pub const QUORUM: u32 = 4_294_967_293;
const ONE: u32 = 4_294_967_294;
const ALL: u32 = 4_294_967_292;
const DEFAULT: u32 = 4_294_967_291;

/// The events that somebody has seen.
pub type Seen = Rc<BTreeSet<u64>>;

/// Type, bucket, key.
pub type Name = (Bytes, Bytes, Bytes);

/// What a request is answered, without what only the server can know: tags, times and the bytes of contexts.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer<V> {
    Refused(String),
    /// A reply that says nothing more.
    Done,
    /// Values and what the client has now seen of the object.
    Object {
        contents: Vec<Shown>,
        vclock: Option<V>,
        unchanged: bool,
    },
    Names(BTreeSet<Bytes>),
    /// What an index query finds, page after page: keys, and their terms where those are asked for.
    Postings(Vec<(Option<Bytes>, Bytes)>),
    Props(Box<Props>),
}

/// One value as it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shown {
    pub value: Bytes,
    pub content_type: Option<Bytes>,
    pub metadata: Vec<(Bytes, Bytes)>,
    pub indexes: Vec<(Bytes, Bytes)>,
    pub deleted: bool,
}

#[derive(Clone, Debug)]
struct Sibling {
    event: u64,
    content: Shown,
}

#[derive(Clone, Debug, Default)]
struct Object {
    /// Every write that went into the object since its key was created.
    seen: Seen,
    siblings: Vec<Sibling>,
}

/// The properties that matter to plain objects.
#[derive(Clone, Debug, PartialEq)]
pub struct Props {
    pub n_val: u32,
    pub allow_mult: bool,
    pub last_write_wins: bool,
    pub write_once: bool,
    pub r: u32,
    pub pr: u32,
    pub w: u32,
    pub dw: u32,
    pub pw: u32,
    pub rw: u32,
}

impl Props {
    fn new(allow_mult: bool, write_once: bool) -> Self {
        let (r, pr, w, dw, pw, rw) = (QUORUM, 0, QUORUM, QUORUM, 0, QUORUM);
        Self { n_val: 3, allow_mult, last_write_wins: false, write_once, r, pr, w, dw, pw, rw }
    }

    fn keeps_siblings(&self) -> bool {
        self.allow_mult && !self.last_write_wins && !self.write_once
    }
}

pub struct Rules {
    types: BTreeMap<Bytes, Props>,
    /// Buckets with properties of their own.
    buckets: BTreeMap<(Bytes, Bytes), Props>,
    objects: BTreeMap<Name, Object>,
    events: u64,
}

type Outcome<T> = Result<T, String>;

fn refuse<T>(text: impl Into<String>) -> Outcome<T> {
    Err(text.into())
}

fn violation<T>(number: u32) -> Outcome<T> {
    refuse(format!("{{n_val_violation,{number}}}"))
}

/// The bytes of a type, where an absent one is the default.
pub fn type_of(given: &Option<Bytes>) -> Bytes {
    given.clone().unwrap_or(Bytes::from_static(b"default"))
}

impl Rules {
    pub fn new() -> Self {
        let types = [("default", false, false), ("plain", true, false), ("single", false, false), ("once", true, true)];
        let named = |(name, allow_mult, once): (&'static str, bool, bool)| (name.into(), Props::new(allow_mult, once));
        Self {
            types: types.into_iter().map(named).collect(),
            buckets: BTreeMap::new(),
            objects: BTreeMap::new(),
            events: 0,
        }
    }

    /// What the request must be answered, and its effect. `seen_of` is what the bytes of a context stand for; `None` for
    /// bytes that are none. A put without a key is asked with the key that the server made.
    pub fn answer(&mut self, request: &Request, seen_of: &dyn Fn(&Bytes) -> Option<Seen>) -> Answer<Seen> {
        let answer = match request {
            Request::Get(get) => self.get(get, seen_of),
            Request::Put(put) => self.put(put, seen_of),
            Request::Delete(delete) => self.delete(delete, seen_of).map(|()| Answer::Done),
            Request::ListKeys(list) => self.list_keys(list),
            Request::ListBuckets(list) => self.list_buckets(list),
            Request::Index(query) => self.query(query),
            Request::GetBucket(get) => {
                self.listed_props(&type_of(&get.r#type), &get.bucket).map(|props| Answer::Props(Box::new(props)))
            }
            Request::SetBucket(set) => self.set_bucket(set).map(|()| Answer::Done),
            Request::ResetBucket(reset) => {
                self.buckets.remove(&(type_of(&reset.r#type), reset.bucket.clone().unwrap_or_default()));
                Ok(Answer::Done)
            }
            Request::GetBucketType(get) => match self.types.get(&type_of(&get.r#type)) {
                Some(props) => Ok(Answer::Props(Box::new(props.clone()))),
                None => refuse(format!("Invalid bucket type: <<\"{}\">>", text(&type_of(&get.r#type)))),
            },
            Request::SetBucketType(set) => self.set_type(set).map(|()| Answer::Done),
            other => panic!("the model has no rules for {other:?}"),
        };
        answer.unwrap_or_else(Answer::Refused)
    }

    /// The time after which tombstones are removed has passed for all that there are.
    pub fn reap(&mut self) {
        self.objects.retain(|_, object| object.siblings.iter().any(|sibling| !sibling.content.deleted));
    }

    /// The objects that are tombstones only.
    pub fn tombstones(&self) -> Vec<Name> {
        let all_deleted = |object: &Object| object.siblings.iter().all(|sibling| sibling.content.deleted);
        self.objects.iter().filter(|(_, object)| all_deleted(object)).map(|(name, _)| name.clone()).collect()
    }

    fn props(&self, bucket_type: &Bytes, bucket: &Bytes) -> Option<Props> {
        let own = self.buckets.get(&(bucket_type.clone(), bucket.clone()));
        own.or_else(|| self.types.get(bucket_type)).cloned()
    }

    fn listed_props(&self, bucket_type: &Bytes, bucket: &Option<Bytes>) -> Outcome<Props> {
        let props = self.props(bucket_type, &bucket.clone().unwrap_or_default());
        props.ok_or_else(|| format!("No bucket-type named '{}'", text(bucket_type)))
    }

    /// §14: bucket, key, type, then whether the type exists.
    fn checked(&self, name: &(Option<Bytes>, Option<Bytes>, Option<Bytes>)) -> Outcome<(Name, Props)> {
        let (bucket_type, bucket, key) = name;
        let (bucket, key) = (bucket.clone().unwrap_or_default(), key.clone().unwrap_or_default());
        if bucket.is_empty() {
            return refuse("Bucket cannot be zero-length");
        }
        if key.is_empty() {
            return refuse("Key cannot be zero-length");
        }
        if bucket_type.as_ref().is_some_and(Bytes::is_empty) {
            return refuse("Type cannot be zero-length");
        }
        let bucket_type = type_of(bucket_type);
        match self.props(&bucket_type, &bucket) {
            Some(props) => Ok(((bucket_type, bucket, key), props)),
            None => refuse("no_type"),
        }
    }

    fn get(&mut self, get: &RpbGetReq, seen_of: &dyn Fn(&Bytes) -> Option<Seen>) -> Outcome<Answer<Seen>> {
        let (name, props) = self.checked(&(get.r#type.clone(), get.bucket.clone(), get.key.clone()))?;
        let n = effective_n(props.n_val, get.n_val)?;
        quorum(n, get.r, props.r)?;
        quorum(n, get.pr, props.pr)?;
        if let Some(want) = get.node_confirms
            && want > 1
        {
            return refuse(format!("{{insufficient_nodes,1,need,{want}}}"));
        }
        let nothing = Answer::Object { contents: Vec::new(), vclock: None, unchanged: false };
        let Some(object) = self.objects.get(&name) else {
            if get.notfound_ok == Some(false) && get.node_confirms.is_some_and(|want| want > 0) {
                return refuse("{insufficient_nodes,0,need,1}");
            }
            return Ok(nothing);
        };
        let contents = shown(&props, object);
        if contents.iter().all(|content| content.deleted) {
            let vclock = (get.deletedvclock == Some(true)).then(|| object.seen.clone());
            return Ok(Answer::Object { contents: Vec::new(), vclock, unchanged: false });
        }
        let matches = |bytes: &Bytes| !bytes.is_empty() && seen_of(bytes).is_some_and(|seen| seen == object.seen);
        if get.if_modified.as_ref().is_some_and(matches) {
            return Ok(Answer::Object { contents: Vec::new(), vclock: None, unchanged: true });
        }
        let contents = if get.head == Some(true) { without_values(contents) } else { contents };
        Ok(Answer::Object { contents, vclock: Some(object.seen.clone()), unchanged: false })
    }

    fn put(&mut self, put: &RpbPutReq, seen_of: &dyn Fn(&Bytes) -> Option<Seen>) -> Outcome<Answer<Seen>> {
        let (name, props) = self.checked(&(put.r#type.clone(), put.bucket.clone(), put.key.clone()))?;
        let accepted = accepted(put, &name, &props);
        let context: Outcome<Seen> = match &put.vclock {
            Some(bytes) if !bytes.is_empty() => seen_of(bytes).ok_or_else(|| "invalid_context".into()),
            _ => Ok(Seen::default()),
        };
        // The condition comes first, and is looked at in a read that may fail by its own quorums (§7.1).
        let read = effective_n(props.n_val, put.n_val)
            .and_then(|n| quorum(n, None, props.r).and_then(|()| quorum(n, None, props.pr)));
        let object = self.objects.get(&name);
        let exists = object.is_some_and(|object| shown(&props, object).iter().any(|content| !content.deleted));
        if put.if_none_match == Some(true) {
            // In Riak a failed read is absence, and the put may replace what is there; not so here.
            if exists && (read.is_ok() || (accepted.is_ok() && context.is_ok())) {
                return refuse("match_found");
            }
        } else if put.if_not_modified == Some(true) {
            read?;
            match object {
                Some(object) if exists && object.seen != context.clone()? => return refuse("modified"),
                Some(_) if exists => {}
                _ => return refuse("notfound"),
            }
        }
        let (content, context) = (accepted?, context?);
        let object = self.write(&name, &props, content, &context)?;

        let (body, head) = (put.return_body == Some(true), put.return_head == Some(true));
        if props.write_once || !(body || head) {
            return Ok(Answer::Object { contents: Vec::new(), vclock: None, unchanged: false });
        }
        let contents = shown(&props, &object);
        let contents = if head { without_values(contents) } else { contents };
        Ok(Answer::Object { contents, vclock: Some(object.seen), unchanged: false })
    }

    fn delete(&mut self, delete: &RpbDelReq, seen_of: &dyn Fn(&Bytes) -> Option<Seen>) -> Outcome<()> {
        let bucket_type = type_of(&delete.r#type);
        let (bucket, key) = (delete.bucket.clone().unwrap_or_default(), delete.key.clone().unwrap_or_default());
        let Some(props) = self.props(&bucket_type, &bucket) else { return refuse("no_type") };
        let n = effective_n(props.n_val, delete.n_val)?;
        if delete.vclock.is_none() {
            // §7.2: rw stands in for both quorums until one of them is given.
            match delete.r.is_some() || delete.w.is_some() {
                true => quorum(n, delete.r, props.r)?,
                false => quorum(n, delete.rw, props.rw)?,
            }
            quorum(n, delete.pr, props.pr)?;
        }
        match delete.w {
            Some(w) => quorum(n, Some(w), props.w)?,
            None => quorum(n, delete.rw, props.rw)?,
        }
        quorum(n, delete.dw, props.dw)?;
        quorum(n, delete.pw, props.pw)?;
        let context = match &delete.vclock {
            None => None,
            Some(bytes) if bytes.is_empty() => Some(Seen::default()),
            Some(bytes) => Some(seen_of(bytes).ok_or("invalid_context")?),
        };
        if key.is_empty() {
            return Ok(());
        }
        if key.len() > KEY_SIZE_BYTES_MAX {
            return match context {
                Some(_) => refuse("Error processing incoming message: {error,key_too_large}"),
                None => Ok(()),
            };
        }
        let name = (bucket_type, bucket, key);
        let context = match (context, self.objects.get(&name)) {
            (Some(context), _) => context,
            (None, Some(object)) if shown(&props, object).iter().any(|content| !content.deleted) => object.seen.clone(),
            (None, _) => return Ok(()),
        };
        let tombstone = Shown { deleted: true, ..Shown::default() };
        self.write(&name, &props, tombstone, &context).map(|_| ())
    }

    /// §5.4, and the limits of §5.7.
    fn write(&mut self, name: &Name, props: &Props, content: Shown, context: &Seen) -> Outcome<Object> {
        let before = self.objects.get(name).cloned().unwrap_or_default();
        let event = self.events + 1;
        let mut siblings = before.siblings;
        siblings.retain(|sibling| props.keeps_siblings() && !context.contains(&sibling.event));
        siblings.push(Sibling { event, content });
        if siblings.len() > SIBLINGS_MAX && !props.write_once {
            return refuse(format!("{{too_many_siblings,{}}}", siblings.len()));
        }
        let bytes: usize = siblings.iter().map(|sibling| size(&sibling.content)).sum();
        if bytes > OBJECT_SIZE_BYTES_MAX && !props.write_once {
            return refuse(format!("{{too_large,{bytes}}}"));
        }
        let seen = before.seen.iter().chain(context.iter()).copied().chain([event]).collect();
        self.events = event;
        let object = Object { seen: Rc::new(seen), siblings };
        self.objects.insert(name.clone(), object.clone());
        Ok(object)
    }

    fn list_keys(&self, list: &RpbListKeysReq) -> Outcome<Answer<Seen>> {
        let bucket_type = type_of(&list.r#type);
        self.listed_props(&bucket_type, &list.bucket)?;
        let bucket = list.bucket.clone().unwrap_or_default();
        let of_bucket = |name: &&Name| name.0 == bucket_type && name.1 == bucket;
        Ok(Answer::Names(self.live().filter(of_bucket).map(|name| name.2.clone()).collect()))
    }

    fn list_buckets(&self, list: &RpbListBucketsReq) -> Outcome<Answer<Seen>> {
        let bucket_type = type_of(&list.r#type);
        self.listed_props(&bucket_type, &None)?;
        let buckets = self.live().filter(|name| name.0 == bucket_type).map(|name| name.1.clone());
        Ok(Answer::Names(buckets.collect()))
    }

    /// `queries.md` §1: an object is indexed under the entries of all its values together, tombstones left out.
    fn query(&self, query: &RpbIndexReq) -> Outcome<Answer<Seen>> {
        let is_range = query.qtype == Some(1);
        let (min, max) = match (is_range, &query.key, &query.range_min, &query.range_max) {
            (false, Some(key), ..) => (key, key),
            (true, _, Some(min), Some(max)) => (min, max),
            _ => panic!("the workload gives bounds"),
        };
        let index = text(query.index.as_ref().expect("the workload names an index")).to_lowercase();
        let numbers = match index.ends_with("_int") {
            true => {
                let parsed = |bound: &Bytes| text(bound).parse::<i64>();
                match (parsed(min), parsed(max)) {
                    (Ok(min), Ok(max)) => Some((min, max)),
                    (min_parsed, _) => {
                        let bad = text(if min_parsed.is_err() { min } else { max });
                        return refuse(format!("{{field_parsing_failed,{{<<\"{index}\">>,<<\"{bad}\">>}}}}"));
                    }
                }
            }
            false => None,
        };
        let of_keys = index == "$key" || index == "$bucket";
        if numbers.is_none() && !of_keys && !index.ends_with("_bin") {
            return refuse(format!("{{unknown_field_type,<<\"{index}\">>}}"));
        }
        let bucket_type = type_of(&query.r#type);
        let props = self.listed_props(&bucket_type, &query.bucket)?;
        let bucket = query.bucket.clone().unwrap_or_default();

        // The number sorts integers; others have none.
        let mut found: BTreeSet<(i64, Bytes, Bytes)> = BTreeSet::new();
        for ((_, _, key), object) in self.objects.iter().filter(|(name, _)| name.0 == bucket_type && name.1 == bucket) {
            let live = || object.siblings.iter().filter(|sibling| !sibling.content.deleted);
            let is_asked_for = index == "$bucket" || (min <= key && key <= max);
            if of_keys && is_asked_for && live().next().is_some() {
                found.insert((0, Bytes::new(), key.clone()));
            }
            let entries = live().flat_map(|sibling| &sibling.content.indexes).filter(|(name, _)| *name == index);
            for (_, value) in entries.filter(|_| !of_keys && !props.write_once) {
                match numbers {
                    Some((min, max)) => {
                        let number = text(value).parse().unwrap();
                        if (min..=max).contains(&number) {
                            found.insert((number, value.clone(), key.clone()));
                        }
                    }
                    None if min <= value && value <= max => {
                        found.insert((0, value.clone(), key.clone()));
                    }
                    None => {}
                }
            }
        }
        let with_terms = query.return_terms == Some(true) && is_range && !of_keys;
        let posting = |(_, term, key): (i64, Bytes, Bytes)| (with_terms.then_some(term), key);
        Ok(Answer::Postings(found.into_iter().map(posting).collect()))
    }

    fn live(&self) -> impl Iterator<Item = &Name> {
        let is_live = |object: &Object| object.siblings.iter().any(|sibling| !sibling.content.deleted);
        self.objects.iter().filter(move |(_, object)| is_live(object)).map(|(name, _)| name)
    }

    fn set_bucket(&mut self, set: &RpbSetBucketReq) -> Outcome<()> {
        let (bucket_type, bucket) = (type_of(&set.r#type), set.bucket.clone().unwrap_or_default());
        let props = self.listed_props(&bucket_type, &set.bucket)?;
        let props = changed(props, set.props.as_ref(), bucket_type == "default")?;
        self.buckets.insert((bucket_type, bucket), props);
        Ok(())
    }

    fn set_type(&mut self, set: &RpbSetBucketTypeReq) -> Outcome<()> {
        let bucket_type = type_of(&set.r#type);
        if bucket_type == "default" {
            return refuse("Invalid bucket properties: no_default_update");
        }
        let Some(props) = self.types.get(&bucket_type) else { return refuse("Invalid bucket properties: not_active") };
        let props = changed(props.clone(), set.props.as_ref(), false)?;
        self.types.insert(bucket_type, props);
        Ok(())
    }
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What a reader is shown of the siblings: all, or the newest where the bucket keeps none.
fn shown(props: &Props, object: &Object) -> Vec<Shown> {
    let mut siblings: Vec<_> = object.siblings.iter().collect();
    if !props.allow_mult {
        let newest = siblings.iter().map(|sibling| sibling.event).max();
        siblings.retain(|sibling| Some(sibling.event) == newest);
    }
    let show = |sibling: &Sibling| match sibling.content.deleted {
        true => Shown { value: Bytes::new(), ..sibling.content.clone() },
        false => sibling.content.clone(),
    };
    let mut contents: Vec<_> = siblings.into_iter().map(show).collect();
    contents.sort();
    contents
}

fn without_values(contents: Vec<Shown>) -> Vec<Shown> {
    let mut contents: Vec<_> = contents.into_iter().map(|content| Shown { value: Bytes::new(), ..content }).collect();
    contents.sort();
    contents
}

fn stored(content: &RpbContent) -> Shown {
    let pair = |pair: &RpbPair| (pair.key.clone().unwrap(), pair.value.clone().unwrap());
    Shown {
        value: content.value.clone(),
        content_type: content.content_type.clone(),
        metadata: content.usermeta.iter().map(pair).collect(),
        indexes: content.indexes.iter().map(pair).collect(),
        deleted: content.deleted == Some(true),
    }
}

/// Everything that a client gave.
fn size(content: &Shown) -> usize {
    let pairs = content.metadata.iter().chain(&content.indexes);
    content.value.len()
        + content.content_type.as_ref().map_or(0, Bytes::len)
        + pairs.map(|(name, value)| name.len() + value.len()).sum::<usize>()
}

/// §5.2, K24 and K25. The workload's numbers are short.
fn indexed(entries: Vec<(Bytes, Bytes)>) -> Outcome<Vec<(Bytes, Bytes)>> {
    let mut binary = BTreeSet::new();
    let mut integer = BTreeSet::new();
    let mut failures = BTreeSet::new();
    for (name, value) in entries {
        let (name, value) = (text(&name).to_lowercase(), text(&value));
        if name.ends_with("_bin") {
            binary.insert((name, value));
        } else if !name.ends_with("_int") {
            failures.insert((1, format!("{{unknown_field_type,<<\"{name}\">>}}")));
        } else if let Ok(number) = value.parse::<i64>() {
            integer.insert((name, number));
        } else {
            failures.insert((0, format!("{{field_parsing_failed,{{<<\"{name}\">>,<<\"{value}\">>}}}}")));
        }
    }
    if !failures.is_empty() {
        let failures: Vec<_> = failures.into_iter().map(|(_, failure)| failure).collect();
        return refuse(format!("{{precommit_fail,[{}]}}", failures.join(",")));
    }
    let integers = integer.into_iter().map(|(name, number)| (name, number.to_string()));
    let mut all: Vec<(String, String)> = binary.into_iter().chain(integers).collect();
    // The sort is stable, so integers keep the order of their values.
    all.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(all.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
}

/// §8.2: the option must lie between one and what the bucket has.
/// What can be said of a put without a look at the object: what it stores.
fn accepted(put: &RpbPutReq, name: &Name, props: &Props) -> Outcome<Shown> {
    if name.2.len() > KEY_SIZE_BYTES_MAX {
        return refuse("Error processing incoming message: {error,key_too_large}");
    }
    // Write-once buckets have no use for the option (§9).
    let n = effective_n(props.n_val, if props.write_once { None } else { put.n_val })?;
    quorum(n, put.w, props.w)?;
    quorum(n, put.dw, props.dw)?;
    quorum(n, put.pw, props.pw)?;
    let confirms = put.node_confirms.map(|confirms| replicas(n, confirms).unwrap_or_default());
    match confirms {
        Some(want) if want > n => return violation(n),
        Some(want) if want > 1 => return refuse(format!("{{node_confirms_val_unsatisfied,{want},1}}")),
        _ => {}
    }
    let mut content = stored(put.content.as_ref().expect("the workload puts contents"));
    if !props.write_once {
        content.indexes = indexed(content.indexes)?;
    }
    Ok(content)
}

fn effective_n(bucket: u32, option: Option<u32>) -> Outcome<u32> {
    match option {
        Some(n) if n == 0 || n > bucket => violation(n),
        Some(n) => Ok(n),
        None => Ok(bucket),
    }
}

/// §8.1; `None` where the bucket's value is meant.
fn replicas(n: u32, value: u32) -> Option<u32> {
    match value {
        ONE => Some(1),
        QUORUM => Some(n / 2 + 1),
        ALL => Some(n),
        DEFAULT => None,
        number => Some(number),
    }
}

fn quorum(n: u32, option: Option<u32>, bucket: u32) -> Outcome<()> {
    let wanted = option.and_then(|value| replicas(n, value)).or_else(|| replicas(n, bucket)).unwrap();
    if wanted > n { violation(n) } else { Ok(()) }
}

/// §11. The workload asks for at most one value that is refused.
fn changed(props: Props, change: Option<&RpbBucketProps>, is_default_type: bool) -> Outcome<Props> {
    let Some(change) = change else { return Ok(props) };
    let invalid =
        |property: &str, reason: &str| refuse(format!("Invalid bucket properties: [{{{property},{reason}}}]"));
    if change.n_val == Some(0) {
        return invalid("n_val", "not_integer");
    }
    for (property, value) in [("r", change.r), ("w", change.w), ("rw", change.rw)] {
        if value == Some(0) || value == Some(DEFAULT) {
            return invalid(property, "not_valid_quorum");
        }
    }
    for (property, value) in [("pr", change.pr), ("pw", change.pw), ("dw", change.dw)] {
        if value == Some(DEFAULT) {
            return invalid(property, "not_valid_quorum");
        }
    }
    if change.last_write_wins == Some(true) && !is_default_type {
        return invalid("dvv_enabled", "\"If last_write_wins is true, dvv_enabled must be false\"");
    }
    Ok(Props {
        n_val: change.n_val.unwrap_or(props.n_val),
        allow_mult: change.allow_mult.unwrap_or(props.allow_mult),
        last_write_wins: change.last_write_wins.unwrap_or(props.last_write_wins),
        write_once: props.write_once,
        r: change.r.unwrap_or(props.r),
        pr: change.pr.unwrap_or(props.pr),
        w: change.w.unwrap_or(props.w),
        dw: change.dw.unwrap_or(props.dw),
        pw: change.pw.unwrap_or(props.pw),
        rw: change.rw.unwrap_or(props.rw),
    })
}
