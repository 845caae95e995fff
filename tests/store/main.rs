//! The stores against their contract, against the model, and against crashes.

mod contract;
mod crash_points;
mod data_types;
mod durability;
mod faults;
mod fixtures;
mod histories;
#[path = "../model/history.rs"]
#[allow(dead_code, reason = "the laws use the rest")]
mod history;
mod maps;
mod relaxed;
mod support;
