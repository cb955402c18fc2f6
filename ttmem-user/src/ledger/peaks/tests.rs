//! The highest use after losses, against the truth.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    super::{
        Lost, Resynced,
        marks::MarkKey,
        snapshot::PoolSnapshot,
        tests::{allocate, baseline, free, started, view},
    },
    *,
};
use crate::{
    event::{Event, LiveBaseline, Spread},
    units::{Avma, Pid},
};

/// What each buffer takes of the pool.
const ONE: u64 = 3 * 2048 * 12;

fn lost(records: u64) -> Lost {
    Lost { ring_full: records, read_fault: 0 }
}

fn pool(ledger: &Ledger) -> PoolSnapshot {
    view(ledger).devices[0].pools[0].clone()
}

fn peak(ledger: &Ledger) -> (Option<u64>, Option<u64>) {
    let pool = pool(ledger);
    (pool.peak_used_bytes.map(|bytes| bytes / ONE), pool.peak_at_least_bytes.map(|it| it / ONE))
}

fn key() -> MarkKey {
    MarkKey { owner: 1, user: 0, name: "m".to_owned() }
}

fn peak_since(ledger: &mut Ledger) -> Option<u64> {
    let since = ledger.since_mark(&key()).unwrap();
    let pool = since.devices.first()?.pools[0];
    assert_eq!(pool.peak_used_bytes.is_some(), pool.peak_growth_bytes.is_some());
    pool.peak_used_bytes.map(|bytes| bytes / ONE)
}

fn resync(ledger: &mut Ledger, memory: &LiveBaseline) {
    let begun = ledger.begin_reading();
    while ledger.finish_resync(begun, 50, Ok(memory.clone())) == Resynced::Suspicious {}
}

#[test]
fn what_was_counted_twice_is_no_peak() {
    let mut ledger = started();
    ledger.mark(key(), 1).unwrap();
    for id in [1, 2] {
        ledger.apply(&allocate(id));
    }
    ledger.set_lost(lost(0));
    // The frees of both are lost, and others come to their memory before that is noticed.
    for id in [3, 4] {
        ledger.apply(&allocate(id));
    }
    ledger.set_lost(lost(2));
    assert_eq!(peak(&ledger), (None, Some(2)));
    ledger.apply(&allocate(5));
    ledger.set_lost(lost(2));
    resync(&mut ledger, &baseline(&[3, 4, 5]));
    assert!(view(&ledger).exact);
    assert_eq!((peak(&ledger), peak_since(&mut ledger)), ((None, Some(3)), None));
    // From here on all is certain again.
    ledger.mark(key(), 2).unwrap();
    ledger.apply(&allocate(6));
    ledger.apply(&free(6));
    assert_eq!((peak(&ledger), peak_since(&mut ledger)), ((None, Some(4)), Some(4)));
}

#[test]
fn what_goes_and_what_comes_were_not_live_together() {
    for memory in [&[7, 8, 9][..], &[1, 8, 9], &[]] {
        let mut ledger = started();
        for id in 1..=3 {
            ledger.apply(&allocate(id));
        }
        ledger.want_deltas(true);
        ledger.set_lost(lost(0));
        ledger.set_lost(lost(6));
        resync(&mut ledger, &baseline(memory));
        let mut live = 3_i64;
        for delta in ledger.take_deltas() {
            live += if delta.change == crate::ledger::delta::Change::Allocated { 1 } else { -1 };
            assert!(live <= 3, "{memory:?}");
        }
        assert_eq!(peak(&ledger), (None, Some(3)));
    }
}

#[test]
fn a_bulk_free_during_the_first_reading_is_before_what_came_then() {
    let mut ledger = Ledger::new(Pid(1), Vec::new());
    let places = baseline(&[]);
    ledger.apply(&Event::Device(places.devices[0].clone()));
    ledger.apply(&Event::BulkFreed { allocator: Avma(0x2000) });
    ledger.apply(&Event::Allocator(Box::new(places.allocators[0].clone())));
    ledger.apply(&allocate(7));
    ledger.finish_baseline(Ok(baseline(&[1, 2, 3])));
    ledger.set_lost(lost(0));
    assert_eq!((pool(&ledger).buffers, peak(&ledger)), (1, (Some(1), Some(1))));
}

#[test]
fn a_buffer_too_many_without_a_loss_leaves_only_what_is_live_certain() {
    let mut ledger = started();
    for id in 1..=5 {
        ledger.apply(&allocate(id));
    }
    ledger.set_lost(lost(0));
    assert_eq!(peak(&ledger), (Some(5), Some(5)));
    resync(&mut ledger, &baseline(&[1, 2]));
    assert_eq!(peak(&ledger), (None, Some(2)));
}

#[test]
fn a_free_that_was_under_way_at_the_attach_may_have_made_the_peak() {
    let mut ledger = Ledger::new(Pid(1), Vec::new());
    ledger.finish_baseline(Ok(baseline(&[1, 2])));
    ledger.apply(&allocate(3));
    ledger.set_lost(lost(0));
    assert_eq!(peak(&ledger), (Some(3), Some(3)));
    resync(&mut ledger, &baseline(&[2, 3]));
    assert!(view(&ledger).exact);
    assert_eq!(peak(&ledger), (None, Some(2)));
}

#[test]
fn the_peak_is_not_known_once_a_buffer_of_unknown_size_was_there() {
    let mut ledger = started();
    ledger.mark(key(), 1).unwrap();
    ledger.apply(&allocate(1));
    let Event::Allocated(mut unknown) = allocate(2) else { unreachable!() };
    unknown.shape.spread = Spread::Unknown;
    ledger.apply(&Event::Allocated(unknown));
    assert_eq!((peak(&ledger), peak_since(&mut ledger)), ((None, Some(1)), None));
    ledger.apply(&free(2));
    assert!(view(&ledger).exact);
    assert_eq!((peak(&ledger), peak_since(&mut ledger)), ((None, Some(1)), None));
    ledger.mark(key(), 2).unwrap();
    ledger.apply(&allocate(3));
    assert_eq!((peak(&ledger), peak_since(&mut ledger)), ((None, Some(2)), Some(2)));
}

/// What happens in the target, and between target and ledger.
#[derive(Clone, Copy, Debug)]
enum Step {
    Allocate(u64),
    Free(u64),
    /// The record of what comes next is lost.
    Lose,
    /// All records have been taken in, and the loss is looked at.
    Drained,
    Resync,
    Mark,
}

/// The target, and what has become of it in the ledger.
struct Model {
    ledger: Ledger,
    /// Place → unique id.
    live: BTreeMap<u64, u64>,
    allocated: u64,
    peak: u64,
    peak_since: u64,
    lost: u64,
    lose: bool,
}

impl Model {
    fn new() -> Self {
        let mut ledger = started();
        ledger.mark(key(), 1).unwrap();
        let live = BTreeMap::new();
        Self { ledger, live, allocated: 0, peak: 0, peak_since: 0, lost: 0, lose: false }
    }

    fn tell(&mut self, event: &Event) {
        if std::mem::take(&mut self.lose) {
            self.lost += 1;
        } else {
            self.ledger.apply(event);
        }
    }

    fn memory(&self) -> LiveBaseline {
        let places: Vec<u64> = self.live.keys().copied().collect();
        let mut memory = baseline(&places);
        for buffer in &mut memory.buffers {
            buffer.shape.unique_id = self.live.get(&(buffer.buffer.0 >> 8)).copied();
        }
        memory
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Allocate(place) if !self.live.contains_key(&place) => {
                self.allocated += 1;
                self.live.insert(place, self.allocated);
                let now = self.live.len() as u64;
                (self.peak, self.peak_since) = (self.peak.max(now), self.peak_since.max(now));
                let Event::Allocated(mut event) = allocate(place) else { unreachable!() };
                event.shape.unique_id = Some(self.allocated);
                self.tell(&Event::Allocated(event));
            }
            Step::Free(place) => {
                if self.live.remove(&place).is_some() {
                    self.tell(&free(place));
                }
            }
            Step::Allocate(_) => {}
            Step::Lose => self.lose = true,
            Step::Drained => self.ledger.set_lost(lost(self.lost)),
            Step::Resync => {
                self.ledger.set_lost(lost(self.lost));
                let memory = self.memory();
                resync(&mut self.ledger, &memory);
                assert!(view(&self.ledger).exact);
            }
            Step::Mark => {
                self.ledger.set_lost(lost(self.lost));
                self.ledger.mark(key(), 1).unwrap();
                self.peak_since = self.live.len() as u64;
            }
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (1..12_u64).prop_map(Step::Allocate),
        6 => (1..12_u64).prop_map(Step::Free),
        1 => Just(Step::Lose),
        4 => Just(Step::Drained),
        1 => Just(Step::Resync),
        1 => Just(Step::Mark),
    ];
    proptest::collection::vec(step, 0..200)
}

proptest! {
    #[test]
    fn a_peak_that_is_called_known_is_the_truth(steps in steps()) {
        let mut model = Model::new();
        for step in steps {
            model.take(step);
            // Between two drains nobody is shown anything.
            if !matches!(step, Step::Drained | Step::Resync | Step::Mark) {
                continue;
            }
            let (known, at_least) = peak(&model.ledger);
            prop_assert!(known.is_none_or(|known| known == model.peak), "{known:?}");
            prop_assert!(at_least <= Some(model.peak), "{at_least:?} {}", model.peak);
            let since = peak_since(&mut model.ledger);
            prop_assert!(since.is_none_or(|since| since == model.peak_since), "{since:?}");
            prop_assert_eq!(known.is_none(), model.lost > 0);
            if view(&model.ledger).exact {
                prop_assert!(at_least >= Some(model.live.len() as u64));
            }
        }
    }
}
