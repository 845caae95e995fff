//! The pure core against recorded histories and generated ones.

mod vectors;
