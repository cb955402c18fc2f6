//! How much one target may have the ledger hold, and do.
//!
//! Whoever can run a program can have it call the probed functions with anything, as often as it
//! likes. All targets share one pipeline. So there is a bound for each: more of anything than a real
//! program has, or more work than it gives, and the target is not followed any more. It says so,
//! and its live set is let go.
//!
//! What takes time in proportion to what is live, or to what there is of allocators, is paid for out
//! of an allowance that grows with the time that the events bring.
//!
//! Invariant: nothing of a target that is beyond its bounds is applied.

use foldhash::fast::RandomState;
use hashbrown::HashSet;

use super::{Entry, Ledger, Live, late::Swept, live::LiveSet};
use crate::{event::LiveBaseline, units::Avma};

/// Buffers that are live, or have lost their block and await their free: about 250 MB.
pub(super) const MAX_BUFFERS: usize = 1 << 21;
/// Chips.
pub(super) const MAX_CHIPS: usize = 512;
/// Devices, and allocators, that may still be open.
pub(super) const MAX_PLACES: usize = 512;
/// Events of one kind that have to be remembered until a reading is over.
pub(super) const MAX_REMEMBERED: usize = 1 << 16;

/// Steps per second that a target may cost beside its records: some hundredths of a processor.
const STEPS_PER_SECOND: u64 = 20_000_000;
/// Steps that may be taken at once.
const ALLOWANCE: u64 = 20 * STEPS_PER_SECOND;
const SECOND_NS: u64 = 1_000_000_000;

/// What there is too much of.
#[derive(Clone, Copy, Debug)]
enum Beyond {
    /// So many of these are followed at most.
    Things(&'static str, usize),
    /// It costs too much.
    Work,
}

/// The bounds of one target.
#[derive(Debug)]
pub(super) struct Bounds {
    beyond: Option<Beyond>,
    /// Live buffers from which on room has to be made.
    room: usize,
    /// Buffers that there is room for.
    most: usize,
    /// Steps that may be taken now.
    allowance: u64,
    /// Up to when they have been earned, ns.
    earned_ns: u64,
    let_go: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        let (room, most, allowance) = (MAX_BUFFERS, MAX_BUFFERS, ALLOWANCE);
        Self { beyond: None, room, most, allowance, earned_ns: 0, let_go: false }
    }
}

impl Bounds {
    /// Whether nothing is to be applied any more.
    #[inline]
    pub const fn is_beyond(&self) -> bool {
        self.beyond.is_some()
    }

    /// Whether there is room for one more live buffer, so far as is known.
    #[inline]
    pub const fn has_room(&self, live: usize) -> bool {
        live < self.room
    }

    /// Why nothing is applied any more.
    pub fn doubt(&self) -> Option<String> {
        Some(match self.beyond? {
            Beyond::Things(what, most) => format!("more {what} than ttmem follows ({most})"),
            Beyond::Work => "more work than ttmem does for one process".to_owned(),
        })
    }
}

impl Ledger {
    /// From here on nothing is applied.
    #[cold]
    fn go_beyond(&mut self, beyond: Beyond) {
        self.bounds.beyond.get_or_insert(beyond);
        self.bounds.room = 0;
        self.circular.note_gap();
    }

    /// Goes beyond the bounds if there are too many of something.
    pub(super) fn bound(&mut self, what: &'static str, found: usize, most: usize) {
        if found > most {
            self.go_beyond(Beyond::Things(what, most));
        }
    }

    /// Whether a buffer that comes is not followed any more.
    #[cold]
    pub(super) fn is_out_of_room(&mut self) -> bool {
        let held = self.live.len() + self.swept.len();
        if !self.bounds.is_beyond() && held < self.bounds.most {
            self.bounds.room = self.bounds.most - self.swept.len();
            return false;
        }
        self.go_beyond(Beyond::Things("live buffers", self.bounds.most));
        true
    }

    /// A buffer awaits its free: there is room for fewer live ones.
    pub(super) fn bound_swept(&mut self) {
        let room = self.bounds.most.saturating_sub(self.swept.len());
        self.bounds.room = self.bounds.room.min(room);
    }

    /// Pays for so many steps.
    pub(super) fn pay(&mut self, steps: usize) {
        let now_ns = self.last_stamp_ns();
        let bounds = &mut self.bounds;
        let elapsed = now_ns.saturating_sub(bounds.earned_ns).min(100 * SECOND_NS);
        bounds.earned_ns = bounds.earned_ns.max(now_ns);
        let earned = elapsed.saturating_mul(STEPS_PER_SECOND) / SECOND_NS;
        bounds.allowance = (bounds.allowance + earned).min(ALLOWANCE);
        match bounds.allowance.checked_sub(steps as u64) {
            Some(left) => bounds.allowance = left,
            None => self.go_beyond(Beyond::Work),
        }
    }

    /// Pays for a look at everything that is live.
    pub(super) fn pay_for_live(&mut self) {
        self.pay(self.live.len());
    }

    /// Pays for a look at all allocators on all their chips.
    pub(super) fn pay_for_allocators(&mut self) {
        self.pay(self.topology.allocator_count() * 64);
    }

    /// A reading, if it can be taken in.
    pub(super) fn bounded(
        &mut self,
        reading: Result<LiveBaseline, String>,
    ) -> Result<LiveBaseline, String> {
        if let Ok(reading) = &reading {
            let held = reading.buffers.len() + reading.swept.len();
            self.bound("live buffers", held, self.bounds.most);
        }
        self.bounds.doubt().map_or(reading, Err)
    }

    /// Lets go of what is held of a target that is beyond its bounds. Its totals stay as they were.
    pub(super) fn let_go_if_beyond(&mut self) {
        if self.bounds.is_beyond() && !self.bounds.let_go {
            self.bounds.let_go = true;
            self.live = LiveSet::default();
            self.swept = Swept::default();
            self.give_up_reading();
        }
    }

    /// Forgets devices and allocators that have been closed, once there are many: a program may open
    /// and close its devices thousands of times.
    pub(super) fn prune_places(&mut self) {
        if !self.topology.is_crowded() {
            return;
        }
        self.pay_for_live();
        let devices: HashSet<usize, RandomState> = self
            .live
            .values()
            .filter_map(|live: Live| live.device)
            .map(|entry| entry as usize)
            .collect();
        let allocators: HashSet<Avma, RandomState> =
            self.live.iter().map(Entry::allocator).collect();
        let is_used = |allocator| allocators.contains(&allocator);
        let gone = self.topology.prune(|entry| devices.contains(&entry), is_used);
        self.spaces.forget(&gone);
    }

    /// There may be more chips, devices or allocators now.
    pub(super) fn bound_places(&mut self) {
        self.bound("chips", self.topology.chips().len(), MAX_CHIPS);
        self.bound("devices", self.topology.device_count(), MAX_PLACES);
        self.bound("allocators", self.topology.allocator_count(), MAX_PLACES);
    }

    #[cfg(test)]
    pub(super) fn set_most_buffers(&mut self, most: usize) {
        (self.bounds.most, self.bounds.room) = (most, most);
    }
}

#[cfg(test)]
mod tests;
