//! RpbGetServerInfoReq: what clients decide by what they may use.

use crate::message::Reply;
use crate::message::generated::RpbGetServerInfoResp;
use crate::service::Service;

pub(in crate::service) fn server_info(service: &Service) -> Reply {
    Reply::ServerInfo(RpbGetServerInfoResp {
        node: Some(service.options.node_name.clone()),
        server_version: Some(service.options.server_version.clone()),
    })
}
