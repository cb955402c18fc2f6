//! The sets of programs against a model that counts core by core from the list of events.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{view::L1, *};
use crate::{
    event::{CoreRange, Place},
    units::DeviceAddr,
};

const CHIPS: i32 = 3;
const GRID: u32 = 3;

#[derive(Clone, Debug)]
enum Step {
    /// A program places buffers on a range of chips.
    Place {
        program: u64,
        chips: (i32, i32),
        buffers: Vec<Buffer>,
    },
    End {
        program: u64,
    },
}

/// Kind, address, size, column, row, columns, rows.
type Buffer = (u8, u16, u16, u32, u32, u32, u32);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let buffer = (0..3_u8, 0..40_u16, 1..20_u16, 0..GRID, 0..GRID, 1..3_u32, 1..3_u32);
    let buffers = proptest::collection::vec(buffer, 1..6);
    let step = prop_oneof![
        4 => (1..8_u64, 0..CHIPS, 0..CHIPS, buffers).prop_map(|(program, a, b, buffers)| {
            Step::Place { program, chips: (a.min(b), a.max(b)), buffers }
        }),
        1 => (1..8_u64).prop_map(|program| Step::End { program }),
    ];
    proptest::collection::vec(step, 0..12)
}

fn kind_of(kind: u8) -> CircularKind {
    [CircularKind::Circular, CircularKind::Alias, CircularKind::Dataflow][usize::from(kind)]
}

fn is_dataflow(buffer: &Buffer) -> bool {
    kind_of(buffer.0) == CircularKind::Dataflow
}

/// As tt-metal places them: circular buffers first.
fn in_order(buffers: &[Buffer]) -> [Vec<Buffer>; 2] {
    [false, true].map(|dataflow| {
        buffers.iter().copied().filter(|buffer| is_dataflow(buffer) == dataflow).collect()
    })
}

#[derive(Default)]
struct Model {
    /// By program and chip.
    sets: BTreeMap<(u64, i32), Vec<Buffer>>,
    peaks: BTreeMap<i32, u64>,
}

impl Model {
    fn apply(&mut self, step: &Step) {
        match step {
            Step::Place { program, chips, buffers } => {
                for placed in in_order(buffers).into_iter().filter(|placed| !placed.is_empty()) {
                    for chip in chips.0..=chips.1 {
                        let set = self.sets.entry((*program, chip)).or_default();
                        set.retain(|old| is_dataflow(old) != is_dataflow(&placed[0]));
                        set.extend(&placed);
                    }
                    self.raise_peaks();
                }
            }
            Step::End { program } => self.sets.retain(|(name, _), _| name != program),
        }
        self.raise_peaks();
    }

    fn raise_peaks(&mut self) {
        for chip in 0..CHIPS {
            let now = self.largest(chip);
            let peak = self.peaks.entry(chip).or_default();
            *peak = now.max(*peak);
        }
    }

    /// Marks each byte of each core.
    fn core(set: &[Buffer], at: (u32, u32)) -> u64 {
        let mut bytes = [false; 64];
        for &(kind, address, size, x, y, columns, rows) in set {
            let inside = (x..x + columns).contains(&at.0) && (y..y + rows).contains(&at.1);
            if inside && kind_of(kind) != CircularKind::Alias {
                bytes[usize::from(address)..usize::from(address + size)].fill(true);
            }
        }
        bytes.iter().filter(|used| **used).count() as u64
    }

    fn largest_of(set: &[Buffer]) -> u64 {
        let cores = (0..GRID + 2).flat_map(|x| (0..GRID + 2).map(move |y| (x, y)));
        cores.map(|at| Self::core(set, at)).max().unwrap_or(0)
    }

    fn on(&self, chip: i32) -> impl Iterator<Item = &Vec<Buffer>> {
        self.sets.iter().filter(move |((_, on), _)| *on == chip).map(|(_, set)| set)
    }

    fn largest(&self, chip: i32) -> u64 {
        self.on(chip).map(|set| Self::largest_of(set)).max().unwrap_or(0)
    }

    fn end(&self, chip: i32) -> Option<u64> {
        let own = self.on(chip).flatten().filter(|buffer| kind_of(buffer.0) != CircularKind::Alias);
        own.map(|buffer| u64::from(buffer.1 + buffer.2)).max()
    }
}

fn apply(circular: &mut Circular, step: &Step, time: u64) {
    match step {
        Step::Place { program, chips, buffers } => {
            for (kind, address, size, x, y, columns, rows) in in_order(buffers).concat() {
                let placed = CircularPlaced {
                    time_ns: time,
                    tid: Tid(1),
                    program: Some(Avma(*program)),
                    batch: time,
                    place: Place { chip: None, device: Avma(1) },
                    buffer: CircularBuffer {
                        kind: kind_of(kind),
                        address: DeviceAddr(address.into()),
                        size: size.into(),
                        cores: Some(vec![CoreRange {
                            start: (x, y),
                            end: (x + columns - 1, y + rows - 1),
                        }]),
                    },
                };
                let chips: Vec<ChipId> = (chips.0..=chips.1).map(ChipId).collect();
                circular.placed(&placed, &chips);
            }
        }
        Step::End { program } => circular.ended(Avma(*program)),
    }
}

proptest! {
    #[test]
    fn the_sets_agree_with_a_count_core_by_core(steps in steps()) {
        let mut circular = Circular::new();
        circular.watch(Ok(()), false);
        circular.older_on(&[]);
        let mut model = Model::default();
        for (time, step) in (1..).zip(&steps) {
            apply(&mut circular, step, time);
            model.apply(step);
            for chip in 0..CHIPS {
                let shown = circular.chip_snapshot(ChipId(chip), L1::default());
                prop_assert_eq!(shown.core_bytes, Some(model.largest(chip)));
                prop_assert_eq!(shown.programs, model.on(chip).count() as u64);
                prop_assert_eq!(shown.headroom.circular_end.map(|end| end.0), model.end(chip));
                prop_assert_eq!(shown.peak_core_bytes, model.peaks.get(&chip).copied());
            }
        }
    }
}
