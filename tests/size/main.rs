//! Objects of very many members and fields: what operations on them cost, and what they leave behind.

mod churn;
mod counts;
mod fetch;
mod linear;
#[path = "../support/requests.rs"]
mod requests;
#[path = "../support/mod.rs"]
mod support;
#[path = "../support/workbench.rs"]
mod workbench;
