//! Names in requests, with the checks that get, put and preflist make of them (`kv.md` §14).

use bytes::Bytes;

use crate::domain::key::BucketName;
use crate::engine::EngineError;
use crate::service::error::Refusal;

/// The bucket of a request, and its key, neither of them empty. The order of the checks shows.
pub(in crate::service) fn checked(
    bucket_type: Option<Bytes>,
    bucket: Option<Bytes>,
    key: Option<&Bytes>,
) -> Result<BucketName, Refusal> {
    let bucket = bucket.unwrap_or_default();
    if bucket.is_empty() {
        return Err(Refusal::open("Bucket cannot be zero-length"));
    }
    if key.is_some_and(Bytes::is_empty) {
        return Err(Refusal::open("Key cannot be zero-length"));
    }
    if bucket_type.as_ref().is_some_and(Bytes::is_empty) {
        return Err(Refusal::open("Type cannot be zero-length"));
    }
    Ok(BucketName::new(bucket_type, bucket))
}

/// The error of a listing, a query or a fold that does not begin.
pub(in crate::service) fn listing_refusal(error: EngineError, bucket_type: &[u8]) -> Refusal {
    match error {
        EngineError::NoSuchType => no_bucket_type(bucket_type),
        other => other.into(),
    }
}

/// The error of listings and bucket properties for a type that is not there.
pub(in crate::service) fn no_bucket_type(bucket_type: &[u8]) -> Refusal {
    Refusal::open(format!("No bucket-type named '{}'", String::from_utf8_lossy(bucket_type)))
}
