//! A bank against a model that knows nothing but the list of live buffers.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::units::DeviceAddr;

const START: u64 = 1024;
const SIZE: u64 = 64;
const BYTES: usize = 64;

fn geometry(base: Option<u64>) -> Geometry {
    Geometry {
        bank_size: SIZE,
        banks: 12,
        alignment: 1,
        block_minimum: 1,
        block_unit: 1,
        base: base.map(DeviceAddr),
    }
}

fn bank() -> Space {
    Space::new(&geometry(Some(START)))
}

const fn at(start: u64, bytes: u64) -> Range {
    Range { start: START + start, bytes: Some(bytes) }
}

fn figures(space: &Space) -> (u64, u64, u64) {
    let free = space.free().unwrap();
    (free.bytes, free.largest, free.holes)
}

#[test]
fn holes_split_and_join() {
    let mut space = bank();
    assert_eq!(figures(&space), (64, 64, 1));
    assert!(space.enter(Avma(1), at(0, 16)));
    assert!(space.enter(Avma(2), at(16, 16)));
    assert!(space.enter(Avma(3), at(48, 16)));
    assert_eq!(figures(&space), (16, 16, 1));
    space.leave(Avma(1), at(0, 16));
    assert_eq!(figures(&space), (32, 16, 2));
    assert_eq!(space.free().unwrap().fragmentation_permille(), 500);
    space.leave(Avma(2), at(16, 16));
    assert_eq!(figures(&space), (48, 48, 1));
    space.leave(Avma(3), at(48, 16));
    assert_eq!(figures(&space), (64, 64, 1));
}

#[test]
fn fragmentation_of_nothing_is_none() {
    assert_eq!(Free::default().fragmentation_permille(), 0);
    let free = Free { bytes: u64::MAX, largest: 1, holes: 2 };
    assert_eq!(free.fragmentation_permille(), 999);
    assert_eq!(Free { bytes: 3, largest: 1, holes: 3 }.fragmentation_permille(), 666);
}

#[test]
fn what_overlaps_is_told_and_forgotten_when_it_goes() {
    let mut space = bank();
    assert!(space.enter(Avma(1), at(0, 16)));
    assert!(!space.enter(Avma(2), at(8, 16)), "overlaps");
    assert!(!space.enter(Avma(3), at(60, 8)), "leaves the bank");
    assert!(!space.enter(Avma(4), Range { start: u64::MAX, bytes: Some(8) }));
    assert_eq!(space.free(), Err(Unknown::Overlap));
    space.leave(Avma(3), at(60, 8));
    space.leave(Avma(4), Range { start: u64::MAX, bytes: Some(8) });
    space.leave(Avma(1), at(0, 16));
    assert_eq!(figures(&space), (48, 40, 2), "the second has its place now");
}

#[test]
fn too_many_without_a_place_give_the_pool_up_until_it_is_empty() {
    let mut space = bank();
    let count = MAX_UNPLACED as u64 + 2;
    for buffer in 0..count {
        assert_eq!(space.enter(Avma(buffer), at(0, 8)), buffer == 0);
    }
    assert_eq!(space.free(), Err(Unknown::Overlap));
    for buffer in 0..count {
        space.leave(Avma(buffer), at(0, 8));
    }
    assert_eq!(figures(&space), (64, 64, 1));
}

#[test]
fn unknown_sizes_and_banks_are_not_guessed() {
    let mut space = bank();
    space.enter(Avma(1), Range { start: START, bytes: None });
    assert_eq!(space.free(), Err(Unknown::Unmeasured));
    space.leave(Avma(1), Range { start: START, bytes: None });
    assert_eq!(figures(&space), (64, 64, 1));
    let mut nowhere = Space::new(&geometry(None));
    nowhere.enter(Avma(1), at(0, 8));
    assert_eq!(nowhere.free(), Err(Unknown::Bank));
    let none = Space::new(&Geometry { banks: 0, bank_size: 0, ..geometry(None) });
    assert_eq!(figures(&none), (0, 0, 0));
}

#[test]
fn the_targets_own_list_decides() {
    let mut space = bank();
    space.enter(Avma(1), at(16, 16));
    let same = [(START, START + 16), (START + 32, START + SIZE)];
    assert!(space.check(&same, true) && space.is_checked());
    let less = [(START, START + 16)];
    assert!(space.check(&less, false), "an allocation may be under way");
    assert!(!space.is_checked());
    assert!(!space.check(&less, true), "but not where nothing changes");
    assert_eq!(space.free(), Err(Unknown::Contradicted));
    let mut space = bank();
    space.enter(Avma(1), at(16, 16));
    assert!(!space.check(&[(START, START + SIZE)], false), "a free is seen before it happens");
}

#[derive(Clone, Debug)]
enum Step {
    Enter { buffer: u64, start: u64, bytes: Option<u64> },
    Leave { buffer: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = prop_oneof![12 => (0..12_u64).prop_map(Some), 1 => Just(None)];
    let step = prop_oneof![
        3 => (0..12_u64, 0..70_u64, bytes)
            .prop_map(|(buffer, start, bytes)| Step::Enter { buffer, start, bytes }),
        2 => (0..12_u64).prop_map(|buffer| Step::Leave { buffer }),
    ];
    proptest::collection::vec(step, 0..200)
}

/// What is free, counted byte by byte; `None` if a byte is taken twice or is not there.
fn recount(live: &BTreeMap<u64, Range>) -> Option<(u64, u64, u64)> {
    let mut taken = [false; BYTES];
    for range in live.values() {
        for byte in range.start..range.start + range.bytes? {
            let byte = usize::try_from(byte.checked_sub(START)?).ok()?;
            if std::mem::replace(taken.get_mut(byte)?, true) {
                return None;
            }
        }
    }
    let holes = taken.chunk_by(|left, right| left == right).filter(|run| !run[0]);
    let holes: Vec<u64> = holes.map(|run| run.len() as u64).collect();
    Some((holes.iter().sum(), holes.iter().copied().max().unwrap_or(0), holes.len() as u64))
}

proptest! {
    #[test]
    fn the_holes_are_what_the_live_buffers_leave(steps in steps()) {
        let mut space = bank();
        let mut live: BTreeMap<u64, Range> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Enter { buffer, .. } if live.contains_key(&buffer) => {}
                Step::Enter { buffer, start, bytes } => {
                    let range = Range { start: START + start, bytes };
                    space.enter(Avma(buffer), range);
                    live.insert(buffer, range);
                }
                Step::Leave { buffer } => {
                    if let Some(range) = live.remove(&buffer) {
                        space.leave(Avma(buffer), range);
                    }
                }
            }
            let free = space.free().ok().map(|free| (free.bytes, free.largest, free.holes));
            prop_assert_eq!(free, recount(&live));
        }
    }
}
