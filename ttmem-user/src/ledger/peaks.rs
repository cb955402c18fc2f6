//! Whether the highest use of each pool is known.
//!
//! After a loss a total may be too high, and with it the highest one seen: a buffer is counted that is
//! gone. A reading of memory sets the totals right, but not what was the highest meanwhile. So what
//! has been seen lately counts only once it is known that nothing was lost up to then; what was seen
//! in doubt is dropped, and of each pool it is remembered that something was missed.
//!
//! Nothing of this is done for each event: the ledger is looked at after each drain.
//!
//! Invariant: a peak that is called known is the highest use; the use that is called certain was
//! reached.

use super::{Facts, Ledger, PoolCounters};

/// What is known of all peaks of one target.
#[derive(Debug, Default)]
pub(super) struct Peaks {
    /// The totals may be wrong since the last review in which they were not.
    in_doubt: bool,
    /// Changes of the live set up to the last review.
    reviewed: u64,
}

impl Peaks {
    /// Whether the totals may be wrong now.
    pub const fn in_doubt(&self) -> bool {
        self.in_doubt
    }
}

impl Ledger {
    /// Looks whether what was seen since the last time is certain. Every event so far has been
    /// applied, and the loss up to then is known.
    pub(super) fn review_peaks(&mut self) {
        let (was_in_doubt, in_doubt) = (self.peaks.in_doubt, self.is_doubtful());
        let changes = self.failures.changes();
        if was_in_doubt == in_doubt && self.peaks.reviewed == changes {
            return;
        }
        self.peaks.reviewed = changes;
        self.peaks.in_doubt = in_doubt;
        // Without a loss it cannot be said from when on the totals were wrong.
        let since_when = self.lost != self.settled.lost || self.bounds.is_beyond();
        self.pools().for_each(|pool| match (was_in_doubt, in_doubt) {
            (false, false) => pool.keep_peak(),
            (false, true) if since_when => pool.miss_peak(),
            (false, true) => pool.forget_peak(),
            (true, true) => pool.drop_peak(),
            (true, false) => pool.miss_peak(),
        });
    }

    /// Whether the totals may be wrong, other than for what was there before the attach.
    fn is_doubtful(&self) -> bool {
        self.has_gone_wrong() || self.unknown_devices > 0 || self.bounds.is_beyond()
    }

    fn pools(&self) -> impl Iterator<Item = &PoolCounters> {
        self.chips.iter().flatten()
    }

    /// The live buffers have been put together anew: what the totals were in between says nothing.
    pub(super) fn drop_peaks(&self) {
        self.pools().for_each(PoolCounters::drop_peak);
    }

    /// The totals were wrong so far.
    pub(super) fn miss_peaks(&self) {
        self.pools().for_each(PoolCounters::miss_peak);
    }

    /// A buffer was counted wrongly, and it is not known since when. In doubt that is known already.
    pub(super) fn forget_peaks_of(&self, facts: &Facts) {
        if !self.peaks.in_doubt {
            for &chip in self.chips_of_live(facts.device) {
                self.pool(chip, facts.buffer_type).forget_peak();
            }
        }
    }
}

#[cfg(test)]
mod tests;
