//! What was live at an earlier instant, found by undoing what has happened since.

use std::collections::BTreeMap;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::{History, line::Level, live::LiveSet};
use crate::{event::BufferType, ledger::delta::Change, units::ChipId};

/// What was live at an instant.
#[derive(Clone, Debug)]
pub struct Past {
    /// Every change up to then is in it, and none that followed; CLOCK_MONOTONIC nanoseconds.
    pub time_ns: u64,
    /// What was live.
    pub live: LiveSet,
}

/// Why it cannot be said what was live at an instant. What the timeline says of it still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// The recording began later.
    #[error("the recording began later")]
    BeforeTheStart,
    /// The changes since then are not kept any more.
    #[error("only the latest {kept} changes can be undone; before them, totals only")]
    Forgotten {
        /// How many are kept.
        kept: usize,
        /// The earliest instant that can be reached, ns.
        reach_ns: u64,
    },
    /// Changes are missing, and what is live now is being fetched anew.
    #[error("changes are missing: what is live is being fetched anew")]
    Gap,
}

impl History {
    /// The earliest instant at which it can be said what was live, ns; `None` as long as there is
    /// a gap.
    pub fn reach_ns(&self) -> Option<u64> {
        self.gap.is_none().then_some(self.reach_ns)
    }

    /// What was live at an instant. Takes time in proportion to what is live and to what has
    /// changed since: ask once and keep it.
    pub fn at(&self, time_ns: u64) -> Result<Past, Unreachable> {
        if self.gap.is_some() {
            return Err(Unreachable::Gap);
        }
        if time_ns < self.reach_ns {
            return Err(if self.forgotten {
                Unreachable::Forgotten { kept: self.log.len(), reach_ns: self.reach_ns }
            } else {
                Unreachable::BeforeTheStart
            });
        }
        let mut live = self.live.clone();
        for entry in self.log.newest_first().take_while(|entry| entry.time_ns > time_ns) {
            match entry.change {
                Change::Allocated => drop(live.remove(entry.row.buffer)),
                Change::Freed => drop(live.insert(entry.row)),
            }
        }
        Ok(Past { time_ns, live })
    }
}

impl Past {
    /// What each pool held, by chip and type. A pool that held nothing is not in it.
    pub fn pools(&self) -> BTreeMap<(ChipId, BufferType), Level> {
        // Those on the same chips first: of many buffers the chips are a few sets.
        let mut alike: HashMap<(u32, BufferType), Level, RandomState> = HashMap::default();
        for row in self.live.packed() {
            let level = alike.entry((row.place, row.buffer_type)).or_default();
            level.buffers += 1;
            match row.used_bytes() {
                Some(used) => level.used_bytes = level.used_bytes.saturating_add(used),
                None => level.unmeasured += 1,
            }
        }
        let mut pools: BTreeMap<(ChipId, BufferType), Level> = BTreeMap::new();
        for ((place, buffer_type), part) in alike {
            for &chip in self.live.places.chips(place) {
                let level = pools.entry((chip, buffer_type)).or_default();
                level.buffers += part.buffers;
                level.used_bytes = level.used_bytes.saturating_add(part.used_bytes);
                level.unmeasured += part.unmeasured;
            }
        }
        pools
    }
}
