//! The target as it was at an earlier instant: as far back as its changes can be undone, buffer by
//! buffer; before that, what each pool held.
//!
//! From one instant to the next only the changes in between are undone or done again, and so many
//! for one frame. A frame that is on its way says so, and does not call its numbers exact; nor is an
//! instant exact of which the reports of then did not say so.
//!
//! Of the totals these are not known: peaks, and counts since the attach. Whoever shows or exports
//! them says so; the snapshot has those of now.

use std::sync::Arc;

use crate::{
    format,
    history::{History, Past},
    ledger::snapshot::{CircularSnapshot, FailuresSnapshot, Snapshot},
};

/// Changes that are undone for one frame. All that a frame may take is 5 ms.
pub const AT_ONCE: u64 = 4_096;

/// What is known of an instant.
#[derive(Debug)]
pub struct Then {
    /// The target.
    pub serial: u64,
    /// The instant, ns.
    pub time_ns: u64,
    /// The totals.
    pub snapshot: Arc<Snapshot>,
    /// Tells the copies of what is live apart: the rows of each have stamps of their own.
    pub copy: u64,
    /// Nothing that comes says anything else of whether it is exact.
    settled: bool,
    /// Where the last step led to.
    place: Past,
    /// Why it cannot be said what was live.
    missing: Option<String>,
}

impl Then {
    /// As the history says it; `now` is what the target is like now. Goes on from `before` if that
    /// is near, else from a copy of what is live, which it names `copy`.
    pub fn new(
        history: &History,
        time_ns: u64,
        now: &Snapshot,
        before: Option<Self>,
        copy: u64,
    ) -> Self {
        let serial = now.process.serial;
        let near = before
            .filter(|before| before.serial == serial && history.is_near(&before.place, time_ns));
        let near = near.map(|before| (before.place, before.copy));
        let (mut place, copy) = near.unwrap_or_else(|| (history.present(), copy));
        let missing = history.go_to(&mut place, time_ns, AT_ONCE).err().map(|why| why.to_string());
        let past = missing.as_deref().map_or(Ok(&place), Err);
        let snapshot = Arc::new(totals(history, time_ns, now, past));
        let settled = history.is_settled(time_ns);
        Self { serial, time_ns, snapshot, copy, settled, place, missing }
    }

    /// What was live, or why that cannot be said.
    pub fn past(&self) -> Result<&Past, &str> {
        self.missing.as_deref().map_or(Ok(&self.place), Err)
    }

    /// Whether it is there, and will not be anything else.
    pub fn is_final(&self) -> bool {
        self.settled && self.left() == 0
    }

    /// Changes that are still to be undone, or done again, to be there.
    pub fn left(&self) -> u64 {
        self.past().map_or(0, Past::left)
    }
}

/// Its totals at an instant.
fn totals(history: &History, time_ns: u64, now: &Snapshot, past: Result<&Past, &str>) -> Snapshot {
    let mut then = Snapshot {
        time_ns,
        process: Arc::clone(&now.process),
        exact: false,
        inexact_because: Vec::new(),
        stacks: now.stacks.clone(),
        witness: now.witness.clone(),
        audit: now.audit.clone(),
        unresolved: now.unresolved.clone(),
        failures: FailuresSnapshot::default(),
        devices: now.devices.clone(),
        // Of these there may be as many rows as buffers.
        allocators: Vec::new(),
        buffers: None,
        programs: None,
        ..*now
    };
    let not_yet = match past {
        Ok(past) if past.left() > 0 => Some(on_the_way(past.left())),
        Ok(_) => None,
        Err(why) => Some(why.to_owned()),
    };
    let doubt = history.doubt(time_ns).map(ToOwned::to_owned);
    then.inexact_because = not_yet.into_iter().chain(doubt).collect();
    then.exact = then.inexact_because.is_empty();
    let pools = past.map(Past::pools).ok();
    for chip in &mut then.devices {
        chip.circular = CircularSnapshot::default();
        for pool in &mut chip.pools {
            let known = match &pools {
                Some(pools) => {
                    let level = pools.get(&(chip.chip, pool.buffer_type)).copied();
                    let level = level.unwrap_or_default();
                    let used = (level.unmeasured == 0).then_some(level.used_bytes);
                    Some((level.buffers, used))
                }
                None => history
                    .timeline()
                    .line(chip.chip, pool.buffer_type)
                    .and_then(|line| line.span(time_ns, time_ns))
                    .map(|span| (span.last_buffers, (!span.inexact).then_some(span.last_used))),
            };
            (pool.buffers, pool.used_bytes) = known.unwrap_or((0, None));
            (pool.peak_used_bytes, pool.peak_at_least_bytes) = (None, None);
            pool.bank_bytes = None;
        }
    }
    then
}

/// What is said until it is there.
pub fn on_the_way(left: u64) -> String {
    format!("going there, {} changes to go", format::count(left))
}
