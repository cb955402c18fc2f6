//! A target's memory that cannot be read any more after a time.
//!
//! What only looks like a set may be made to have millions of buckets, each with a pointer that has to
//! be tried: whoever walks through it is ended from below.

use std::{cell::Cell, time::Instant};

use super::memory::{TargetMemory, Unreadable};
use crate::units::Avma;

/// The clock is looked at once in so many reads.
const READS: u32 = 64;

/// Memory until a time.
pub struct Timed<'a> {
    memory: &'a dyn TargetMemory,
    until: Instant,
    reads: Cell<u32>,
    over: Cell<bool>,
}

impl<'a> Timed<'a> {
    /// Until then.
    pub fn new(memory: &'a dyn TargetMemory, until: Instant) -> Self {
        Self { memory, until, reads: Cell::new(0), over: Cell::new(false) }
    }

    /// Whether a read has failed because the time was over.
    pub fn is_over(&self) -> bool {
        self.over.get()
    }
}

impl TargetMemory for Timed<'_> {
    fn read(&self, from: Avma, to: &mut [u8]) -> Result<(), Unreadable> {
        let reads = self.reads.get();
        self.reads.set(reads.wrapping_add(1));
        if reads.is_multiple_of(READS) && Instant::now() >= self.until {
            self.over.set(true);
        }
        if self.over.get() { Err(Unreadable(from)) } else { self.memory.read(from, to) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::target::memory::SavedMemory;

    #[test]
    fn after_its_time_nothing_can_be_read() {
        let mut memory = SavedMemory::default();
        memory.add_word(Avma(8), 7);
        let now = Instant::now();
        let in_time = Timed::new(&memory, now + Duration::from_secs(1000));
        assert_eq!((in_time.word(Avma(8)), in_time.is_over()), (Ok(7), false));
        let late = Timed::new(&memory, now);
        assert_eq!((late.word(Avma(8)), late.is_over()), (Err(Unreadable(Avma(8))), true));
        let ends = Timed::new(&memory, now + Duration::from_millis(1));
        while ends.word(Avma(8)).is_ok() {}
        assert!(ends.is_over());
    }
}
