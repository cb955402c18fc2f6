//! The [`Space`]s of all allocators, and how the ledger keeps them.

use hashbrown::HashSet;
use ttmem_common::layout::BUFFER_TYPES;

use super::{
    Facts, Ledger,
    by_address::ByAddress,
    space::{Range, Space},
};
use crate::{
    event::{AllocatorSeen, BufferType, Geometry, LiveBaseline},
    units::Avma,
};

/// More allocators than a program has.
const MAX_STIRRED: usize = 4096;

/// By allocator and buffer type. `None`: there is no such pool, or its allocator is not known.
#[derive(Debug, Default)]
pub(super) struct Spaces {
    of: ByAddress<Box<[Option<Space>; BUFFER_TYPES]>>,
    /// Allocators of which an event was seen since the attach, while that matters: what was read
    /// of their free lists may be older.
    stirred: Option<HashSet<Avma, foldhash::fast::RandomState>>,
    /// There were too many of them to tell which.
    all_stirred: bool,
}

impl Spaces {
    /// Waits for what is read of the target's free lists.
    pub fn new() -> Self {
        Self { stirred: Some(HashSet::default()), ..Self::default() }
    }

    /// The space of an allocator's pool.
    pub fn get(&self, allocator: Avma, buffer_type: BufferType) -> Option<&Space> {
        self.of.get(allocator)?[buffer_type.index()].as_ref()
    }

    #[inline]
    fn get_mut(&mut self, allocator: Avma, buffer_type: BufferType) -> Option<&mut Space> {
        self.of.get_mut(allocator)?[buffer_type.index()].as_mut()
    }

    /// The banks of a pool have free lists of their own.
    pub fn make_uneven(&mut self, allocator: Avma, buffer_type: BufferType) {
        if let Some(space) = self.get_mut(allocator, buffer_type) {
            space.make_uneven();
        }
    }

    /// The target's free lists are about to be read.
    pub fn begin_reading(&mut self) {
        self.stirred.get_or_insert_default();
    }

    /// Whether anything keeps a pool's free bytes from being known that a reading of the live
    /// set could set right.
    fn is_doubtful(&self) -> bool {
        self.of.values().flat_map(|spaces| spaces.iter().flatten()).any(Space::is_doubtful)
    }

    /// Whether a second reading has to tell if an allocation was under way at the first.
    pub fn is_suspected(&self) -> bool {
        self.of.values().flat_map(|spaces| spaces.iter().flatten()).any(Space::is_suspected)
    }

    /// How many have live buffers that overlap others or leave their bank now.
    pub fn overlapped(&self) -> u64 {
        let spaces = self.of.values().flat_map(|spaces| spaces.iter().flatten());
        spaces.filter(|space| space.is_overlapped()).count() as u64
    }

    /// Notes that an allocator's free lists may have changed.
    #[inline]
    pub fn stir(&mut self, allocator: Avma) {
        if let Some(stirred) = &mut self.stirred {
            if stirred.len() < MAX_STIRRED {
                stirred.insert(allocator);
            } else {
                self.all_stirred = true;
            }
        }
    }

    /// Allocators with pools.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.of.values().count()
    }

    /// Allocators are gone.
    pub fn forget(&mut self, gone: &[Avma]) {
        let gone: HashSet<Avma, foldhash::fast::RandomState> = gone.iter().copied().collect();
        self.of.retain(|allocator, _| !gone.contains(&allocator));
    }

    /// Takes the pools of an allocator in; `true` if its live buffers have to be entered anew. `resized`:
    /// it is the same allocator as before.
    fn learn(
        &mut self,
        allocator: Avma,
        pools: &[Option<Geometry>; BUFFER_TYPES],
        resized: bool,
    ) -> bool {
        let known = self.of.get(allocator);
        let same = known.is_some_and(|spaces| {
            spaces.iter().zip(pools).all(|(space, pool)| match (space, pool) {
                (Some(space), Some(pool)) => space.is(pool),
                (None, None) => true,
                _ => false,
            })
        });
        if same {
            return false;
        }
        let mut fresh = pools.map(|pool| pool.as_ref().map(Space::new));
        if let Some(known) = known.filter(|_| resized) {
            for (space, known) in fresh.iter_mut().zip(known.iter()) {
                if let (Some(space), Some(known)) = (space, known) {
                    space.resized_from(known);
                }
            }
        }
        let had = self.of.insert(allocator, Box::new(fresh));
        // Buffers may have come before their allocator was described.
        had.is_none_or(|had| had.iter().flatten().any(|space| !space.is_empty()))
    }
}

impl Facts {
    #[inline]
    fn range(&self) -> Range {
        let measured = self.share.measured.filter(|_| !self.share.uneven);
        Range { start: self.address.0, bytes: measured.map(|measured| measured.bank_bytes) }
    }
}

impl Ledger {
    /// Takes a description of an allocator in.
    pub(super) fn learn_allocator(&mut self, seen: &AllocatorSeen) {
        self.prune_places();
        self.pay_for_allocators();
        let resized = self.topology.is_open(seen.allocator);
        self.topology.learn_allocator(seen);
        if self.topology.knows_allocator(seen.allocator) {
            self.learn_pools(seen.allocator, &seen.pools, resized);
        }
        self.bound_places();
    }

    /// Enters an allocator's live buffers anew if its pools are others. `resized`: it is the same
    /// allocator as before.
    pub(super) fn learn_pools(
        &mut self,
        allocator: Avma,
        pools: &[Option<Geometry>; BUFFER_TYPES],
        resized: bool,
    ) {
        if self.spaces.learn(allocator, pools, resized) {
            self.pay_for_live();
            let of_it = self.live.iter().filter(|entry| entry.allocator() == allocator);
            for entry in of_it {
                enter(&mut self.spaces, &entry.facts());
            }
        }
    }

    /// Gives a buffer that is about to be live its place.
    #[inline]
    pub(super) fn occupy(&mut self, facts: &Facts) {
        if !enter(&mut self.spaces, facts) {
            self.anomalies.overlap += 1;
        }
    }

    /// Gives the place of a buffer back that is no longer live.
    #[inline]
    pub(super) fn vacate(&mut self, facts: &Facts) {
        if let Some(space) = self.spaces.get_mut(facts.allocator, facts.buffer_type) {
            space.leave(facts.buffer, facts.range());
        }
    }

    /// Places every live buffer anew, where something had gone wrong: the live set has been set
    /// right.
    pub(super) fn restart_spaces(&mut self) {
        if !self.spaces.is_doubtful() {
            return;
        }
        self.spaces
            .of
            .iter_mut()
            .flat_map(|(_, spaces)| spaces.iter_mut().flatten())
            .for_each(Space::restart);
        for entry in self.live.iter() {
            if !enter(&mut self.spaces, &entry.facts()) {
                self.anomalies.overlap += 1;
            }
        }
    }

    /// Compares with what was read of the target's own free lists, where no event has changed
    /// them meanwhile. `steady`: with nothing attached, so that no event can be under way.
    pub(super) fn check_free_lists(&mut self, reading: &LiveBaseline) {
        let LiveBaseline { free_lists: seen, damaged, steady, .. } = reading;
        for &(allocator, buffer_type) in damaged.iter().filter(|_| *steady) {
            if let Some(space) = self.spaces.get_mut(allocator, buffer_type) {
                space.contradict();
                self.anomalies.free_list_mismatch += 1;
            }
        }
        let stirred = self.spaces.stirred.take().unwrap_or_default();
        let all_stirred = std::mem::take(&mut self.spaces.all_stirred);
        let is_stirred = |allocator: &Avma| all_stirred || stirred.contains(allocator);
        for spaces in self.spaces.of.iter_mut().filter(|(at, _)| is_stirred(at)) {
            spaces.1.iter_mut().flatten().for_each(Space::drop_suspicion);
        }
        for list in seen.iter().filter(|list| !is_stirred(&list.allocator)) {
            let own: Vec<_> = list.holes.iter().map(|(start, end)| (start.0, end.0)).collect();
            let space = self.spaces.get_mut(list.allocator, list.buffer_type);
            if space.is_some_and(|space| !space.check(&own, *steady)) {
                self.anomalies.free_list_mismatch += 1;
            }
        }
    }
}

/// `false` if it overlaps another or leaves its bank.
#[inline]
fn enter(spaces: &mut Spaces, facts: &Facts) -> bool {
    let Some(space) = spaces.get_mut(facts.allocator, facts.buffer_type) else { return true };
    if facts.share.uneven {
        space.make_uneven();
    }
    space.enter(facts.buffer, facts.range())
}

#[cfg(test)]
mod tests;
