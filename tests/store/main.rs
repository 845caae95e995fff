//! The stores against their contract, against the model, and against crashes.

mod contract;
mod crash_points;
mod durability;
mod histories;
mod maps;
mod support;
