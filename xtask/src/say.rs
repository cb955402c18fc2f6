//! What xtask says: one line per step, so that nothing happens unseen.
//!
//! Only the wording is here; what a step does, and whether it was needed, its caller knows.

use std::time::Instant;

/// Opens a part of the work.
pub fn heading(text: &str) {
    println!("\n== {text}");
}

/// A step that had nothing to do.
pub fn present(what: &str) {
    println!("  ✓ {what}: already there");
}

/// A fact worth knowing.
pub fn note(text: &str) {
    println!("  · {text}");
}

/// Something that will be missed later, and what to do about it.
pub fn warn(text: &str) {
    println!("  ! {text}");
}

/// A step that takes time; says how long when it is done.
#[derive(Debug)]
pub struct Step {
    what: String,
    start: Instant,
}

impl Step {
    /// Says that the step begins.
    pub fn begin(doing: &str, what: &str) -> Self {
        println!("  … {doing} {what}");
        Self { what: what.to_owned(), start: Instant::now() }
    }

    /// Says that the step is done.
    pub fn done(self) {
        println!("  ✓ {} ({:.1} s)", self.what, self.start.elapsed().as_secs_f64());
    }
}
