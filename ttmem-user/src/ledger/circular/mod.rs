//! What programs keep in the L1 of their cores: circular and dataflow buffers.
//!
//! Every program begins at the same address, and on a core there is one program's set at a time.
//! So sets are kept by program and chip, and nothing is added up over programs: what counts is
//! the largest set. A set is placed in batches; a later batch replaces an earlier one.
//!
//! Leaves out programs from before the attach: no memory is known to list them, so where there
//! may be one, what is known is not all.

mod figures;
pub mod snapshot;
pub mod view;

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
};

use hashbrown::HashMap;

use figures::{Figures, PerCore, Steps, Tally, Unknown, per_core};

use crate::{
    event::{CircularBuffer, CircularKind, CircularPlaced, Dispatched},
    units::{Avma, ChipId, Tid},
};

/// Buffers of one batch that are kept. A core has room for the addresses of 64, and a chip a few hundred
/// cores.
const MOST_BUFFERS: usize = 1 << 15;

/// The circular and dataflow buffers of one target.
#[derive(Debug)]
pub struct Circular {
    /// Why programs are not watched, if so.
    off: Option<String>,
    dispatches_watched: bool,
    older: Older,
    programs: HashMap<Avma, Program, foldhash::fast::FixedState>,
    chips: BTreeMap<ChipId, Chip>,
    /// Buffers whose program or chip is not known.
    unattributed: u64,
    /// A record was lost, or could not be decoded: it may have been of a program.
    has_gap: bool,
    /// How far buffers may still be looked at.
    steps: Steps,
}

/// Where programs from before the attach may have buffers.
#[derive(Debug)]
enum Older {
    /// Not known yet, or never: anywhere.
    Anywhere,
    /// On these chips: they had a device.
    On(BTreeSet<ChipId>),
}

/// What is known of a program.
#[derive(Debug)]
struct Program {
    tid: Tid,
    placed_ns: u64,
    sets: BTreeMap<ChipId, Set>,
    dispatches: u64,
}

/// What a program keeps on one chip.
#[derive(Debug, Default)]
struct Set {
    circular: Batch,
    dataflow: Batch,
    /// What follows from them, once it was asked for.
    figures: OnceCell<Figures>,
}

/// Buffers that were placed together.
#[derive(Debug, Default)]
struct Batch {
    number: u64,
    buffers: Vec<CircularBuffer>,
    /// What follows from each by itself, also of those that were not kept.
    tally: Tally,
    /// Some were not.
    is_full: bool,
}

/// What is known of a chip.
#[derive(Debug, Default)]
struct Chip {
    /// The most that sets which are gone kept on one core, bytes.
    peak_of_gone: u64,
    /// Of some of these it was not known what they kept.
    unknown_gone: bool,
    dispatches: u64,
    last: Option<(Avma, u64)>,
}

impl Circular {
    /// Nothing is watched yet.
    pub fn new() -> Self {
        Self {
            off: Some("only `ttmem attach` sees programs".to_owned()),
            dispatches_watched: false,
            older: Older::Anywhere,
            programs: HashMap::default(),
            chips: BTreeMap::new(),
            unattributed: 0,
            has_gap: false,
            steps: Steps::new(),
        }
    }

    /// Programs are watched, or why not; and whether dispatches are.
    pub fn watch(&mut self, programs: Result<(), String>, dispatches: bool) {
        self.off = programs.err();
        self.dispatches_watched = dispatches;
    }

    /// Only these chips had a device when ttmem attached.
    pub fn older_on(&mut self, chips: &[ChipId]) {
        self.older = Older::On(chips.iter().copied().collect());
    }

    /// A record is missing. For good: no memory lists the programs.
    pub const fn note_gap(&mut self) {
        self.has_gap = true;
    }

    /// Takes a buffer in; `chips` are those of its place.
    pub fn placed(&mut self, placed: &CircularPlaced, chips: &[ChipId]) {
        let Some(name) = placed.program.filter(|_| !chips.is_empty()) else {
            self.unattributed += 1;
            return;
        };
        let program = self.programs.entry(name).or_insert_with(|| Program {
            tid: placed.tid,
            placed_ns: placed.time_ns,
            sets: BTreeMap::new(),
            dispatches: 0,
        });
        if program.sets.is_empty() {
            (program.tid, program.placed_ns) = (placed.tid, placed.time_ns);
        }
        for &chip in chips {
            let set = program.sets.entry(chip).or_default();
            if set.batch(placed.buffer.kind).number != placed.batch {
                let gone = set.figures(&self.steps);
                self.chips.entry(chip).or_default().note_gone(gone);
                let batch = set.batch(placed.buffer.kind);
                *batch = Batch { number: placed.batch, ..Batch::default() };
            }
            let batch = set.batch(placed.buffer.kind);
            batch.tally.add(&placed.buffer);
            if batch.buffers.len() < MOST_BUFFERS {
                batch.buffers.push(placed.buffer.clone());
            } else {
                batch.is_full = true;
            }
            self.steps.add();
            set.figures.take();
        }
    }

    /// A program is gone.
    pub fn ended(&mut self, program: Avma) {
        let Some(program) = self.programs.remove(&program) else { return };
        for (chip, set) in program.sets {
            let gone = set.figures(&self.steps);
            self.chips.entry(chip).or_default().note_gone(gone);
        }
    }

    /// A program is dispatched on some chips.
    pub fn dispatched(&mut self, dispatched: &Dispatched, chips: &[ChipId]) {
        if let Some(program) = self.programs.get_mut(&dispatched.program) {
            program.dispatches += 1;
        } else {
            // Its buffers may be placed only after the first dispatch.
            let (tid, placed_ns) = (Tid(0), dispatched.time_ns);
            let program = Program { tid, placed_ns, sets: BTreeMap::new(), dispatches: 1 };
            self.programs.insert(dispatched.program, program);
        }
        for &chip in chips {
            let chip = self.chips.entry(chip).or_default();
            chip.dispatches += 1;
            chip.last = Some((dispatched.program, dispatched.time_ns));
        }
    }

    /// Why what is known of a chip is not all; `None` if it is.
    fn doubt(&self, chip: ChipId) -> Option<String> {
        if let Some(reason) = &self.off {
            return Some(reason.clone());
        }
        let older = match &self.older {
            Older::Anywhere => true,
            Older::On(chips) => chips.contains(&chip),
        };
        if older {
            return Some("programs from before the attach are not known".to_owned());
        }
        if self.has_gap {
            return Some("records were lost, and programs cannot be read again".to_owned());
        }
        let unknown = self.sets_on(chip).find_map(|(_, set)| set.figures(&self.steps).cores.err());
        if let Some(unknown) = unknown {
            return Some(unknown.name().to_owned());
        }
        (self.unattributed > 0)
            .then(|| format!("buffers whose program or chip is not known: {}", self.unattributed))
    }
}

impl Set {
    fn batch(&mut self, kind: CircularKind) -> &mut Batch {
        match kind {
            CircularKind::Circular | CircularKind::Alias => &mut self.circular,
            CircularKind::Dataflow => &mut self.dataflow,
        }
    }

    fn buffers(&self) -> impl Iterator<Item = &CircularBuffer> {
        self.circular.buffers.iter().chain(&self.dataflow.buffers)
    }

    fn figures(&self, steps: &Steps) -> &Figures {
        self.figures.get_or_init(|| {
            let is_full = self.circular.is_full || self.dataflow.is_full;
            Figures {
                tally: self.circular.tally.and(self.dataflow.tally),
                cores: if is_full { Err(Unknown::TooMany) } else { self.per_core(steps) },
            }
        })
    }

    fn per_core(&self, steps: &Steps) -> Result<PerCore, Unknown> {
        let Self { circular, dataflow, .. } = self;
        per_core(&[&circular.buffers, &dataflow.buffers], steps)
    }
}

impl Chip {
    /// A set is gone.
    fn note_gone(&mut self, set: &Figures) {
        self.peak_of_gone = self.peak_of_gone.max(set.largest());
        self.unknown_gone |= set.cores.is_err();
    }
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;
