//! What is known of a target: the process, its files and its memory.

pub mod bounded;
mod defined;
pub mod file;
pub mod interpreter;
pub mod library;
pub mod live_buffers;
pub mod maps;
pub mod memory;
mod pages;
pub mod process;
pub mod scan;
pub mod shm;
mod timed;
