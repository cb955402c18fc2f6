//! What it costs to keep a history: to apply a delta, to look at a page, to go back in time.
//!
//! `cargo xtask bench` runs it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ttmem::{
    event::BufferType,
    history::{History, MAX_ENTRIES, Order, SortKey},
    ledger::delta::{Cause, Change, Delta},
    units::{Avma, ChipId, DeviceAddr, MeshId, Tid},
};
use ttmem_bench::Bench;

/// Deltas that are applied in turns, over and over.
const BATCH: usize = 2000;

fn main() {
    let bench = Bench::from_command_line("history");
    let sizes: &[u64] =
        if bench.is_quick() { &[1_000, 100_000] } else { &[1_000, 10_000, 100_000, 1_000_000] };
    for &live in sizes {
        let group = format!("apply, {live} live");
        if bench.wants(&group) {
            let (mut single, mut mesh) = (Pair::new(live, 1), Pair::new(live, 32));
            bench
                .group(&group)
                .timed("one chip", BATCH as u64, move |times| single.run(times))
                .timed("mesh of 32 chips", BATCH as u64, move |times| mesh.run(times))
                .run();
        }
    }
    let group = "look, 100000 live";
    if bench.wants(group) {
        let (history, _) = filled(100_000, 1);
        let newest = history.time_ns();
        let order = Order { key: SortKey::Size, descending: true };
        let line = |history: &History| {
            let line = history.timeline().line(ChipId(0), BufferType::L1);
            line.map(|line| line.columns(0, newest, 160))
        };
        bench
            .group(group)
            .variant("page of 40 by size", || {
                history.live().page(|_, _| true, order, 50_000..50_040).matched
            })
            .variant("160 columns of the timeline", || line(&history))
            .variant("back by 10000 changes", || {
                history.at(newest - 10_000).map(|past| past.live.len())
            })
            .run();
    }
}

/// Frees and allocates in turns, and so stays as large as it is.
struct Pair {
    history: History,
    live: Vec<Delta>,
    next: usize,
    sequence: u64,
}

impl Pair {
    fn new(live: u64, chips: i32) -> Self {
        let (history, live) = filled(live, chips);
        let sequence = history.sequence();
        let mut pair = Self { history, live, next: 0, sequence };
        // Until the log is full, its memory is new.
        while pair.sequence < 2 * MAX_ENTRIES as u64 {
            pair.run(1);
        }
        pair
    }

    /// Applies so many batches, and takes the time of that alone: in the agent, deltas have just
    /// been written.
    fn run(&mut self, times: u64) -> Duration {
        let mut took = Duration::ZERO;
        for _ in 0..times {
            let batch = self.batch();
            let begun = Instant::now();
            for delta in &batch {
                self.history.apply(delta);
            }
            took += begun.elapsed();
        }
        assert!(self.history.gap().is_none());
        took
    }

    fn batch(&mut self) -> Vec<Delta> {
        let mut batch = Vec::with_capacity(BATCH);
        for _ in 0..BATCH / 2 {
            // Far from the one before, as buffers of all ages are freed.
            self.next = (self.next + 7919) % self.live.len();
            for change in [Change::Freed, Change::Allocated] {
                self.sequence += 1;
                let (sequence, time_ns) = (self.sequence, self.sequence);
                batch.push(Delta { sequence, time_ns, change, ..self.live[self.next].clone() });
            }
        }
        batch
    }
}

fn filled(live: u64, chips: i32) -> (History, Vec<Delta>) {
    let chips: Arc<[ChipId]> = (0..chips).map(ChipId).collect();
    let delta = |sequence: u64| Delta {
        sequence,
        time_ns: sequence,
        tid: Some(Tid(1)),
        change: Change::Allocated,
        cause: Cause::Event,
        buffer: Avma(0x5555_0000_0000 + sequence * 208),
        allocator: Avma(2),
        unique_id: Some(sequence),
        buffer_type: if sequence.is_multiple_of(4) { BufferType::Dram } else { BufferType::L1 },
        address: DeviceAddr(sequence * 4096),
        size: sequence * 7919 % 1_000_003,
        page_size: 2048,
        bank_bytes: Some(4096),
        used_bytes: Some(65_536),
        cores: None,
        chips: Arc::clone(&chips),
        mesh: Some(MeshId(0)),
        allocated_tid: Some(Tid(1 + u32::try_from(sequence % 4).unwrap_or(0))),
        allocated_ns: Some(sequence),
        pre_attach: false,
    };
    let deltas: Vec<Delta> = (1..=live).map(delta).collect();
    let mut history = History::default();
    for delta in &deltas {
        history.apply(delta);
    }
    (history, deltas)
}
