//! Turns a frame's code and payload into a request or reply and back, for both sides of the wire.
//! Knows every message code, the fields of each message, and the two layouts of a map operation.
//! Must not know sessions, services, the domain, or what a request does.

use bytes::Bytes;
use prost::Message;

pub mod code;
mod error;
pub mod generated;
pub mod map_op;
pub mod value;

pub use error::{MalformedReason, MessageError};

use code::{Code, Direction};
use generated::*;
use value::EncodedReply;

/// A request that Ombak serves. The large ones are boxed, for a request is moved from hand to hand.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Code 1.
    Ping,
    /// Code 3.
    GetClientId,
    /// Code 5.
    SetClientId(RpbSetClientIdReq),
    /// Code 7.
    GetServerInfo,
    /// Code 9.
    Get(RpbGetReq),
    /// Code 11.
    Put(Box<RpbPutReq>),
    /// Code 13.
    Delete(RpbDelReq),
    /// Code 15.
    ListBuckets(RpbListBucketsReq),
    /// Code 17.
    ListKeys(RpbListKeysReq),
    /// Code 19.
    GetBucket(RpbGetBucketReq),
    /// Code 21.
    SetBucket(Box<RpbSetBucketReq>),
    /// Code 23.
    MapReduce(RpbMapRedReq),
    /// Code 25.
    Index(Box<RpbIndexReq>),
    /// Code 29.
    ResetBucket(RpbResetBucketReq),
    /// Code 31, answered by [`Reply::Bucket`].
    GetBucketType(RpbGetBucketTypeReq),
    /// Code 32, answered by [`Reply::SetBucket`].
    SetBucketType(Box<RpbSetBucketTypeReq>),
    /// Code 33.
    Preflist(RpbGetBucketKeyPreflistReq),
    /// Code 40.
    CsBucket(Box<RpbCsBucketReq>),
    /// Code 50.
    CounterUpdate(RpbCounterUpdateReq),
    /// Code 52.
    CounterGet(RpbCounterGetReq),
    /// Code 80.
    DtFetch(DtFetchReq),
    /// Code 82.
    DtUpdate(Box<DtUpdateReq>),
    /// Code 255.
    StartTls,
}

impl Request {
    /// Reads a request. Its bytes fields are slices of the payload.
    ///
    /// A missing required field is no error here, except that a message with required fields must have some field.
    /// What a request without fields carries as payload is ignored.
    ///
    /// # Errors
    /// [`MessageError::UnknownCode`] for codes that no service claims, whatever the payload;
    /// [`MessageError::NotARequest`] for those of replies; [`MessageError::Malformed`] when the payload is not the
    /// message. In protocol buffers' terms the latter includes a known field with a wrong wire type, which Riak skips.
    pub fn decode(number: u8, payload: Bytes) -> Result<Request, MessageError> {
        let unknown = MessageError::UnknownCode { code: number };
        let Some(code) = Code::from_number(number) else {
            return Err(unknown);
        };
        Ok(match code {
            Code::RpbPingReq => Request::Ping,
            Code::RpbGetClientIdReq => Request::GetClientId,
            Code::RpbSetClientIdReq => Request::SetClientId(decode_some(code, payload)?),
            Code::RpbGetServerInfoReq => Request::GetServerInfo,
            Code::RpbGetReq => Request::Get(decode_some(code, payload)?),
            Code::RpbPutReq => Request::Put(decode_some(code, payload)?),
            Code::RpbDelReq => Request::Delete(decode_some(code, payload)?),
            // The one request whose fields are all optional.
            Code::RpbListBucketsReq => Request::ListBuckets(decode_any(code, payload)?),
            Code::RpbListKeysReq => Request::ListKeys(decode_some(code, payload)?),
            Code::RpbGetBucketReq => Request::GetBucket(decode_some(code, payload)?),
            Code::RpbSetBucketReq => Request::SetBucket(decode_some(code, payload)?),
            Code::RpbMapRedReq => Request::MapReduce(decode_some(code, payload)?),
            Code::RpbIndexReq => Request::Index(decode_some(code, payload)?),
            Code::RpbResetBucketReq => Request::ResetBucket(decode_some(code, payload)?),
            Code::RpbGetBucketTypeReq => Request::GetBucketType(decode_some(code, payload)?),
            Code::RpbSetBucketTypeReq => Request::SetBucketType(decode_some(code, payload)?),
            Code::RpbGetBucketKeyPreflistReq => Request::Preflist(decode_some(code, payload)?),
            Code::RpbCSBucketReq => Request::CsBucket(decode_some(code, payload)?),
            Code::RpbCounterUpdateReq => Request::CounterUpdate(decode_some(code, payload)?),
            Code::RpbCounterGetReq => Request::CounterGet(decode_some(code, payload)?),
            Code::DtFetchReq => Request::DtFetch(decode_some(code, payload)?),
            Code::DtUpdateReq => Request::DtUpdate(decode_some(code, payload)?),
            Code::RpbStartTls => Request::StartTls,
            reply if reply.is_served() && reply.direction() == Direction::Reply => {
                return Err(MessageError::NotARequest { code: number });
            }
            _ => return Err(unknown),
        })
    }

    /// The code that names this request.
    pub fn code(&self) -> Code {
        match self {
            Request::Ping => Code::RpbPingReq,
            Request::GetClientId => Code::RpbGetClientIdReq,
            Request::SetClientId(_) => Code::RpbSetClientIdReq,
            Request::GetServerInfo => Code::RpbGetServerInfoReq,
            Request::Get(_) => Code::RpbGetReq,
            Request::Put(_) => Code::RpbPutReq,
            Request::Delete(_) => Code::RpbDelReq,
            Request::ListBuckets(_) => Code::RpbListBucketsReq,
            Request::ListKeys(_) => Code::RpbListKeysReq,
            Request::GetBucket(_) => Code::RpbGetBucketReq,
            Request::SetBucket(_) => Code::RpbSetBucketReq,
            Request::MapReduce(_) => Code::RpbMapRedReq,
            Request::Index(_) => Code::RpbIndexReq,
            Request::ResetBucket(_) => Code::RpbResetBucketReq,
            Request::GetBucketType(_) => Code::RpbGetBucketTypeReq,
            Request::SetBucketType(_) => Code::RpbSetBucketTypeReq,
            Request::Preflist(_) => Code::RpbGetBucketKeyPreflistReq,
            Request::CsBucket(_) => Code::RpbCSBucketReq,
            Request::CounterUpdate(_) => Code::RpbCounterUpdateReq,
            Request::CounterGet(_) => Code::RpbCounterGetReq,
            Request::DtFetch(_) => Code::DtFetchReq,
            Request::DtUpdate(_) => Code::DtUpdateReq,
            Request::StartTls => Code::RpbStartTls,
        }
    }

    /// Whether the request changes nothing, so that it may be answered twice.
    pub fn is_read(&self) -> bool {
        match self {
            Request::Ping
            | Request::GetClientId
            | Request::GetServerInfo
            | Request::Get(_)
            | Request::ListBuckets(_)
            | Request::ListKeys(_)
            | Request::GetBucket(_)
            | Request::MapReduce(_)
            | Request::Index(_)
            | Request::GetBucketType(_)
            | Request::Preflist(_)
            | Request::CsBucket(_)
            | Request::CounterGet(_)
            | Request::DtFetch(_) => true,
            Request::SetClientId(_)
            | Request::Put(_)
            | Request::Delete(_)
            | Request::SetBucket(_)
            | Request::ResetBucket(_)
            | Request::SetBucketType(_)
            | Request::CounterUpdate(_)
            | Request::DtUpdate(_)
            | Request::StartTls => false,
        }
    }

    /// The payload, for the client's side. The code is not part of it.
    pub fn encode(&self) -> Bytes {
        match self {
            Request::Ping | Request::GetClientId | Request::GetServerInfo | Request::StartTls => Bytes::new(),
            Request::SetClientId(message) => encode(message),
            Request::Get(message) => encode(message),
            Request::Put(message) => encode(message),
            Request::Delete(message) => encode(message),
            Request::ListBuckets(message) => encode(message),
            Request::ListKeys(message) => encode(message),
            Request::GetBucket(message) => encode(message),
            Request::SetBucket(message) => encode(message),
            Request::MapReduce(message) => encode(message),
            Request::Index(message) => encode(message),
            Request::ResetBucket(message) => encode(message),
            Request::GetBucketType(message) => encode(message),
            Request::SetBucketType(message) => encode(message),
            Request::Preflist(message) => encode(message),
            Request::CsBucket(message) => encode(message),
            Request::CounterUpdate(message) => encode(message),
            Request::CounterGet(message) => encode(message),
            Request::DtFetch(message) => encode(message),
            Request::DtUpdate(message) => encode(message),
        }
    }
}

/// A reply that Ombak sends. Listings and queries send several of one kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// Code 0; answers any request.
    Error(RpbErrorResp),
    /// Code 2.
    Ping,
    /// Code 4.
    ClientId(RpbGetClientIdResp),
    /// Code 6.
    SetClientId,
    /// Code 8.
    ServerInfo(RpbGetServerInfoResp),
    /// Code 10.
    Get(RpbGetResp),
    /// Code 12.
    Put(RpbPutResp),
    /// Code 14.
    Delete,
    /// Code 16.
    ListBuckets(RpbListBucketsResp),
    /// Code 18.
    ListKeys(RpbListKeysResp),
    /// Code 20, for buckets and bucket types. Boxed, for it is far larger than any other reply.
    Bucket(Box<RpbGetBucketResp>),
    /// Code 22, for buckets and bucket types.
    SetBucket,
    /// Code 24.
    MapReduce(RpbMapRedResp),
    /// Code 26.
    Index(RpbIndexResp),
    /// Code 30.
    ResetBucket,
    /// Code 34.
    Preflist(RpbGetBucketKeyPreflistResp),
    /// Code 41.
    CsBucket(RpbCsBucketResp),
    /// Code 42.
    IndexBody(RpbIndexBodyResp),
    /// Code 51.
    CounterUpdate(RpbCounterUpdateResp),
    /// Code 53.
    CounterGet(RpbCounterGetResp),
    /// Code 81.
    DtFetch(DtFetchResp),
    /// Code 83.
    DtUpdate(DtUpdateResp),
    /// Code 81 or 83 with a value that was encoded while it was read.
    Value(EncodedReply),
}

impl Reply {
    /// The code that names this reply.
    pub fn code(&self) -> Code {
        match self {
            Reply::Error(_) => Code::RpbErrorResp,
            Reply::Ping => Code::RpbPingResp,
            Reply::ClientId(_) => Code::RpbGetClientIdResp,
            Reply::SetClientId => Code::RpbSetClientIdResp,
            Reply::ServerInfo(_) => Code::RpbGetServerInfoResp,
            Reply::Get(_) => Code::RpbGetResp,
            Reply::Put(_) => Code::RpbPutResp,
            Reply::Delete => Code::RpbDelResp,
            Reply::ListBuckets(_) => Code::RpbListBucketsResp,
            Reply::ListKeys(_) => Code::RpbListKeysResp,
            Reply::Bucket(_) => Code::RpbGetBucketResp,
            Reply::SetBucket => Code::RpbSetBucketResp,
            Reply::MapReduce(_) => Code::RpbMapRedResp,
            Reply::Index(_) => Code::RpbIndexResp,
            Reply::ResetBucket => Code::RpbResetBucketResp,
            Reply::Preflist(_) => Code::RpbGetBucketKeyPreflistResp,
            Reply::CsBucket(_) => Code::RpbCSBucketResp,
            Reply::IndexBody(_) => Code::RpbIndexBodyResp,
            Reply::CounterUpdate(_) => Code::RpbCounterUpdateResp,
            Reply::CounterGet(_) => Code::RpbCounterGetResp,
            Reply::DtFetch(_) => Code::DtFetchResp,
            Reply::DtUpdate(_) => Code::DtUpdateResp,
            Reply::Value(reply) => reply.code(),
        }
    }

    /// The payload, into which values are copied once. The code is not part of it.
    ///
    /// Map values recurse: the stack and, for prost computes a length on every level, the time grow with their depth.
    /// Readers with protocol buffers' usual limit of 100 messages inside each other refuse what is nested deeper.
    pub fn encode(&self) -> Bytes {
        match self {
            Reply::Ping | Reply::SetClientId | Reply::Delete | Reply::SetBucket | Reply::ResetBucket => Bytes::new(),
            Reply::Error(message) => encode(message),
            Reply::ClientId(message) => encode(message),
            Reply::ServerInfo(message) => encode(message),
            Reply::Get(message) => encode(message),
            Reply::Put(message) => encode(message),
            Reply::ListBuckets(message) => encode(message),
            Reply::ListKeys(message) => encode(message),
            Reply::Bucket(message) => encode(message),
            Reply::MapReduce(message) => encode(message),
            Reply::Index(message) => encode(message),
            Reply::Preflist(message) => encode(message),
            Reply::CsBucket(message) => encode(message),
            Reply::IndexBody(message) => encode(message),
            Reply::CounterUpdate(message) => encode(message),
            Reply::CounterGet(message) => encode(message),
            Reply::DtFetch(message) => encode(message),
            Reply::DtUpdate(message) => encode(message),
            Reply::Value(reply) => reply.parts().concat().into(),
        }
    }

    /// The payload as it is to be written, one part after the other: a large value is not copied behind what precedes it.
    pub fn encode_parts(&self) -> [Bytes; 2] {
        match self {
            Reply::Value(reply) => reply.parts(),
            other => [other.encode(), Bytes::new()],
        }
    }

    /// Reads a reply, for the client's side. What a reply without fields carries as payload is ignored.
    ///
    /// # Errors
    /// [`MessageError::UnknownCode`] for codes that are no reply Ombak sends; [`MessageError::Malformed`] when the
    /// payload is not the message, or its maps are nested too deep (see [`Reply::encode`]).
    pub fn decode(number: u8, payload: Bytes) -> Result<Reply, MessageError> {
        let unknown = MessageError::UnknownCode { code: number };
        let Some(code) = Code::from_number(number) else {
            return Err(unknown);
        };
        Ok(match code {
            Code::RpbErrorResp => Reply::Error(decode_any(code, payload)?),
            Code::RpbPingResp => Reply::Ping,
            Code::RpbGetClientIdResp => Reply::ClientId(decode_any(code, payload)?),
            Code::RpbSetClientIdResp => Reply::SetClientId,
            Code::RpbGetServerInfoResp => Reply::ServerInfo(decode_any(code, payload)?),
            Code::RpbGetResp => Reply::Get(decode_any(code, payload)?),
            Code::RpbPutResp => Reply::Put(decode_any(code, payload)?),
            Code::RpbDelResp => Reply::Delete,
            Code::RpbListBucketsResp => Reply::ListBuckets(decode_any(code, payload)?),
            Code::RpbListKeysResp => Reply::ListKeys(decode_any(code, payload)?),
            Code::RpbGetBucketResp => Reply::Bucket(decode_any(code, payload)?),
            Code::RpbSetBucketResp => Reply::SetBucket,
            Code::RpbMapRedResp => Reply::MapReduce(decode_any(code, payload)?),
            Code::RpbIndexResp => Reply::Index(decode_any(code, payload)?),
            Code::RpbResetBucketResp => Reply::ResetBucket,
            Code::RpbGetBucketKeyPreflistResp => Reply::Preflist(decode_any(code, payload)?),
            Code::RpbCSBucketResp => Reply::CsBucket(decode_any(code, payload)?),
            Code::RpbIndexBodyResp => Reply::IndexBody(decode_any(code, payload)?),
            Code::RpbCounterUpdateResp => Reply::CounterUpdate(decode_any(code, payload)?),
            Code::RpbCounterGetResp => Reply::CounterGet(decode_any(code, payload)?),
            Code::DtFetchResp => Reply::DtFetch(decode_any(code, payload)?),
            Code::DtUpdateResp => Reply::DtUpdate(decode_any(code, payload)?),
            _ => return Err(unknown),
        })
    }
}

/// Decodes a message that has required fields, so that an empty one is malformed.
fn decode_some<M: Message + Default>(code: Code, payload: Bytes) -> Result<M, MessageError> {
    if payload.is_empty() {
        return Err(MessageError::Malformed { code: code.number(), reason: MalformedReason::Empty });
    }
    decode_any(code, payload)
}

fn decode_any<M: Message + Default>(code: Code, payload: Bytes) -> Result<M, MessageError> {
    M::decode(payload).map_err(|error| MessageError::Malformed { code: code.number(), reason: error.into() })
}

fn encode(message: &impl Message) -> Bytes {
    message.encode_to_vec().into()
}

#[cfg(test)]
mod tests;
