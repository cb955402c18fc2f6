//! What is free of the banks of one allocator and buffer type: the same holes that tt-metal's
//! free list has, kept up to date with each buffer that comes and goes.
//!
//! Holes only, not blocks: there are few of them, and the live set has the blocks.
//!
//! Invariant: a buffer is either *placed*, and then its bytes lay in one hole before, or
//! *unplaced*: it overlaps a placed one or leaves its bank. While there is an unplaced one, or one
//! of unknown size, nothing is said of the holes. It never panics, whatever comes.

mod holes;

use crate::{event::Geometry, units::Avma};
use holes::Holes;

/// More buffers without a place than this: the pool is given up until it is empty.
const MAX_UNPLACED: usize = 256;

/// What is free of a bank, in bytes of each bank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Free {
    /// All free bytes.
    pub bytes: u64,
    /// Bytes of the largest hole.
    pub largest: u64,
    /// Holes.
    pub holes: u64,
}

impl Free {
    /// How much of the free bytes lies outside of the largest hole, in thousandths, rounded down:
    /// 0 if all is one hole, or if nothing is free.
    pub fn fragmentation_permille(&self) -> u64 {
        let scattered = u128::from(self.bytes.saturating_sub(self.largest)) * 1000;
        let permille = scattered.checked_div(u128::from(self.bytes)).unwrap_or(0);
        u64::try_from(permille).unwrap_or(1000)
    }
}

/// Why it is not known what is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// Where the bank begins is not known.
    Bank,
    /// Live buffers of unknown size.
    Unmeasured,
    /// Buffers with an address of their own on each core.
    PerCore,
    /// Live buffers that overlap others or leave their bank.
    Overlap,
    /// The target's own free list says otherwise.
    Contradicted,
}

impl Unknown {
    /// In words.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Bank => "the address of the bank is not known",
            Self::Unmeasured => "live buffers of unknown size per bank",
            Self::PerCore => "its banks have free lists of their own",
            Self::Overlap => "live buffers overlap or leave their bank",
            Self::Contradicted => "the target's own free list says otherwise",
        }
    }
}

/// The bytes that a buffer takes of each bank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first byte.
    pub start: u64,
    /// How many; `None` if not known.
    pub bytes: Option<u64>,
}

/// A bank: its first byte, and the first byte behind it.
type Bank = (u64, u64);

/// Whether all banks have the same free list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Banks {
    #[default]
    Alike,
    Differ,
}

/// One allocator's banks of one buffer type.
#[derive(Clone, Debug, Default)]
pub struct Space {
    bank: Option<Bank>,
    holes: Holes,
    free: u64,
    unplaced: Vec<(Avma, u64, u64)>,
    given_up: bool,
    live: u64,
    unmeasured: u64,
    /// A buffer with an address of its own on each core has been here. From then on nothing is said:
    /// the banks differ, and tt-metal also enters blocks of other allocators.
    banks: Banks,
    contradicted: bool,
    /// What the target's own free list said when an allocation seemed to be under way.
    suspected: Option<Vec<(u64, u64)>>,
    /// The target's own free list has been read and said the same.
    checked: bool,
}

impl Space {
    /// An empty bank; `None` if it is not known where it lies.
    pub fn new(geometry: &Geometry) -> Self {
        let mut space = Self { bank: bank(geometry), ..Self::default() };
        space.clear();
        space
    }

    /// Whether it is that bank.
    pub fn is(&self, geometry: &Geometry) -> bool {
        self.bank == bank(geometry)
    }

    /// It is the bank of `earlier`, and only begins or ends elsewhere.
    pub const fn resized_from(&mut self, earlier: &Self) {
        self.banks = earlier.banks;
    }

    /// Whether no buffer is in it.
    pub const fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// Whether its holes are not known for a reason that may pass.
    pub const fn is_doubtful(&self) -> bool {
        self.contradicted || self.given_up || !self.unplaced.is_empty()
    }

    /// Empties it, and forgets what had gone wrong.
    pub fn restart(&mut self) {
        *self = Self { bank: self.bank, banks: self.banks, ..Self::default() };
        self.clear();
    }

    /// A buffer with an address of its own on each core is here.
    pub const fn make_uneven(&mut self) {
        self.banks = Banks::Differ;
    }

    /// Takes a buffer in; `false` if it overlaps another or leaves the bank.
    pub fn enter(&mut self, buffer: Avma, range: Range) -> bool {
        self.live += 1;
        let Some(bytes) = range.bytes else {
            self.unmeasured += 1;
            return true;
        };
        if self.bank.is_none() || self.given_up || bytes == 0 {
            return true;
        }
        if let Some(end) = range.start.checked_add(bytes)
            && self.place(range.start, end)
        {
            return true;
        }
        if self.unplaced.len() < MAX_UNPLACED {
            self.unplaced.push((buffer, range.start, bytes));
        } else {
            self.given_up = true;
            self.unplaced = Vec::new();
        }
        false
    }

    /// Takes a buffer out; `range` as it was taken in.
    pub fn leave(&mut self, buffer: Avma, range: Range) {
        self.live = self.live.saturating_sub(1);
        match range.bytes {
            None => self.unmeasured = self.unmeasured.saturating_sub(1),
            Some(bytes) if bytes > 0 && self.bank.is_some() && !self.given_up => {
                let at = self.unplaced.iter().position(|unplaced| unplaced.0 == buffer);
                match at {
                    Some(at) => drop(self.unplaced.swap_remove(at)),
                    None => self.release(range.start, range.start.saturating_add(bytes)),
                }
            }
            Some(_) => {}
        }
        if self.live == 0 && !self.is_whole() {
            self.clear();
        }
    }

    /// What is free, or why that is not known.
    pub fn free(&self) -> Result<Free, Unknown> {
        if self.banks == Banks::Differ {
            return Err(Unknown::PerCore);
        }
        if self.unmeasured > 0 {
            return Err(Unknown::Unmeasured);
        }
        if self.bank.is_none() {
            return Err(Unknown::Bank);
        }
        if self.is_overlapped() {
            return Err(Unknown::Overlap);
        }
        if self.contradicted {
            return Err(Unknown::Contradicted);
        }
        let (holes, largest) = self.holes.count_and_largest();
        Ok(Free { bytes: self.free, largest, holes: holes as u64 })
    }

    /// Whether live buffers overlap others or leave their bank now.
    pub fn is_overlapped(&self) -> bool {
        self.banks != Banks::Differ && (self.given_up || !self.unplaced.is_empty())
    }

    /// The holes in order of address: first byte, first byte behind.
    pub fn holes(&self) -> Vec<(u64, u64)> {
        self.holes.to_vec()
    }

    /// Whether the target's own free list has been read and said the same.
    pub const fn is_checked(&self) -> bool {
        self.checked
    }

    /// Whether a second reading has to tell if an allocation was under way at the first.
    pub const fn is_suspected(&self) -> bool {
        self.suspected.is_some()
    }

    /// The target's own free list says what cannot be.
    pub const fn contradict(&mut self) {
        self.contradicted = true;
        self.checked = false;
    }

    /// It has changed since: what the first reading said is of the past.
    pub fn drop_suspicion(&mut self) {
        self.suspected = None;
    }

    /// Compares with the target's own free list. `false`: they differ, and that is no matter of
    /// an allocation whose event is still to come: not if they differ alike a second time.
    pub fn check(&mut self, own: &[(u64, u64)], steady: bool) -> bool {
        let before = self.suspected.take();
        if self.free().is_err() {
            return true;
        }
        self.checked = self.holes() == own;
        let again = before.is_some_and(|before| before == own);
        let under_way = !steady && !again && {
            let mut lie_in_holes = own.iter();
            lie_in_holes.all(|&(start, end)| self.holes.around(start, end).is_some())
        };
        self.contradicted = !self.checked && !under_way;
        self.suspected = (!self.checked && under_way).then(|| own.to_vec());
        !self.contradicted
    }

    /// Takes bytes out of the hole that has them; `false` if there is none.
    fn place(&mut self, start: u64, end: u64) -> bool {
        let placed = self.holes.take(start, end);
        if placed {
            self.free -= end - start;
        }
        placed
    }

    /// Gives the bytes of a placed buffer back, and joins what they touch.
    fn release(&mut self, start: u64, end: u64) {
        self.holes.give(start, end);
        self.free += end - start;
        if self.unplaced.is_empty() {
            return;
        }
        for (buffer, start, bytes) in std::mem::take(&mut self.unplaced) {
            let end = start.checked_add(bytes);
            if !end.is_some_and(|end| self.place(start, end)) {
                self.unplaced.push((buffer, start, bytes));
            }
        }
    }

    /// Back to an empty bank.
    fn clear(&mut self) {
        self.holes.reset(self.bank.unwrap_or_default());
        self.free = self.size();
        self.unplaced = Vec::new();
        self.given_up = false;
        self.contradicted = false;
    }

    /// Whether it is as [`Self::clear`] would make it.
    const fn is_whole(&self) -> bool {
        self.free == self.size() && !self.is_doubtful()
    }

    /// Bytes of the bank; 0 if it is not known.
    const fn size(&self) -> u64 {
        match self.bank {
            Some((start, end)) => end.saturating_sub(start),
            None => 0,
        }
    }
}

/// A pool without banks is an empty one, wherever it lies.
fn bank(geometry: &Geometry) -> Option<Bank> {
    if geometry.banks == 0 {
        return Some((0, 0));
    }
    let start = geometry.base?.0;
    Some((start, start.checked_add(geometry.bank_size)?))
}

#[cfg(test)]
mod tests;
