//! The entries of the live set, in pages that never move.
//!
//! The room of one that goes is taken by the next that comes: in a program that allocates and
//! frees, that is the room that is still in the processor's cache, and nothing has to be moved.
//!
//! Invariant: exactly the places in `vacant`, and those from `places` on, hold no entry.

use super::{Coming, entry::Entry};
use crate::fetch::{CACHE_LINE, fetch};

/// Entries of a page: 96 KiB.
const PAGE: usize = 1024;
/// So much room may be vacant, whatever there is.
const VACANT: usize = if cfg!(test) { 4 } else { 64 };
/// And of all room one part in so many.
const VACANT_PART: usize = 8;

/// The place of an entry, counted from 0.
pub(in crate::ledger) type LivePlace = u32;

/// Entries by their place.
#[derive(Debug, Default)]
pub(super) struct Slab {
    pages: Vec<Box<[Entry; PAGE]>>,
    /// Places, with and without an entry.
    places: usize,
    /// The places without an entry; the last one becomes filled first.
    vacant: Vec<LivePlace>,
}

impl Slab {
    /// How many entries there are.
    pub const fn len(&self) -> usize {
        self.places - self.vacant.len()
    }

    /// The places that are filled, in order.
    pub fn places(&self) -> impl Iterator<Item = LivePlace> {
        let filled = |place: &LivePlace| !self.get(*place).is_vacant();
        (0..place_of(self.places)).filter(filled)
    }

    /// The entry of a place that is filled.
    #[inline]
    pub fn get(&self, place: LivePlace) -> &Entry {
        let place = place as usize;
        &self.pages[place / PAGE][place % PAGE]
    }

    /// Has the processor fetch an entry.
    #[inline]
    pub fn fetch(&self, place: LivePlace) {
        // It lies in two cache lines.
        let entry = std::ptr::from_ref(self.get(place)).cast::<u8>();
        fetch(entry);
        fetch(entry.wrapping_add(CACHE_LINE));
    }

    #[inline]
    fn get_mut(&mut self, place: LivePlace) -> &mut Entry {
        let place = place as usize;
        &mut self.pages[place / PAGE][place % PAGE]
    }

    /// The entries in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        let rooms = self.pages.iter().flat_map(|page| page.iter()).take(self.places);
        rooms.filter(|entry| !entry.is_vacant())
    }

    /// Adds an entry; returns its place.
    #[inline]
    pub fn add(&mut self, coming: &Coming<'_>) -> LivePlace {
        // Made where it stays: it is too large to be carried about.
        if let Some(place) = self.vacant.pop() {
            *self.get_mut(place) = Entry::new(coming);
            return place;
        }
        self.append(Entry::new(coming))
    }

    #[inline(never)]
    fn append(&mut self, entry: Entry) -> LivePlace {
        let place = place_of(self.places);
        if self.places.is_multiple_of(PAGE) {
            let page: Result<Box<[Entry; PAGE]>, _> = vec![entry; PAGE].try_into();
            self.pages.push(page.expect("as many as a page has"));
        }
        self.places += 1;
        *self.get_mut(place) = entry;
        place
    }

    /// Takes an entry out. It can be read until room is taken or given back.
    #[inline]
    pub fn vacate(&mut self, place: LivePlace) {
        self.get_mut(place).vacate();
        self.vacant.push(place);
    }

    /// Whether so much room is vacant that it should be given back.
    #[inline]
    pub const fn is_wasteful(&self) -> bool {
        self.vacant.len() > VACANT + self.places / VACANT_PART
    }

    /// Leaves no room vacant. `moves` is told where an entry is, and where it is about to be.
    pub fn compact(&mut self, mut moves: impl FnMut(&Self, LivePlace, LivePlace)) {
        let mut vacant = std::mem::take(&mut self.vacant);
        vacant.sort_unstable();
        for place in vacant {
            self.drop_vacant_end();
            if place as usize >= self.places {
                break;
            }
            let last = place_of(self.places - 1);
            moves(self, last, place);
            *self.get_mut(place) = *self.get(last);
            self.drop_last();
        }
        self.drop_vacant_end();
        self.vacant.shrink_to_fit();
    }

    fn drop_vacant_end(&mut self) {
        while self.places > 0 && self.get(place_of(self.places - 1)).is_vacant() {
            self.drop_last();
        }
    }

    fn drop_last(&mut self) {
        self.places -= 1;
        self.pages.truncate(self.places.div_ceil(PAGE));
    }
}

/// A place has 32 bits.
fn place_of(index: usize) -> LivePlace {
    u32::try_from(index).expect("four billion entries are 400 GB")
}
