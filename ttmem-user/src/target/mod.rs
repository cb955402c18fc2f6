//! What is known of a target: its files and its memory.

pub mod image;
