//! What the pipeline's thread costs, kept beside its work.

use std::{fs, time::Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::{
    ledger::health::{Health, Queue, RingFill},
    source::EventSource,
};

/// Adds up what drains cost.
#[derive(Debug, Default)]
pub(super) struct Meter {
    records: u64,
    busy_ns: u64,
    ring: Option<RingFill>,
}

impl Meter {
    /// Does a drain, which returns its number of records, and counts what it takes.
    pub(super) fn drain<S: EventSource>(
        &mut self,
        source: &mut S,
        drain: impl FnOnce(&mut S) -> u64,
    ) -> u64 {
        self.ring = source.fill().map(|fill| self.filled(fill));
        let begun = Instant::now();
        let records = drain(source);
        if records > 0 {
            let took = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.busy_ns = self.busy_ns.saturating_add(took);
            self.records += records;
        }
        records
    }

    fn filled(&self, (waiting_bytes, size_bytes): (u64, u64)) -> RingFill {
        let most_bytes = self.ring.map_or(0, |ring| ring.most_bytes).max(waiting_bytes);
        RingFill { waiting_bytes, most_bytes, size_bytes }
    }

    /// How the agent does.
    pub(super) fn health(&self, queues: Vec<Queue>) -> Health {
        Health {
            ring: self.ring,
            records: self.records,
            busy_ns: self.busy_ns,
            cpu_ns: cpu_ns(),
            resident_bytes: resident_bytes(),
            queues,
        }
    }
}

fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    part(time.tv_sec).saturating_mul(1_000_000_000).saturating_add(part(time.tv_nsec))
}

fn resident_bytes() -> Option<u64> {
    let pages = fs::read_to_string("/proc/self/statm").ok()?;
    let resident: u64 = pages.split(' ').nth(1)?.parse().ok()?;
    resident.checked_mul(rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Quiet;

    #[test]
    fn what_is_drained_is_counted() {
        let mut meter = Meter::default();
        let mut source = Quiet::new();
        assert_eq!(meter.drain(&mut source, |_| 3), 3);
        meter.drain(&mut source, |_| 0);
        let health = meter.health(Vec::new());
        assert_eq!((health.records, health.ring), (3, None));
        assert!(health.cpu_ns > 0 && health.resident_bytes > Some(0));
    }

    #[test]
    fn the_highest_fill_stays_in_the_reports() {
        let mut meter = Meter::default();
        for (waiting_bytes, most_bytes) in [(9, 9), (1, 9), (12, 12)] {
            meter.ring = Some(meter.filled((waiting_bytes, 4096)));
            let expected = RingFill { waiting_bytes, most_bytes, size_bytes: 4096 };
            assert_eq!(meter.health(Vec::new()).ring, Some(expected));
        }
    }
}
