//! Jobs in JSON. The order of the checks shows in what a malformed job is told.

use std::time::Duration;

use bytes::Bytes;

use super::error::{InputsError, JobError, QueryError};
use super::job::{
    Encoding, Function, IndexInput, Inputs, Job, LinkMatch, Phase, PhaseKind, Script, TIMEOUT_DEFAULT, key_term,
};
use super::json::{self, Object};
use crate::domain::key::{BucketName, ObjectName};
use crate::erlang::Term;
use crate::erlang::external::TermLimits;

pub(super) fn parse(request: &[u8], limits: TermLimits) -> Result<Job, JobError> {
    let job = json::parse(request, limits.terms_max)?;
    let job = Object::of(&job).ok_or(JobError::NotAnObject)?;
    let (inputs, query) = match (job.get("inputs"), job.get("query")) {
        (Some(inputs), Some(query)) => (parse_inputs(inputs)?, parse_query(query)?),
        _ => return Err(JobError::MissingField),
    };
    Ok(Job { inputs, phases: query, timeout: timeout(job.get("timeout")), encoding: Encoding::Json })
}

/// Anything but a number above zero counts as absent.
fn timeout(value: Option<&Term>) -> Duration {
    match value {
        Some(Term::Integer(ms @ 1..)) => Duration::from_millis(u64::try_from(*ms).unwrap_or(u64::MAX)),
        // The conversion saturates.
        Some(Term::Float(ms)) if *ms > 0.0 => Duration::from_millis(ms.ceil() as u64),
        _ => TIMEOUT_DEFAULT,
    }
}

fn parse_inputs(inputs: &Term) -> Result<Inputs, InputsError> {
    let unrecognized = || InputsError::Unrecognized(inputs.clone());
    match inputs {
        Term::Binary(name) => Ok(Inputs::Bucket(BucketName::new(None, name.clone()))),
        Term::List(items) => match &items[..] {
            [] => Err(InputsError::None),
            [Term::Binary(bucket_type), Term::Binary(name)] => {
                Ok(Inputs::Bucket(BucketName::new(Some(bucket_type.clone()), name.clone())))
            }
            items => items.iter().map(parse_key).collect::<Result<_, _>>().map(Inputs::Keys),
        },
        _ => parse_input_object(Object::of(inputs).ok_or_else(unrecognized)?)?.ok_or_else(unrecognized),
    }
}

fn parse_key(key: &Term) -> Result<Term, InputsError> {
    let parts: &[Term] = match key {
        Term::List(parts) => parts,
        _ => &[],
    };
    match parts {
        [Term::Binary(bucket), Term::Binary(key)] => Ok(key_term(&BucketName::new(None, bucket.clone()), key.clone())),
        [bucket @ Term::Binary(_), key @ Term::Binary(_), data, Term::Binary(bucket_type)] => {
            let bucket = Term::Tuple(vec![Term::Binary(bucket_type.clone()), bucket.clone()]);
            Ok(Term::Tuple(vec![Term::Tuple(vec![bucket, key.clone()]), data.clone()]))
        }
        [bucket @ Term::Binary(_), key @ Term::Binary(_), data] => {
            Ok(Term::Tuple(vec![Term::Tuple(vec![bucket.clone(), key.clone()]), data.clone()]))
        }
        _ => Err(InputsError::Unrecognized(key.clone())),
    }
}

/// The inputs that an object asks for; `None` where its members are of no such kind.
fn parse_input_object(object: Object<'_>) -> Result<Option<Inputs>, InputsError> {
    let has = |name| object.get(name).is_some();
    if has("module") && has("function") && has("arg") {
        return Ok(parse_function_inputs(object));
    }
    if (has("bucket") || has("index")) && has("query") {
        return Ok(Some(Inputs::Search));
    }
    let Some(bucket) = object.get("bucket").and_then(parse_bucket) else { return Ok(None) };
    if let Some(index) = object.get("index") {
        let values = match (object.get("key"), object.get("start"), object.get("end")) {
            (Some(key), _, _) => Some(vec![key]),
            (None, Some(start), Some(end)) => Some(vec![start, end]),
            _ => None,
        };
        if let Some(values) = values {
            let (Term::Binary(index), Some(values)) = (index, values.into_iter().map(index_value).collect()) else {
                return Ok(None);
            };
            return Ok(Some(Inputs::Index(IndexInput::new(bucket, index, values)?)));
        }
    }
    match object.get("key_filters") {
        Some(Term::List(filters)) if !filters.is_empty() => {
            Ok(Some(Inputs::Filtered { bucket, filters: filters.clone() }))
        }
        _ => Ok(None),
    }
}

fn parse_function_inputs(object: Object<'_>) -> Option<Inputs> {
    let name = |member| object.get(member).and_then(Term::as_binary).cloned();
    let (module, function) = (name("module")?, name("function")?);
    if (&module[..] == b"riak_search" || &module[..] == b"yokozuna") && &function[..] == b"mapred_search" {
        // How clients spell a search.
        return Some(Inputs::Search);
    }
    Some(Inputs::Function { module, function, arg: object.get("arg")?.clone() })
}

fn parse_bucket(bucket: &Term) -> Option<BucketName> {
    match bucket {
        Term::Binary(name) => Some(BucketName::new(None, name.clone())),
        Term::List(parts) => match &parts[..] {
            [Term::Binary(bucket_type), Term::Binary(name)] => {
                Some(BucketName::new(Some(bucket_type.clone()), name.clone()))
            }
            _ => None,
        },
        _ => None,
    }
}

/// An index value in the form that entries have: integers may be numbers or texts.
pub(super) fn index_value(value: &Term) -> Option<Bytes> {
    match value {
        Term::Binary(text) => Some(text.clone()),
        Term::Integer(integer) => Some(integer.to_string().into()),
        _ => None,
    }
}

fn parse_query(query: &Term) -> Result<Vec<Phase>, QueryError> {
    let Term::List(phases) = query else { return Err(QueryError::NotAList(query.clone())) };
    let is_last = |index| index + 1 == phases.len();
    phases.iter().enumerate().map(|(index, phase)| parse_phase(phase, is_last(index))).collect()
}

fn parse_phase(phase: &Term, is_last: bool) -> Result<Phase, QueryError> {
    let unrecognized = || QueryError::UnrecognizedPhase(phase.clone());
    let (kind, definition) = Object::of(phase).and_then(Object::only).ok_or_else(unrecognized)?;
    let step = Object::of(definition).ok_or_else(unrecognized)?;
    if !matches!(kind, b"map" | b"reduce" | b"link") {
        return Err(unrecognized());
    }
    let keep = match step.get("keep") {
        None => is_last,
        Some(keep) if keep.is_atom("true") => true,
        Some(keep) if keep.is_atom("false") => false,
        Some(_) => return Err(QueryError::Keep(phase.clone())),
    };
    let arg = || step.get("arg").cloned().unwrap_or_else(|| Term::atom("none"));
    let kind = match kind {
        b"link" => PhaseKind::Link(parse_link(step).ok_or_else(|| QueryError::Link(definition.clone()))?),
        b"map" => PhaseKind::Map { function: parse_function(step, definition)?, arg: arg() },
        _ => PhaseKind::Reduce { function: parse_function(step, definition)?, arg: arg() },
    };
    Ok(Phase { kind, keep })
}

fn parse_link(step: Object<'_>) -> Option<LinkMatch> {
    let part = |name| match step.get(name) {
        None => Some(None),
        Some(Term::Binary(any)) if &any[..] == b"_" => Some(None),
        Some(Term::Binary(part)) => Some(Some(part.clone())),
        Some(_) => None,
    };
    Some(LinkMatch { bucket: part("bucket")?, tag: part("tag")? })
}

fn parse_function(step: Object<'_>, definition: &Term) -> Result<Function, QueryError> {
    let language = match step.get("language") {
        None => return Err(QueryError::NoLanguage(definition.clone())),
        Some(Term::Binary(language)) => language,
        Some(_) => return Err(QueryError::UnknownLanguage(definition.clone())),
    };
    let (name, function) = match &language[..] {
        b"erlang" => ("Erlang", erlang_function(step)),
        b"javascript" => ("Javascript", javascript_function(step)),
        _ => return Err(QueryError::UnknownLanguage(definition.clone())),
    };
    function.ok_or_else(|| QueryError::NoFunction { language: name, phase: definition.clone() })
}

/// Exactly one of the three ways.
fn erlang_function(step: Object<'_>) -> Option<Function> {
    let source = step.get("source");
    let object = (step.get("bucket"), step.get("key"));
    match (source, object, (step.get("module"), step.get("function"))) {
        (Some(Term::Binary(_) | Term::List(_)), (None, None), (None, None))
        | (None, (Some(Term::Binary(_)), Some(Term::Binary(_))), (None, None)) => Some(Function::ErlangSource),
        (None, (None, None), (Some(Term::Binary(module)), Some(Term::Binary(function)))) => {
            Some(Function::Module { module: module.clone(), function: function.clone() })
        }
        _ => None,
    }
}

fn javascript_function(step: Object<'_>) -> Option<Function> {
    let function = match (step.get("source").or(step.get("name")), step.get("bucket"), step.get("key")) {
        (Some(Term::Binary(code)), ..) => Function::JavaScript(Script::Code(code.clone())),
        (None, Some(bucket), Some(Term::Binary(key))) => match parse_bucket(bucket) {
            Some(bucket) => Function::JavaScript(Script::Stored(ObjectName { bucket, key: key.clone() })),
            None => Function::Invalid,
        },
        (Some(_), ..) | (None, Some(_), Some(_)) => Function::Invalid,
        (None, ..) => return None,
    };
    Some(function)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::index::{IndexError, IndexFailure, IndexRange};

    const LIMITS: TermLimits = TermLimits { depth_max: 64, terms_max: 1000 };

    fn read(text: &str) -> Result<Job, JobError> {
        parse(text.as_bytes(), LIMITS)
    }

    fn inputs(text: &str) -> Inputs {
        read(&format!(r#"{{"inputs":{text},"query":[]}}"#)).unwrap().inputs
    }

    fn inputs_error(text: &str) -> InputsError {
        match read(&format!(r#"{{"inputs":{text},"query":[]}}"#)) {
            Err(JobError::Inputs(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    fn phases(text: &str) -> Result<Vec<Phase>, QueryError> {
        match read(&format!(r#"{{"inputs":"b","query":{text}}}"#)) {
            Ok(job) => Ok(job.phases),
            Err(JobError::Query(error)) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    fn bucket(bucket_type: &'static str, name: &'static str) -> BucketName {
        BucketName { bucket_type: bucket_type.into(), bucket: name.into() }
    }

    fn json(text: &str) -> Term {
        json::parse(text.as_bytes(), 100).unwrap()
    }

    #[test]
    fn every_form_of_inputs_is_read() {
        assert_eq!(inputs(r#""b""#), Inputs::Bucket(bucket("default", "b")));
        assert_eq!(inputs(r#"["t","b"]"#), Inputs::Bucket(bucket("t", "b")));
        let (b, k, t) = (Term::binary(b"b"), Term::binary(b"k"), Term::binary(b"t"));
        let pair = |a: &Term, b: &Term| Term::Tuple(vec![a.clone(), b.clone()]);
        let keys = inputs(r#"[["b","k"],["b","k",{"a":1}],["b","k",null,"t"]]"#);
        let want = vec![
            pair(&b, &k),
            pair(&pair(&b, &k), &json(r#"{"a":1}"#)),
            pair(&pair(&pair(&t, &b), &k), &Term::atom("null")),
        ];
        assert_eq!(keys, Inputs::Keys(want));
        let filters = vec![json(r#"["eq","a"]"#)];
        let filtered = Inputs::Filtered { bucket: bucket("t", "b"), filters };
        assert_eq!(inputs(r#"{"bucket":["t","b"],"key_filters":[["eq","a"]]}"#), filtered);
        assert_eq!(inputs(r#"{"bucket":"b","query":"x","key_filters":[]}"#), Inputs::Search);
        assert_eq!(inputs(r#"{"index":"b","query":"x"}"#), Inputs::Search);
        assert_eq!(inputs(r#"{"module":"riak_search","function":"mapred_search","arg":["i","q"]}"#), Inputs::Search);
        let function = Inputs::Function { module: "m".into(), function: "f".into(), arg: Term::Integer(1) };
        assert_eq!(inputs(r#"{"module":"m","function":"f","arg":1,"bucket":"b"}"#), function);
    }

    #[test]
    fn index_inputs_are_checked_and_put_in_order() {
        let index = |index: &'static str, low: &'static str, high: &'static str| {
            let range = IndexRange::between(index.as_bytes(), low.into(), high.into()).unwrap();
            Inputs::Index(IndexInput { bucket: bucket("default", "b"), range })
        };
        assert_eq!(inputs(r#"{"bucket":"b","index":"N_int","key":2}"#), index("n_int", "2", "2"));
        assert_eq!(inputs(r#"{"bucket":"b","index":"n_int","start":"10","end":"9"}"#), index("n_int", "9", "10"));
        assert_eq!(inputs(r#"{"bucket":"b","index":"w_bin","start":"a","end":"a"}"#), index("w_bin", "a", "a"));
        assert_eq!(inputs(r#"{"bucket":"b","index":"$key","start":"a","end":"c"}"#), index("$key", "a", "c"));
        let unknown = IndexFailure::UnknownType { name: "foo".into() };
        let failed = InputsError::Index(IndexError(vec![unknown]));
        assert_eq!(inputs_error(r#"{"bucket":"b","index":"foo","key":"1"}"#), failed);
    }

    #[test]
    fn other_inputs_are_refused() {
        assert_eq!(inputs_error("[]"), InputsError::None);
        for text in [
            "1",
            "null",
            "{}",
            r#"{"bucket":"b"}"#,
            r#"{"bucket":1,"key_filters":[["eq","a"]]}"#,
            r#"{"bucket":"b","key_filters":[]}"#,
            r#"{"bucket":"b","key_filters":1}"#,
            r#"{"bucket":"b","index":"a_bin","start":"a"}"#,
            r#"{"bucket":"b","index":"a_bin","key":[]}"#,
            r#"{"bucket":"b","index":1,"key":"a"}"#,
            r#"{"module":1,"function":"f","arg":1}"#,
        ] {
            assert_eq!(inputs_error(text), InputsError::Unrecognized(json(text)), "{text}");
        }
        for key in [r#"["b"]"#, r#""b""#, r#"["b",1]"#, r#"["b","k",1,2]"#, r#"["b","k",1,"t",1]"#] {
            assert_eq!(inputs_error(&format!("[{key}]")), InputsError::Unrecognized(json(key)), "{key}");
        }
    }

    #[test]
    fn phases_are_read() {
        let function = Function::Module { module: "m".into(), function: "f".into() };
        let text = r#"[{"map":{"language":"erlang","module":"m","function":"f","arg":null}},
            {"link":{"bucket":"_","tag":"t","keep":true}},
            {"reduce":{"language":"erlang","module":"m","function":"f"}}]"#;
        let link = LinkMatch { bucket: None, tag: Some("t".into()) };
        let want = vec![
            Phase { kind: PhaseKind::Map { function: function.clone(), arg: Term::atom("null") }, keep: false },
            Phase { kind: PhaseKind::Link(link), keep: true },
            Phase { kind: PhaseKind::Reduce { function, arg: Term::atom("none") }, keep: true },
        ];
        assert_eq!(phases(text), Ok(want));
        let stored = ObjectName { bucket: bucket("default", "b"), key: "k".into() };
        for (phase, function) in [
            (r#"{"map":{"language":"erlang","source":"fun() -> 1 end."}}"#, Function::ErlangSource),
            (r#"{"reduce":{"language":"erlang","bucket":"b","key":"k"}}"#, Function::ErlangSource),
            (
                r#"{"map":{"language":"javascript","name":"Riak.mapValues"}}"#,
                Function::JavaScript(Script::Code("Riak.mapValues".into())),
            ),
            (
                r#"{"reduce":{"language":"javascript","source":"x => x"}}"#,
                Function::JavaScript(Script::Code("x => x".into())),
            ),
            (
                r#"{"map":{"language":"javascript","bucket":"b","key":"k"}}"#,
                Function::JavaScript(Script::Stored(stored)),
            ),
            (r#"{"map":{"language":"javascript","source":1}}"#, Function::Invalid),
        ] {
            match &phases(&format!("[{phase}]")).unwrap()[0].kind {
                PhaseKind::Map { function: found, .. } | PhaseKind::Reduce { function: found, .. } => {
                    assert_eq!(*found, function, "{phase}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn malformed_phases_are_refused() {
        let error = |text: &str| phases(&format!("[{text}]")).unwrap_err();
        assert_eq!(phases("1"), Err(QueryError::NotAList(Term::Integer(1))));
        for text in ["1", "{}", r#"{"map":1}"#, r#"{"mapp":{}}"#, r#"{"map":{},"reduce":{}}"#] {
            assert_eq!(error(text), QueryError::UnrecognizedPhase(json(text)), "{text}");
        }
        let text = r#"{"link":{"keep":"yes"}}"#;
        assert_eq!(error(text), QueryError::Keep(json(text)));
        assert_eq!(error(r#"{"link":{"tag":1}}"#), QueryError::Link(json(r#"{"tag":1}"#)));
        assert_eq!(error(r#"{"map":{}}"#), QueryError::NoLanguage(json("{}")));
        for step in [r#"{"language":"cobol"}"#, r#"{"language":1}"#] {
            assert_eq!(error(&format!(r#"{{"map":{step}}}"#)), QueryError::UnknownLanguage(json(step)));
        }
        for step in [
            r#"{"language":"erlang"}"#,
            r#"{"language":"erlang","module":"m"}"#,
            r#"{"language":"erlang","module":"m","function":1}"#,
            r#"{"language":"erlang","module":"m","function":"f","source":"x"}"#,
        ] {
            let refused = QueryError::NoFunction { language: "Erlang", phase: json(step) };
            assert_eq!(error(&format!(r#"{{"reduce":{step}}}"#)), refused, "{step}");
        }
        let step = r#"{"language":"javascript","bucket":"b"}"#;
        let refused = QueryError::NoFunction { language: "Javascript", phase: json(step) };
        assert_eq!(error(&format!(r#"{{"map":{step}}}"#)), refused);
    }

    #[test]
    fn a_job_needs_inputs_and_query() {
        assert!(matches!(read(""), Err(JobError::InvalidJson(_))));
        assert!(matches!(read("1"), Err(JobError::NotAnObject)));
        assert!(matches!(read(r#"{"query":[]}"#), Err(JobError::MissingField)));
        assert!(matches!(read(r#"{"inputs":1}"#), Err(JobError::MissingField)));
    }

    #[test]
    fn only_times_above_zero_are_taken() {
        let time = |text: &str| read(&format!(r#"{{"inputs":"b","query":[],"timeout":{text}}}"#)).unwrap().timeout;
        assert_eq!(time("1"), Duration::from_millis(1));
        assert_eq!(time("1.5"), Duration::from_millis(2));
        assert_eq!(time("1e300"), Duration::from_millis(u64::MAX));
        for text in ["0", "-1", "0.0", "null", "\"1\"", "{}"] {
            assert_eq!(time(text), TIMEOUT_DEFAULT, "{text}");
        }
    }
}
