//! A target's memory by whole pages, each read once: a system call for each word of thousands of
//! objects would take most of the time of a reading.

use std::cell::RefCell;

use super::memory::{TargetMemory, Unreadable};
use crate::units::Avma;

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;
/// Pages that are kept: some more than what is close to each other in a reading.
const KEPT: usize = 512;
/// No page has this number.
const NONE: u64 = u64::MAX;

/// Memory as it was when each page was first asked for. A page makes room for another one in time,
/// and is then read anew.
pub struct Pages<'a> {
    memory: &'a dyn TargetMemory,
    kept: RefCell<Kept>,
}

/// Pages by their numbers, each at the one place where it can be.
struct Kept {
    numbers: Vec<u64>,
    bytes: Vec<u8>,
}

impl<'a> Pages<'a> {
    /// Nothing has been read.
    pub fn new(memory: &'a dyn TargetMemory) -> Self {
        let kept = Kept { numbers: vec![NONE; KEPT], bytes: vec![0; KEPT * PAGE_BYTES] };
        Self { memory, kept: RefCell::new(kept) }
    }
}

impl Kept {
    /// The bytes of a page; `None`: it cannot be read as a whole.
    fn page(&mut self, memory: &dyn TargetMemory, number: u64) -> Option<&[u8]> {
        let place = usize::try_from(number % KEPT as u64).ok()?;
        let bytes = &mut self.bytes[place * PAGE_BYTES..][..PAGE_BYTES];
        if self.numbers[place] != number {
            self.numbers[place] = NONE;
            memory.read(Avma(number * PAGE_BYTES as u64), bytes).ok()?;
            self.numbers[place] = number;
        }
        Some(bytes)
    }

    /// Fills `to`; `None`: not all of it is on pages that can be read.
    fn copy(&mut self, memory: &dyn TargetMemory, from: Avma, to: &mut [u8]) -> Option<()> {
        let mut at = from.0;
        let mut rest = to;
        while !rest.is_empty() {
            let offset = usize::try_from(at % PAGE_BYTES as u64).ok()?;
            let len = rest.len().min(PAGE_BYTES - offset);
            let (piece, behind) = rest.split_at_mut(len);
            piece
                .copy_from_slice(&self.page(memory, at / PAGE_BYTES as u64)?[offset..offset + len]);
            at = at.checked_add(len as u64)?;
            rest = behind;
        }
        Some(())
    }
}

impl TargetMemory for Pages<'_> {
    fn read(&self, from: Avma, to: &mut [u8]) -> Result<(), Unreadable> {
        // No bytes are on no page: whether they can be read is for the memory to say.
        if !to.is_empty() && self.kept.borrow_mut().copy(self.memory, from, to).is_some() {
            return Ok(());
        }
        self.memory.read(from, to)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;
    use crate::target::memory::{CountingMemory, SavedMemory};

    const START: u64 = 0x10_0000;

    /// So many pages that can be read, and their bytes.
    fn memory(pages: usize) -> (CountingMemory, Vec<u8>) {
        let bytes: Vec<u8> = (0..=250).cycle().take(pages * PAGE_BYTES).collect();
        let mut inner = SavedMemory::default();
        inner.add(Avma(START), bytes.clone());
        (CountingMemory { inner, reads: Cell::new(0) }, bytes)
    }

    proptest! {
        /// Whatever is asked for is what is there, or cannot be read as it could not be without.
        #[test]
        fn what_is_read_is_what_is_there(
            asked in proptest::collection::vec((0_u64..4 * PAGE_BYTES as u64, 0_usize..9000), 1..40),
        ) {
            let (memory, _) = memory(3);
            let pages = Pages::new(&memory);
            for (offset, len) in asked {
                let at = Avma(START - PAGE_BYTES as u64 / 2 + offset);
                let (mut got, mut there) = (vec![0; len], vec![0; len]);
                let is_there = memory.inner.read(at, &mut there);
                prop_assert_eq!(pages.read(at, &mut got), is_there);
                prop_assert!(is_there.is_err() || got == there);
            }
        }
    }

    #[test]
    fn a_page_is_read_once_and_what_pushed_it_out_is_not_taken_for_it() {
        let (memory, bytes) = memory(KEPT + 1);
        let pages = Pages::new(&memory);
        let word = |at: usize| {
            assert_eq!(
                pages.word(Avma(START + at as u64)).unwrap().to_le_bytes(),
                bytes[at..at + 8]
            );
            memory.reads.replace(0)
        };
        assert_eq!((word(0), word(PAGE_BYTES - 8), word(8)), (1, 0, 0));
        assert_eq!((word(PAGE_BYTES - 4), word(PAGE_BYTES)), (1, 0));
        assert_eq!((word(KEPT * PAGE_BYTES), word(0), word(PAGE_BYTES)), (1, 1, 0));
    }

    #[test]
    fn what_is_not_a_whole_page_can_be_read_too() {
        let mut saved = SavedMemory::default();
        saved.add_word(Avma(0x2008), 7);
        let pages = Pages::new(&saved);
        assert_eq!(pages.word(Avma(0x2008)), Ok(7));
        for bad in [0x2000, u64::MAX, u64::MAX - 3] {
            assert!(pages.word(Avma(bad)).is_err(), "{bad:x}");
        }
    }
}
