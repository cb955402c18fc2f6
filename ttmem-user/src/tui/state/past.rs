//! The target as it was at an earlier instant: as far back as its changes can be undone, buffer by
//! buffer; before that, what each pool held.

use std::sync::Arc;

use crate::{
    format,
    history::{History, Past},
    ledger::snapshot::{CircularSnapshot, FailuresSnapshot, Snapshot},
};

/// What is known of an instant.
#[derive(Debug)]
pub struct Then {
    /// The target.
    pub serial: u64,
    /// The instant, ns.
    pub time_ns: u64,
    /// What was live, or why that cannot be said.
    pub past: Result<Past, String>,
    /// The totals.
    pub snapshot: Arc<Snapshot>,
}

impl Then {
    /// As the history says it; `now` is what the target is like now.
    pub fn new(history: &History, time_ns: u64, now: &Snapshot) -> Self {
        let past = history.at(time_ns).map_err(|why| why.to_string());
        let mut then = Snapshot {
            time_ns,
            failures: FailuresSnapshot::default(),
            allocators: Vec::new(),
            buffers: None,
            programs: None,
            ..now.clone()
        };
        let ago = format::age(now.time_ns.saturating_sub(time_ns));
        if let Err(why) = &past {
            then.exact = false;
            then.inexact_because.insert(0, format!("{ago} ago: {why}"));
        }
        let pools = past.as_ref().ok().map(Past::pools);
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
                pool.peak_used_bytes = None;
                pool.bank_bytes = None;
            }
        }
        Self { serial: now.process.serial, time_ns, past, snapshot: Arc::new(then) }
    }
}
