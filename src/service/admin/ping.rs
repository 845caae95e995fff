//! RpbPingReq: no work is done.

use crate::message::Reply;

pub(in crate::service) fn ping() -> Reply {
    Reply::Ping
}
