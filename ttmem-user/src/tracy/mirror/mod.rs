//! What a target does, as operations in Tracy.
//!
//! A pool is the memory of one buffer type of one allocator on one chip, for addresses repeat from
//! one allocator to the next. The viewer gives up at the second allocation at one address of a pool
//! and at the free of something it was never told of. So this keeps what it has said is live: an
//! operation says nothing that contradicts the ones before it, whatever the deltas say, and at any
//! time everything live can be said anew.

mod circular;
mod label;
mod notes;
mod pool;
mod replay;

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;

use super::op::{At, Format, Name, Names, Op};
use crate::{
    ledger::{
        delta::{Change, Delta},
        snapshot::ProcessLabel,
    },
    units::{Avma, ChipId, Tid},
};
pub use label::{Kind, Style};
use notes::Told;
use pool::{Entry, Pool, signed};
pub use replay::Announced;

/// The server keeps sizes in 47 bits.
const MAX_SIZE: u64 = (1 << 47) - 1;
/// Addresses go over the wire in 56 bits, with a sign.
const ADDRESS_MASK: u64 = (1 << 55) - 1;

/// What could not be shown as it is; each is said in a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Oddities {
    /// Sizes or addresses that Tracy has too few bits for.
    pub clipped: u64,
    /// Buffers of which only the logical size is known, and not what they take of a bank.
    pub unmeasured: u64,
    /// Allocations where something was live: that was taken as freed.
    pub replaced: u64,
    /// Buffers on no known chip; they are not shown.
    pub nowhere: u64,
}

/// A plot that is not of a pool.
#[derive(Debug)]
struct Plot {
    name: Name,
    value: i64,
}

/// Keeps what has been said, and says what is new.
#[derive(Debug)]
pub struct Mirror {
    names: Names,
    style: Style,
    pools: Vec<Pool>,
    /// The pools of a kind on a chip, in the order of their numbers.
    numbered: HashMap<(ChipId, Kind), Vec<usize>, RandomState>,
    /// Those that an allocator has used; some may be another's by now.
    used_by: HashMap<(Avma, ChipId, Kind), Vec<usize>, RandomState>,
    plots: Vec<Plot>,
    begun: At,
    /// When the first snapshot said that the probes are in place.
    attached: Option<At>,
    now_ns: u64,
    about: Vec<String>,
    told: Told,
    oddities: Oddities,
}

impl Mirror {
    /// Nothing has happened yet.
    pub fn new(process: &Arc<ProcessLabel>, style: Style, now_ns: u64) -> Self {
        Self {
            names: Names::default(),
            style,
            pools: Vec::new(),
            numbered: HashMap::default(),
            used_by: HashMap::default(),
            plots: Vec::new(),
            begun: At { time_ns: now_ns, tid: process.pid.0 },
            attached: None,
            now_ns,
            about: notes::about(process, now_ns),
            told: Told::default(),
            oddities: Oddities::default(),
        }
    }

    /// All names that operations have used.
    pub const fn names(&self) -> &Names {
        &self.names
    }

    /// When it began, CLOCK_MONOTONIC nanoseconds: no operation is older.
    pub const fn begun_ns(&self) -> u64 {
        self.begun.time_ns
    }

    /// The time of the latest operation, CLOCK_MONOTONIC nanoseconds.
    pub const fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// What could not be shown as it is.
    pub const fn oddities(&self) -> Oddities {
        self.oddities
    }

    /// Takes in what happened to a buffer.
    pub fn apply(&mut self, delta: &Delta, out: &mut impl FnMut(Op<'_>)) {
        let at = self.at(delta.time_ns, delta.tid);
        let address = delta.address.0 & ADDRESS_MASK;
        let allocated = delta.change == Change::Allocated;
        let entry = allocated.then(|| self.entry(delta, at));
        for chip in &*delta.chips {
            let place = (delta.allocator, *chip, Kind::Buffers(delta.buffer_type));
            match entry {
                Some(entry) => self.came(place, address, entry, out),
                None => self.went(place, address, delta.buffer, at, out),
            }
        }
    }

    /// Says what has been held back. To be called after every few deltas.
    pub fn settle(&mut self, out: &mut impl FnMut(Op<'_>)) {
        let at = self.now();
        for pool in &mut self.pools {
            pool.settle(at, out);
        }
    }

    /// Everything that is live is gone.
    pub fn clear(&mut self, time_ns: u64, out: &mut impl FnMut(Op<'_>)) {
        let at = self.at(time_ns, None);
        for pool in &mut self.pools {
            let mut addresses: Vec<u64> = pool.live.keys().copied().collect();
            addresses.sort_unstable();
            for address in addresses {
                pool.remove(address, at, out);
            }
            pool.settle(at, out);
        }
    }

    /// Times never go back: records that were written at the same time may be a little out of
    /// order, and the viewer wants them in order.
    fn at(&mut self, time_ns: u64, tid: Option<Tid>) -> At {
        self.now_ns = self.now_ns.max(time_ns);
        At { time_ns: self.now_ns, tid: tid.map_or(self.begun.tid, |tid| tid.0) }
    }

    const fn now(&self) -> At {
        At { time_ns: self.now_ns, tid: self.begun.tid }
    }

    fn entry(&mut self, delta: &Delta, at: At) -> Entry {
        let (size, used) = takes(delta);
        self.oddities.unmeasured += u64::from(delta.bank_bytes.is_none());
        let clipped =
            delta.bank_bytes.unwrap_or(delta.size) > MAX_SIZE || delta.address.0 > ADDRESS_MASK;
        self.oddities.clipped += u64::from(clipped);
        self.oddities.nowhere += u64::from(delta.chips.is_empty());
        let (owner, on_some_cores) = (delta.buffer, delta.cores.is_some());
        let allocated_ns = delta.allocated_ns.unwrap_or(0);
        Entry { owner, at, size, used, allocated_ns, on_some_cores }
    }

    fn came(
        &mut self,
        place: (Avma, ChipId, Kind),
        address: u64,
        entry: Entry,
        out: &mut impl FnMut(Op<'_>),
    ) {
        for number in self.used_by.get(&place).into_iter().flatten() {
            let pool = &mut self.pools[*number];
            if pool.owner != place.0 {
                continue;
            }
            let Err(there) = pool.insert(address, entry, out) else { return };
            let side_by_side = there.on_some_cores || entry.on_some_cores;
            if there.owner == entry.owner || !side_by_side {
                // One of the two records was lost, or what it says is wrong.
                self.oddities.replaced += 1;
                pool.replace(address, entry, out);
                return;
            }
        }
        let number = self.claim(place, out);
        self.pools[number].replace(address, entry, out);
    }

    fn went(
        &mut self,
        place: (Avma, ChipId, Kind),
        address: u64,
        buffer: Avma,
        at: At,
        out: &mut impl FnMut(Op<'_>),
    ) {
        for number in self.used_by.get(&place).into_iter().flatten() {
            let pool = &mut self.pools[*number];
            if pool.owner == place.0 && pool.remove_owned(address, buffer, at, out) {
                return;
            }
        }
    }

    /// One more pool for an allocator: one that is empty passes to it, with its name.
    fn claim(&mut self, place: (Avma, ChipId, Kind), out: &mut impl FnMut(Op<'_>)) -> usize {
        let (owner, chip, kind) = place;
        let all = self.numbered.entry((chip, kind)).or_default();
        let free = |number: &&usize| {
            let pool = &self.pools[**number];
            pool.live.is_empty() && pool.owner != owner
        };
        let number = if let Some(number) = all.iter().find(free) {
            self.pools[*number].owner = owner;
            *number
        } else {
            let label = self.style.pool(chip, kind, all.len());
            let name = self.names.intern(&label);
            let plot = self.names.intern(&format!("{label} used"));
            out(Op::Plot { plot, format: Format::Memory });
            all.push(self.pools.len());
            self.pools.push(Pool::new(name, plot, owner));
            self.pools.len() - 1
        };
        let used = self.used_by.entry(place).or_default();
        if !used.contains(&number) {
            used.push(number);
        }
        number
    }

    /// Sets a plot that is not of a pool, if its value is new.
    fn plot(&mut self, label: &str, value: i64, out: &mut impl FnMut(Op<'_>)) {
        let (name, at) = (self.names.intern(label), self.now());
        match self.plots.iter_mut().find(|plot| plot.name == name) {
            Some(plot) if plot.value == value => return,
            Some(plot) => plot.value = value,
            None => {
                out(Op::Plot { plot: name, format: Format::Memory });
                self.plots.push(Plot { name, value });
            }
        }
        out(Op::Point { plot: name, at, value });
    }
}

/// What a buffer takes of each bank, as it is announced, and of all banks of a chip.
fn takes(delta: &Delta) -> (u64, u64) {
    let size = delta.bank_bytes.unwrap_or(delta.size);
    (size.min(MAX_SIZE), delta.used_bytes.unwrap_or(size))
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
pub(super) mod tests;
