//! The live set: what is live at one instant, and ways to look at it.
//!
//! A row that goes leaves its place to the next that comes: what was touched last is in the cache.
//! So their order says nothing; readers ask for an order. Whose row is where says an index of 4
//! bytes per buffer.
//!
//! Invariant: the index leads to each row once, and every place that it does not lead to is vacant.

use std::{cmp::Ordering, collections::BTreeMap, hash::BuildHasher as _, ops::Range};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::{
    group::{By, Group, Key},
    row::{Packed, Places, ROW_BYTES, Row},
};
use crate::units::Avma;

/// Below this many nothing is given back.
const SMALL: usize = 1024;

/// What is live at one instant.
#[derive(Clone, Debug, Default)]
pub struct LiveSet {
    rows: Vec<Packed>,
    /// Places without a row.
    vacant: Vec<u32>,
    index: HashTable<u32>,
    hasher: RandomState,
    /// Rows that have ever come.
    came: u64,
    pub(super) places: Places,
}

/// Where a row is, and which it is: whoever remembers something of a row need not look at it again.
/// Stamps begin anew after 2^32 rows; [`LiveSet::came`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its place.
    pub place: usize,
    /// Tells it from the other rows of this live set, those that are gone included.
    pub stamp: u32,
}

/// In which order rows are shown. What is not known comes last; among equals the newer comes
/// first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// By what.
    pub key: SortKey,
    /// The largest first.
    pub descending: bool,
}

/// What rows are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortKey {
    /// Logical size.
    Size,
    /// What it takes of the banks of a chip.
    Used,
    /// Buffer type.
    Type,
    /// The first chip, then how many.
    Chips,
    /// Address.
    Address,
    /// When it was allocated: the oldest first; older than the attach before all others.
    Age,
    /// The thread that allocated it.
    Thread,
    /// Unique id.
    Id,
    /// Whether it is older than the attach: these last.
    PreAttach,
    /// What it takes of each bank.
    PerBank,
    /// Page size.
    Page,
    /// Cores with an address of their own.
    Cores,
}

/// Some of the rows.
#[derive(Debug)]
pub struct Page<'a> {
    /// How many there are in all.
    pub matched: usize,
    /// Their logical bytes, each once.
    pub matched_bytes: u64,
    /// Those that were asked for, in order.
    pub rows: Vec<Row<'a>>,
}

impl LiveSet {
    /// Live buffers.
    pub const fn len(&self) -> usize {
        self.rows.len() - self.vacant.len()
    }

    /// Whether nothing is live.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All, in no order.
    pub fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        self.packed().map(|row| row.row(&self.places))
    }

    /// Rows that have ever come: no two of them have the same stamp if there are fewer than 2^32 in
    /// between.
    pub const fn came(&self) -> u64 {
        self.came
    }

    /// Places that rows may be at.
    pub const fn places(&self) -> usize {
        self.rows.len()
    }

    /// One of them.
    pub fn get(&self, buffer: Avma) -> Option<Row<'_>> {
        Some(self.rows[self.find(buffer)?].row(&self.places))
    }

    /// The rows that `wanted` chooses, in order, and of these the ones at the places `window`. Takes
    /// time in proportion to all, and only for the window more than that.
    pub fn page(
        &self,
        mut wanted: impl FnMut(Slot, &Row<'_>) -> bool,
        order: Order,
        window: Range<usize>,
    ) -> Page<'_> {
        let mut chosen: Vec<(u64, u32)> = Vec::new();
        let mut matched_bytes = 0_u64;
        let rows = self.rows.iter().enumerate().filter(|(_, packed)| !packed.is_vacant());
        for (place, packed) in rows {
            let row = packed.row(&self.places);
            if wanted(Slot { place, stamp: packed.stamp }, &row) {
                matched_bytes = matched_bytes.saturating_add(row.size);
                chosen.push((order.rank(&row), u32::try_from(place).unwrap_or(u32::MAX)));
            }
        }
        let matched = chosen.len();
        let window = window.start.min(matched)..window.end.min(matched);
        let row = |place: u32| self.rows[place as usize].row(&self.places);
        let compare = |one: &(u64, u32), other: &(u64, u32)| {
            one.0.cmp(&other.0).then_with(|| newer_first(&row(one.1), &row(other.1)))
        };
        let mut part = &mut chosen[..];
        if window.start > 0 {
            part = part.select_nth_unstable_by(window.start - 1, compare).2;
        }
        let length = window.len();
        if length < part.len() {
            part = part.select_nth_unstable_by(length, compare).0;
        }
        part.sort_unstable_by(compare);
        let rows = part.iter().take(length).map(|&(_, place)| row(place)).collect();
        Page { matched, matched_bytes, rows }
    }

    /// Sums over the rows that are alike, the largest first. `now_ns` tells ages.
    pub fn groups(&self, by: By, now_ns: u64, wanted: impl Fn(&Row<'_>) -> bool) -> Vec<Group> {
        let mut groups: BTreeMap<Key, Group> = BTreeMap::new();
        for row in self.iter().filter(|row| wanted(row)) {
            let key = Key::of(&row, by, now_ns);
            groups.entry(key).or_insert_with(|| Group::new(key)).add(&row);
        }
        let mut groups: Vec<Group> = groups.into_values().collect();
        groups.sort_by_key(|group| (std::cmp::Reverse(group.bytes), group.key));
        groups
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        // A table has a byte beside each entry.
        self.rows.capacity() * ROW_BYTES
            + self.vacant.capacity() * 4
            + self.index.capacity() * 8 / 7 * 5
            + self.places.bytes()
    }

    fn hash(&self, buffer: Avma) -> u64 {
        self.hasher.hash_one(buffer)
    }

    fn find(&self, buffer: Avma) -> Option<usize> {
        let hash = self.hash(buffer);
        let place = self.index.find(hash, |&at| self.rows[at as usize].buffer == buffer)?;
        Some(*place as usize)
    }

    /// Takes a row in; the one that had its place, if there was one.
    pub(super) fn insert(&mut self, mut row: Packed) -> Option<Packed> {
        self.came += 1;
        #[expect(clippy::cast_possible_truncation, reason = "it is to begin anew")]
        let stamp = self.came as u32;
        row.stamp = stamp;
        if let Some(place) = self.find(row.buffer) {
            return Some(std::mem::replace(&mut self.rows[place], row));
        }
        let hash = self.hash(row.buffer);
        let place = if let Some(place) = self.vacant.pop() {
            self.rows[place as usize] = row;
            place
        } else {
            self.rows.push(row);
            u32::try_from(self.rows.len() - 1).unwrap_or(u32::MAX)
        };
        let (rows, hasher) = (&self.rows, &self.hasher);
        self.index.insert_unique(hash, place, |&at| hasher.hash_one(rows[at as usize].buffer));
        None
    }

    /// Takes a row out.
    pub(super) fn remove(&mut self, buffer: Avma) -> Option<Packed> {
        let hash = self.hash(buffer);
        let rows = &self.rows;
        let entry = self.index.find_entry(hash, |&at| rows[at as usize].buffer == buffer).ok()?;
        let (place, _) = entry.remove();
        let row = &mut self.rows[place as usize];
        let gone = *row;
        row.vacate();
        self.vacant.push(place);
        if self.rows.len() > SMALL && self.len() < self.rows.len() / 4 {
            self.close_up();
        }
        Some(gone)
    }

    /// Gives the memory of vacant places back.
    fn close_up(&mut self) {
        self.rows.retain(|row| !row.is_vacant());
        self.rows.shrink_to(self.rows.len() * 2);
        self.vacant = Vec::new();
        self.index = HashTable::with_capacity(self.rows.len() * 2);
        let (rows, hasher) = (&self.rows, &self.hasher);
        for (row, place) in rows.iter().zip(0..) {
            let hash = |&at: &u32| hasher.hash_one(rows[at as usize].buffer);
            self.index.insert_unique(hasher.hash_one(row.buffer), place, hash);
        }
    }

    /// Takes all rows out.
    pub(super) fn clear(&mut self) {
        self.rows = Vec::new();
        self.vacant = Vec::new();
        self.index = HashTable::new();
    }

    pub(super) fn packed(&self) -> impl Iterator<Item = &Packed> {
        self.rows.iter().filter(|row| !row.is_vacant())
    }
}

impl Order {
    /// A number that grows in this order.
    fn rank(self, row: &Row<'_>) -> u64 {
        let value = match self.key {
            SortKey::Size => Some(row.size),
            SortKey::Used => row.used_bytes,
            SortKey::Type => Some(row.buffer_type.index() as u64),
            SortKey::Chips => row.chips.first().map(|chip| {
                u64::from(chip.0.cast_unsigned()) << 32 | row.chips.len() as u64 & 0xffff_ffff
            }),
            SortKey::Address => Some(row.address.0),
            SortKey::Age if row.pre_attach => Some(0),
            SortKey::Age => row.allocated_ns,
            SortKey::Thread => row.tid.map(|tid| u64::from(tid.0)),
            SortKey::Id => row.unique_id,
            SortKey::PreAttach => Some(row.pre_attach.into()),
            SortKey::PerBank => row.bank_bytes,
            SortKey::Page => Some(row.page_size),
            SortKey::Cores => row.cores.map(u64::from),
        };
        // The largest number stands for what is not known.
        value.map_or(u64::MAX, |value| {
            if self.descending {
                u64::MAX - 1 - value.min(u64::MAX - 1)
            } else {
                value.min(u64::MAX - 1)
            }
        })
    }
}

fn newer_first(one: &Row<'_>, other: &Row<'_>) -> Ordering {
    let age = |row: &Row<'_>| (row.allocated_ns, row.unique_id, row.buffer);
    age(other).cmp(&age(one))
}
