//! From a key to the place of its entry. The keys themselves are in the entries.

use std::{
    hash::{BuildHasher as _, Hash},
    marker::PhantomData,
};

use foldhash::fast::RandomState;
use hashbrown::{HashTable, hash_table::Entry};

use super::{Packed, Pages};
use crate::{ledger::late::Block, units::Avma};

/// Below this the table is not made smaller.
const SMALL: usize = 1 << 12;

/// What an entry can be found by.
pub(super) trait Key: Copy + Eq + Hash {
    /// The key of an entry.
    fn of(entry: &Packed) -> Self;
}

impl Key for Avma {
    #[inline]
    fn of(entry: &Packed) -> Self {
        entry.buffer()
    }
}

impl Key for Block {
    #[inline]
    fn of(entry: &Packed) -> Self {
        entry.block()
    }
}

/// Places by key, at most one of each.
#[derive(Debug)]
pub(super) struct Index<K> {
    places: HashTable<u32>,
    hasher: RandomState,
    key: PhantomData<K>,
}

impl<K> Default for Index<K> {
    fn default() -> Self {
        Self { places: HashTable::new(), hasher: RandomState::default(), key: PhantomData }
    }
}

impl<K: Key> Index<K> {
    /// The place of a key's entry.
    #[inline]
    pub fn find(&self, key: K, entries: &Pages) -> Option<u32> {
        let hash = self.hasher.hash_one(key);
        self.places.find(hash, |&place| K::of(entries.get(place)) == key).copied()
    }

    /// Notes where the entry of a key is; returns where it was noted to be before.
    #[inline]
    pub fn set(&mut self, place: u32, entries: &Pages) -> Option<u32> {
        let len = self.places.len();
        if len == self.places.capacity() {
            // At most half full: what was taken out blocks places too, and makes every search long.
            self.rebuild(len * 2 + 1, entries);
        }
        let key = K::of(entries.get(place));
        let hasher = &self.hasher;
        let same = |&other: &u32| K::of(entries.get(other)) == key;
        let rehash = |&other: &u32| hasher.hash_one(K::of(entries.get(other)));
        match self.places.entry(hasher.hash_one(key), same, rehash) {
            Entry::Occupied(mut entry) => Some(std::mem::replace(entry.get_mut(), place)),
            Entry::Vacant(entry) => {
                entry.insert(place);
                None
            }
        }
    }

    /// Takes the place of a key's entry out.
    #[inline]
    pub fn take(&mut self, key: K, entries: &Pages) -> Option<u32> {
        let hash = self.hasher.hash_one(key);
        let same = |&place: &u32| K::of(entries.get(place)) == key;
        Some(self.places.find_entry(hash, same).ok()?.remove().0)
    }

    /// Takes a place out, if it is there.
    pub fn forget(&mut self, place: u32, entries: &Pages) {
        let hash = self.hash(place, entries);
        if let Ok(found) = self.places.find_entry(hash, |&other| other == place) {
            found.remove();
        }
    }

    /// The entry at one place is about to come to another.
    #[inline]
    pub fn relocate(&mut self, from: u32, to: u32, entries: &Pages) {
        let hash = self.hash(from, entries);
        if let Some(place) = self.places.find_mut(hash, |&place| place == from) {
            *place = to;
        }
    }

    /// Gives memory back if most of it is not used.
    pub fn shrink(&mut self, entries: &Pages) {
        if self.places.capacity() > SMALL && self.places.len() < self.places.capacity() / 8 {
            self.rebuild(self.places.len() * 2, entries);
        }
    }

    /// Makes a table for `capacity` places; there must not be more.
    fn rebuild(&mut self, capacity: usize, entries: &Pages) {
        let mut order: Vec<u32> = self.places.iter().copied().collect();
        // So the entries are read from memory one after the other.
        order.sort_unstable();
        let hasher = &self.hasher;
        let hash = |place: &u32| hasher.hash_one(K::of(entries.get(*place)));
        let mut places = HashTable::with_capacity(capacity);
        for place in order {
            places.insert_unique(hash(&place), place, hash);
        }
        self.places = places;
    }

    #[inline]
    fn hash(&self, place: u32, entries: &Pages) -> u64 {
        self.hasher.hash_one(K::of(entries.get(place)))
    }
}
