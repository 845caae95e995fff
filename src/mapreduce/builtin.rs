//! The functions of Riak's module `riak_kv_mapreduce`, and the following of links: pure functions over terms.

use bytes::Bytes;

use super::error::{Fault, FaultClass};
use super::filter::parse_integer;
use super::job::{LinkMatch, MapInput};
use crate::domain::object::Content;
use crate::erlang::Term;

/// The module that the functions are in.
pub(super) const MODULE: &[u8] = b"riak_kv_mapreduce";

/// An object as a map function is given it.
#[derive(Clone, Debug)]
pub(super) enum Mapped {
    /// There is none.
    NotFound,
    /// Its values, a tombstone's among them.
    Found(Vec<Content>),
    /// It holds data type content, which no plain function can read.
    DataType,
}

/// A function of a map or link phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MapFunction {
    Identity,
    ObjectValue,
    ObjectValueList,
    Links(LinkMatch),
}

/// A function of a reduce phase. All of them may be applied to some of the inputs, and then to the results and the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReduceFunction {
    Identity,
    SetUnion,
    Sum,
    PropertyListSum,
    Sort,
    CountInputs,
    StringToInteger,
}

impl MapFunction {
    pub(super) fn find(name: &[u8]) -> Option<Self> {
        match name {
            b"map_identity" => Some(Self::Identity),
            b"map_object_value" => Some(Self::ObjectValue),
            b"map_object_value_list" => Some(Self::ObjectValueList),
            _ => None,
        }
    }

    /// What the function makes of one object.
    pub(super) fn apply(&self, input: &MapInput, object: &Mapped, arg: &Term) -> Result<Vec<Term>, Fault> {
        match self {
            Self::Identity => Ok(vec![identity(input, object)]),
            Self::ObjectValue => match object {
                Mapped::NotFound => not_found("map_object_value", &input.key_data, arg),
                _ => Ok(vec![Term::Binary(value("map_object_value", object)?)]),
            },
            Self::ObjectValueList => match object {
                Mapped::NotFound => not_found("map_object_value_list", &input.key_data, arg),
                // The function is for values that are lists, and clients can store only bytes.
                _ => {
                    let value = Term::Binary(value("map_object_value_list", object)?);
                    Err(error(Term::Tuple(vec![Term::atom("non_list_result"), value]), ("map_object_value_list", 3)))
                }
            },
            Self::Links(links) => Ok(follow(links, object)),
        }
    }
}

/// How a reduce function failed, and the input on which it did.
pub(super) type Rejection = Box<(Fault, Term)>;

fn reject(reason: &'static str, function: &'static str, input: Term) -> Rejection {
    Box::new((error(Term::atom(reason), (function, 2)), input))
}

fn error(reason: Term, place: (&'static str, u8)) -> Fault {
    Fault { reason, class: FaultClass::Error, place }
}

/// The object itself: something to count or to sort, which cannot be sent.
fn identity(input: &MapInput, object: &Mapped) -> Term {
    match object {
        Mapped::NotFound => Term::Tuple(vec![Term::atom("error"), Term::atom("notfound")]),
        _ => {
            let (bucket_type, bucket) = (input.bucket.bucket_type.clone(), input.bucket.bucket.clone());
            let bucket = match input.bucket.is_default_type() {
                true => Term::Binary(bucket),
                false => Term::Tuple(vec![Term::Binary(bucket_type), Term::Binary(bucket)]),
            };
            Term::Record(vec![Term::atom("r_object"), bucket, Term::Binary(input.key.clone())])
        }
    }
}

/// The object's only value.
fn value(function: &'static str, object: &Mapped) -> Result<Bytes, Fault> {
    match object {
        Mapped::Found(contents) => match &contents[..] {
            // A tombstone shows no value, whatever was put with it.
            [content] if content.deleted => Ok(Bytes::new()),
            [content] => Ok(content.value.clone()),
            _ => Err(error(Term::atom("siblings"), (function, 3))),
        },
        _ => Err(error(Term::atom("data_type"), (function, 3))),
    }
}

/// What is emitted for an object that is not there, as the argument says. An argument that says nothing of it fails.
fn not_found(function: &'static str, key_data: &Term, arg: &Term) -> Result<Vec<Term>, Fault> {
    match arg {
        Term::Binary(action) => match &action[..] {
            b"filter_notfound" => return Ok(Vec::new()),
            b"include_notfound" => return Ok(vec![Term::Tuple(vec![Term::atom("error"), Term::atom("notfound")])]),
            b"include_keydata" => return Ok(vec![key_data.clone()]),
            _ => {}
        },
        Term::Tuple(parts) => {
            if let [kind, Term::List(members)] = &parts[..]
                && kind.is_atom("struct")
                && let [Term::Tuple(member)] = &members[..]
                && let [Term::Binary(name), Term::List(substitute)] = &member[..]
                && &name[..] == b"sub"
            {
                return Ok(substitute.clone());
            }
        }
        _ => {}
    }
    Err(error(Term::atom("function_clause"), (function, 3)))
}

/// The links of all values, in order and each once.
fn follow(links: &LinkMatch, object: &Mapped) -> Vec<Term> {
    let Mapped::Found(contents) = object else { return Vec::new() };
    let wanted = |want: &Option<Bytes>, have: &Option<Bytes>| want.is_none() || want == have;
    let part = |part: &Option<Bytes>| part.clone().map_or_else(|| Term::atom("undefined"), Term::Binary);
    let mut found: Vec<_> = contents
        .iter()
        .flat_map(|content| &content.links)
        .filter(|link| wanted(&links.bucket, &link.bucket) && wanted(&links.tag, &link.tag))
        .map(|link| Term::List(vec![part(&link.bucket), part(&link.key), part(&link.tag)]))
        .collect();
    found.sort_by(Term::compare_exactly);
    found.dedup();
    found
}

impl ReduceFunction {
    pub(super) fn find(name: &[u8]) -> Option<Self> {
        match name {
            b"reduce_identity" => Some(Self::Identity),
            b"reduce_set_union" => Some(Self::SetUnion),
            b"reduce_sum" => Some(Self::Sum),
            b"reduce_plist_sum" => Some(Self::PropertyListSum),
            b"reduce_sort" => Some(Self::Sort),
            b"reduce_count_inputs" => Some(Self::CountInputs),
            b"reduce_string_to_integer" => Some(Self::StringToInteger),
            _ => None,
        }
    }

    /// What the function makes of some inputs, or the one that it fails on.
    pub(super) fn apply(self, mut inputs: Vec<Term>) -> Result<Vec<Term>, Rejection> {
        match self {
            Self::Identity => inputs.into_iter().rev().map(bucket_and_key).collect(),
            Self::SetUnion => {
                inputs.sort_by(Term::compare_exactly);
                inputs.dedup();
                Ok(inputs)
            }
            Self::Sum => {
                let numbers = inputs.into_iter().filter(|input| !is_not_found(input));
                let sum =
                    numbers.into_iter().try_fold(Term::Integer(0), |sum, number| add(sum, number, "reduce_sum"))?;
                Ok(vec![sum])
            }
            Self::PropertyListSum => property_list_sum(inputs),
            Self::Sort => {
                inputs.sort_by(Term::compare);
                Ok(inputs)
            }
            Self::CountInputs => {
                // Counts of earlier inputs are integers, and so count for what they say.
                let counts = inputs.into_iter().map(|input| match input {
                    Term::Integer(_) => input,
                    _ => Term::Integer(1),
                });
                let count = counts
                    .into_iter()
                    .try_fold(Term::Integer(0), |sum, number| add(sum, number, "reduce_count_inputs"))?;
                Ok(vec![count])
            }
            Self::StringToInteger => {
                inputs.into_iter().filter(|input| !is_not_found(input)).map(string_to_integer).collect()
            }
        }
    }
}

fn is_not_found(input: &Term) -> bool {
    match input {
        Term::Tuple(parts) => matches!(&parts[..], [kind, _] | [kind, _, _] if kind.is_atom("not_found")),
        _ => false,
    }
}

/// `{B,K}` with or without key data, or what the function has made before, as `[B,K]`.
fn bucket_and_key(input: Term) -> Result<Term, Rejection> {
    match &input {
        Term::Tuple(parts) => match &parts[..] {
            [Term::Tuple(name), _] if name.len() == 2 => return Ok(Term::List(name.clone())),
            [bucket, key] => return Ok(Term::List(vec![bucket.clone(), key.clone()])),
            _ => {}
        },
        Term::List(parts) if parts.len() == 2 => return Ok(input),
        _ => {}
    }
    let reason = Term::Tuple(vec![Term::atom("unhandled_entry"), input.clone()]);
    Err(Box::new((Fault { reason, class: FaultClass::Throw, place: ("reduce_identity", 2) }, input)))
}

/// The sum of two numbers: a float when one of them is.
fn add(a: Term, b: Term, function: &'static str) -> Result<Term, Rejection> {
    let float = |integer: i128| integer as f64;
    let sum = match (&a, &b) {
        (Term::Integer(a), Term::Integer(b)) => a.checked_add(*b).map(Term::Integer),
        (Term::Integer(a), Term::Float(b)) => Some(Term::Float(float(*a) + b)),
        (Term::Float(a), Term::Integer(b)) => Some(Term::Float(a + float(*b))),
        (Term::Float(a), Term::Float(b)) => Some(Term::Float(a + b)),
        _ => None,
    };
    match sum {
        Some(Term::Float(sum)) if !sum.is_finite() => Err(reject("badarith", function, b)),
        Some(sum) => Ok(sum),
        None => Err(reject("badarith", function, b)),
    }
}

/// Sums of the numbers under each name. The inputs are pairs, or lists of pairs to any depth.
fn property_list_sum(inputs: Vec<Term>) -> Result<Vec<Term>, Rejection> {
    let mut pairs = Vec::new();
    match inputs.first() {
        None => return Ok(Vec::new()),
        Some(Term::Tuple(_)) => pairs = inputs,
        Some(_) => inputs.into_iter().for_each(|input| flatten(input, &mut pairs)),
    }
    let mut named = Vec::with_capacity(pairs.len());
    for pair in pairs {
        match pair {
            Term::Tuple(mut parts) if parts.len() == 2 => {
                let number = parts.remove(1);
                named.push((parts.remove(0), number));
            }
            other => return Err(reject("function_clause", "reduce_plist_sum", other)),
        }
    }
    named.sort_by(|(a, _), (b, _)| a.compare_exactly(b));
    let mut sums: Vec<(Term, Term)> = Vec::new();
    for (name, number) in named {
        match sums.last_mut() {
            Some((last, sum)) if *last == name => {
                let so_far = std::mem::replace(sum, Term::Integer(0));
                *sum = add(so_far, number, "reduce_plist_sum")?;
            }
            _ => sums.push((name, number)),
        }
    }
    Ok(sums.into_iter().map(|(name, sum)| Term::Tuple(vec![name, sum])).collect())
}

fn flatten(term: Term, out: &mut Vec<Term>) {
    match term {
        Term::List(terms) => terms.into_iter().for_each(|term| flatten(term, out)),
        other => out.push(other),
    }
}

fn string_to_integer(input: Term) -> Result<Term, Rejection> {
    let text = match &input {
        Term::Integer(_) => return Ok(input),
        Term::Binary(bytes) => Some(bytes.to_vec()),
        Term::List(_) => input.as_characters(),
        _ => return Err(reject("function_clause", "reduce_string_to_integer", input)),
    };
    match text.and_then(|text| parse_integer(&text)) {
        Some(integer) => Ok(Term::Integer(integer)),
        None => Err(reject("badarg", "reduce_string_to_integer", input)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::key::BucketName;
    use crate::domain::object::Link;
    use crate::erlang::tests::terms;
    use crate::mapreduce::json;
    use proptest::prelude::*;

    fn input() -> MapInput {
        let bucket = BucketName::new(None, "b".into());
        MapInput { bucket, key: "k".into(), key_data: Term::Integer(7) }
    }

    fn content(value: &'static str) -> Content {
        Content { value: value.into(), ..Content::default() }
    }

    fn map(function: &MapFunction, object: Mapped, arg: &str) -> Result<Vec<Term>, Term> {
        let arg = json::parse(arg.as_bytes(), 100).unwrap();
        function.apply(&input(), &object, &arg).map_err(|fault| fault.reason)
    }

    fn terms_of(json: &str) -> Vec<Term> {
        match json::parse(json.as_bytes(), 1000).unwrap() {
            Term::List(terms) => terms,
            other => panic!("{other:?}"),
        }
    }

    fn reduce(function: ReduceFunction, inputs: Vec<Term>) -> Result<Vec<Term>, Term> {
        function.apply(inputs).map_err(|failed| failed.0.reason)
    }

    fn pair(a: Term, b: Term) -> Term {
        Term::Tuple(vec![a, b])
    }

    #[test]
    fn a_value_is_emitted_as_it_is() {
        let found = Mapped::Found(vec![content("{\"n\":1}")]);
        assert_eq!(map(&MapFunction::ObjectValue, found, "null"), Ok(vec![Term::binary(b"{\"n\":1}")]));
        let tombstone = Content { deleted: true, ..content("x") };
        assert_eq!(map(&MapFunction::ObjectValue, Mapped::Found(vec![tombstone]), "1"), Ok(vec![Term::binary(b"")]));
        let siblings = Mapped::Found(vec![content("1"), content("2")]);
        assert_eq!(map(&MapFunction::ObjectValue, siblings, "1"), Err(Term::atom("siblings")));
        assert_eq!(map(&MapFunction::ObjectValue, Mapped::DataType, "1"), Err(Term::atom("data_type")));
    }

    #[test]
    fn a_value_that_is_no_list_fails_where_lists_are_wanted() {
        let fault = map(&MapFunction::ObjectValueList, Mapped::Found(vec![content("1")]), "1");
        assert_eq!(fault, Err(pair(Term::atom("non_list_result"), Term::binary(b"1"))));
    }

    #[test]
    fn the_argument_says_what_stands_for_a_missing_object() {
        for function in [MapFunction::ObjectValue, MapFunction::ObjectValueList] {
            let missing = |arg: &str| map(&function, Mapped::NotFound, arg);
            let marker = pair(Term::atom("error"), Term::atom("notfound"));
            assert_eq!(missing(r#""filter_notfound""#), Ok(vec![]));
            assert_eq!(missing(r#""include_notfound""#), Ok(vec![marker]));
            assert_eq!(missing(r#""include_keydata""#), Ok(vec![Term::Integer(7)]));
            assert_eq!(missing(r#"{"sub":[1,2]}"#), Ok(vec![Term::Integer(1), Term::Integer(2)]));
            for arg in [r#""nonsense""#, "null", "[]", r#"{"sub":1}"#, r#"{"sub":[],"x":1}"#, "{}"] {
                assert_eq!(missing(arg), Err(Term::atom("function_clause")), "{arg}");
            }
        }
    }

    #[test]
    fn an_object_itself_has_no_json_form() {
        let objects = map(&MapFunction::Identity, Mapped::Found(vec![content("1")]), "1").unwrap();
        assert!(json::render_list(&objects).is_err());
        assert_eq!(reduce(ReduceFunction::CountInputs, objects), Ok(vec![Term::Integer(1)]));
    }

    #[test]
    fn links_are_filtered_sorted_and_each_once() {
        let link = |bucket: &'static str, key: &'static str, tag: Option<&'static str>| Link {
            bucket: Some(bucket.into()),
            key: Some(key.into()),
            tag: tag.map(Bytes::from),
        };
        let one = vec![link("b", "2", Some("t")), link("c", "1", Some("t")), link("b", "1", None)];
        let two = vec![link("b", "2", Some("t")), link("b", "3", Some("u"))];
        let contents = vec![Content { links: one, ..content("") }, Content { links: two, ..content("") }];
        let follow = |bucket: Option<&'static str>, tag: Option<&'static str>| {
            let links = LinkMatch { bucket: bucket.map(Bytes::from), tag: tag.map(Bytes::from) };
            map(&MapFunction::Links(links), Mapped::Found(contents.clone()), "1").unwrap()
        };
        let all = r#"[["b","1","undefined"],["b","2","t"],["b","3","u"],["c","1","t"]]"#;
        assert_eq!(json::render_list(&follow(None, None)).unwrap(), all);
        assert_eq!(follow(Some("b"), Some("t")), terms_of(r#"[["b","2","t"]]"#));
        assert_eq!(follow(None, Some("t")), terms_of(r#"[["b","2","t"],["c","1","t"]]"#));
        assert_eq!(follow(Some("x"), None), vec![]);
        let links = LinkMatch { bucket: None, tag: None };
        assert_eq!(map(&MapFunction::Links(links), Mapped::NotFound, "1"), Ok(vec![]));
    }

    #[test]
    fn identity_names_keys() {
        let (b, k) = (Term::binary(b"b"), Term::binary(b"k"));
        let key = pair(b.clone(), k.clone());
        let inputs = vec![key.clone(), pair(key, Term::Integer(1)), Term::List(vec![b, k])];
        assert_eq!(reduce(ReduceFunction::Identity, inputs), Ok(terms_of(r#"[["b","k"],["b","k"],["b","k"]]"#)));
        let unhandled = pair(Term::atom("unhandled_entry"), Term::binary(b"0"));
        assert_eq!(reduce(ReduceFunction::Identity, terms_of(r#"["0"]"#)), Err(unhandled));
    }

    #[test]
    fn sets_and_sorts() {
        assert_eq!(
            reduce(ReduceFunction::SetUnion, terms_of(r#"["b",1,"a","b",1.0,1]"#)),
            Ok(terms_of(r#"[1,1.0,"a","b"]"#))
        );
        let mixed = terms_of(r#"["b",[1],{"a":1},null,2,1.5,"a"]"#);
        assert_eq!(reduce(ReduceFunction::Sort, mixed), Ok(terms_of(r#"[1.5,2,null,{"a":1},[1],"a","b"]"#)));
    }

    #[test]
    fn sums_and_counts() {
        let gone = pair(Term::atom("not_found"), Term::Integer(1));
        assert_eq!(reduce(ReduceFunction::Sum, vec![]), Ok(terms_of("[0]")));
        assert_eq!(reduce(ReduceFunction::Sum, terms_of("[1,2]")), Ok(terms_of("[3]")));
        assert_eq!(reduce(ReduceFunction::Sum, terms_of("[1,0.5]")), Ok(terms_of("[1.5]")));
        assert_eq!(reduce(ReduceFunction::Sum, vec![gone.clone(), Term::Integer(1)]), Ok(terms_of("[1]")));
        assert_eq!(reduce(ReduceFunction::Sum, terms_of(r#"["1"]"#)), Err(Term::atom("badarith")));
        let huge = vec![Term::Integer(i128::MAX), Term::Integer(1)];
        assert_eq!(reduce(ReduceFunction::Sum, huge.clone()), Err(Term::atom("badarith")));
        let huge_floats = vec![Term::Float(f64::MAX), Term::Float(f64::MAX)];
        assert_eq!(reduce(ReduceFunction::Sum, huge_floats), Err(Term::atom("badarith")));
        assert_eq!(reduce(ReduceFunction::CountInputs, vec![]), Ok(terms_of("[0]")));
        assert_eq!(reduce(ReduceFunction::CountInputs, terms_of(r#"["a",[1],3]"#)), Ok(terms_of("[5]")));
        assert_eq!(reduce(ReduceFunction::CountInputs, huge), Err(Term::atom("badarith")));
    }

    #[test]
    fn property_lists_are_summed_by_name() {
        let entry = |name: &'static str, number: i128| pair(Term::atom(name), Term::Integer(number));
        let want = Ok(vec![entry("a", 3), entry("b", 5)]);
        let flat = vec![entry("b", 1), entry("a", 1), entry("a", 2), entry("b", 4)];
        assert_eq!(reduce(ReduceFunction::PropertyListSum, flat.clone()), want);
        let nested = flat.into_iter().map(|entry| Term::List(vec![Term::List(vec![entry])])).collect();
        assert_eq!(reduce(ReduceFunction::PropertyListSum, nested), want);
        assert_eq!(reduce(ReduceFunction::PropertyListSum, vec![]), Ok(vec![]));
        let keys = vec![pair(Term::binary(b"b"), Term::binary(b"1")), pair(Term::binary(b"b"), Term::binary(b"2"))];
        assert_eq!(reduce(ReduceFunction::PropertyListSum, keys), Err(Term::atom("badarith")));
        assert_eq!(reduce(ReduceFunction::PropertyListSum, terms_of("[1]")), Err(Term::atom("function_clause")));
    }

    #[test]
    fn strings_become_integers() {
        let mut inputs = terms_of(r#"["10","-1",5]"#);
        inputs.push(Term::characters(b"20"));
        assert_eq!(reduce(ReduceFunction::StringToInteger, inputs), Ok(terms_of("[10,-1,5,20]")));
        for bad in [r#"["x"]"#, r#"[""]"#, r#"[" 1"]"#, r#"["1.0"]"#, "[[300]]"] {
            assert_eq!(reduce(ReduceFunction::StringToInteger, terms_of(bad)), Err(Term::atom("badarg")), "{bad}");
        }
        assert_eq!(reduce(ReduceFunction::StringToInteger, terms_of("[null]")), Err(Term::atom("function_clause")));
    }

    proptest! {
        /// What [`ReduceFunction`] promises of all functions, and what batches of any size rely on.
        #[test]
        fn batches_make_no_difference(inputs in prop::collection::vec(terms(), 0..12), at in 0usize..12) {
            let at = at.min(inputs.len());
            for function in [ReduceFunction::SetUnion, ReduceFunction::Sort, ReduceFunction::CountInputs] {
                let Ok(whole) = reduce(function, inputs.clone()) else { continue };
                let Ok(mut batch) = reduce(function, inputs[..at].to_vec()) else { continue };
                batch.extend_from_slice(&inputs[at..]);
                prop_assert_eq!(reduce(function, batch), Ok(whole));
            }
        }
    }
}
