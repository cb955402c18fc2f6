//! From a key to the place of its entry. The keys themselves are in the entries.

use std::{
    hash::{BuildHasher as _, Hash},
    marker::PhantomData,
};

use foldhash::fast::RandomState;
use hashbrown::{HashTable, hash_table};

use super::{Coming, Entry, LivePlace, Slab};
use crate::{ledger::late::Block, units::Avma};

/// Below this the table is not made smaller.
const SMALL: usize = 1 << 12;

/// What an entry can be found by.
pub(super) trait Key: Copy + Eq + Hash {
    /// The key of an entry.
    fn of(entry: &Entry) -> Self;
}

impl Key for Avma {
    #[inline]
    fn of(entry: &Entry) -> Self {
        entry.buffer()
    }
}

impl Key for Block {
    #[inline]
    fn of(entry: &Entry) -> Self {
        entry.block()
    }
}

/// Places by key, at most one of each.
#[derive(Debug)]
pub(super) struct Index<K> {
    places: HashTable<LivePlace>,
    hasher: RandomState,
    key: PhantomData<K>,
}

impl<K> Default for Index<K> {
    fn default() -> Self {
        Self { places: HashTable::new(), hasher: RandomState::default(), key: PhantomData }
    }
}

impl Index<Avma> {
    /// Adds an entry. `Err`: where there is one already.
    #[inline]
    pub fn put(&mut self, coming: &Coming<'_>, entries: &mut Slab) -> Result<LivePlace, LivePlace> {
        match self.slot(coming.buffer, entries) {
            hash_table::Entry::Occupied(known) => Err(*known.get()),
            hash_table::Entry::Vacant(unknown) => {
                let place = entries.add(coming);
                unknown.insert(place);
                Ok(place)
            }
        }
    }
}

impl<K: Key> Index<K> {
    /// The place of a key's entry.
    #[inline]
    pub fn find(&self, key: K, entries: &Slab) -> Option<LivePlace> {
        let hash = self.hasher.hash_one(key);
        self.places.find(hash, |&place| K::of(entries.get(place)) == key).copied()
    }

    /// Notes where the entry of a key is.
    pub fn set(&mut self, place: LivePlace, entries: &Slab) {
        match self.slot(K::of(entries.get(place)), entries) {
            hash_table::Entry::Occupied(mut known) => *known.get_mut() = place,
            hash_table::Entry::Vacant(unknown) => _ = unknown.insert(place),
        }
    }

    #[inline]
    fn slot(&mut self, key: K, entries: &Slab) -> hash_table::Entry<'_, LivePlace> {
        let len = self.places.len();
        if len == self.places.capacity() {
            // At most half full: what was taken out blocks places too, and makes every search long.
            self.rebuild(len * 2 + 1, entries);
        }
        let hasher = &self.hasher;
        let same = |&other: &LivePlace| K::of(entries.get(other)) == key;
        let rehash = |&other: &LivePlace| hasher.hash_one(K::of(entries.get(other)));
        self.places.entry(hasher.hash_one(key), same, rehash)
    }

    /// Takes the place of a key's entry out.
    #[inline]
    pub fn take(&mut self, key: K, entries: &Slab) -> Option<LivePlace> {
        let hash = self.hasher.hash_one(key);
        let same = |&place: &LivePlace| K::of(entries.get(place)) == key;
        Some(self.places.find_entry(hash, same).ok()?.remove().0)
    }

    /// Takes a place out, if it is there.
    pub fn forget(&mut self, place: LivePlace, entries: &Slab) {
        let hash = self.hash(place, entries);
        if let Ok(found) = self.places.find_entry(hash, |&other| other == place) {
            found.remove();
        }
    }

    /// The entry at one place is about to come to another.
    #[inline]
    pub fn relocate(&mut self, from: LivePlace, to: LivePlace, entries: &Slab) {
        let hash = self.hash(from, entries);
        if let Some(place) = self.places.find_mut(hash, |&place| place == from) {
            *place = to;
        }
    }

    /// Gives memory back if most of it is not used.
    pub fn shrink(&mut self, entries: &Slab) {
        if self.places.capacity() > SMALL && self.places.len() < self.places.capacity() / 8 {
            self.rebuild(self.places.len() * 2, entries);
        }
    }

    /// Makes a table for `capacity` places; there must not be more.
    fn rebuild(&mut self, capacity: usize, entries: &Slab) {
        let mut order: Vec<LivePlace> = self.places.iter().copied().collect();
        // So the entries are read from memory one after the other.
        order.sort_unstable();
        let hasher = &self.hasher;
        let hash = |place: &LivePlace| hasher.hash_one(K::of(entries.get(*place)));
        let mut places = HashTable::with_capacity(capacity);
        for place in order {
            places.insert_unique(hash(&place), place, hash);
        }
        self.places = places;
    }

    #[inline]
    fn hash(&self, place: LivePlace, entries: &Slab) -> u64 {
        self.hasher.hash_one(K::of(entries.get(place)))
    }
}
