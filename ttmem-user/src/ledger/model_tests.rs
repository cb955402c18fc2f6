//! The ledger against a model that recounts everything from the list of events.

use std::collections::BTreeMap;

use proptest::prelude::*;
use ttmem_common::layout::BUFFER_TYPES;

use super::{
    snapshot::{Detail, TargetState},
    *,
};
use crate::{
    event::{AllocatorSeen, DeviceSeen, Geometry, LiveBaseline, Spread},
    units::{ChipId, DeviceAddr, Tid},
};

/// Two devices: chips {0, 1} with allocator 0, chips {1, 2} with allocator 1.
const CHIPS: [[i32; 2]; 2] = [[0, 1], [1, 2]];
const BANKS: [u32; 2] = [8, 5];

#[derive(Clone, Debug)]
enum Step {
    Allocate { buffer: u8, owner: u8, buffer_type: u8, place: u8, pages: u16 },
    Free { buffer: u8 },
    BulkFree { owner: u8 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..40_u8, 0..2_u8, 0..5_u8, 0..6_u8, 0..100_u16).prop_map(
            |(buffer, owner, buffer_type, place, pages)| {
                Step::Allocate { buffer, owner, buffer_type, place, pages }
            }
        ),
        3 => (0..40_u8).prop_map(|buffer| Step::Free { buffer }),
        1 => (0..2_u8).prop_map(|owner| Step::BulkFree { owner }),
    ];
    proptest::collection::vec(step, 0..300)
}

fn owner_events(owner: u8) -> [Event; 2] {
    let geometry = Geometry {
        bank_size: 1 << 30,
        banks: BANKS[owner as usize],
        alignment: 64,
        block_minimum: 64,
        block_unit: 64,
        base: None,
    };
    let device = Avma(0x100 + u64::from(owner));
    [
        Event::Device(DeviceSeen {
            device,
            mesh: None,
            chips: CHIPS[owner as usize].iter().copied().map(ChipId).collect(),
        }),
        Event::Allocator(Box::new(AllocatorSeen {
            allocator: Avma(0x200 + u64::from(owner)),
            device,
            pools: [Some(geometry); BUFFER_TYPES],
        })),
    ]
}

#[derive(Default)]
struct Model {
    /// Buffer → allocator, type, pages, place.
    live: BTreeMap<u8, (u8, u8, u16, u8)>,
    /// Buffers without a block: allocator, type, place.
    swept: BTreeMap<u8, (u8, u8, u8)>,
    taken: u64,
    unknown_free: u64,
    double_allocation: u64,
    allocations: BTreeMap<(i32, u8), u64>,
    frees: BTreeMap<(i32, u8), u64>,
    peaks: BTreeMap<(i32, u8), u64>,
}

impl Model {
    fn used(&self, chip: i32, buffer_type: u8) -> (u64, u64) {
        let mut totals = (0, 0);
        for &(owner, kind, pages, _) in self.live.values() {
            if kind == buffer_type && CHIPS[owner as usize].contains(&chip) {
                let banks = u64::from(BANKS[owner as usize]);
                let per_bank = (u64::from(pages).div_ceil(banks) * 128).max(64);
                totals.0 += 1;
                totals.1 += per_bank * banks;
            }
        }
        totals
    }

    fn bump(counts: &mut BTreeMap<(i32, u8), u64>, owner: u8, buffer_type: u8) {
        for chip in CHIPS[owner as usize] {
            *counts.entry((chip, buffer_type)).or_default() += 1;
        }
    }

    /// The buffer that has a block there.
    fn owner_of(&self, block: (u8, u8, u8)) -> Option<u8> {
        let mut all = self.live.iter();
        all.find(|(_, live)| (live.0, live.1, live.3) == block).map(|(&buffer, _)| buffer)
    }

    fn sweep(&mut self, buffer: u8) {
        let (owner, buffer_type, _, place) = self.live.remove(&buffer).unwrap();
        Self::bump(&mut self.frees, owner, buffer_type);
        self.swept.insert(buffer, (owner, buffer_type, place));
    }

    /// Whether an allocator could do that: it gives no address away twice.
    fn is_possible(&self, step: &Step) -> bool {
        match *step {
            Step::Allocate { buffer, owner, buffer_type, place, .. } => {
                let there = self.owner_of((owner, buffer_type, place));
                there.is_none_or(|there| there == buffer)
            }
            Step::Free { .. } | Step::BulkFree { .. } => true,
        }
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Allocate { buffer, owner, buffer_type, place, pages } => {
                self.swept.remove(&buffer);
                if self.live.insert(buffer, (owner, buffer_type, pages, place)).is_some() {
                    self.double_allocation += 1;
                }
                Self::bump(&mut self.allocations, owner, buffer_type);
                for chip in CHIPS[owner as usize] {
                    let used = self.used(chip, buffer_type).1;
                    let peak = self.peaks.entry((chip, buffer_type)).or_default();
                    *peak = used.max(*peak);
                }
            }
            Step::Free { buffer } => {
                if let Some((owner, buffer_type, ..)) = self.live.remove(&buffer) {
                    Self::bump(&mut self.frees, owner, buffer_type);
                } else if let Some(block) = self.swept.remove(&buffer) {
                    if let Some(robbed) = self.owner_of(block) {
                        self.taken += 1;
                        self.sweep(robbed);
                    }
                } else {
                    self.unknown_free += 1;
                }
            }
            Step::BulkFree { owner } => {
                let gone: Vec<u8> = self
                    .live
                    .iter()
                    .filter(|(_, live)| live.0 == owner)
                    .map(|(&buffer, _)| buffer)
                    .collect();
                for buffer in gone {
                    self.sweep(buffer);
                }
            }
        }
    }
}

fn event(step: &Step) -> Event {
    match *step {
        Step::Allocate { buffer, owner, buffer_type, place, pages } => {
            Event::Allocated(Allocated {
                time_ns: 1,
                tid: Tid(1),
                buffer: Avma(u64::from(buffer)),
                allocator: Avma(0x200 + u64::from(owner)),
                device: Avma(0x100 + u64::from(owner)),
                shape: BufferShape {
                    unique_id: None,
                    buffer_type: BufferType::from_raw(u32::from(buffer_type)).unwrap(),
                    address: DeviceAddr(u64::from(place) << 20),
                    size: u64::from(pages) * 100,
                    page_size: 100,
                    spread: Spread::Interleaved,
                },
            })
        }
        Step::Free { buffer } => Event::Freed(Freed {
            buffer: Avma(u64::from(buffer)),
            allocator: Avma(0),
            described: None,
        }),
        Step::BulkFree { owner } => Event::BulkFreed { allocator: Avma(0x200 + u64::from(owner)) },
    }
}

proptest! {
    #[test]
    fn the_ledger_agrees_with_a_recount(steps in steps()) {
        let mut ledger = Ledger::new(Pid(1), Vec::new());
        ledger.finish_baseline(Ok(LiveBaseline::default()));
        for event in [owner_events(0), owner_events(1)].iter().flatten() {
            ledger.apply(event);
        }
        let mut model = Model::default();
        for step in &steps {
            if !model.is_possible(step) {
                continue;
            }
            ledger.apply(&event(step));
            model.apply(step);
        }
        let snapshot = ledger.snapshot(0, TargetState::Running, Detail { buffers: true, map: false, ..Detail::default() });
        prop_assert_eq!(snapshot.anomalies.unknown_free, model.unknown_free);
        prop_assert_eq!(snapshot.taken_blocks, model.taken);
        prop_assert_eq!(snapshot.anomalies.double_allocation, model.double_allocation);
        prop_assert_eq!(snapshot.buffers.unwrap().len(), model.live.len());
        for chip in &snapshot.devices {
            for pool in &chip.pools {
                let key = (chip.chip.0, pool.buffer_type as u8);
                let (buffers, used) = model.used(key.0, key.1);
                prop_assert_eq!(pool.buffers, buffers);
                prop_assert_eq!(pool.used_bytes, Some(used));
                prop_assert_eq!(pool.allocations, model.allocations.get(&key).copied().unwrap_or(0));
                prop_assert_eq!(pool.frees, model.frees.get(&key).copied().unwrap_or(0));
                prop_assert_eq!(
                    pool.peak_used_bytes,
                    Some(model.peaks.get(&key).copied().unwrap_or(0))
                );
            }
        }
    }
}
