//! What the targets in `targets/` share. Each is a program around libFuzzer; `run.sh` runs them.
#![warn(missing_docs, unreachable_pub)]

pub mod conversation;
pub mod heap;
pub mod requests;
