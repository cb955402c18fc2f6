//! The live set: what is live at one instant, and ways to look at it.
//!
//! A copy shares the rows until one side changes ([`Pages`]), and the index likewise, as a whole.
//!
//! A row that goes leaves its place to the next that comes: what was touched last is in the cache.
//! So their order says nothing; readers ask for an order. Whose row is where says an index of 4
//! bytes per buffer.
//!
//! Invariant: the index leads to each row once, every place that it does not lead to is vacant, and
//! the sums are those over the rows.

use std::{collections::BTreeMap, hash::BuildHasher as _, ops::Range, sync::Arc};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use ttmem_common::layout::BUFFER_TYPES;

use super::{
    group::{By, Group, Key},
    line::Level,
    order::{Chosen, First, Order, later_first},
    pages::Pages,
    row::{Packed, Places, Row},
};
use crate::{
    event::BufferType,
    units::{Avma, ChipId},
};

/// Below this many nothing is given back.
const SMALL: usize = 1024;

/// What is live at one instant.
#[derive(Clone, Debug, Default)]
pub struct LiveSet {
    rows: Pages<Packed>,
    /// Places without a row.
    vacant: Vec<u32>,
    index: Arc<HashTable<u32>>,
    hasher: RandomState,
    /// Rows that have ever come.
    came: u64,
    /// By place.
    sums: Vec<[Sum; BUFFER_TYPES]>,
    pub(super) places: Places,
}

/// What the rows of one type at one place hold.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    buffers: u64,
    unmeasured: u64,
    /// No sum of 2^32 sizes, whatever they are, is too large for it.
    used_bytes: u128,
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
        wanted: impl FnMut(Slot, &Row<'_>) -> bool,
        order: Order,
        window: Range<usize>,
    ) -> Page<'_> {
        self.page_by(wanted, order, |row| order.value(row), window)
    }

    /// The same in the order of a value that the rows need not know of themselves.
    pub fn page_by(
        &self,
        mut wanted: impl FnMut(Slot, &Row<'_>) -> bool,
        order: Order,
        value: impl Fn(&Row<'_>) -> Option<u64>,
        window: Range<usize>,
    ) -> Page<'_> {
        let compare = |one: &Chosen, other: &Chosen| {
            let row = |chosen: &Chosen| self.rows[chosen.place as usize].row(&self.places);
            let plain = (one.rank, one.age).cmp(&(other.rank, other.age));
            plain.then_with(|| later_first(&row(one), &row(other)))
        };
        // What is nearer to the end is found from there.
        let from_end = self.len().saturating_sub(window.start);
        let backwards = from_end < window.end;
        let compare = |one: &Chosen, other: &Chosen| {
            if backwards { compare(other, one) } else { compare(one, other) }
        };
        let mut first = First::new(from_end.min(window.end), self.len());
        let (mut matched, mut matched_bytes) = (0, 0_u64);
        let rows = self.rows.iter().enumerate().filter(|(_, packed)| !packed.is_vacant());
        // A loop inside of the iterator is twice as fast as one around it.
        rows.for_each(|(place, packed)| {
            let row = packed.row(&self.places);
            if wanted(Slot { place, stamp: packed.stamp }, &row) {
                matched += 1;
                matched_bytes = matched_bytes.saturating_add(row.size);
                first.push(Chosen::new(order.rank(value(&row)), &row, place), compare);
            }
        });
        let mut window = window.start.min(matched)..window.end.min(matched);
        if backwards {
            window = matched - window.end..matched - window.start;
        }
        let mut places = first.window(window, compare);
        if backwards {
            places.reverse();
        }
        let row = |place: &u32| self.rows[*place as usize].row(&self.places);
        Page { matched, matched_bytes, rows: places.iter().map(row).collect() }
    }

    /// Sums over the rows that are alike, the largest first. `now_ns` tells ages.
    pub fn groups(&self, by: By, now_ns: u64) -> Vec<Group> {
        self.groups_by(|row| Key::of(row, by, now_ns))
    }

    /// Sums over the rows with the same key, the largest first.
    pub fn groups_by(&self, key: impl Fn(&Row<'_>) -> Key) -> Vec<Group> {
        let mut groups: BTreeMap<Key, Group> = BTreeMap::new();
        self.iter().for_each(|row| {
            let key = key(&row);
            groups.entry(key).or_insert_with(|| Group::new(key)).add(&row);
        });
        let mut groups: Vec<Group> = groups.into_values().collect();
        groups.sort_by_key(|group| (std::cmp::Reverse(group.bytes), group.key));
        groups
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        // A table has a byte beside each entry.
        self.rows.bytes()
            + self.sums.capacity() * size_of::<[Sum; BUFFER_TYPES]>()
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
        self.add(&row, true);
        if let Some(place) = self.find(row.buffer) {
            let gone = std::mem::replace(&mut self.rows[place], row);
            self.add(&gone, false);
            return Some(gone);
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
        let hash_of = |&at: &u32| hasher.hash_one(rows[at as usize].buffer);
        Arc::make_mut(&mut self.index).insert_unique(hash, place, hash_of);
        None
    }

    /// Takes a row out.
    pub(super) fn remove(&mut self, buffer: Avma) -> Option<Packed> {
        let hash = self.hash(buffer);
        let rows = &self.rows;
        let is_it = |&at: &u32| rows[at as usize].buffer == buffer;
        let entry = Arc::make_mut(&mut self.index).find_entry(hash, is_it).ok()?;
        let (place, _) = entry.remove();
        let row = &mut self.rows[place as usize];
        let gone = *row;
        row.vacate();
        self.vacant.push(place);
        self.add(&gone, false);
        if self.rows.len() > SMALL && self.len() < self.rows.len() / 4 {
            self.close_up();
        }
        Some(gone)
    }

    /// Adds a row to the sums, or takes it out.
    fn add(&mut self, row: &Packed, comes: bool) {
        let place = row.place as usize;
        if self.sums.len() <= place {
            self.sums.resize(place + 1, [Sum::default(); BUFFER_TYPES]);
        }
        let sum = &mut self.sums[place][row.buffer_type.index()];
        let used = row.used_bytes();
        let (bytes, unmeasured) = (u128::from(used.unwrap_or(0)), u64::from(used.is_none()));
        if comes {
            sum.buffers += 1;
            sum.unmeasured += unmeasured;
            sum.used_bytes += bytes;
        } else {
            sum.buffers -= 1;
            sum.unmeasured -= unmeasured;
            sum.used_bytes -= bytes;
        }
    }

    /// What each pool holds, by chip and type. A pool that holds nothing is not in it.
    pub fn pools(&self) -> BTreeMap<(ChipId, BufferType), Level> {
        let mut pools: BTreeMap<(ChipId, BufferType), Level> = BTreeMap::new();
        for (sums, place) in self.sums.iter().zip(0..) {
            for (sum, buffer_type) in sums.iter().zip(BufferType::ALL) {
                if sum.buffers == 0 {
                    continue;
                }
                let used = u64::try_from(sum.used_bytes).unwrap_or(u64::MAX);
                for &chip in self.places.chips(place) {
                    let level = pools.entry((chip, buffer_type)).or_default();
                    level.buffers += sum.buffers;
                    level.used_bytes = level.used_bytes.saturating_add(used);
                    level.unmeasured += sum.unmeasured;
                }
            }
        }
        pools
    }

    /// Gives the memory of vacant places back.
    fn close_up(&mut self) {
        self.rows = self.rows.only(|row| !row.is_vacant());
        self.vacant = Vec::new();
        let mut index = HashTable::with_capacity(self.rows.len() * 2);
        let (rows, hasher) = (&self.rows, &self.hasher);
        for (row, place) in rows.iter().zip(0..) {
            let hash = |&at: &u32| hasher.hash_one(rows[at as usize].buffer);
            index.insert_unique(hasher.hash_one(row.buffer), place, hash);
        }
        self.index = Arc::new(index);
    }

    /// Takes all rows out.
    pub(super) fn clear(&mut self) {
        self.rows = Pages::new();
        self.sums = Vec::new();
        self.vacant = Vec::new();
        self.index = Arc::default();
    }

    pub(super) fn packed(&self) -> impl Iterator<Item = &Packed> {
        self.rows.iter().filter(|row| !row.is_vacant())
    }
}
