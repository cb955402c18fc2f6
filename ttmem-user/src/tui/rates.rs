//! Allocations per second of each pool, and how its use has changed, from the snapshots.

use std::collections::{HashMap, VecDeque};

use crate::{event::BufferType, ledger::snapshot::Snapshot, units::ChipId};

/// Time constant of the smoothing, nanoseconds.
const WINDOW_NS: f64 = 1e9;

/// Snapshots that a trend goes back.
pub const TREND: usize = 32;

#[derive(Clone, Debug)]
struct Sample {
    allocations: u64,
    per_second: Option<f64>,
    /// Used bytes, the oldest first.
    trend: VecDeque<u64>,
}

/// Smoothed allocation rates.
///
/// Invariant: a rate needs two snapshots that know the pool; before that it is unknown, not 0.
#[derive(Debug, Default)]
pub struct Rates {
    time_ns: u64,
    pools: HashMap<(ChipId, BufferType), Sample>,
}

impl Rates {
    /// Takes the next snapshot in; one that is not newer than the last changes nothing.
    pub fn observe(&mut self, snapshot: &Snapshot) {
        let elapsed = snapshot.time_ns.saturating_sub(self.time_ns);
        if elapsed == 0 {
            return;
        }
        let mut before = std::mem::take(&mut self.pools);
        for chip in &snapshot.devices {
            for pool in &chip.pools {
                let key = (chip.chip, pool.buffer_type);
                let allocations = pool.allocations;
                let last = before.remove(&key);
                let per_second = last.as_ref().and_then(|last| last.after(allocations, elapsed));
                let mut trend = last.map(|last| last.trend).unwrap_or_default();
                if let Some(used) = pool.used_bytes {
                    if trend.len() >= TREND {
                        trend.pop_front();
                    }
                    trend.push_back(used);
                }
                self.pools.insert(key, Sample { allocations, per_second, trend });
            }
        }
        self.time_ns = snapshot.time_ns;
    }

    /// Allocations per second; `None` while unknown.
    pub fn get(&self, chip: ChipId, buffer_type: BufferType) -> Option<f64> {
        self.pools.get(&(chip, buffer_type))?.per_second
    }
}

impl Rates {
    /// Used bytes in the last snapshots, the oldest first.
    pub fn trend(&self, chip: ChipId, buffer_type: BufferType) -> impl Iterator<Item = u64> {
        let sample = self.pools.get(&(chip, buffer_type));
        sample.into_iter().flat_map(|sample| sample.trend.iter().copied())
    }
}

impl Sample {
    /// The rate once the count has become `allocations`, `elapsed` nanoseconds later; unknown
    /// when the count went back, as after a restart.
    fn after(&self, allocations: u64, elapsed: u64) -> Option<f64> {
        let seen = allocations.checked_sub(self.allocations)?;
        let elapsed = float(elapsed);
        let now = float(seen) * 1e9 / elapsed;
        let weight = 1.0 - (-elapsed / WINDOW_NS).exp();
        Some(self.per_second.map_or(now, |past| past + (now - past) * weight))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate is shown with few digits")]
const fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{self, SECOND};

    const POOL: (ChipId, BufferType) = (ChipId(0), BufferType::Dram);

    fn observe(rates: &mut Rates, time_ns: u64, allocations: u64) -> Option<f64> {
        let mut snapshot = fixture::normal();
        snapshot.time_ns = time_ns;
        snapshot.devices[0].pools[0].allocations = allocations;
        rates.observe(&snapshot);
        rates.get(POOL.0, POOL.1)
    }

    #[test]
    fn the_first_snapshot_gives_no_rate() {
        assert_eq!(observe(&mut Rates::default(), SECOND, 1000), None);
    }

    #[test]
    fn two_snapshots_give_the_rate_between_them() {
        let mut rates = Rates::default();
        observe(&mut rates, SECOND, 100);
        let rate = observe(&mut rates, SECOND + SECOND / 2, 150).unwrap();
        assert!((rate - 100.0).abs() < 1e-9, "{rate}");
    }

    #[test]
    fn the_same_snapshot_twice_changes_nothing() {
        let mut rates = Rates::default();
        observe(&mut rates, SECOND, 100);
        let rate = observe(&mut rates, 2 * SECOND, 150);
        assert_eq!(observe(&mut rates, 2 * SECOND, 150), rate);
        assert_eq!(observe(&mut rates, SECOND, 999), rate);
    }

    #[test]
    fn a_burst_fades_within_seconds() {
        let mut rates = Rates::default();
        observe(&mut rates, SECOND, 0);
        observe(&mut rates, SECOND + SECOND / 10, 100);
        let mut last = f64::INFINITY;
        for tenth in 2..=60 {
            let rate = observe(&mut rates, SECOND + tenth * SECOND / 10, 100).unwrap();
            assert!(rate < last && rate >= 0.0);
            last = rate;
        }
        assert!(last < 10.0, "{last}");
    }

    #[test]
    fn a_steady_rate_shows_as_it_is() {
        let mut rates = Rates::default();
        let mut rate = None;
        for tick in 0..50 {
            rate = observe(&mut rates, SECOND + tick * SECOND / 20, tick * 7);
        }
        assert!((rate.unwrap() - 140.0).abs() < 1e-6, "{rate:?}");
    }

    #[test]
    fn a_count_that_went_back_is_unknown() {
        let mut rates = Rates::default();
        observe(&mut rates, SECOND, 100);
        observe(&mut rates, 2 * SECOND, 200);
        assert_eq!(observe(&mut rates, 3 * SECOND, 5), None);
    }
}
