//! Requests made up by the fuzzer: of few names, so that they meet; with every option; now and then with odd bytes.

use std::time::Duration;

use arbitrary::Arbitrary;
use bytes::Bytes;
use ombak::message::Request;
use ombak::message::generated::map_field::MapFieldType;
use ombak::message::generated::map_update::FlagOp;
use ombak::message::generated::*;
use ombak::message::map_op::MapOp;
use prost::Message;

/// What happens next.
#[derive(Arbitrary, Debug)]
pub enum Step {
    /// A request on one of the connections.
    Ask {
        /// Which.
        connection: u8,
        /// What.
        ask: Box<Ask>,
    },
    /// Any frame.
    Frame {
        /// On which connection.
        connection: u8,
        /// The message's number.
        code: u8,
        /// The message.
        payload: Vec<u8>,
    },
    /// Time goes by.
    Wait {
        /// How much.
        ms: u16,
    },
}

impl Step {
    /// How much time goes by.
    pub fn wait(&self) -> Option<Duration> {
        match self {
            Step::Wait { ms } => Some(Duration::from_millis((*ms).into())),
            _ => None,
        }
    }

    /// The connection, code and payload of a request.
    pub fn frame(&self, seen: &[Bytes]) -> Option<(usize, u8, Bytes)> {
        match self {
            Step::Ask { connection, ask } => {
                let request = ask.request(seen);
                Some(((*connection).into(), request.code().number(), request.encode()))
            }
            Step::Frame { connection, code, payload } => {
                Some(((*connection).into(), *code, Bytes::copy_from_slice(payload)))
            }
            Step::Wait { .. } => None,
        }
    }
}

/// A bucket type.
#[derive(Arbitrary, Debug)]
#[allow(missing_docs, reason = "each is the type of its name")]
pub enum TypeName {
    Unsaid,
    Default,
    Counters,
    Sets,
    Gsets,
    Hlls,
    Maps,
    Plain,
    Lww,
    Wo,
    Odd(Vec<u8>),
}

impl TypeName {
    fn bytes(&self) -> Option<Bytes> {
        Some(match self {
            TypeName::Unsaid => return None,
            TypeName::Default => Bytes::from_static(b"default"),
            TypeName::Counters => Bytes::from_static(b"counters"),
            TypeName::Sets => Bytes::from_static(b"sets"),
            TypeName::Gsets => Bytes::from_static(b"gsets"),
            TypeName::Hlls => Bytes::from_static(b"hlls"),
            TypeName::Maps => Bytes::from_static(b"maps"),
            TypeName::Plain => Bytes::from_static(b"plain"),
            TypeName::Lww => Bytes::from_static(b"lww"),
            TypeName::Wo => Bytes::from_static(b"wo"),
            TypeName::Odd(name) => Bytes::copy_from_slice(name),
        })
    }
}

/// The name of a bucket, key, field or member.
#[derive(Arbitrary, Debug)]
#[allow(missing_docs, reason = "each is the name that it says")]
pub enum Name {
    A,
    B,
    C,
    Empty,
    Long(u8),
    Odd(Vec<u8>),
}

impl Name {
    fn bytes(&self) -> Bytes {
        match self {
            Name::A => Bytes::from_static(b"a"),
            Name::B => Bytes::from_static(b"b"),
            Name::C => Bytes::from_static(b"c"),
            Name::Empty => Bytes::new(),
            Name::Long(length) => vec![b'l'; (*length).into()].into(),
            Name::Odd(bytes) => Bytes::copy_from_slice(bytes),
        }
    }
}

fn names(names: &[Name]) -> Vec<Bytes> {
    names.iter().map(Name::bytes).collect()
}

fn some(name: &Option<Name>) -> Option<Bytes> {
    name.as_ref().map(Name::bytes)
}

/// A number of replicas, a timeout, or another small number or special one.
#[derive(Arbitrary, Clone, Copy, Debug)]
#[allow(missing_docs, reason = "each is what it says")]
pub enum Number {
    Unsaid,
    Few(u8),
    Word(u8),
    Any(u32),
}

impl Number {
    fn value(self) -> Option<u32> {
        match self {
            Number::Unsaid => None,
            Number::Few(number) => Some((number % 6).into()),
            Number::Word(back) => Some(u32::MAX - u32::from(back)),
            Number::Any(number) => Some(number),
        }
    }
}

/// A context, vclock or continuation.
#[derive(Arbitrary, Debug)]
#[allow(missing_docs, reason = "each is what it says")]
pub enum Opaque {
    Unsaid,
    Last,
    Seen(u8),
    Damaged { seen: u8, at: u8, by: u8 },
    Odd(Vec<u8>),
}

impl Opaque {
    fn bytes(&self, seen: &[Bytes]) -> Option<Bytes> {
        let nth = |number: u8| seen.get(usize::from(number) % seen.len().max(1)).cloned();
        match self {
            Opaque::Unsaid => None,
            Opaque::Last => seen.last().cloned(),
            Opaque::Seen(number) => nth(*number),
            Opaque::Damaged { seen, at, by } => {
                let mut bytes = nth(*seen)?.to_vec();
                let at = usize::from(*at) % bytes.len().max(1);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= by;
                }
                Some(bytes.into())
            }
            Opaque::Odd(bytes) => Some(Bytes::copy_from_slice(bytes)),
        }
    }
}

/// An object.
#[derive(Arbitrary, Debug)]
#[allow(missing_docs, reason = "each is the field of its name")]
pub struct Target {
    r#type: TypeName,
    bucket: Name,
    key: Name,
}

/// What is said of replicas and time.
#[derive(Arbitrary, Debug)]
#[allow(missing_docs, reason = "each is the field of its name")]
pub struct Replicas {
    r: Number,
    pr: Number,
    w: Number,
    dw: Number,
    pw: Number,
    n_val: Number,
    node_confirms: Number,
    timeout: Number,
    basic_quorum: Option<bool>,
    notfound_ok: Option<bool>,
    sloppy_quorum: Option<bool>,
}

/// What is stored.
#[derive(Arbitrary, Debug)]
#[allow(missing_docs, reason = "each is the field of its name")]
pub struct Content {
    value: Name,
    content_type: Option<Name>,
    charset: Option<Name>,
    content_encoding: Option<Name>,
    vtag: Option<Name>,
    last_mod: Number,
    deleted: Option<bool>,
    links: Vec<(Option<Name>, Option<Name>, Option<Name>)>,
    usermeta: Vec<(Name, Option<Name>)>,
    indexes: Vec<(IndexName, Term)>,
}

impl Content {
    fn message(&self) -> RpbContent {
        let link = |(bucket, key, tag): &(Option<Name>, Option<Name>, Option<Name>)| RpbLink {
            bucket: some(bucket),
            key: some(key),
            tag: some(tag),
        };
        let meta = |(key, value): &(Name, Option<Name>)| RpbPair { key: Some(key.bytes()), value: some(value) };
        let entry = |(index, term): &(IndexName, Term)| RpbPair { key: Some(index.bytes()), value: Some(term.bytes()) };
        RpbContent {
            value: self.value.bytes(),
            content_type: some(&self.content_type),
            charset: some(&self.charset),
            content_encoding: some(&self.content_encoding),
            vtag: some(&self.vtag),
            links: self.links.iter().map(link).collect(),
            last_mod: self.last_mod.value(),
            last_mod_usecs: self.last_mod.value(),
            usermeta: self.usermeta.iter().map(meta).collect(),
            indexes: self.indexes.iter().map(entry).collect(),
            deleted: self.deleted,
        }
    }
}

/// The name of an index.
#[derive(Arbitrary, Debug)]
#[allow(missing_docs, reason = "each is what it says")]
pub enum IndexName {
    Bin,
    Int,
    Key,
    Bucket,
    Odd(Name),
}

impl IndexName {
    fn bytes(&self) -> Bytes {
        match self {
            IndexName::Bin => Bytes::from_static(b"i_bin"),
            IndexName::Int => Bytes::from_static(b"i_int"),
            IndexName::Key => Bytes::from_static(b"$key"),
            IndexName::Bucket => Bytes::from_static(b"$bucket"),
            IndexName::Odd(name) => name.bytes(),
        }
    }
}

/// A term of an index.
#[derive(Arbitrary, Debug)]
#[allow(missing_docs, reason = "each is what it says")]
pub enum Term {
    Text(Name),
    Integer(i64),
    Great { digit: u8, digits: u8 },
}

impl Term {
    fn bytes(&self) -> Bytes {
        match self {
            Term::Text(name) => name.bytes(),
            Term::Integer(integer) => integer.to_string().into(),
            Term::Great { digit, digits } => vec![b'0' + digit % 10; (*digits).into()].into(),
        }
    }
}

/// A change to a data type.
#[derive(Arbitrary, Debug)]
#[allow(missing_docs, reason = "each is what it says")]
pub enum Change {
    Counter(Option<i64>),
    Set { adds: Vec<Name>, removes: Vec<Name> },
    Gset(Vec<Name>),
    Hll(Vec<Name>),
    Map(MapChange),
    Raw(Vec<u8>),
}

impl Change {
    fn message(&self) -> Option<DtOp> {
        let none = DtOp::default();
        Some(match self {
            Change::Counter(increment) => DtOp { counter_op: Some(CounterOp { increment: *increment }), ..none },
            Change::Set { adds, removes } => {
                DtOp { set_op: Some(SetOp { adds: names(adds), removes: names(removes) }), ..none }
            }
            Change::Gset(adds) => DtOp { gset_op: Some(GSetOp { adds: names(adds) }), ..none },
            Change::Hll(adds) => DtOp { hll_op: Some(HllOp { adds: names(adds) }), ..none },
            Change::Map(change) => DtOp { map_op: Some(change.message()), ..none },
            Change::Raw(bytes) => return DtOp::decode(&bytes[..]).ok(),
        })
    }
}

/// Which messages the fields of a map operation hold.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in the server")]
pub enum Layout {
    Released,
    Preview,
}

/// A change to a map.
#[derive(Arbitrary, Debug)]
#[allow(missing_docs, reason = "each is the field of its name")]
pub struct MapChange {
    layout: Layout,
    adds: Vec<Field>,
    removes: Vec<Field>,
    updates: Vec<FieldChange>,
}

/// A field of a map.
#[derive(Arbitrary, Debug)]
#[allow(missing_docs, reason = "each is the field of its name")]
pub struct Field {
    name: Name,
    kind: Kind,
}

/// What a field holds.
#[derive(Arbitrary, Clone, Copy, Debug)]
#[allow(missing_docs, reason = "each is what it says")]
pub enum Kind {
    Counter,
    Set,
    Register,
    Flag,
    Map,
}

/// A change to a field of a map, which fits its kind.
#[derive(Arbitrary, Debug)]
#[allow(missing_docs, reason = "each is what it says")]
pub enum FieldChange {
    Counter(Name, Option<i64>),
    Set(Name, Vec<Name>, Vec<Name>),
    Register(Name, Name),
    Flag(Name, bool),
    Map(Name, Box<MapChange>),
}

impl Field {
    fn message(&self) -> MapField {
        field(&self.name, self.kind)
    }
}

fn field(name: &Name, kind: Kind) -> MapField {
    let kind = match kind {
        Kind::Counter => MapFieldType::Counter,
        Kind::Set => MapFieldType::Set,
        Kind::Register => MapFieldType::Register,
        Kind::Flag => MapFieldType::Flag,
        Kind::Map => MapFieldType::Map,
    };
    MapField { name: Some(name.bytes()), r#type: Some(kind.into()) }
}

impl MapChange {
    fn message(&self) -> MapOp {
        let fields = |fields: &[Field]| -> Vec<MapField> { fields.iter().map(Field::message).collect() };
        let updates: Vec<_> = self.updates.iter().map(FieldChange::message).collect();
        map_op(self.layout, &fields(&self.adds), &fields(&self.removes), &updates)
    }
}

impl FieldChange {
    fn message(&self) -> MapUpdate {
        let of = |name, kind| MapUpdate { field: Some(field(name, kind)), ..MapUpdate::default() };
        match self {
            FieldChange::Counter(name, increment) => {
                MapUpdate { counter_op: Some(CounterOp { increment: *increment }), ..of(name, Kind::Counter) }
            }
            FieldChange::Set(name, adds, removes) => {
                let set_op = Some(SetOp { adds: names(adds), removes: names(removes) });
                MapUpdate { set_op, ..of(name, Kind::Set) }
            }
            FieldChange::Register(name, value) => {
                MapUpdate { register_op: Some(value.bytes()), ..of(name, Kind::Register) }
            }
            FieldChange::Flag(name, enable) => {
                let flag_op = if *enable { FlagOp::Enable } else { FlagOp::Disable };
                MapUpdate { flag_op: Some(flag_op.into()), ..of(name, Kind::Flag) }
            }
            FieldChange::Map(name, change) => MapUpdate { map_op: Some(change.message()), ..of(name, Kind::Map) },
        }
    }
}

/// A map operation in one of its layouts. The released one has no adds, which are left out.
///
/// # Panics
/// Never: what it writes is of the form that it reads.
pub fn map_op(layout: Layout, adds: &[MapField], removes: &[MapField], updates: &[MapUpdate]) -> MapOp {
    /// The server's own type shows its fields to nobody.
    #[derive(Message)]
    struct Elements {
        #[prost(bytes = "bytes", repeated, tag = "1")]
        first: Vec<Bytes>,
        #[prost(bytes = "bytes", repeated, tag = "2")]
        second: Vec<Bytes>,
        #[prost(bytes = "bytes", repeated, tag = "3")]
        third: Vec<Bytes>,
    }
    fn encoded(elements: &[impl Message]) -> Vec<Bytes> {
        elements.iter().map(|element| element.encode_to_vec().into()).collect()
    }
    let elements = match layout {
        Layout::Released => Elements { first: encoded(removes), second: encoded(updates), third: Vec::new() },
        Layout::Preview => Elements { first: encoded(adds), second: encoded(removes), third: encoded(updates) },
    };
    MapOp::decode(elements.encode_to_vec().as_slice()).expect("three repeated fields")
}

/// Properties of a bucket or a type.
#[derive(Arbitrary, Debug)]
#[allow(missing_docs, reason = "each is the field of its name")]
pub struct Props {
    numbers: [Number; 8],
    flags: [Option<bool>; 7],
    datatype: Option<TypeName>,
    hook: Option<Hook>,
    repl: Option<i32>,
}

/// A commit hook, by name or by module and function.
#[derive(Arbitrary, Debug)]
struct Hook {
    name: Option<Name>,
    called: Option<(Name, Name)>,
}

impl Props {
    fn message(&self) -> RpbBucketProps {
        let [n_val, pr, r, w, pw, dw, rw, hll_precision] = self.numbers.map(Number::value);
        let [allow_mult, last_write_wins, basic_quorum, notfound_ok, search, consistent, write_once] = self.flags;
        let mod_fun = |(module, function): &(Name, Name)| RpbModFun {
            module: Some(module.bytes()),
            function: Some(function.bytes()),
        };
        let hooks = self
            .hook
            .iter()
            .map(|Hook { name, called }| RpbCommitHook { modfun: called.as_ref().map(mod_fun), name: some(name) });
        RpbBucketProps {
            n_val,
            pr,
            r,
            w,
            pw,
            dw,
            rw,
            hll_precision,
            allow_mult,
            last_write_wins,
            basic_quorum,
            notfound_ok,
            search,
            consistent,
            write_once,
            datatype: self.datatype.as_ref().and_then(TypeName::bytes),
            precommit: hooks.collect(),
            has_precommit: self.hook.as_ref().map(|_| true),
            repl: self.repl,
            ..RpbBucketProps::default()
        }
    }
}

/// A MapReduce job of known functions on known buckets.
#[derive(Arbitrary, Debug)]
#[allow(missing_docs, reason = "each is the field of its name")]
pub struct MapReduceJob {
    inputs: JobInputs,
    filters: Vec<u8>,
    phases: Vec<(u8, bool)>,
    tail: Option<Name>,
}

#[derive(Arbitrary, Debug)]
enum JobInputs {
    Bucket,
    Filtered,
    Typed,
    Listed(u8),
    Index,
    IndexRange(i8, i8),
}

const FILTERS: &[&str] = &[
    r#"["eq","a"]"#,
    r#"["starts_with","a"]"#,
    r#"["string_to_int"]"#,
    r#"["int_to_string"]"#,
    r#"["tokenize","a",1]"#,
    r#"["between","a","c",true]"#,
    r#"["matches","^.$"]"#,
    r#"["similar_to","b",1]"#,
    r#"["urldecode"]"#,
    r#"["to_upper"]"#,
    r#"["set_member","a","B"]"#,
    r#"["not",[["eq","a"]]]"#,
    r#"["or",[["eq","a"]],[["eq","b"]]]"#,
    r#"["less_than",3]"#,
];

const PHASES: &[&str] = &[
    r#"{"map":{"language":"erlang","module":"riak_kv_mapreduce","function":"map_object_value"#,
    r#"{"map":{"language":"erlang","module":"riak_kv_mapreduce","function":"map_object_value_list"#,
    r#"{"map":{"language":"erlang","module":"riak_kv_mapreduce","function":"map_identity"#,
    r#"{"map":{"language":"erlang","module":"riak_kv_mapreduce","function":"map_delete"#,
    r#"{"reduce":{"language":"erlang","module":"riak_kv_mapreduce","function":"reduce_identity"#,
    r#"{"reduce":{"language":"erlang","module":"riak_kv_mapreduce","function":"reduce_set_union"#,
    r#"{"reduce":{"language":"erlang","module":"riak_kv_mapreduce","function":"reduce_sum"#,
    r#"{"reduce":{"language":"erlang","module":"riak_kv_mapreduce","function":"reduce_sort"#,
    r#"{"reduce":{"language":"erlang","module":"riak_kv_mapreduce","function":"reduce_count_inputs"#,
    r#"{"reduce":{"language":"erlang","module":"riak_kv_mapreduce","function":"reduce_string_to_integer"#,
    r#"{"reduce":{"language":"erlang","module":"riak_kv_mapreduce","function":"reduce_plist_sum"#,
    r#"{"link":{"bucket":"_","tag":"_"#,
    r#"{"map":{"language":"javascript","name":"Riak.mapValues"#,
];

impl MapReduceJob {
    fn message(&self) -> RpbMapRedReq {
        let pick = |from: &'static [&str], number: u8| from[usize::from(number) % from.len()];
        let filters: Vec<_> = self.filters.iter().map(|number| pick(FILTERS, *number)).collect();
        let inputs = match &self.inputs {
            JobInputs::Bucket => r#""a""#.to_owned(),
            JobInputs::Filtered => format!(r#"{{"bucket":"a","key_filters":[{}]}}"#, filters.join(",")),
            JobInputs::Typed => r#"["plain","a"]"#.to_owned(),
            JobInputs::Listed(count) => {
                let keys = [r#"["a","a"]"#, r#"["a","b"]"#, r#"["a","c"]"#].into_iter().cycle();
                format!("[{}]", keys.take(usize::from(count % 8)).collect::<Vec<_>>().join(","))
            }
            JobInputs::Index => r#"{"bucket":"a","index":"i_bin","key":"a"}"#.to_owned(),
            JobInputs::IndexRange(start, end) => {
                format!(r#"{{"bucket":["plain","a"],"index":"i_int","start":{start},"end":{end}}}"#)
            }
        };
        let phases =
            self.phases.iter().map(|(number, keep)| format!(r#"{}","keep":{keep}}}}}"#, pick(PHASES, *number)));
        let phases: Vec<_> = phases.collect();
        let mut text = format!(r#"{{"inputs":{inputs},"query":[{}]}}"#, phases.join(",")).into_bytes();
        if let Some(tail) = &self.tail {
            text.extend_from_slice(&tail.bytes());
        }
        RpbMapRedReq { request: Some(text.into()), content_type: Some("application/json".into()) }
    }
}

/// A request.
#[derive(Arbitrary, Debug)]
#[allow(missing_docs, reason = "each is the request of its name")]
pub enum Ask {
    Get {
        target: Target,
        replicas: Replicas,
        if_modified: Opaque,
        head: Option<bool>,
        deletedvclock: Option<bool>,
    },
    Put {
        target: Target,
        replicas: Replicas,
        vclock: Opaque,
        content: Content,
        flags: [Option<bool>; 5],
        keyless: bool,
    },
    Delete {
        target: Target,
        replicas: Replicas,
        vclock: Opaque,
    },
    Fetch {
        target: Target,
        replicas: Replicas,
        include_context: Option<bool>,
    },
    Update {
        target: Target,
        replicas: Replicas,
        context: Opaque,
        change: Change,
        flags: [Option<bool>; 2],
        keyless: bool,
    },
    CounterUpdate {
        bucket: Name,
        key: Name,
        amount: Option<i64>,
        replicas: Replicas,
        returnvalue: Option<bool>,
    },
    CounterGet {
        bucket: Name,
        key: Name,
        replicas: Replicas,
    },
    ListBuckets {
        r#type: TypeName,
        stream: Option<bool>,
        timeout: Number,
    },
    ListKeys {
        r#type: TypeName,
        bucket: Name,
        timeout: Number,
    },
    GetBucket {
        r#type: TypeName,
        bucket: Name,
    },
    SetBucket {
        r#type: TypeName,
        bucket: Name,
        props: Props,
    },
    ResetBucket {
        r#type: TypeName,
        bucket: Name,
    },
    GetType {
        r#type: TypeName,
    },
    SetType {
        r#type: TypeName,
        props: Props,
    },
    Preflist {
        target: Target,
    },
    Index {
        r#type: TypeName,
        bucket: Name,
        index: IndexName,
        query: Query,
        flags: [Option<bool>; 4],
        continuation: Opaque,
        max_results: Number,
        timeout: Number,
        regex: Option<Regex>,
    },
    CsBucket {
        r#type: TypeName,
        bucket: Name,
        start: Name,
        end: Option<Name>,
        incl: [Option<bool>; 2],
        continuation: Opaque,
        max_results: Number,
    },
    MapReduce(MapReduceJob),
    SetClientId(Name),
    Bare(u8),
}

/// What is asked of an index.
#[derive(Arbitrary, Debug)]
#[allow(missing_docs, reason = "each is what it says")]
pub enum Query {
    Eq(Term),
    Range(Option<Term>, Option<Term>),
}

/// A pattern of terms.
#[derive(Arbitrary, Debug)]
#[allow(missing_docs, reason = "each is what it says")]
pub enum Regex {
    Class,
    Group,
    Text(String),
}

impl Ask {
    /// The message. `seen` are the opaque values that replies have brought.
    #[allow(clippy::too_many_lines, reason = "one arm for each request")]
    pub fn request(&self, seen: &[Bytes]) -> Request {
        match self {
            Ask::Get { target, replicas, if_modified, head, deletedvclock } => Request::Get(RpbGetReq {
                bucket: Some(target.bucket.bytes()),
                key: Some(target.key.bytes()),
                r: replicas.r.value(),
                pr: replicas.pr.value(),
                basic_quorum: replicas.basic_quorum,
                notfound_ok: replicas.notfound_ok,
                if_modified: if_modified.bytes(seen),
                head: *head,
                deletedvclock: *deletedvclock,
                timeout: replicas.timeout.value(),
                sloppy_quorum: replicas.sloppy_quorum,
                n_val: replicas.n_val.value(),
                r#type: target.r#type.bytes(),
                node_confirms: replicas.node_confirms.value(),
            }),
            Ask::Put { target, replicas, vclock, content, flags, keyless } => {
                let [return_body, if_not_modified, if_none_match, return_head, asis] = *flags;
                Request::Put(Box::new(RpbPutReq {
                    bucket: Some(target.bucket.bytes()),
                    key: (!keyless).then(|| target.key.bytes()),
                    vclock: vclock.bytes(seen),
                    content: Some(content.message()),
                    w: replicas.w.value(),
                    dw: replicas.dw.value(),
                    return_body,
                    pw: replicas.pw.value(),
                    if_not_modified,
                    if_none_match,
                    return_head,
                    timeout: replicas.timeout.value(),
                    asis,
                    sloppy_quorum: replicas.sloppy_quorum,
                    n_val: replicas.n_val.value(),
                    r#type: target.r#type.bytes(),
                    node_confirms: replicas.node_confirms.value(),
                }))
            }
            Ask::Delete { target, replicas, vclock } => Request::Delete(RpbDelReq {
                bucket: Some(target.bucket.bytes()),
                key: Some(target.key.bytes()),
                rw: None,
                vclock: vclock.bytes(seen),
                r: replicas.r.value(),
                w: replicas.w.value(),
                pr: replicas.pr.value(),
                pw: replicas.pw.value(),
                dw: replicas.dw.value(),
                timeout: replicas.timeout.value(),
                sloppy_quorum: replicas.sloppy_quorum,
                n_val: replicas.n_val.value(),
                r#type: target.r#type.bytes(),
            }),
            Ask::Fetch { target, replicas, include_context } => Request::DtFetch(DtFetchReq {
                bucket: Some(target.bucket.bytes()),
                key: Some(target.key.bytes()),
                r#type: target.r#type.bytes(),
                r: replicas.r.value(),
                pr: replicas.pr.value(),
                basic_quorum: replicas.basic_quorum,
                notfound_ok: replicas.notfound_ok,
                timeout: replicas.timeout.value(),
                sloppy_quorum: replicas.sloppy_quorum,
                n_val: replicas.n_val.value(),
                include_context: *include_context,
                node_confirms: replicas.node_confirms.value(),
            }),
            Ask::Update { target, replicas, context, change, flags, keyless } => {
                let [return_body, include_context] = *flags;
                Request::DtUpdate(Box::new(DtUpdateReq {
                    bucket: Some(target.bucket.bytes()),
                    key: (!keyless).then(|| target.key.bytes()),
                    r#type: target.r#type.bytes(),
                    context: context.bytes(seen),
                    op: change.message(),
                    w: replicas.w.value(),
                    dw: replicas.dw.value(),
                    pw: replicas.pw.value(),
                    return_body,
                    timeout: replicas.timeout.value(),
                    sloppy_quorum: replicas.sloppy_quorum,
                    n_val: replicas.n_val.value(),
                    include_context,
                    node_confirms: replicas.node_confirms.value(),
                }))
            }
            Ask::CounterUpdate { bucket, key, amount, replicas, returnvalue } => {
                Request::CounterUpdate(RpbCounterUpdateReq {
                    bucket: Some(bucket.bytes()),
                    key: Some(key.bytes()),
                    amount: *amount,
                    w: replicas.w.value(),
                    dw: replicas.dw.value(),
                    pw: replicas.pw.value(),
                    returnvalue: *returnvalue,
                    node_confirms: replicas.node_confirms.value(),
                })
            }
            Ask::CounterGet { bucket, key, replicas } => Request::CounterGet(RpbCounterGetReq {
                bucket: Some(bucket.bytes()),
                key: Some(key.bytes()),
                r: replicas.r.value(),
                pr: replicas.pr.value(),
                basic_quorum: replicas.basic_quorum,
                notfound_ok: replicas.notfound_ok,
                node_confirms: replicas.node_confirms.value(),
            }),
            Ask::ListBuckets { r#type, stream, timeout } => Request::ListBuckets(RpbListBucketsReq {
                timeout: timeout.value(),
                stream: *stream,
                r#type: r#type.bytes(),
            }),
            Ask::ListKeys { r#type, bucket, timeout } => Request::ListKeys(RpbListKeysReq {
                bucket: Some(bucket.bytes()),
                timeout: timeout.value(),
                r#type: r#type.bytes(),
            }),
            Ask::GetBucket { r#type, bucket } => {
                Request::GetBucket(RpbGetBucketReq { bucket: Some(bucket.bytes()), r#type: r#type.bytes() })
            }
            Ask::SetBucket { r#type, bucket, props } => Request::SetBucket(Box::new(RpbSetBucketReq {
                bucket: Some(bucket.bytes()),
                props: Some(props.message()),
                r#type: r#type.bytes(),
            })),
            Ask::ResetBucket { r#type, bucket } => {
                Request::ResetBucket(RpbResetBucketReq { bucket: Some(bucket.bytes()), r#type: r#type.bytes() })
            }
            Ask::GetType { r#type } => Request::GetBucketType(RpbGetBucketTypeReq { r#type: r#type.bytes() }),
            Ask::SetType { r#type, props } => Request::SetBucketType(Box::new(RpbSetBucketTypeReq {
                r#type: r#type.bytes(),
                props: Some(props.message()),
            })),
            Ask::Preflist { target } => Request::Preflist(RpbGetBucketKeyPreflistReq {
                bucket: Some(target.bucket.bytes()),
                key: Some(target.key.bytes()),
                r#type: target.r#type.bytes(),
            }),
            Ask::Index { r#type, bucket, index, query, flags, continuation, max_results, timeout, regex } => {
                let [return_terms, stream, pagination_sort, return_body] = *flags;
                let bytes = |term: &Option<Term>| term.as_ref().map(Term::bytes);
                let (qtype, key, range_min, range_max) = match query {
                    Query::Eq(term) => (0, Some(term.bytes()), None, None),
                    Query::Range(min, max) => (1, None, bytes(min), bytes(max)),
                };
                Request::Index(Box::new(RpbIndexReq {
                    bucket: Some(bucket.bytes()),
                    index: Some(index.bytes()),
                    qtype: Some(qtype),
                    key,
                    range_min,
                    range_max,
                    return_terms,
                    stream,
                    max_results: max_results.value(),
                    continuation: continuation.bytes(seen),
                    timeout: timeout.value(),
                    r#type: r#type.bytes(),
                    term_regex: regex.as_ref().map(|regex| match regex {
                        Regex::Class => Bytes::from_static(b"[a-c]+"),
                        Regex::Group => Bytes::from_static(b"^(a|b)(.)*$"),
                        Regex::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
                    }),
                    pagination_sort,
                    cover_context: None,
                    return_body,
                }))
            }
            Ask::CsBucket { r#type, bucket, start, end, incl, continuation, max_results } => {
                let [start_incl, end_incl] = *incl;
                Request::CsBucket(Box::new(RpbCsBucketReq {
                    bucket: Some(bucket.bytes()),
                    start_key: Some(start.bytes()),
                    end_key: some(end),
                    start_incl,
                    end_incl,
                    continuation: continuation.bytes(seen),
                    max_results: max_results.value(),
                    timeout: None,
                    r#type: r#type.bytes(),
                    cover_context: None,
                }))
            }
            Ask::MapReduce(job) => Request::MapReduce(job.message()),
            Ask::SetClientId(id) => Request::SetClientId(RpbSetClientIdReq { client_id: Some(id.bytes()) }),
            Ask::Bare(number) => match number % 4 {
                0 => Request::Ping,
                1 => Request::GetClientId,
                2 => Request::GetServerInfo,
                _ => Request::StartTls,
            },
        }
    }
}
