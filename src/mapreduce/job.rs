//! A job as it was asked for, whichever encoding it came in.

use std::time::Duration;

use bytes::Bytes;

use super::error::{JobError, QueryError};
use super::{parse_json, parse_term};
use crate::domain::index::{self, IndexError, IndexRange};
use crate::domain::key::{BucketName, ObjectName};
use crate::erlang::Term;
use crate::erlang::external::TermLimits;

/// How long a job may take where it does not say.
pub(super) const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);

/// The encoding of a job, and so of its results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// JSON texts.
    Json,
    /// External terms of Erlang.
    Term,
}

/// A job.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Where its inputs come from.
    pub inputs: Inputs,
    /// Its phases, each fed by the one before it.
    pub phases: Vec<Phase>,
    /// How long it may take, from its start to its last result.
    pub timeout: Duration,
    /// How its results are written.
    pub encoding: Encoding,
}

/// Where a job's inputs come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Inputs {
    /// Keys that the job names, as the terms that its first phase gets.
    Keys(Vec<Term>),
    /// All keys of a bucket.
    Bucket(BucketName),
    /// The keys of a bucket that pass key filters.
    Filtered {
        /// The bucket.
        bucket: BucketName,
        /// The filters' steps.
        filters: Vec<Term>,
    },
    /// The keys that a secondary index query finds.
    Index(IndexInput),
    /// What a search finds. There is none.
    Search,
    /// What an Erlang function sends. None can be run.
    Function {
        /// The function's module.
        module: Bytes,
        /// Its name.
        function: Bytes,
        /// What it is called with.
        arg: Term,
    },
}

/// A secondary index query that feeds a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexInput {
    /// The bucket.
    pub bucket: BucketName,
    /// The piece of an index.
    pub range: IndexRange,
}

impl IndexInput {
    /// Checks the values as those of entries are checked. Bounds in the wrong order are put right, as in Riak.
    pub(super) fn new(bucket: BucketName, index: &Bytes, values: Vec<Bytes>) -> Result<Self, IndexError> {
        let entries = values.into_iter().map(|value| (index.clone(), value)).collect();
        let sorted = index::normalize(entries)?;
        let low = sorted.first().map(|(_, low)| low.clone()).unwrap_or_default();
        let high = sorted.last().map(|(_, high)| high.clone()).unwrap_or_default();
        let range = IndexRange::between(index, low, high).map_err(|failure| IndexError(vec![failure]))?;
        Ok(Self { bucket, range })
    }
}

/// A phase.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// What it does.
    pub kind: PhaseKind,
    /// Whether its results are sent to the client.
    pub keep: bool,
}

/// What a phase does.
#[derive(Clone, Debug, PartialEq)]
pub enum PhaseKind {
    /// Calls a function with each object.
    Map {
        /// The function.
        function: Function,
        /// What it is called with beside the object.
        arg: Term,
    },
    /// Calls a function with all inputs.
    Reduce {
        /// The function.
        function: Function,
        /// What it is called with beside the inputs. The Erlang functions look at none.
        arg: Term,
    },
    /// Follows links.
    Link(LinkMatch),
}

/// Which links are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkMatch {
    /// Those into this bucket only.
    pub bucket: Option<Bytes>,
    /// Those with this tag only.
    pub tag: Option<Bytes>,
}

/// The function of a map or reduce phase.
#[derive(Clone, Debug, PartialEq)]
pub enum Function {
    /// An exported function of an Erlang module.
    Module {
        /// The module.
        module: Bytes,
        /// The function.
        function: Bytes,
    },
    /// Erlang source, in the job or in an object.
    ErlangSource,
    /// JavaScript.
    JavaScript(Script),
    /// Something that is no way to name a function.
    Invalid,
}

/// A function in JavaScript.
#[derive(Clone, Debug, PartialEq)]
pub enum Script {
    /// Its name, or its source.
    Code(Bytes),
    /// The object whose value is its source.
    Stored(ObjectName),
}

impl Job {
    /// Reads a job.
    ///
    /// # Errors
    /// When it is malformed. What its functions are called is not looked at yet.
    pub fn parse(request: &Bytes, content_type: &Bytes, limits: TermLimits) -> Result<Self, JobError> {
        let job = match &content_type[..] {
            b"application/json" => parse_json::parse(request, limits)?,
            b"application/x-erlang-binary" => parse_term::parse(request, limits)?,
            _ => return Err(JobError::UnknownContentType(content_type.clone())),
        };
        if job.phases.len() > limits.depth_max {
            return Err(QueryError::TooManyPhases { max: limits.depth_max }.into());
        }
        Ok(job)
    }
}

/// A key as the first phase gets it: `{Bucket,Key}`, or with its type, and then always with key data.
pub(super) fn key_term(bucket: &BucketName, key: Bytes) -> Term {
    let (name, key) = (Term::Binary(bucket.bucket.clone()), Term::Binary(key));
    if bucket.is_default_type() {
        return Term::Tuple(vec![name, key]);
    }
    let typed = Term::Tuple(vec![Term::Binary(bucket.bucket_type.clone()), name]);
    Term::Tuple(vec![Term::Tuple(vec![typed, key]), Term::atom("undefined")])
}

/// What a map or link phase is told to read: an object's name, and the data that came with it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct MapInput {
    pub(super) bucket: BucketName,
    pub(super) key: Bytes,
    pub(super) key_data: Term,
}

impl MapInput {
    /// Reads any of the forms in which inputs and other phases name objects.
    pub(super) fn of(term: &Term) -> Option<Self> {
        let undefined = || Term::atom("undefined");
        let given = |data: &Term| if data.is_atom("null") { undefined() } else { data.clone() };
        match term {
            Term::Tuple(parts) => match &parts[..] {
                [Term::Tuple(name), data] => match &name[..] {
                    [bucket, key] => Self::new(bucket, key, data.clone()),
                    _ => None,
                },
                [bucket, key] => Self::new(bucket, key, undefined()),
                _ => None,
            },
            Term::List(parts) => match &parts[..] {
                [bucket, key] => Self::new(bucket, key, undefined()),
                [bucket, key, data] => Self::new(bucket, key, given(data)),
                [bucket, key, data, bucket_type] => {
                    let typed = Term::Tuple(vec![bucket_type.clone(), bucket.clone()]);
                    Self::new(&typed, key, given(data))
                }
                _ => None,
            },
            _ => None,
        }
    }

    fn new(bucket: &Term, key: &Term, key_data: Term) -> Option<Self> {
        let bucket = bucket_name(bucket)?;
        Some(Self { bucket, key: key.as_binary()?.clone(), key_data })
    }
}

/// A bucket: a binary, or the pair of its type and name.
pub(super) fn bucket_name(term: &Term) -> Option<BucketName> {
    match term {
        Term::Binary(name) => Some(BucketName::new(None, name.clone())),
        Term::Tuple(parts) => match &parts[..] {
            [Term::Binary(bucket_type), Term::Binary(name)] => {
                Some(BucketName::new(Some(bucket_type.clone()), name.clone()))
            }
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mapreduce::json;

    fn input(bucket_type: &'static str, data: Term) -> Option<MapInput> {
        let bucket = BucketName { bucket_type: bucket_type.into(), bucket: "b".into() };
        Some(MapInput { bucket, key: "k".into(), key_data: data })
    }

    #[test]
    fn objects_are_named_in_many_forms() {
        let json = |text: &str| MapInput::of(&json::parse(text.as_bytes(), 100).unwrap());
        let undefined = || Term::atom("undefined");
        assert_eq!(json(r#"["b","k"]"#), input("default", undefined()));
        assert_eq!(json(r#"["b","k",null]"#), input("default", undefined()));
        assert_eq!(json(r#"["b","k",1]"#), input("default", Term::Integer(1)));
        assert_eq!(json(r#"["b","k",1,"t"]"#), input("t", Term::Integer(1)));
        for text in ["1", "[]", r#"["b"]"#, r#"["b",1]"#, r#"[1,"k"]"#, r#"["b","k",1,2]"#, r#"{"b":"k"}"#] {
            assert_eq!(json(text), None, "{text}");
        }
        let untyped = BucketName::new(None, "b".into());
        let typed = BucketName::new(Some("t".into()), "b".into());
        assert_eq!(MapInput::of(&key_term(&untyped, "k".into())), input("default", undefined()));
        assert_eq!(MapInput::of(&key_term(&typed, "k".into())), input("t", undefined()));
    }
}
