//! RpbIndexReq (`queries.md` §1). `cover_context` and `return_body` are ignored, as by every Riak KV.

use std::time::Duration;

use bytes::Bytes;

use super::continuation;
use crate::domain::index::{IndexRange, Posting, TermKind};
use crate::domain::key::BucketName;
use crate::domain::pattern::Pattern;
use crate::engine::{EngineError, IndexQuery, Postings};
use crate::erlang::print::binary;
use crate::message::Reply;
use crate::message::generated::rpb_index_req::IndexQueryType;
use crate::message::generated::{RpbIndexReq, RpbIndexResp, RpbPair};
use crate::service::error::Refusal;
use crate::service::kv::name::listing_refusal;
use crate::service::options::{required, timeout};
use crate::service::{Answer, Service, stream};

/// Postings in one frame of a stream, and in one read of any query.
const PAGE_MAX: usize = 512;

pub(in crate::service) async fn query(service: &Service, request: RpbIndexReq) -> Result<Answer, Refusal> {
    let streams = request.stream == Some(true);
    let (enabled, class) = match streams {
        true => (service.options.index_queries.stream, "stream_secondary_index"),
        false => (service.options.index_queries.whole, "secondary_index"),
    };
    if !enabled {
        return Err(Refusal::open(format!("Operation '{{riak_kv,{class}}}' is not enabled")));
    }
    let (query, form) = read(request)?;
    let bucket_type = query.bucket.bucket_type.clone();
    let postings = service.engine.query_index(query, PAGE_MAX);
    let postings = postings.map_err(|error| listing_refusal(error, &bucket_type))?;
    if streams {
        Ok(as_stream(postings, form))
    } else {
        collect(postings, form, service.options.reply_size_bytes_max).await
    }
}

/// What of the postings the client is shown.
struct Form {
    /// Whether with their terms.
    terms: bool,
    /// Whether all are under one term, so that a continuation names a key alone.
    exact: bool,
    results_max: Option<usize>,
}

/// The query that a request asks for. The order of the checks shows.
fn read(request: RpbIndexReq) -> Result<(IndexQuery, Form), Refusal> {
    let Ok(kind) = IndexQueryType::try_from(request.qtype.unwrap_or_default()) else {
        return Err(Refusal::malformed("an index query of an unknown kind"));
    };
    let bounds = match kind {
        IndexQueryType::Eq => match request.key {
            Some(value) => (value.clone(), value),
            None => return Err(Refusal::open("Invalid equality query undefined")),
        },
        IndexQueryType::Range => match (request.range_min, request.range_max) {
            (Some(min), Some(max)) => (min, max),
            (min, max) => {
                let bound = |bound: Option<Bytes>| bound.map_or("undefined".into(), |bound| binary(&bound));
                return Err(Refusal::open(format!("Invalid range query: {} -> {}", bound(min), bound(max))));
            }
        },
    };
    let pattern = match request.term_regex {
        Some(regex) => Some(Pattern::compile(&regex).map_err(|error| {
            let text = format!("Invalid term regular expression {} : {{\"{error}\",0}}", binary(&regex));
            Refusal::open(text)
        })?),
        None => None,
    };
    let range = IndexRange::between(&required(request.index), bounds.0, bounds.1)?;
    let form = Form {
        terms: request.return_terms == Some(true) && kind == IndexQueryType::Range && range.term_kind().is_some(),
        exact: kind == IndexQueryType::Eq,
        results_max: request.max_results.map(|max| usize::try_from(max).unwrap_or(usize::MAX)),
    };
    let after = match request.continuation {
        Some(token) => Some(position(&token, &range, form.exact)?),
        None => None,
    };
    if pattern.is_some() && range.term_kind() == Some(TermKind::Integer) {
        return Err(Refusal::open("Can not use term regular expression in integer query"));
    }
    let query = IndexQuery {
        bucket: BucketName::new(request.r#type, required(request.bucket)),
        // Of `$bucket` all keys are asked for, whatever else is.
        pattern: pattern.filter(|_| range != IndexRange::BUCKET),
        range,
        after,
        results_max: form.results_max,
        patience: patience(request.timeout),
    };
    Ok((query, form))
}

/// Where the page ended that a token comes from.
fn position(token: &Bytes, range: &IndexRange, exact: bool) -> Result<Posting, Refusal> {
    let invalid = || Refusal::open(format!("{{invalid_continuation,{}}}", binary(token)));
    let posting = continuation::decode(token).ok_or_else(invalid)?;
    match (range, posting) {
        (IndexRange::Keys { .. }, posting @ Posting { term: None, .. }) => Ok(posting),
        (IndexRange::Terms { from, .. }, Posting { term: None, key }) if exact => {
            Ok(Posting { term: Some(from.clone()), key })
        }
        (IndexRange::Terms { from, .. }, posting @ Posting { term: Some(_), .. }) if !exact => {
            // A term of the other kind is a position in another index.
            let same_kind =
                posting.term.as_ref().is_some_and(|term| std::mem::discriminant(term) == std::mem::discriminant(from));
            if same_kind { Ok(posting) } else { Err(invalid()) }
        }
        _ => Err(invalid()),
    }
}

/// How long a query may take. Zero is how clients say "for ever".
pub(super) fn patience(value: Option<u32>) -> Option<Duration> {
    timeout(value).filter(|patience| !patience.is_zero())
}

impl Form {
    fn message(&self, page: Vec<Posting>) -> RpbIndexResp {
        let mut message = RpbIndexResp::default();
        self.add(&mut message, page);
        message
    }

    fn add(&self, message: &mut RpbIndexResp, page: Vec<Posting>) {
        for Posting { term, key } in page {
            match term {
                Some(term) if self.terms => {
                    message.results.push(RpbPair { key: Some(term.as_bytes().clone()), value: Some(key) });
                }
                _ => message.keys.push(key),
            }
        }
    }

    /// What a posting takes in a message, but for a few bytes.
    fn size_bytes(&self, posting: &Posting) -> usize {
        let term = posting.term.as_ref().filter(|_| self.terms);
        posting.key.len() + term.map_or(0, |term| term.as_bytes().len())
    }

    /// The token of a page with so many postings. A page that is full has one, even where nothing follows.
    fn continuation(&self, count: usize, last: Option<Posting>) -> Option<Bytes> {
        let Posting { term, key } = last.filter(|_| self.results_max == Some(count))?;
        let term = term.filter(|_| !self.exact);
        Some(continuation::encode(&Posting { term, key }))
    }
}

async fn collect(mut postings: Postings, form: Form, size_bytes_max: usize) -> Result<Answer, Refusal> {
    let (mut count, mut last, mut size_bytes) = (0, None, 0);
    let mut message = RpbIndexResp::default();
    while let Some(page) = postings.next().await? {
        count += page.len();
        last = page.last().cloned();
        size_bytes += page.iter().map(|posting| form.size_bytes(posting)).sum::<usize>();
        if size_bytes > size_bytes_max {
            return Err(Refusal::open("the result is larger than a reply may be: ask for a stream, or for pages"));
        }
        form.add(&mut message, page);
    }
    message.continuation = form.continuation(count, last);
    Ok(Answer::Reply(Reply::Index(message)))
}

/// Frames without a continuation and then one without postings: clients lose what comes beside the other.
fn as_stream(mut postings: Postings, form: Form) -> Answer {
    stream::stream(|sender| async move {
        let (mut count, mut last) = (0, None);
        loop {
            let page = postings.next().await;
            let ends = !matches!(page, Ok(Some(_)));
            let reply = match page {
                Ok(Some(page)) => {
                    count += page.len();
                    last = page.last().cloned();
                    Reply::Index(form.message(page))
                }
                Ok(None) => {
                    let continuation = form.continuation(count, last.take());
                    Reply::Index(RpbIndexResp { continuation, done: Some(true), ..RpbIndexResp::default() })
                }
                Err(error) => stream_refusal(error).into_reply(),
            };
            if sender.send(reply).await.is_err() || ends {
                return;
            }
        }
    })
}

/// The error that ends a stream. A timeout reads differently there than in a single reply.
pub(super) fn stream_refusal(error: EngineError) -> Refusal {
    match error {
        EngineError::Timeout => Refusal::open("{error,timeout}"),
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(index: &'static str) -> RpbIndexReq {
        let bytes = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
        RpbIndexReq { bucket: bytes("b"), index: bytes(index), key: bytes("1"), ..RpbIndexReq::default() }
    }

    fn range(index: &'static str) -> RpbIndexReq {
        let (range_min, range_max) = (Some(Bytes::from_static(b"1")), Some(Bytes::from_static(b"2")));
        RpbIndexReq { qtype: Some(IndexQueryType::Range.into()), range_min, range_max, ..request(index) }
    }

    fn refused(request: RpbIndexReq) -> Refusal {
        match read(request) {
            Err(refusal) => refusal,
            Ok((query, _)) => panic!("{query:?}"),
        }
    }

    #[test]
    fn what_is_checked_first_is_told_first() {
        let bad = |request| RpbIndexReq {
            term_regex: Some(Bytes::from_static(b"[abc")),
            continuation: Some(Bytes::from_static(b"!!")),
            ..request
        };
        let bounds = RpbIndexReq { range_max: None, ..bad(range("foo")) };
        assert_eq!(refused(bounds), Refusal::open(r#"Invalid range query: <<"1">> -> undefined"#));
        let text = r#"Invalid term regular expression <<"[abc">> : {"unclosed character class",0}"#;
        assert_eq!(refused(bad(range("foo"))), Refusal::open(text));
        let regex = |request| RpbIndexReq { term_regex: Some(Bytes::from_static(b"1")), ..request };
        assert_eq!(refused(regex(bad(range("foo")))), Refusal::open(r#"{unknown_field_type,<<"foo">>}"#));
        assert_eq!(refused(regex(bad(range("a_int")))), Refusal::open(r#"{invalid_continuation,<<"!!">>}"#));
        let text = "Can not use term regular expression in integer query";
        assert_eq!(refused(regex(range("a_int"))), Refusal::open(text));
        assert!(read(regex(request("$bucket"))).is_ok_and(|(query, _)| query.pattern.is_none()));
        assert!(read(regex(request("$key"))).is_ok_and(|(query, _)| query.pattern.is_some()));
        let strange = RpbIndexReq { qtype: Some(7), ..request("a_bin") };
        assert_eq!(refused(strange), Refusal::malformed("an index query of an unknown kind"));
    }

    #[test]
    fn a_token_fits_the_kind_of_query_that_it_comes_from() {
        let key = Posting { term: None, key: Bytes::from_static(b"k") };
        let of = |index: &[u8]| match IndexRange::exact(index, Bytes::from_static(b"1")).unwrap() {
            IndexRange::Terms { from, .. } => Posting { term: Some(from), ..key.clone() },
            IndexRange::Keys { .. } => key.clone(),
        };
        let (integer, binary) = (of(b"a_int"), of(b"a_bin"));
        let after = |token: &Posting, request: RpbIndexReq| {
            let request = RpbIndexReq { continuation: Some(continuation::encode(token)), ..request };
            read(request).ok().map(|(query, _)| query.after.unwrap())
        };
        assert_eq!(after(&key, request("a_int")), Some(integer.clone()));
        assert_eq!(after(&integer, request("a_int")), None);
        assert_eq!(after(&integer, range("a_int")), Some(integer.clone()));
        assert_eq!(after(&binary, range("a_int")), None);
        assert_eq!(after(&key, range("a_bin")), None);
        assert_eq!(after(&key, range("$key")), Some(key.clone()));
        assert_eq!(after(&key, request("$bucket")), Some(key.clone()));
        assert_eq!(after(&binary, request("$key")), None);
    }

    #[test]
    fn terms_are_shown_for_ranges_of_terms_only() {
        let shows =
            |request| read(RpbIndexReq { return_terms: Some(true), ..request }).is_ok_and(|(_, form)| form.terms);
        assert!(shows(range("a_bin")));
        assert!(!shows(range("$key")));
        assert!(!shows(request("a_bin")));
    }

    #[test]
    fn zero_is_no_deadline() {
        assert_eq!(patience(Some(0)), None);
        assert_eq!(patience(None), None);
        assert_eq!(patience(Some(5)), Some(Duration::from_millis(5)));
    }
}
