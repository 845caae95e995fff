//! Jobs as external terms: the property list `[{inputs,…},{query,…},{timeout,…}]`.

use std::time::Duration;

use bytes::Bytes;

use super::error::{InputsError, JobError, QueryError};
use super::job::{
    Encoding, Function, IndexInput, Inputs, Job, LinkMatch, Phase, PhaseKind, Script, TIMEOUT_DEFAULT, bucket_name,
};
use super::parse_json::index_value;
use crate::domain::key::{BucketName, ObjectName};
use crate::erlang::Term;
use crate::erlang::external::{TermLimits, decode};

pub(super) fn parse(request: &Bytes, limits: TermLimits) -> Result<Job, JobError> {
    let Term::List(properties) = decode(request, limits)? else { return Err(JobError::NotAPropertyList) };
    let undefined = Term::atom("undefined");
    let inputs = parse_inputs(property(&properties, "inputs").unwrap_or(&undefined))?;
    let phases = parse_query(property(&properties, "query").unwrap_or(&undefined))?;
    let timeout = match property(&properties, "timeout") {
        Some(Term::Integer(ms @ 1..)) => Duration::from_millis(u64::try_from(*ms).unwrap_or(u64::MAX)),
        Some(infinity) if infinity.is_atom("infinity") => Duration::MAX,
        _ => TIMEOUT_DEFAULT,
    };
    Ok(Job { inputs, phases, timeout, encoding: Encoding::Term })
}

fn property<'a>(properties: &'a [Term], name: &str) -> Option<&'a Term> {
    properties.iter().find_map(|property| match property {
        Term::Tuple(pair) => match &pair[..] {
            [key, value] if key.is_atom(name) => Some(value),
            _ => None,
        },
        _ => None,
    })
}

fn parse_inputs(inputs: &Term) -> Result<Inputs, InputsError> {
    let unrecognized = || InputsError::Unrecognized(inputs.clone());
    match inputs {
        Term::Binary(name) => Ok(Inputs::Bucket(BucketName::new(None, name.clone()))),
        Term::List(keys) => match keys.iter().find(|key| !is_key(key)) {
            None => Ok(Inputs::Keys(keys.clone())),
            Some(other) => Err(InputsError::Unrecognized(other.clone())),
        },
        Term::Tuple(parts) => match &parts[..] {
            [Term::Binary(bucket_type), Term::Binary(name)] => {
                Ok(Inputs::Bucket(BucketName::new(Some(bucket_type.clone()), name.clone())))
            }
            [bucket, Term::List(filters)] => {
                let bucket = bucket_name(bucket).ok_or_else(unrecognized)?;
                Ok(Inputs::Filtered { bucket, filters: filters.clone() })
            }
            [kind, Term::Atom(module), Term::Atom(function), arg] if kind.is_atom("modfun") => {
                Ok(Inputs::Function { module: module.clone(), function: function.clone(), arg: arg.clone() })
            }
            [kind, bucket, Term::Binary(index), values @ ..]
                if kind.is_atom("index") && (1..=2).contains(&values.len()) =>
            {
                let bucket = bucket_name(bucket).ok_or_else(unrecognized)?;
                let values: Option<_> = values.iter().map(index_value).collect();
                Ok(Inputs::Index(IndexInput::new(bucket, index, values.ok_or_else(unrecognized)?)?))
            }
            [kind, _, _] | [kind, _, _, _] if kind.is_atom("search") => Ok(Inputs::Search),
            _ => Err(unrecognized()),
        },
        _ => Err(unrecognized()),
    }
}

/// `{B,K}`, `{{B,K},Data}` or `{{{T,B},K},Data}`.
fn is_key(term: &Term) -> bool {
    let Term::Tuple(parts) = term else { return false };
    match &parts[..] {
        [Term::Binary(_), Term::Binary(_)] => true,
        [Term::Tuple(name), _] => matches!(&name[..], [bucket, Term::Binary(_)] if bucket_name(bucket).is_some()),
        _ => false,
    }
}

fn parse_query(query: &Term) -> Result<Vec<Phase>, QueryError> {
    let Term::List(phases) = query else { return Err(QueryError::NotAList(query.clone())) };
    phases.iter().map(|phase| parse_phase(phase).ok_or_else(|| QueryError::UnrecognizedPhase(phase.clone()))).collect()
}

fn parse_phase(phase: &Term) -> Option<Phase> {
    let Term::Tuple(parts) = phase else { return None };
    let [kind, a, b, keep] = &parts[..] else { return None };
    let keep = match keep {
        keep if keep.is_atom("true") => true,
        keep if keep.is_atom("false") => false,
        _ => return None,
    };
    let kind = match kind {
        kind if kind.is_atom("map") => PhaseKind::Map { function: parse_function(a), arg: b.clone() },
        kind if kind.is_atom("reduce") => PhaseKind::Reduce { function: parse_function(a), arg: b.clone() },
        kind if kind.is_atom("link") => PhaseKind::Link(LinkMatch { bucket: link_part(a)?, tag: link_part(b)? }),
        _ => return None,
    };
    Some(Phase { kind, keep })
}

fn link_part(part: &Term) -> Option<Option<Bytes>> {
    match part {
        any if any.is_atom("_") => Some(None),
        Term::Binary(part) => Some(Some(part.clone())),
        _ => None,
    }
}

fn parse_function(function: &Term) -> Function {
    let Term::Tuple(parts) = function else { return Function::Invalid };
    match &parts[..] {
        [kind, Term::Atom(module), Term::Atom(function)] if kind.is_atom("modfun") => {
            Function::Module { module: module.clone(), function: function.clone() }
        }
        [kind, _] if kind.is_atom("strfun") => Function::ErlangSource,
        [kind, Term::Binary(code)] if kind.is_atom("jsfun") || kind.is_atom("jsanon") => {
            Function::JavaScript(Script::Code(code.clone()))
        }
        [kind, Term::Tuple(object)] if kind.is_atom("jsanon") => match &object[..] {
            [bucket, Term::Binary(key)] => match bucket_name(bucket) {
                Some(bucket) => Function::JavaScript(Script::Stored(ObjectName { bucket, key: key.clone() })),
                None => Function::Invalid,
            },
            _ => Function::Invalid,
        },
        _ => Function::Invalid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::index::IndexRange;
    use crate::erlang::external::{DecodeError, encode_list};

    const LIMITS: TermLimits = TermLimits { depth_max: 64, terms_max: 1000 };

    fn tuple<const N: usize>(terms: [Term; N]) -> Term {
        Term::Tuple(terms.into())
    }

    fn text(text: &str) -> Term {
        Term::binary(text.as_bytes())
    }

    fn read(properties: &[(&'static str, Term)]) -> Result<Job, JobError> {
        let properties: Vec<_> =
            properties.iter().map(|(name, value)| tuple([Term::atom(name), value.clone()])).collect();
        parse(&encode_list(&properties).unwrap().into(), LIMITS)
    }

    fn inputs(term: Term) -> Result<Inputs, InputsError> {
        match read(&[("inputs", term), ("query", Term::List(vec![]))]) {
            Ok(job) => Ok(job.inputs),
            Err(JobError::Inputs(error)) => Err(error),
            other => panic!("{other:?}"),
        }
    }

    fn bucket(bucket_type: &'static str) -> BucketName {
        BucketName { bucket_type: bucket_type.into(), bucket: "b".into() }
    }

    #[test]
    fn every_form_of_inputs_is_read() {
        let (typed, key) = (tuple([text("t"), text("b")]), tuple([text("b"), text("k")]));
        assert_eq!(inputs(text("b")), Ok(Inputs::Bucket(bucket("default"))));
        assert_eq!(inputs(typed.clone()), Ok(Inputs::Bucket(bucket("t"))));
        let keys = vec![
            key.clone(),
            tuple([key.clone(), Term::Integer(1)]),
            tuple([tuple([typed.clone(), text("k")]), Term::Integer(1)]),
        ];
        assert_eq!(inputs(Term::List(keys.clone())), Ok(Inputs::Keys(keys)));
        assert_eq!(inputs(Term::List(vec![])), Ok(Inputs::Keys(vec![])));
        let filters = vec![Term::List(vec![text("eq"), text("a")])];
        let filtered = |bucket| Ok(Inputs::Filtered { bucket, filters: filters.clone() });
        assert_eq!(inputs(tuple([text("b"), Term::List(filters.clone())])), filtered(bucket("default")));
        assert_eq!(inputs(tuple([typed.clone(), Term::List(filters.clone())])), filtered(bucket("t")));
        let index = |low: &'static str, high: &'static str| {
            let range = IndexRange::between(b"n_int", low.into(), high.into()).unwrap();
            Ok(Inputs::Index(IndexInput { bucket: bucket("t"), range }))
        };
        let range = [Term::atom("index"), typed.clone(), text("n_int"), text("3"), Term::Integer(1)];
        assert_eq!(inputs(tuple(range)), index("1", "3"));
        assert_eq!(inputs(tuple([Term::atom("index"), typed, text("n_int"), text("3")])), index("3", "3"));
        assert_eq!(inputs(tuple([Term::atom("search"), text("b"), text("q")])), Ok(Inputs::Search));
        let function = Inputs::Function { module: "m".into(), function: "f".into(), arg: Term::Integer(1) };
        let modfun = [Term::atom("modfun"), Term::atom("m"), Term::atom("f"), Term::Integer(1)];
        assert_eq!(inputs(tuple(modfun)), Ok(function));
    }

    #[test]
    fn other_jobs_are_refused() {
        assert_eq!(inputs(Term::Integer(1)), Err(InputsError::Unrecognized(Term::Integer(1))));
        let keys = Term::List(vec![tuple([text("b"), Term::Integer(1)])]);
        assert_eq!(inputs(keys), Err(InputsError::Unrecognized(tuple([text("b"), Term::Integer(1)]))));
        assert!(matches!(
            inputs(tuple([Term::atom("index"), text("b"), text("foo"), text("1")])),
            Err(InputsError::Index(_))
        ));
        let missing = read(&[("query", Term::List(vec![]))]);
        assert!(matches!(missing, Err(JobError::Inputs(InputsError::Unrecognized(_)))));
        let missing = read(&[("inputs", text("b"))]);
        assert!(matches!(missing, Err(JobError::Query(QueryError::NotAList(_)))));
        let atom = Bytes::from_static(b"\x83d\0\x05hello");
        assert!(matches!(parse(&atom, LIMITS), Err(JobError::NotAPropertyList)));
        let text = Bytes::from_static(b"no term");
        assert!(matches!(parse(&text, LIMITS), Err(JobError::InvalidTerm(DecodeError::NotATerm))));
    }

    #[test]
    fn phases_are_read() {
        let query = |phase: Term| {
            let query = Term::List(vec![phase]);
            read(&[("inputs", text("b")), ("query", query), ("timeout", Term::Integer(5))])
        };
        let yes = || Term::atom("true");
        let modfun = tuple([Term::atom("modfun"), Term::atom("m"), Term::atom("f")]);
        let function = Function::Module { module: "m".into(), function: "f".into() };
        let job = query(tuple([Term::atom("map"), modfun.clone(), Term::Integer(1), yes()])).unwrap();
        assert_eq!(job.phases[0], Phase { kind: PhaseKind::Map { function, arg: Term::Integer(1) }, keep: true });
        assert_eq!(job.timeout, Duration::from_millis(5));
        let job = query(tuple([Term::atom("link"), Term::atom("_"), text("t"), Term::atom("false")])).unwrap();
        let link = LinkMatch { bucket: None, tag: Some("t".into()) };
        assert_eq!(job.phases[0], Phase { kind: PhaseKind::Link(link), keep: false });
        for (kind, function) in [
            ("strfun", Function::ErlangSource),
            ("jsfun", Function::JavaScript(Script::Code("x".into()))),
            ("jsanon", Function::JavaScript(Script::Code("x".into()))),
            ("qfun", Function::Invalid),
        ] {
            let named = tuple([Term::atom(kind), text("x")]);
            let job = query(tuple([Term::atom("reduce"), named, Term::Integer(1), yes()])).unwrap();
            assert_eq!(job.phases[0].kind, PhaseKind::Reduce { function, arg: Term::Integer(1) });
        }
        for phase in [
            Term::Integer(1),
            tuple([Term::atom("map"), modfun.clone(), yes()]),
            tuple([Term::atom("mapp"), modfun.clone(), yes(), yes()]),
            tuple([Term::atom("map"), modfun, yes(), Term::Integer(1)]),
            tuple([Term::atom("link"), Term::Integer(1), text("t"), yes()]),
        ] {
            let refused = query(phase.clone());
            assert!(matches!(refused, Err(JobError::Query(QueryError::UnrecognizedPhase(_)))), "{phase:?}");
        }
    }
}
