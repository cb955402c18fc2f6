//! What is known → the outside. Each output is a file of its own.

pub mod fits;
pub mod json;
pub mod text;
