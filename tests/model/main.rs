//! The pure core against recorded histories and generated ones.

mod history;
mod laws;
mod reference;
mod vectors;
