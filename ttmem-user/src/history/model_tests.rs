//! A history against a recount from all deltas.

use std::collections::BTreeMap;

use proptest::{prelude::*, test_runner::TestCaseError};

use super::{
    BINS, Bin, History, Level, MAX_BYTES, Order, OwnedRow, Past, Refill, Row, SortKey, bin,
    sample::{deltas, steps},
};
use crate::{
    event::BufferType,
    ledger::delta::{Cause, Change, Delta},
    units::{Avma, ChipId},
};

/// A pool: used bytes of known size, live buffers, those of unknown size.
type Pools = BTreeMap<(ChipId, BufferType), (u64, u64, u64)>;

/// What is live after some deltas.
fn live(deltas: &[Delta]) -> BTreeMap<Avma, Delta> {
    let mut live = BTreeMap::new();
    for delta in deltas {
        match delta.change {
            Change::Allocated => drop(live.insert(delta.buffer, delta.clone())),
            Change::Freed => drop(live.remove(&delta.buffer)),
        }
    }
    live
}

fn pools(live: &BTreeMap<Avma, Delta>) -> Pools {
    let mut pools = Pools::new();
    for delta in live.values() {
        for &chip in &*delta.chips {
            let pool = pools.entry((chip, delta.buffer_type)).or_default();
            pool.0 += delta.used_bytes.unwrap_or(0);
            pool.1 += 1;
            pool.2 += u64::from(delta.used_bytes.is_none());
        }
    }
    pools
}

fn owned(delta: &Delta) -> OwnedRow {
    OwnedRow {
        buffer: delta.buffer,
        unique_id: delta.unique_id,
        buffer_type: delta.buffer_type,
        address: delta.address,
        size: delta.size,
        page_size: delta.page_size,
        bank_bytes: delta.bank_bytes,
        used_bytes: delta.used_bytes,
        cores: delta.cores,
        chips: delta.chips.to_vec(),
        mesh: delta.mesh,
        tid: delta.allocated_tid,
        allocated_ns: delta.allocated_ns,
        pre_attach: delta.pre_attach,
    }
}

/// The times as a history takes them: never before the one that they follow.
fn times(deltas: &[Delta]) -> Vec<u64> {
    let mut latest = 0;
    let each = deltas.iter().map(|delta| {
        latest = latest.max(delta.time_ns);
        latest
    });
    each.collect()
}

fn rows(live: &super::LiveSet) -> BTreeMap<Avma, OwnedRow> {
    live.iter().map(|row| (row.buffer, row.to_owned_row())).collect()
}

fn expected_rows(live: &BTreeMap<Avma, Delta>) -> BTreeMap<Avma, OwnedRow> {
    live.iter().map(|(&buffer, delta)| (buffer, owned(delta))).collect()
}

fn found(past: &Past) -> Pools {
    let level = |level: Level| (level.used_bytes, level.buffers, level.unmeasured);
    past.pools().into_iter().map(|(pool, held)| (pool, level(held))).collect()
}

/// What is live, the pools, and each row by its name.
fn agrees_now(history: &History, deltas: &[Delta]) -> Result<(), TestCaseError> {
    let live = live(deltas);
    prop_assert_eq!(rows(history.live()), expected_rows(&live));
    for (&buffer, delta) in &live {
        prop_assert_eq!(
            history.live().get(buffer).map(|row| row.to_owned_row()),
            Some(owned(delta))
        );
    }
    let pools = pools(&live);
    for pool in history.timeline().pools() {
        let (used, buffers, unmeasured) = pools.get(&pool).copied().unwrap_or_default();
        let now = history.timeline().line(pool.0, pool.1).unwrap().now();
        prop_assert_eq!((now.used_bytes, now.buffers, now.unmeasured), (used, buffers, unmeasured));
    }
    for pool in pools.keys() {
        prop_assert!(history.timeline().line(pool.0, pool.1).is_some());
    }
    Ok(())
}

fn of_all(deltas: &[Delta], log: usize) -> History {
    let mut history = History::with_log(log);
    for delta in deltas {
        history.apply(delta);
    }
    history
}

proptest! {
    #[test]
    fn it_agrees_with_a_recount_now_and_at_any_instant(
        steps in steps(250),
        log in 0..300_usize,
        instants in proptest::collection::vec(any::<prop::sample::Index>(), 12),
    ) {
        let deltas = deltas(&steps);
        let history = of_all(&deltas, log);
        prop_assert_eq!(history.gap(), None);
        agrees_now(&history, &deltas)?;
        let times = times(&deltas);
        for instant in instants {
            if times.is_empty() {
                break;
            }
            let at = instant.index(times.len());
            for time_ns in [times[at], times[at].saturating_sub(1), times[at] + 1] {
                let seen = times.partition_point(|&time| time <= time_ns);
                let kept_from = times.len().saturating_sub(log);
                let reachable = time_ns >= if kept_from == 0 { times[0] } else { times[kept_from - 1] };
                let past = history.at(time_ns);
                prop_assert_eq!(past.is_ok(), reachable, "{} of {:?}, log {}", time_ns, times, log);
                let Ok(past) = past else { continue };
                let then = live(&deltas[..seen]);
                prop_assert_eq!(rows(&past.live), expected_rows(&then));
                prop_assert_eq!(found(&past), pools(&then));
            }
        }
    }

    /// One copy goes from instant to instant, a few changes at a time, while the history goes on: it
    /// is what it would be if it had begun anew, and neither changes the other.
    #[test]
    fn going_from_one_instant_to_another_is_going_there_from_now(
        steps in steps(250),
        log in 20..300_usize,
        refilled in any::<Option<prop::sample::Index>>(),
        moves in proptest::collection::vec(
            (any::<prop::sample::Index>(), 1..40_u64, 0..30_usize), 1..25,
        ),
    ) {
        let deltas = deltas(&steps);
        prop_assume!(!deltas.is_empty());
        let times = times(&deltas);
        let mut history = History::with_log(log);
        let mut applied = 0;
        let mut past: Option<Past> = None;
        for (round, (instant, most, more)) in moves.iter().enumerate() {
            let until = (applied + more + 1).min(deltas.len());
            deltas[applied..until].iter().for_each(|delta| history.apply(delta));
            applied = until;
            if refilled.is_some_and(|at| at.index(moves.len()) == round) {
                let there = live(&deltas[..applied]);
                let live = there.values().cloned().collect();
                let (time_ns, last_delta) = (history.time_ns(), history.sequence());
                history.fell_behind();
                history.refill(&Refill { time_ns, last_delta, live });
            }
            let time_ns = times[instant.index(applied)];
            let near = past.take().filter(|past| history.is_near(past, time_ns));
            let mut here = near.unwrap_or_else(|| history.present());
            let mut left = u64::MAX;
            let arrived = loop {
                match history.go_to(&mut here, time_ns, *most) {
                    Err(why) => break Err(why),
                    Ok(()) if here.left() == 0 => break Ok(()),
                    Ok(()) => prop_assert!(here.left() < left),
                }
                left = here.left();
            };
            prop_assert_eq!(arrived, history.at(time_ns).map(|_| ()));
            if arrived.is_ok() {
                let then = live(&deltas[..times.partition_point(|&time| time <= time_ns)]);
                let expected = expected_rows(&live(&deltas[..applied]));
                let is_later = applied < deltas.len() && times[applied] <= time_ns;
                if !is_later {
                    prop_assert_eq!(rows(&here.live), expected_rows(&then));
                    prop_assert_eq!(found(&here), pools(&then));
                }
                prop_assert_eq!(here.time_ns, time_ns);
                prop_assert_eq!(rows(history.live()), expected);
            }
            past = Some(here);
        }
    }

    #[test]
    fn no_peak_is_lost(steps in steps(400), parts in 1..20_usize) {
        let deltas = deltas(&steps);
        let history = of_all(&deltas, 0);
        let times = times(&deltas);
        let mut peaks: BTreeMap<(ChipId, BufferType), u64> = BTreeMap::new();
        let mut values: BTreeMap<(ChipId, BufferType), Vec<(u64, u64)>> = BTreeMap::new();
        let mut now = Pools::new();
        for (delta, &time_ns) in deltas.iter().zip(&times) {
            for &chip in &*delta.chips {
                let pool = (chip, delta.buffer_type);
                let used = &mut now.entry(pool).or_default().0;
                let bytes = delta.used_bytes.unwrap_or(0);
                match delta.change {
                    Change::Allocated => *used += bytes,
                    Change::Freed => *used -= bytes,
                }
                let peak = peaks.entry(pool).or_default();
                *peak = (*peak).max(*used);
                values.entry(pool).or_default().push((time_ns, *used));
            }
        }
        for (pool, peak) in peaks {
            let line = history.timeline().line(pool.0, pool.1).unwrap();
            prop_assert_eq!(line.peak_used(), peak);
            let buckets: Vec<_> = line.buckets().collect();
            prop_assert_eq!(buckets.iter().map(|bucket| bucket.max_used).max(), Some(peak));
            for pair in buckets.windows(2) {
                prop_assert!(pair[0].last_ns <= pair[1].first_ns);
            }
            let values = &values[&pool];
            // Each bucket says what there was in it.
            let mut at = 0;
            for bucket in &buckets {
                let count = usize::try_from(bucket.allocations + bucket.frees).unwrap();
                let part = &values[at..at + count];
                at += count;
                prop_assert_eq!(bucket.first_ns, part[0].0);
                prop_assert_eq!(bucket.last_ns, part[part.len() - 1].0);
                prop_assert_eq!(bucket.last_used, part[part.len() - 1].1);
                prop_assert_eq!(Some(bucket.min_used), part.iter().map(|value| value.1).min());
                prop_assert_eq!(Some(bucket.max_used), part.iter().map(|value| value.1).max());
                prop_assert!(part.contains(&(bucket.max_ns, bucket.max_used)));
            }
            prop_assert_eq!(at, values.len());
            // And columns show no less than there was.
            let (from, to) = (values[0].0, values[values.len() - 1].0);
            let columns = line.columns(from, to, parts);
            prop_assert_eq!(columns.len(), parts);
            prop_assert_eq!(columns.iter().flatten().map(|span| span.max_used).max(), Some(peak));
            let last = columns[parts - 1].unwrap();
            prop_assert_eq!(last.last_used, values[values.len() - 1].1);
            prop_assert_eq!(line.span(from, to).unwrap().max_used, peak);
        }
    }

    #[test]
    fn histograms_and_threads_are_counts(steps in steps(300)) {
        let deltas = deltas(&steps);
        let history = of_all(&deltas, 10);
        let live = live(&deltas);
        let times = times(&deltas);
        let add = |bin: &mut Bin, size: u64| {
            bin.buffers += 1;
            bin.bytes += size;
        };
        for buffer_type in BufferType::ALL {
            let mut expected = super::Histogram::default();
            let of_type = |delta: &&Delta| delta.buffer_type == buffer_type;
            for delta in live.values().filter(of_type) {
                add(&mut expected.live[bin(delta.size)], delta.size);
            }
            for (delta, &time_ns) in deltas.iter().zip(&times).filter(|it| of_type(&it.0)) {
                match (delta.change, delta.allocated_ns) {
                    (Change::Allocated, _) if delta.cause == Cause::Event => {
                        add(&mut expected.allocated[bin(delta.size)], delta.size);
                    }
                    (Change::Allocated, _) => {}
                    (Change::Freed, Some(since)) => {
                        add(&mut expected.lifetimes[bin(time_ns - since)], delta.size);
                    }
                    (Change::Freed, None) => expected.unknown_lifetimes += 1,
                }
            }
            prop_assert_eq!(history.tally().histogram(buffer_type), &expected);
        }
        let now_ns = history.time_ns();
        let (threads, others) = history.tally().threads(now_ns);
        prop_assert_eq!(others, None);
        for thread in &threads {
            let of_it = |delta: &&Delta| delta.allocated_tid == thread.tid;
            prop_assert_eq!(thread.live_buffers, live.values().filter(of_it).count() as u64);
            let bytes: u64 = live.values().filter(of_it).map(|delta| delta.size).sum();
            prop_assert_eq!(thread.live_bytes, bytes);
            let new = |delta: &&Delta| {
                delta.change == Change::Allocated && delta.cause == Cause::Event
            };
            let all = deltas.iter().filter(new).filter(of_it);
            prop_assert_eq!(thread.allocations, all.count() as u64);
            let second = |time_ns: u64| time_ns / 1_000_000_000;
            let recent = deltas.iter().zip(&times).filter(|(delta, time_ns)| {
                let age = second(now_ns) - second(**time_ns);
                new(delta) && of_it(delta) && (1..=8).contains(&age)
            });
            let recent = u32::try_from(recent.count()).unwrap();
            prop_assert!((thread.rate - f64::from(recent) / 8.0).abs() < 1e-9);
        }
    }

    #[test]
    fn a_gap_is_said_and_healed(
        steps in steps(200),
        from in any::<prop::sample::Index>(),
        length in 1..50_usize,
    ) {
        let deltas = deltas(&steps);
        prop_assume!(deltas.len() > 2);
        let from = 1 + from.index(deltas.len() - 2);
        let to = (from + length).min(deltas.len() - 1);
        let mut history = of_all(&deltas[..from], 1000);
        history.apply(&deltas[to]);
        prop_assert!(history.gap().is_some() && history.at(u64::MAX).is_err());
        prop_assert_eq!(rows(history.live()), expected_rows(&live(&deltas[..from])));
        let there = live(&deltas[..=to]);
        let refill = Refill {
            time_ns: times(&deltas)[to],
            last_delta: deltas[to].sequence,
            live: there.values().map(|it| Delta { cause: Cause::Resync, ..it.clone() }).collect(),
        };
        history.refill(&refill);
        prop_assert_eq!(history.gap(), None);
        prop_assert_eq!(history.missed(), (to + 1 - from) as u64);
        agrees_now(&history, &deltas[..=to])?;
        for delta in &deltas[to + 1..] {
            history.apply(delta);
        }
        agrees_now(&history, &deltas)?;
        prop_assert!(history.at(refill.time_ns).is_ok());
        prop_assert!(history.at(refill.time_ns - 1).is_err());
    }

    #[test]
    fn a_page_is_a_part_of_what_is_sorted(
        steps in steps(200),
        start in 0..60_usize,
        length in 0..40_usize,
        key in 0..12_usize,
        descending: bool,
        least in 0..8000_u64,
    ) {
        let history = of_all(&deltas(&steps), 0);
        let key = [
            SortKey::Size, SortKey::Used, SortKey::Type, SortKey::Chips, SortKey::Address,
            SortKey::Age, SortKey::Thread, SortKey::Id, SortKey::PreAttach, SortKey::PerBank,
            SortKey::Page, SortKey::Cores,
        ][key];
        let order = Order { key, descending };
        let ids = |window| {
            let page = history.live().page(|_, row| row.size >= least, order, window);
            let ids: Vec<Avma> = page.rows.iter().map(|row| row.buffer).collect();
            (ids, page.matched, page.matched_bytes)
        };
        let (all, matched, bytes) = ids(0..usize::MAX);
        let wanted: Vec<_> = history.live().iter().filter(|row| row.size >= least).collect();
        prop_assert_eq!((matched, all.len()), (wanted.len(), wanted.len()));
        prop_assert_eq!(bytes, wanted.iter().map(|row| row.size).sum::<u64>());
        let window = start.min(all.len())..(start + length).min(all.len());
        prop_assert_eq!(&ids(start..start + length).0, &all[window]);
        // What is not known comes last, whichever way.
        let value = |row: &Row<'_>| match key {
            SortKey::Size => Some(row.size),
            SortKey::Used => row.used_bytes,
            SortKey::Address => Some(row.address.0),
            SortKey::Thread => row.tid.map(|tid| tid.0.into()),
            SortKey::Id => row.unique_id,
            SortKey::PreAttach => Some(row.pre_attach.into()),
            SortKey::PerBank => row.bank_bytes,
            SortKey::Page => Some(row.page_size),
            SortKey::Cores => row.cores.map(u64::from),
            SortKey::Type | SortKey::Chips | SortKey::Age | SortKey::Site => None,
        };
        let values: Vec<_> =
            all.iter().map(|id| value(&history.live().get(*id).unwrap())).collect();
        let known = values.iter().take_while(|value| value.is_some()).count();
        prop_assert!(values[known..].iter().all(Option::is_none), "{:?}", values);
        let sorted =
            values[..known].is_sorted_by(|a, b| if descending { a >= b } else { a <= b });
        prop_assert!(sorted, "{:?}", values);
    }

    /// What was seen of a row once need not be seen again: its stamp says whether it is the same.
    #[test]
    fn a_stamp_names_one_row(steps in steps(300)) {
        let mut history = History::with_log(1000);
        let mut seen: BTreeMap<u32, OwnedRow> = BTreeMap::new();
        for delta in &deltas(&steps) {
            history.apply(delta);
            let live = history.live();
            let mut rows = 0;
            live.page(|slot, row| {
                let row = row.to_owned_row();
                assert!(slot.place < live.places());
                assert_eq!(seen.entry(slot.stamp).or_insert_with(|| row.clone()), &row);
                rows += 1;
                true
            }, Order { key: SortKey::Size, descending: true }, 0..0);
            prop_assert_eq!(rows, live.len());
        }
        prop_assert!(seen.len() as u64 <= history.live().came());
    }

    #[test]
    fn little_memory_is_little_memory(steps in steps(300), log in 0..50_usize) {
        let history = of_all(&deltas(&steps), log);
        prop_assert!(history.changes().count() <= log);
        prop_assert!(history.bytes() < MAX_BYTES);
        prop_assert_eq!(BINS, 65);
    }
}
