//! The program from outside: bytes on a socket, commands, signals.

mod commands;
mod contexts;
mod framing;
mod full_disk;
mod idle;
mod inspect;
mod listings;
mod map_layouts;
mod objects;
mod pressure;
mod process;
mod readme;
mod refusals;
#[path = "../support/requests.rs"]
mod requests;
#[path = "../support/mod.rs"]
mod support;
mod vectors;
