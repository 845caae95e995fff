//! One match from request to file, and no logic.

use super::error::Refusal;
use super::{Answer, ClientState, Service, admin, bucket, datatype, index, kv};
use crate::message::Request;

pub(super) async fn dispatch(service: &Service, state: &mut ClientState, request: Request) -> Result<Answer, Refusal> {
    let reply = match request {
        Request::Ping => admin::ping::ping(),
        Request::GetClientId => admin::client_id::get(state),
        Request::SetClientId(request) => admin::client_id::set(state, request),
        Request::GetServerInfo => admin::server_info::server_info(service),
        Request::StartTls => return Err(admin::start_tls::start_tls()),
        Request::Get(request) => kv::get::get(service, request).await?,
        Request::Put(request) => kv::put::put(service, request).await?,
        Request::Delete(request) => kv::delete::delete(service, request).await?,
        Request::ListBuckets(request) => return kv::list_buckets::list_buckets(service, request).await,
        Request::ListKeys(request) => return kv::list_keys::list_keys(service, request),
        Request::GetBucket(request) => bucket::props::get(service, request)?,
        Request::SetBucket(request) => bucket::props::set(service, *request).await?,
        Request::ResetBucket(request) => bucket::reset::reset(service, request).await?,
        Request::Preflist(request) => bucket::preflist::preflist(service, request)?,
        Request::GetBucketType(request) => bucket::type_props::get(service, request)?,
        Request::SetBucketType(request) => bucket::type_props::set(service, *request).await?,
        Request::CounterUpdate(request) => datatype::counter::update(service, request).await?,
        Request::CounterGet(request) => datatype::counter::get(service, request).await?,
        Request::DtFetch(request) => datatype::fetch::fetch(service, request).await?,
        Request::DtUpdate(request) => datatype::update::update(service, state, request).await?,
        Request::MapReduce(request) => return kv::map_reduce::map_reduce(service, request),
        Request::Index(request) => return index::query::query(service, *request).await,
        Request::CsBucket(request) => return index::cs_bucket::fold(service, *request),
    };
    Ok(Answer::Reply(reply))
}
