//! The entries of the live set, in pages that never move.
//!
//! Invariant: every page but the last used one is full; behind it is at most one more, empty.

use super::packed::Packed;

/// Entries of a page: 96 KiB.
const PAGE: usize = 1024;

/// Entries by their place, counted from 0.
#[derive(Debug, Default)]
pub(super) struct Pages {
    pages: Vec<Vec<Packed>>,
    len: usize,
}

impl Pages {
    /// How many entries there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// The places, in order.
    pub fn places(&self) -> std::ops::Range<u32> {
        0..place_of(self.len)
    }

    /// The last place. There must be an entry.
    pub fn last_place(&self) -> u32 {
        place_of(self.len - 1)
    }

    /// The entry of a place.
    #[inline]
    pub fn get(&self, place: u32) -> &Packed {
        let place = place as usize;
        &self.pages[place / PAGE][place % PAGE]
    }

    /// The entries in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = &Packed> {
        self.pages.iter().flatten()
    }

    /// Adds an entry behind the last one; returns its place.
    #[inline]
    pub fn push(&mut self, entry: Packed) -> u32 {
        let page = self.len / PAGE;
        if page == self.pages.len() {
            self.pages.push(Vec::with_capacity(PAGE));
        }
        self.pages[page].push(entry);
        self.len += 1;
        self.last_place()
    }

    /// Takes an entry out; the last one comes to its place.
    #[inline]
    pub fn swap_remove(&mut self, place: u32) -> Packed {
        let place = place as usize;
        self.len -= 1;
        let (last_page, last) = (self.len / PAGE, self.len % PAGE);
        let moved = self.pages[last_page][last];
        self.pages[last_page].truncate(last);
        // The page just emptied stays, so that a set that goes up and down by one costs nothing.
        self.pages.truncate(last_page + 2);
        if place == self.len {
            return moved;
        }
        std::mem::replace(&mut self.pages[place / PAGE][place % PAGE], moved)
    }
}

/// A place has 32 bits.
fn place_of(index: usize) -> u32 {
    u32::try_from(index).expect("four billion entries are 400 GB")
}
