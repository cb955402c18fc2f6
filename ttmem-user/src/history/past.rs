//! What was live at an earlier instant: a copy of what is live, in which changes are undone. From one
//! instant to another only what lies between is undone, or done again.

use std::collections::BTreeMap;

use super::{History, line::Level, live::LiveSet};
use crate::{event::BufferType, ledger::delta::Change, units::ChipId};

/// Starting anew from now costs about as much as so many changes.
const ANEW: u64 = 4_000;

/// What was live at an instant.
#[derive(Clone, Debug)]
pub struct Past {
    /// Every change up to then is in it, and none that followed; CLOCK_MONOTONIC nanoseconds. So it
    /// is once no change [is left](Self::left).
    pub time_ns: u64,
    /// What was live.
    pub live: LiveSet,
    /// The last change that is in it.
    sequence: u64,
    /// As the history's.
    refills: u64,
    left: u64,
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

    /// What was live at an instant. Takes time in proportion to what has changed since; to go on from
    /// there, [`Self::go_to`] takes less.
    pub fn at(&self, time_ns: u64) -> Result<Past, Unreachable> {
        let mut past = self.present();
        self.go_to(&mut past, time_ns, u64::MAX)?;
        Ok(past)
    }

    /// What is live now, to go back from. It shares memory with what is live, until either changes.
    pub fn present(&self) -> Past {
        let (time_ns, live, sequence) = (self.time_ns, self.live.clone(), self.sequence);
        Past { time_ns, live, sequence, refills: self.refills, left: 0 }
    }

    /// Whether it takes less to go to an instant from `past` than from now.
    pub fn is_near(&self, past: &Past, time_ns: u64) -> bool {
        let (newest, oldest) = self.log.sequences();
        let wanted = self.log.last_until(time_ns);
        past.refills == self.refills
            && (oldest..=newest).contains(&past.sequence)
            && past.sequence.abs_diff(wanted) <= (newest - wanted).saturating_add(ANEW)
    }

    /// Goes from one instant to another, by no more than so many changes; [`Past::left`] says how
    /// many are still between. Begin with [`Self::present`] where it [is not near](Self::is_near).
    pub fn go_to(&self, past: &mut Past, time_ns: u64, most: u64) -> Result<(), Unreachable> {
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
        past.time_ns = time_ns;
        // Nothing has ever changed.
        if self.log.len() == 0 {
            return Ok(());
        }
        let wanted = self.log.last_until(time_ns);
        past.live.places.follow(&self.live.places);
        for _ in 0..most.min(past.sequence.abs_diff(wanted)) {
            let undo = past.sequence > wanted;
            let change = past.sequence + u64::from(!undo);
            let Some(entry) = self.log.get(change) else { break };
            if undo == (entry.change == Change::Freed) {
                past.live.insert(entry.row);
            } else {
                past.live.remove(entry.row.buffer);
            }
            past.sequence = change - u64::from(undo);
        }
        past.left = past.sequence.abs_diff(wanted);
        Ok(())
    }
}

impl Past {
    /// Changes between what is here and what was at [`Self::time_ns`].
    pub const fn left(&self) -> u64 {
        self.left
    }

    /// What each pool held, by chip and type. A pool that held nothing is not in it.
    pub fn pools(&self) -> BTreeMap<(ChipId, BufferType), Level> {
        self.live.pools()
    }

    /// The logical bytes of what each pool held, likewise. Takes time in proportion to what was live.
    pub fn logical_bytes(&self) -> BTreeMap<(ChipId, BufferType), u64> {
        let mut pools = BTreeMap::new();
        for row in self.live.iter() {
            for &chip in row.chips {
                let sum: &mut u64 = pools.entry((chip, row.buffer_type)).or_default();
                *sum = sum.saturating_add(row.size);
            }
        }
        pools
    }
}
