//! RpbGetClientIdReq and RpbSetClientIdReq: a name that a connection may keep, without any influence.

use bytes::Bytes;

use crate::message::Reply;
use crate::message::generated::{RpbGetClientIdResp, RpbSetClientIdReq};
use crate::service::ClientState;
use crate::service::options::required;

pub(in crate::service) fn get(state: &ClientState) -> Reply {
    Reply::ClientId(RpbGetClientIdResp { client_id: state.client_id.clone() })
}

pub(in crate::service) fn set(state: &mut ClientState, request: RpbSetClientIdReq) -> Reply {
    // A copy: a slice would keep the whole buffer that it was read into.
    state.client_id = Bytes::copy_from_slice(&required(request.client_id));
    Reply::SetClientId
}
