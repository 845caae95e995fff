//! Names of bucket types, buckets and objects: raw bytes, never interpreted as text.

use bytes::Bytes;

/// Name of the bucket type that needs no creation. A request without a type means this one (`kv.md` §5.1).
pub const DEFAULT_TYPE: &[u8] = b"default";

/// A bucket: a name inside a bucket type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BucketName {
    /// The bucket type; [`DEFAULT_TYPE`] when the request names none.
    pub bucket_type: Bytes,
    /// The bucket's own name. It may be empty: some requests accept that (`kv.md` §14).
    pub bucket: Bytes,
}

impl BucketName {
    /// The bucket `bucket` of `bucket_type`, where an absent type means the default one.
    pub fn new(bucket_type: Option<Bytes>, bucket: Bytes) -> Self {
        let bucket_type = bucket_type.unwrap_or(Bytes::from_static(DEFAULT_TYPE));
        Self { bucket_type, bucket }
    }

    /// Whether the bucket belongs to the default type.
    pub fn is_default_type(&self) -> bool {
        self.bucket_type == DEFAULT_TYPE
    }
}

/// An object's full name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// The bucket that holds the object.
    pub bucket: BucketName,
    /// The object's key, up to 65,536 bytes unless configured otherwise.
    pub key: Bytes,
}
