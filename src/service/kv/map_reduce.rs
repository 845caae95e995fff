//! RpbMapRedReq: always a stream (`queries.md` §3).

use crate::mapreduce::{self, Job};
use crate::message::Reply;
use crate::message::generated::{RpbMapRedReq, RpbMapRedResp};
use crate::service::error::Refusal;
use crate::service::options::required;
use crate::service::{Answer, Service, stream};

pub(in crate::service) fn map_reduce(service: &Service, request: RpbMapRedReq) -> Result<Answer, Refusal> {
    let options = &service.options.map_reduce;
    if !options.enabled {
        return Err(Refusal::open("Operation '{riak_kv,map_reduce}' is not enabled"));
    }
    let job = Job::parse(&required(request.request), &required(request.content_type), options.term_limits())?;
    let mut results = mapreduce::start(service.engine.clone(), job, options)?;
    Ok(stream::stream(|sender| async move {
        loop {
            let result = results.recv().await;
            let ends = !matches!(result, Some(Ok(_)));
            let reply = match result {
                Some(Ok(results)) => Reply::MapReduce(RpbMapRedResp {
                    phase: Some(results.phase),
                    response: Some(results.response),
                    done: None,
                }),
                // The last frame has never carried results.
                None => Reply::MapReduce(RpbMapRedResp { phase: None, response: None, done: Some(true) }),
                Some(Err(error)) => Refusal::from(error).into_reply(),
            };
            // The job ends with its receiver.
            if sender.send(reply).await.is_err() || ends {
                return;
            }
        }
    }))
}
