//! Bucket properties: defaults, changes, and which changes are refused with which reason (`kv.md` §11).

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::datatype::DataType;
use super::quorum::Quorum;

/// A module and a function of Riak's, which Ombak stores and echoes but never runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModFun {
    /// The module's name.
    pub module: Bytes,
    /// The function's name.
    pub function: Bytes,
}

impl ModFun {
    fn of(module: &'static str, function: &'static str) -> Self {
        let bytes = |name: &'static str| Bytes::from_static(name.as_bytes());
        Self { module: bytes(module), function: bytes(function) }
    }
}

/// A commit hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hook {
    /// An Erlang function.
    ModFun(ModFun),
    /// A JavaScript function's name.
    Name(Bytes),
}

/// Whether a bucket takes part in replication between clusters. Stored and echoed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplicationMode {
    /// Not at all.
    Off,
    /// Each write as it happens.
    RealTime,
    /// By comparison of whole clusters.
    FullSync,
    /// Both.
    Both,
}

/// The effective properties of a bucket or bucket type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketProps {
    /// Replicas an object has. One store answers as if it held that many.
    pub n_val: u32,
    /// Whether concurrent values are kept side by side.
    pub allow_mult: bool,
    /// Whether the last write replaces everything.
    pub last_write_wins: bool,
    /// Hooks that must agree to a write.
    pub precommit: Vec<Hook>,
    /// Hooks told of a write.
    pub postcommit: Vec<Hook>,
    /// The function that places keys on the ring; shown by preflists only.
    pub chash_keyfun: ModFun,
    /// The function that extracts links.
    pub linkfun: ModFun,
    /// Vector clock pruning, in seconds and entries. Ombak's contexts need no pruning: stored and echoed.
    pub old_vclock: u32,
    /// See [`old_vclock`](Self::old_vclock).
    pub young_vclock: u32,
    /// See [`old_vclock`](Self::old_vclock).
    pub big_vclock: u32,
    /// See [`old_vclock`](Self::old_vclock).
    pub small_vclock: u32,
    /// Primaries that a read waits for, as the protocol's number.
    pub pr: u32,
    /// Replicas that a read waits for.
    pub r: u32,
    /// Replicas that a write waits for.
    pub w: u32,
    /// Primaries that a write waits for.
    pub pw: u32,
    /// Stored copies that a write waits for.
    pub dw: u32,
    /// Replicas that both halves of a delete wait for.
    pub rw: u32,
    /// Whether a majority of "not found" ends a read early.
    pub basic_quorum: bool,
    /// Whether "not found" counts as an answer.
    pub notfound_ok: bool,
    /// The storage backend's name. Stored and echoed.
    pub backend: Option<Bytes>,
    /// Riak 1.x search. Stored and echoed.
    pub search: Option<bool>,
    /// Replication. Stored and echoed.
    pub repl: Option<ReplicationMode>,
    /// The search index's name. Stored and echoed.
    pub search_index: Option<Bytes>,
    /// The data type, by name. In buckets of the default type any name is stored and has no effect.
    pub datatype: Option<Bytes>,
    /// Strong consistency.
    pub consistent: Option<bool>,
    /// Whether values are written once, blindly.
    pub write_once: Option<bool>,
    /// The precision of HyperLogLogs.
    pub hll_precision: Option<u32>,
    /// Whether Riak would use dotted version vectors. Ombak always does; it only decides which changes are refused.
    pub dvv_enabled: bool,
}

/// What a bucket or type becomes: every property that is `None` keeps its value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PropsChange {
    /// The properties given, in the order in which they take effect.
    pub properties: Vec<Property>,
}

/// One property's new value. The order of the variants is the order of Riak's error lists, read backwards.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "each is the property of its name in BucketProps")]
pub enum Property {
    NVal(u32),
    OldVclock(u32),
    YoungVclock(u32),
    BigVclock(u32),
    SmallVclock(u32),
    HllPrecision(u32),
    AllowMult(bool),
    LastWriteWins(bool),
    BasicQuorum(bool),
    NotfoundOk(bool),
    Search(bool),
    Consistent(bool),
    WriteOnce(bool),
    Precommit(Vec<Hook>),
    Postcommit(Vec<Hook>),
    ChashKeyfun(ModFun),
    Linkfun(ModFun),
    Backend(Bytes),
    SearchIndex(Bytes),
    Pr(Quorum),
    R(Quorum),
    W(Quorum),
    Pw(Quorum),
    Dw(Quorum),
    Rw(Quorum),
    Repl(ReplicationMode),
    Datatype(Bytes),
    DvvEnabled(bool),
}

/// Why a property's new value is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PropertyError {
    /// The property.
    pub property: &'static str,
    /// The reason, printed bare or in quotes as Riak does.
    pub reason: Reason,
}

/// A refusal's reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A word.
    Atom(&'static str),
    /// A sentence.
    Text(String),
}

/// Every refused property, in Riak's order.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}", self.to_term())]
pub struct PropsError(pub Vec<PropertyError>);

impl PropsError {
    /// The list as Riak prints it: `[{n_val,not_integer}]`.
    fn to_term(&self) -> String {
        let item = |error: &PropertyError| match &error.reason {
            Reason::Atom(atom) => format!("{{{},{atom}}}", error.property),
            Reason::Text(text) => format!("{{{},\"{}\"}}", error.property, text.replace('"', "\\\"")),
        };
        format!("[{}]", self.0.iter().map(item).collect::<Vec<_>>().join(","))
    }
}

/// What a bucket type is, and so which rules its changes follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The default type and its buckets.
    Default,
    /// A type of plain objects.
    Plain,
    /// A type whose values are written once.
    WriteOnce,
    /// A type with a data type.
    DataType(DataType),
    /// A strongly consistent type.
    Consistent,
}

impl BucketProps {
    /// The properties of the default type, where objects have `n_val` replicas.
    pub fn of_default_type(n_val: u32) -> Self {
        Self {
            n_val,
            allow_mult: false,
            last_write_wins: false,
            precommit: Vec::new(),
            postcommit: Vec::new(),
            chash_keyfun: ModFun::of("riak_core_util", "chash_std_keyfun"),
            linkfun: ModFun::of("riak_kv_wm_link_walker", "mapreduce_linkfun"),
            old_vclock: 86_400,
            young_vclock: 20,
            big_vclock: 50,
            small_vclock: 50,
            pr: 0,
            r: Quorum::QUORUM.0,
            w: Quorum::QUORUM.0,
            pw: 0,
            dw: Quorum::QUORUM.0,
            rw: Quorum::QUORUM.0,
            basic_quorum: false,
            notfound_ok: true,
            backend: None,
            search: None,
            repl: Some(ReplicationMode::Both),
            search_index: None,
            datatype: None,
            consistent: None,
            write_once: Some(false),
            hll_precision: None,
            dvv_enabled: false,
        }
    }

    /// The properties that a new bucket type starts from.
    pub fn of_new_type(n_val: u32) -> Self {
        Self { allow_mult: true, repl: None, write_once: None, dvv_enabled: true, ..Self::of_default_type(n_val) }
    }

    /// Whether several values of an object may stand side by side.
    pub fn keeps_siblings(&self) -> bool {
        self.allow_mult && !self.last_write_wins && !self.is_write_once()
    }

    /// Whether values are written once, blindly.
    pub fn is_write_once(&self) -> bool {
        self.write_once == Some(true)
    }

    /// The data type of a typed bucket. In buckets of the default type the property has no effect: ask
    /// [`Kind`] there.
    pub fn data_type(&self) -> Option<DataType> {
        self.datatype.as_deref().and_then(DataType::from_name)
    }

    /// The precision of HyperLogLogs, in bits of the register's index: 4 to 16.
    pub fn hll_precision(&self) -> u8 {
        let precision = self.hll_precision.unwrap_or(HLL_PRECISION_DEFAULT);
        // What is stored without effect in other buckets may be any number.
        precision.clamp(*HLL_PRECISIONS.start(), *HLL_PRECISIONS.end()) as u8
    }

    fn kind(&self, is_default: bool) -> Kind {
        match self.data_type() {
            _ if is_default => Kind::Default,
            Some(data_type) => Kind::DataType(data_type),
            None if self.consistent == Some(true) => Kind::Consistent,
            None if self.is_write_once() => Kind::WriteOnce,
            None => Kind::Plain,
        }
    }

    /// The properties after a change of a bucket or an active type, or every reason why not. Nothing is changed when
    /// one is refused.
    pub fn changed(&self, change: PropsChange, is_default: bool) -> Result<Self, PropsError> {
        let kind = self.kind(is_default);
        let mut props = self.clone();
        let mut errors = Errors::default();
        for property in change.properties {
            props.check_range(&property, &mut errors);
            self.check_change(kind, &property, &mut errors);
            props.set(property, kind);
        }
        props.check_together(&mut errors);
        errors.into_result(props)
    }

    /// The properties of a new type: `of_new_type` with these, or every reason why not.
    pub fn created(n_val: u32, change: PropsChange) -> Result<Self, PropsError> {
        let mut props = Self::of_new_type(n_val);
        let mut errors = Errors::default();
        for property in change.properties {
            props.check_range(&property, &mut errors);
            if let Property::Datatype(name) = &property
                && DataType::from_name(name).is_none()
            {
                let name = String::from_utf8_lossy(name);
                errors.text("datatype", format!("{name} not supported for bucket datatype property"));
            }
            props.set(property, Kind::Plain);
        }
        if props.is_write_once() && props.consistent == Some(true) {
            errors.text("consistent", "Write once buckets must not be consistent=true".into());
        }
        if props.is_write_once() && props.datatype.is_some() {
            errors.text("datatype", "Write once buckets must not have datatype defined".into());
        }
        if props.datatype.is_some() && !props.allow_mult {
            errors.text("allow_mult", "Data Type buckets must be allow_mult=true".into());
        }
        if props.data_type() == Some(DataType::Hll) {
            let precision = *props.hll_precision.get_or_insert(HLL_PRECISION_DEFAULT);
            if !HLL_PRECISIONS.contains(&precision) {
                errors.hll_precision(precision);
            }
        }
        props.check_together(&mut errors);
        errors.into_result(props)
    }

    /// What holds of one value whatever the bucket is.
    fn check_range(&self, property: &Property, errors: &mut Errors) {
        let quorum = |name, quorum: &Quorum, zero_is_valid: bool, errors: &mut Errors| {
            if *quorum == Quorum::DEFAULT || (quorum.0 == 0 && !zero_is_valid) {
                errors.atom(name, "not_valid_quorum");
            }
        };
        match property {
            Property::NVal(0) => errors.atom("n_val", "not_integer"),
            Property::OldVclock(0) => errors.atom("old_vclock", "not_integer"),
            Property::BigVclock(0) => errors.atom("big_vclock", "not_integer"),
            Property::SmallVclock(0) => errors.atom("small_vclock", "not_integer"),
            Property::R(value) => quorum("r", value, false, errors),
            Property::W(value) => quorum("w", value, false, errors),
            Property::Rw(value) => quorum("rw", value, false, errors),
            Property::Pr(value) => quorum("pr", value, true, errors),
            Property::Pw(value) => quorum("pw", value, true, errors),
            Property::Dw(value) => quorum("dw", value, true, errors),
            _ => {}
        }
    }

    /// What an existing bucket or type refuses to become, by what it is.
    fn check_change(&self, kind: Kind, property: &Property, errors: &mut Errors) {
        match (kind, property) {
            (Kind::Default | Kind::DataType(_), Property::Consistent(true))
            | (Kind::Consistent, Property::Consistent(false)) => {
                errors.immutable("consistent", "cannot update consistent property".into());
            }
            (Kind::Default | Kind::DataType(_) | Kind::Consistent, Property::WriteOnce(true)) => {
                errors.immutable("write_once", "cannot update write_once property".into());
            }
            (Kind::Plain | Kind::WriteOnce, Property::Consistent(true)) => {
                errors.immutable("consistent", "Write once buckets must not be consistent=true".into());
            }
            (Kind::Plain, Property::WriteOnce(true)) => {
                errors.immutable("write_once", "Cannot set existing bucket type to `write_once`".into());
            }
            (Kind::WriteOnce, Property::WriteOnce(false)) => {
                errors.immutable("write_once", "Cannot modify write_once property once set to true".into());
            }
            (Kind::Plain | Kind::Consistent, Property::Datatype(_)) => {
                errors.immutable("datatype", "`datatype` must not be defined.".into());
            }
            (Kind::WriteOnce, Property::Datatype(_)) => {
                errors.immutable("datatype", "Write once buckets must not have datatype defined".into());
            }
            (Kind::DataType(data_type), Property::Datatype(name)) if name != data_type.name() => {
                let name = String::from_utf8_lossy(name);
                errors.immutable("datatype", format!("{name} not supported for bucket datatype property"));
            }
            (Kind::DataType(_), Property::AllowMult(false)) => {
                errors.immutable("allow_mult", "Data Type buckets must be allow_mult=true".into());
            }
            (Kind::DataType(DataType::Hll), Property::HllPrecision(precision)) => {
                let current = self.hll_precision.unwrap_or(HLL_PRECISION_DEFAULT);
                if !HLL_PRECISIONS.contains(precision) || *precision > current {
                    errors.hll_precision(*precision);
                }
            }
            (Kind::Consistent, Property::NVal(n_val)) if *n_val != self.n_val => {
                errors.immutable("n_val", "n_val cannot be modified for existing consistent type".into());
            }
            _ => {}
        }
    }

    fn check_together(&self, errors: &mut Errors) {
        if self.last_write_wins && self.dvv_enabled {
            errors.dvv = true;
        }
    }

    fn set(&mut self, property: Property, kind: Kind) {
        match property {
            Property::NVal(value) => self.n_val = value,
            Property::OldVclock(value) => self.old_vclock = value,
            Property::YoungVclock(value) => self.young_vclock = value,
            Property::BigVclock(value) => self.big_vclock = value,
            Property::SmallVclock(value) => self.small_vclock = value,
            // Other data types drop it; plain ones store it without effect.
            Property::HllPrecision(_) if matches!(kind, Kind::DataType(other) if other != DataType::Hll) => {}
            Property::HllPrecision(value) => self.hll_precision = Some(value),
            Property::AllowMult(value) => self.allow_mult = value,
            Property::LastWriteWins(value) => self.last_write_wins = value,
            Property::BasicQuorum(value) => self.basic_quorum = value,
            Property::NotfoundOk(value) => self.notfound_ok = value,
            Property::Search(value) => self.search = Some(value),
            Property::Consistent(value) => self.consistent = Some(value),
            Property::WriteOnce(value) => self.write_once = Some(value),
            Property::Precommit(value) => self.precommit = value,
            Property::Postcommit(value) => self.postcommit = value,
            Property::ChashKeyfun(value) => self.chash_keyfun = value,
            Property::Linkfun(value) => self.linkfun = value,
            Property::Backend(value) => self.backend = Some(value),
            Property::SearchIndex(value) => self.search_index = Some(value),
            Property::Pr(value) => self.pr = value.0,
            Property::R(value) => self.r = value.0,
            Property::W(value) => self.w = value.0,
            Property::Pw(value) => self.pw = value.0,
            Property::Dw(value) => self.dw = value.0,
            Property::Rw(value) => self.rw = value.0,
            Property::Repl(value) => self.repl = Some(value),
            Property::Datatype(value) => self.datatype = Some(value),
            Property::DvvEnabled(value) => self.dvv_enabled = value,
        }
    }
}

/// Precision of HyperLogLogs where none is given.
pub const HLL_PRECISION_DEFAULT: u32 = 14;
const HLL_PRECISIONS: std::ops::RangeInclusive<u32> = 4..=16;

/// Refusals while they are gathered: Riak lists `dvv_enabled` first, then the ranges in reverse, then what never
/// changes.
#[derive(Default)]
struct Errors {
    dvv: bool,
    ranges: Vec<PropertyError>,
    immutable: Vec<PropertyError>,
}

impl Errors {
    fn atom(&mut self, property: &'static str, reason: &'static str) {
        self.ranges.push(PropertyError { property, reason: Reason::Atom(reason) });
    }

    fn text(&mut self, property: &'static str, reason: String) {
        self.ranges.push(PropertyError { property, reason: Reason::Text(reason) });
    }

    fn immutable(&mut self, property: &'static str, reason: String) {
        self.immutable.push(PropertyError { property, reason: Reason::Text(reason) });
    }

    fn hll_precision(&mut self, precision: u32) {
        self.text(
            "hll_precision",
            format!(
                "{precision} not supported for Hyperloglog precision property for bucket type. Precision must be an \
                 integer between 4 and 16, inclusive (3 < p < 17) and precision can be reduced but never increased \
                 after initial setting"
            ),
        );
    }

    fn into_result(self, props: BucketProps) -> Result<BucketProps, PropsError> {
        let dvv = self.dvv.then(|| PropertyError {
            property: "dvv_enabled",
            reason: Reason::Text("If last_write_wins is true, dvv_enabled must be false".into()),
        });
        let errors: Vec<_> = dvv.into_iter().chain(self.ranges.into_iter().rev()).chain(self.immutable).collect();
        if errors.is_empty() { Ok(props) } else { Err(PropsError(errors)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(properties: &[Property]) -> PropsChange {
        PropsChange { properties: properties.to_vec() }
    }

    fn refusal(props: &BucketProps, properties: &[Property]) -> String {
        props.changed(change(properties), false).unwrap_err().to_string()
    }

    fn created(properties: &[Property]) -> BucketProps {
        BucketProps::created(3, change(properties)).unwrap()
    }

    #[test]
    fn refusals_read_as_riaks() {
        let plain = created(&[]);
        assert_eq!(refusal(&plain, &[Property::NVal(0)]), "[{n_val,not_integer}]");
        assert_eq!(refusal(&plain, &[Property::R(Quorum(0))]), "[{r,not_valid_quorum}]");
        let text = r#"[{consistent,"Write once buckets must not be consistent=true"}]"#;
        assert_eq!(refusal(&plain, &[Property::Consistent(true)]), text);
        let text = r#"[{dvv_enabled,"If last_write_wins is true, dvv_enabled must be false"}]"#;
        assert_eq!(refusal(&plain, &[Property::LastWriteWins(true)]), text);
    }

    #[test]
    fn several_refusals_are_listed_backwards() {
        let both = [Property::NVal(0), Property::OldVclock(0)];
        assert_eq!(refusal(&created(&[]), &both), "[{old_vclock,not_integer},{n_val,not_integer}]");
    }

    #[test]
    fn a_data_type_bucket_keeps_its_type_and_siblings() {
        let sets = created(&[Property::Datatype("set".into())]);
        assert!(sets.changed(change(&[Property::Datatype("set".into())]), false).is_ok());
        assert!(refusal(&sets, &[Property::Datatype("map".into())]).contains("map not supported"));
        assert!(refusal(&sets, &[Property::AllowMult(false)]).contains("must be allow_mult=true"));
        assert_eq!(sets.hll_precision, None);
    }

    #[test]
    fn hll_precision_only_goes_down() {
        let hlls = created(&[Property::Datatype("hll".into())]);
        assert_eq!(hlls.hll_precision, Some(14));
        let lower = hlls.changed(change(&[Property::HllPrecision(10)]), false).unwrap();
        assert!(refusal(&lower, &[Property::HllPrecision(11)]).starts_with("[{hll_precision,\"11 not supported"));
        assert!(refusal(&lower, &[Property::HllPrecision(3)]).starts_with("[{hll_precision,\"3 not supported"));
    }

    #[test]
    fn a_new_type_may_not_contradict_itself() {
        let refused = |properties: &[Property]| BucketProps::created(3, change(properties)).is_err();
        assert!(refused(&[Property::WriteOnce(true), Property::Consistent(true)]));
        assert!(refused(&[Property::WriteOnce(true), Property::Datatype("set".into())]));
        assert!(refused(&[Property::Datatype("nonsense".into())]));
        assert!(refused(&[Property::Datatype("set".into()), Property::AllowMult(false)]));
        assert!(refused(&[Property::LastWriteWins(true)]));
        assert!(!refused(&[Property::LastWriteWins(true), Property::DvvEnabled(false)]));
    }
}
