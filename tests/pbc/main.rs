//! The program from outside: bytes on a socket, commands, signals.

mod broken_pipes;
mod commands;
mod contexts;
mod framing;
mod full_disk;
mod idle;
#[path = "../support/in_process.rs"]
mod in_process;
mod inspect;
mod leave;
mod listings;
mod map_layouts;
mod objects;
mod pressure;
mod process;
mod readme;
mod refusals;
#[path = "../support/requests.rs"]
mod requests;
mod stalls;
#[path = "../support/mod.rs"]
mod support;
mod vectors;
