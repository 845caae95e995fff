//! Requests about the server and the connection.

pub(super) mod client_id;
pub(super) mod ping;
pub(super) mod server_info;
pub(super) mod start_tls;
