//! RpbGetBucketKeyPreflistReq (`kv.md` §13): where Riak's ring would keep a key. Every replica is here.

use crate::domain::key::ObjectName;
use crate::domain::ring;
use crate::message::Reply;
use crate::message::generated::{RpbBucketKeyPreflistItem, RpbGetBucketKeyPreflistReq, RpbGetBucketKeyPreflistResp};
use crate::service::Service;
use crate::service::error::Refusal;
use crate::service::kv::name::{checked, no_bucket_type};
use crate::service::options::required;

/// The key function that places all keys of a bucket together.
const BUCKET_ONLY: (&[u8], &[u8]) = (b"riak_core_util", b"chash_bucketonly_keyfun");

pub(in crate::service) fn preflist(service: &Service, request: RpbGetBucketKeyPreflistReq) -> Result<Reply, Refusal> {
    let key = required(request.key);
    let bucket = checked(request.r#type, request.bucket, Some(&key))?;
    let Some(props) = service.engine.buckets().props(&bucket) else {
        return Err(no_bucket_type(&bucket.bucket_type));
    };
    let bucket_only = (&props.chash_keyfun.module[..], &props.chash_keyfun.function[..]) == BUCKET_ONLY;
    let ring_size = service.options.ring_size;
    // More replicas than partitions would name each of them again.
    let n_val = props.n_val.min(ring_size);
    let partitions = ring::partitions(&ObjectName { bucket, key }, bucket_only, ring_size, n_val);
    let item = |partition: u32| RpbBucketKeyPreflistItem {
        partition: partition.into(),
        node: service.options.node_name.clone(),
        primary: true,
    };
    Ok(Reply::Preflist(RpbGetBucketKeyPreflistResp { preflist: partitions.into_iter().map(item).collect() }))
}
