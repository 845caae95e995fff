//! The stores against their contract, against the model, and against crashes.

mod contract;
mod crash_points;
mod durability;
mod faults;
mod fixtures;
mod histories;
mod support;
