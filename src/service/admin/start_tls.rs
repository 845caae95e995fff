//! RpbStartTls, which only a server with security on accepts.

use crate::service::error::Refusal;

pub(in crate::service) fn start_tls() -> Refusal {
    Refusal::open("Security not enabled; STARTTLS not allowed.")
}
