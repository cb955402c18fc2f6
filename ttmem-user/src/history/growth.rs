//! What has grown since a mark: by pool, and by group of buffers.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    group::{By, Group, Key},
    line::Line,
    live::LiveSet,
    log::Changed,
    timeline::Timeline,
};
use crate::{event::BufferType, ledger::delta::Change, units::ChipId};

/// Marks that are kept; then the oldest goes.
pub const MAX_MARKS: usize = 16;
/// Groups of each kind that a mark remembers; then the smallest are left out. Only of threads there can be
/// so many.
const MAX_GROUPS: usize = 1024;

/// A moment that somebody has marked, and what was live then.
#[derive(Clone, Debug)]
pub struct Mark {
    /// Its name.
    pub name: String,
    /// When, CLOCK_MONOTONIC nanoseconds.
    pub time_ns: u64,
    /// Nothing was missed since.
    pub(super) complete: bool,
    pools: BTreeMap<(ChipId, BufferType), Then>,
    /// `None`: it could not be said what was live.
    groups: Option<BTreeMap<Key, Group>>,
    /// There were more groups by thread than it remembers.
    threads_left_out: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Then {
    used: u64,
    buffers: u64,
    changes: (u64, u64),
}

/// A pool since a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PoolGrowth {
    /// The chip.
    pub chip: ChipId,
    /// The buffer type.
    #[serde(rename = "type")]
    pub buffer_type: BufferType,
    /// What buffers of known size take of the banks, now minus then, bytes.
    pub used_bytes: i64,
    /// Live buffers, now minus then.
    pub buffers: i64,
    /// Allocations since.
    pub allocations: u64,
    /// Frees since.
    pub frees: u64,
}

/// A group of buffers since a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct GroupGrowth {
    /// What they have in common.
    pub key: Key,
    /// Live buffers, now minus then.
    pub buffers: i64,
    /// Their logical bytes, now minus then.
    pub bytes: i64,
}

impl Mark {
    /// Whether nothing was missed since: with a gap, the counts of changes are too low.
    pub const fn is_complete(&self) -> bool {
        self.complete
    }

    /// `live`: what was live then, if that can be said; `timeline`: as it is now.
    pub(super) fn set(
        name: String,
        time_ns: u64,
        live: Option<&LiveSet>,
        timeline: &Timeline,
    ) -> Self {
        let levels = live.map(LiveSet::pools);
        let then = |(pool, line): ((ChipId, BufferType), &Line)| {
            let level =
                levels.as_ref().map(|levels| levels.get(&pool).copied().unwrap_or_default());
            let level = level.unwrap_or(line.now());
            let changes = line.changes();
            (pool, Then { used: level.used_bytes, buffers: level.buffers, changes })
        };
        let mut threads_left_out = false;
        let groups = |live: &LiveSet| {
            let groups = [By::Type, By::Thread, By::Size].map(|by| {
                let mut groups = live.groups(by, time_ns);
                threads_left_out |= groups.len() > MAX_GROUPS;
                groups.truncate(MAX_GROUPS);
                groups
            });
            groups.into_iter().flatten().map(|group| (group.key, group)).collect()
        };
        let groups = live.map(groups);
        Self {
            name,
            time_ns,
            complete: live.is_some(),
            pools: timeline.each().map(then).collect(),
            groups,
            threads_left_out,
        }
    }

    /// Has a change that came later count as one since.
    pub(super) fn leave_out(&mut self, change: &Changed<'_>) {
        let is_free = change.change == Change::Freed;
        for &chip in change.row.chips {
            if let Some(then) = self.pools.get_mut(&(chip, change.row.buffer_type)) {
                let count = if is_free { &mut then.changes.1 } else { &mut then.changes.0 };
                *count = count.saturating_sub(1);
            }
        }
    }

    pub(super) fn pools(&self, timeline: &Timeline) -> Vec<PoolGrowth> {
        let growth = |((chip, buffer_type), line): ((ChipId, BufferType), &Line)| {
            let then = self.pools.get(&(chip, buffer_type)).copied().unwrap_or_default();
            let (allocations, frees) = line.changes();
            PoolGrowth {
                chip,
                buffer_type,
                used_bytes: difference(line.now().used_bytes, then.used),
                buffers: difference(line.now().buffers, then.buffers),
                allocations: allocations.saturating_sub(then.changes.0),
                frees: frees.saturating_sub(then.changes.1),
            }
        };
        let mut pools: Vec<PoolGrowth> = timeline.each().map(growth).collect();
        pools.sort_by_key(|pool| (pool.chip, pool.buffer_type));
        pools
    }

    /// `None`: unknown. A group that is not in it may have been there at the mark; how much it has grown
    /// is unknown.
    pub(super) fn groups(&self, by: By, live: &LiveSet) -> Option<Vec<GroupGrowth>> {
        // Ages pass by themselves, and of what is gone nobody knows the site any more.
        if matches!(by, By::Age | By::Site) {
            return None;
        }
        let is_of = |key: &Key| {
            matches!(
                (by, key),
                (By::Type, Key::Type(_)) | (By::Thread, Key::Thread(_)) | (By::Size, Key::Size(_))
            )
        };
        let then = self.groups.as_ref()?;
        let now = live.groups(by, self.time_ns);
        let mut sums: BTreeMap<Key, [Option<Group>; 2]> = BTreeMap::new();
        let is_known =
            |key: &Key| by != By::Thread || !self.threads_left_out || then.contains_key(key);
        for group in now.into_iter().filter(|group| is_known(&group.key)) {
            sums.entry(group.key).or_default()[1] = Some(group);
        }
        for (key, group) in then.iter().filter(|(key, _)| is_of(key)) {
            sums.entry(*key).or_default()[0] = Some(*group);
        }
        let mut grown: Vec<GroupGrowth> = sums
            .into_iter()
            .map(|(key, sums)| {
                let [then, now] = sums.map(|group| group.unwrap_or(Group::new(key)));
                GroupGrowth {
                    key,
                    buffers: difference(now.buffers, then.buffers),
                    bytes: difference(now.bytes, then.bytes),
                }
            })
            .collect();
        grown.sort_by_key(|group| (std::cmp::Reverse(group.bytes), group.key));
        Some(grown)
    }

    pub(super) fn bytes(&self) -> usize {
        // A node of a tree is never less than a third full.
        let pools = self.pools.len() * size_of::<((ChipId, BufferType), Then)>() * 3;
        let groups = self.groups.as_ref().map_or(0, BTreeMap::len) * size_of::<(Key, Group)>() * 3;
        size_of::<Self>() + self.name.capacity() + pools + groups
    }
}

fn difference(now: u64, then: u64) -> i64 {
    i64::try_from(i128::from(now) - i128::from(then)).unwrap_or(i64::MAX)
}
