//! RpbIndexReq (`queries.md` §1). `cover_context` and `return_body` are ignored, as by every Riak KV.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::continuation;
use crate::domain::index::{IndexRange, Posting, TermKind};
use crate::domain::key::BucketName;
use crate::domain::term_pattern::TermPattern;
use crate::engine::{EngineError, IndexQuery, Postings};
use crate::message::Reply;
use crate::message::generated::rpb_index_req::IndexQueryType;
use crate::message::generated::{RpbIndexReq, RpbIndexResp, RpbPair};
use crate::service::error::Refusal;
use crate::service::kv::list_keys::FRAMES_AHEAD;
use crate::service::kv::name::listing_refusal;
use crate::service::options::{required, timeout};
use crate::service::term::binary;
use crate::service::{Answer, Service};

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
    if streams { Ok(stream(postings, form)) } else { collect(postings, form).await }
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
        Some(regex) => Some(TermPattern::compile(&regex).map_err(|error| {
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
        for Posting { term, key } in page {
            match term {
                Some(term) if self.terms => {
                    message.results.push(RpbPair { key: Some(term.as_bytes().clone()), value: Some(key) });
                }
                _ => message.keys.push(key),
            }
        }
        message
    }

    /// The token of a page with so many postings. A page that is full has one, even where nothing follows.
    fn continuation(&self, count: usize, last: Option<Posting>) -> Option<Bytes> {
        let Posting { term, key } = last.filter(|_| self.results_max == Some(count))?;
        let term = term.filter(|_| !self.exact);
        Some(continuation::encode(&Posting { term, key }))
    }
}

async fn collect(mut postings: Postings, form: Form) -> Result<Answer, Refusal> {
    let mut found = Vec::new();
    while let Some(page) = postings.next().await? {
        found.extend(page);
    }
    let continuation = form.continuation(found.len(), found.last().cloned());
    Ok(Answer::Reply(Reply::Index(RpbIndexResp { continuation, ..form.message(found) })))
}

/// Frames without a continuation and then one without postings: clients lose what comes beside the other.
fn stream(mut postings: Postings, form: Form) -> Answer {
    let (sender, receiver) = mpsc::channel(FRAMES_AHEAD);
    tokio::spawn(async move {
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
            // A connection that is gone does not want the rest.
            if sender.send(reply).await.is_err() || ends {
                return;
            }
        }
    });
    Answer::Stream(receiver)
}

/// The error that ends a stream. A timeout reads differently there than in a single reply.
pub(super) fn stream_refusal(error: EngineError) -> Refusal {
    match error {
        EngineError::Timeout => Refusal::open("{error,timeout}"),
        other => other.into(),
    }
}
