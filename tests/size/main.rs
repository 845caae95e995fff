//! Objects of very many members and fields: what operations on them cost, in rows.

mod churn;
mod counts;
#[path = "../support/workbench.rs"]
mod workbench;
