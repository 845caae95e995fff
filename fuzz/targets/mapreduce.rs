//! Texts of MapReduce jobs: no panic, and values that come back from what is written of them.
//! Input: 0 for JSON or another byte for an external term, and the text.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ombak::erlang::external::{self, TermLimits};
use ombak::erlang::{Term, print};
use ombak::mapreduce::{Job, json};
use ombak_fuzz::heap;

/// Small enough to be reached.
const LIMITS: TermLimits = TermLimits { depth_max: 16, terms_max: 500 };
const PRINTED_BYTES_MAX: usize = 60;

fuzz_target!(|input: &[u8]| {
    if let [form, text @ ..] = input {
        heap::bounded(input.len(), || run(*form == 0, &Bytes::copy_from_slice(text)));
    }
});

fn run(is_json: bool, text: &Bytes) {
    let term = if is_json { read_json(text) } else { external::decode(text, LIMITS).ok() };
    if let Some(term) = term {
        write(&term);
    }
    let content_type: &[u8] = if is_json { b"application/json" } else { b"application/x-erlang-binary" };
    // What is wrong with a job is told to the client, with the terms in question.
    if let Err(error) = Job::parse(text, &Bytes::from_static(content_type), LIMITS) {
        assert!(!error.to_string().is_empty());
    }
}

fn read_json(text: &Bytes) -> Option<Term> {
    let term = json::parse(text, LIMITS.terms_max).ok()?;
    let rendered = json::render(&term).expect("what was read from JSON has a JSON form");
    let again = json::parse(rendered.as_bytes(), LIMITS.terms_max).expect("what was written is JSON");
    assert!(same(&again, &term), "{term:?} became {again:?}");
    Some(term)
}

fn write(term: &Term) {
    // Three bytes say that there is more.
    assert!(print::term(term, PRINTED_BYTES_MAX).len() <= PRINTED_BYTES_MAX + 3);
    // Not every term has a JSON form.
    let _ = json::render(term);
    let list = Term::List(vec![term.clone()]);
    let encoded = external::encode_list(std::slice::from_ref(term)).expect("what was read has no records");
    let limits = TermLimits { depth_max: usize::MAX, terms_max: usize::MAX };
    let again = external::decode(&encoded.into(), limits).expect("what was written is a term");
    assert!(same(&again, &list), "{list:?} became {again:?}");
}

fn same(left: &Term, right: &Term) -> bool {
    left.compare_exactly(right).is_eq()
}
