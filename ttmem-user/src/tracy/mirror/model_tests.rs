//! Whatever the deltas say, the operations are what a strict server takes, and in the end it has
//! what is live.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{
    tests::{came, mirror, went},
    *,
};
use crate::event::BufferType;

/// A server that takes no nonsense.
#[derive(Default)]
struct Server {
    live: BTreeMap<(Name, u64), u64>,
    plots: BTreeSet<Name>,
    used: BTreeMap<Name, i64>,
    last_ns: u64,
}

impl Server {
    fn take(&mut self, op: Op<'_>) {
        match op {
            Op::Alloc { pool, at, address, size, .. } => {
                self.in_order(at);
                let twice = self.live.insert((pool, address), size);
                assert_eq!(twice, None, "a double allocation at {address:#x}");
            }
            Op::Free { pool, at, address, .. } => {
                self.in_order(at);
                assert!(self.live.remove(&(pool, address)).is_some(), "an unknown free");
            }
            Op::Plot { plot, .. } => assert!(self.plots.insert(plot), "a plot is set up once"),
            Op::Point { plot, value, .. } => {
                assert!(self.plots.contains(&plot), "set up first");
                self.used.insert(plot, value);
            }
            Op::Message { .. } | Op::AppInfo { .. } => {}
        }
    }

    fn in_order(&mut self, at: At) {
        assert!(at.time_ns >= self.last_ns, "{} after {}", at.time_ns, self.last_ns);
        self.last_ns = at.time_ns;
    }
}

fn deltas() -> impl Strategy<Value = Vec<Delta>> {
    let one = (any::<bool>(), 0..6_u64, 0..4_u64, 0..3_u64, 0..4_u8, 0..100_u64);
    let one = one.prop_map(|(is_free, buffer, address, allocator, extra, time)| {
        let delta = if is_free { went(time, buffer, address) } else { came(time, buffer, address) };
        let chips: &[ChipId] = if extra & 1 == 0 { &[ChipId(0)] } else { &[ChipId(0), ChipId(1)] };
        let buffer_type = if address == 3 { BufferType::Dram } else { BufferType::L1 };
        let cores = (extra & 2 != 0).then_some(3);
        let bank_bytes = Some(64 + time % 3);
        let used_bytes = Some(1000 + time % 3);
        Delta {
            allocator: Avma(allocator),
            chips: chips.into(),
            cores,
            buffer_type,
            bank_bytes,
            used_bytes,
            ..delta
        }
    });
    proptest::collection::vec(one, 0..120)
}

/// What is live in a mirror, as a server has it.
fn live_in(mirror: &Mirror) -> BTreeMap<(Name, u64), u64> {
    let pools = mirror.pools.iter();
    pools
        .flat_map(|pool| pool.live.iter().map(|(at, entry)| ((pool.name, *at), entry.size)))
        .collect()
}

proptest! {
    #[test]
    fn a_strict_server_takes_it_and_has_what_is_live(
        deltas in deltas(),
        late in 0..120_usize,
        gap in (0..120_usize, 0..120_usize),
    ) {
        let (mut mirror, mut early, mut latecomer, mut slow) =
            (mirror(), Server::default(), Server::default(), Server::default());
        let mut before = None;
        for (number, delta) in deltas.iter().enumerate() {
            if number == late {
                mirror.announce(&mut |op| latecomer.take(op));
            }
            if number == gap.0 {
                before = Some(mirror.announced());
            }
            if number == gap.0 + gap.1 && let Some(before) = before.take() {
                mirror.catch_up(&before, &mut |op| slow.take(op));
            }
            let hears = before.is_none();
            mirror.apply(delta, &mut |op| {
                early.take(op);
                if number >= late {
                    latecomer.take(op);
                }
                if hears {
                    slow.take(op);
                }
            });
        }
        mirror.settle(&mut |op| early.take(op));
        if let Some(before) = before {
            mirror.catch_up(&before, &mut |op| slow.take(op));
        }
        let live = live_in(&mirror);
        prop_assert_eq!(&early.live, &live);
        if late < deltas.len() {
            prop_assert_eq!(&latecomer.live, &live);
        }
        prop_assert_eq!(&slow.live, &live);
        for pool in &mirror.pools {
            let sum: u64 = pool.live.values().map(|entry| entry.used).sum();
            prop_assert_eq!(pool.used, sum);
            prop_assert_eq!(early.used[&pool.plot], signed(sum), "the last point of the plot");
        }
        mirror.clear(1000, &mut |op| early.take(op));
        prop_assert!(early.live.is_empty());
    }

    #[test]
    fn after_a_gap_it_is_as_if_there_had_been_none(
        deltas in deltas(),
        gap in (0..120_usize, 0..120_usize),
    ) {
        // As the ledger has it: one buffer lives once, and no two at one address.
        let mut ledger: BTreeMap<u64, Delta> = BTreeMap::new();
        let (mut mirror, mut server) = (mirror(), Server::default());
        for (number, delta) in deltas.iter().enumerate() {
            let delta = Delta { cores: None, ..delta.clone() };
            let is_missed = (gap.0..gap.0 + gap.1).contains(&number);
            let buffer = delta.buffer.0;
            let known = ledger.get(&buffer).cloned();
            let same_place = |other: &Delta| {
                (other.allocator, other.address, other.buffer_type)
                    == (delta.allocator, delta.address, delta.buffer_type)
            };
            let delta = match (delta.change, known) {
                (Change::Allocated, None) if !ledger.values().any(same_place) => {
                    ledger.insert(buffer, delta.clone());
                    delta
                }
                (Change::Freed, Some(known)) => {
                    ledger.remove(&buffer);
                    Delta { change: Change::Freed, time_ns: delta.time_ns, ..known }
                }
                _ => continue,
            };
            if !is_missed {
                mirror.apply(&delta, &mut |op| server.take(op));
            }
            if number + 1 == gap.0 + gap.1 {
                let live: Vec<Delta> = ledger.values().cloned().collect();
                mirror.replace(&live, (delta.time_ns, 1), &mut |op| server.take(op));
            }
        }
        let live: Vec<Delta> = ledger.values().cloned().collect();
        mirror.replace(&live, (100, 1), &mut |op| server.take(op));
        prop_assert_eq!(&server.live, &live_in(&mirror));
        let sizes = |delta: &Delta| vec![delta.bank_bytes.unwrap(); delta.chips.len()];
        let mut expected: Vec<u64> = ledger.values().flat_map(sizes).collect();
        let mut found: Vec<u64> = server.live.values().copied().collect();
        expected.sort_unstable();
        found.sort_unstable();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn sane_deltas_are_shown_one_to_one(
        sizes in proptest::collection::vec((1..1_u64 << 40, any::<bool>()), 1..60)
    ) {
        let (mut mirror, mut server) = (mirror(), Server::default());
        let mut live = BTreeMap::new();
        for (number, (size, is_kept)) in sizes.iter().enumerate() {
            let number = number as u64;
            let mut one = came(number * 2, number, number);
            one.bank_bytes = Some(*size);
            mirror.apply(&one, &mut |op| server.take(op));
            if *is_kept {
                live.insert(number, *size);
            } else {
                mirror.apply(&went(number * 2 + 1, number, number), &mut |op| server.take(op));
            }
        }
        let found: BTreeMap<u64, u64> =
            server.live.iter().map(|((_, address), size)| (*address, *size)).collect();
        prop_assert_eq!(found, live);
        prop_assert_eq!(mirror.oddities(), Oddities::default());
    }
}
