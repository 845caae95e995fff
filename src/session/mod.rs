//! Job: one task per connection. Accepts, reads frames, has requests answered, writes replies in request order.
//! Knows: sockets, frames, the codes of messages, and that the service answers.
//! Must not know: what a request means, the engine, the domain, stores.

mod budget;
mod connection;
mod listener;
mod peer;
mod pipeline;

pub use connection::SessionOptions;
pub use listener::{Limits, Listener, ListenerOptions};
