//! The order of rows, and a window of what is ordered.

use std::{cmp::Ordering, ops::Range};

use super::row::Row;

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
    /// What called for it, which the rows do not say: whoever orders by it has to.
    Site,
}

impl Order {
    /// What a row is ordered by; `None`: not known.
    pub(super) fn value(self, row: &Row<'_>) -> Option<u64> {
        match self.key {
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
            SortKey::Site => None,
        }
    }

    /// A number that grows in this order.
    pub(super) fn rank(self, value: Option<u64>) -> u64 {
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

/// A row to be ordered, with what that takes: rows themselves are far from each other in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chosen {
    pub rank: u64,
    /// Grows with the age; the largest number stands for what is not known.
    pub age: u64,
    pub place: u32,
}

impl Chosen {
    pub fn new(rank: u64, row: &Row<'_>, place: usize) -> Self {
        let since = |ns: u64| u64::MAX - 1 - ns.min(u64::MAX - 1);
        Self {
            rank,
            age: row.allocated_ns.map_or(u64::MAX, since),
            place: u32::try_from(place).unwrap_or(u32::MAX),
        }
    }
}

/// Of rows of the same age.
pub(super) fn later_first(one: &Row<'_>, other: &Row<'_>) -> Ordering {
    (other.unique_id, other.buffer).cmp(&(one.unique_id, one.buffer))
}

/// The first ones of all that are pushed. What cannot be among them is not kept: most rows are only
/// compared with the last that still can.
pub(super) struct First {
    kept: Vec<Chosen>,
    /// How many are wanted.
    wanted: usize,
    /// The last of so many; whatever comes after it is not among them.
    bound: Option<Chosen>,
}

impl First {
    /// The first `wanted` of about `all`.
    pub fn new(wanted: usize, all: usize) -> Self {
        Self { kept: Vec::with_capacity(Self::room(wanted).min(all)), wanted, bound: None }
    }

    /// How many are kept before those that cannot be among the first are dropped.
    const fn room(wanted: usize) -> usize {
        wanted.saturating_mul(2).saturating_add(1024)
    }

    pub fn push(&mut self, new: Chosen, compare: impl Fn(&Chosen, &Chosen) -> Ordering) {
        if self.bound.as_ref().is_some_and(|bound| compare(&new, bound).is_gt()) {
            return;
        }
        self.kept.push(new);
        if self.wanted > 0 && self.kept.len() > Self::room(self.wanted) {
            self.bound = Some(*self.kept.select_nth_unstable_by(self.wanted - 1, compare).1);
            self.kept.truncate(self.wanted);
        }
    }

    /// The places of those in a window that ends no later than what is wanted, in order.
    pub fn window(
        mut self,
        window: Range<usize>,
        compare: impl Fn(&Chosen, &Chosen) -> Ordering + Copy,
    ) -> Vec<u32> {
        let (length, start) = (window.len(), window.start);
        let mut part = &mut self.kept[..];
        if start > 0 && length > 0 {
            part = part.select_nth_unstable_by(start - 1, compare).2;
        }
        if length < part.len() {
            part = part.select_nth_unstable_by(length, compare).0;
        }
        part.sort_unstable_by(compare);
        part.iter().take(length).map(|chosen| chosen.place).collect()
    }
}
