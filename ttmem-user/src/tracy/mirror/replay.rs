//! Saying anew what is live: to a viewer that comes later, or that has fallen behind.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::{ADDRESS_MASK, Entry, Kind, Mirror, notes, signed, takes};
use crate::{
    ledger::delta::Delta,
    tracy::op::{At, Format, Op, Severity},
};

/// What a viewer has been told is live, by pool and address.
#[derive(Clone, Debug, Default)]
pub struct Announced {
    live: HashMap<(usize, u64), Entry, RandomState>,
    /// When that was, ns.
    at_ns: u64,
    /// How many pools it has heard of.
    pools: usize,
    /// How many other plots.
    plots: usize,
}

impl Mirror {
    /// Says everything to a viewer that knows nothing: what is live since when it is, each buffer
    /// with the time and the thread of its allocation.
    pub fn announce(&self, out: &mut impl FnMut(Op<'_>)) {
        for text in &self.about {
            out(Op::AppInfo { text });
        }
        let text = "ttmem begins to watch";
        out(Op::Message { at: self.begun, severity: Severity::Info, text });
        if let Some(at) = self.attached {
            out(Op::Message { at, severity: Severity::Info, text: notes::ATTACHED });
        }
        self.catch_up(&Announced::default(), out);
    }

    /// What a viewer that has heard everything knows now.
    pub fn announced(&self) -> Announced {
        let pools = self.pools.iter().enumerate();
        let live = pools.flat_map(|(number, pool)| {
            pool.live.iter().map(move |(address, entry)| ((number, *address), *entry))
        });
        Announced {
            live: live.collect(),
            at_ns: self.now_ns,
            pools: self.pools.len(),
            plots: self.plots.len(),
        }
    }

    /// Says what has changed to a viewer that was told `before` and nothing since. What came and
    /// went meanwhile is left out.
    pub fn catch_up(&self, before: &Announced, out: &mut impl FnMut(Op<'_>)) {
        self.announce_plots(before, out);
        // When they went is not known any more: as early as an address may have been taken anew.
        let at = At { time_ns: before.at_ns, tid: self.begun.tid };
        let mut gone: Vec<(usize, u64)> = before
            .live
            .iter()
            .filter(|((number, address), entry)| self.entry_at(*number, *address) != Some(*entry))
            .map(|(key, _)| *key)
            .collect();
        gone.sort_unstable();
        for (number, address) in gone {
            out(Op::Free { pool: self.pools[number].name, at, address });
        }
        let pools = self.pools.iter().enumerate();
        let live = pools.flat_map(|(number, pool)| {
            pool.live.iter().map(move |(address, entry)| (number, *address, entry))
        });
        let mut new: Vec<(usize, u64, &Entry)> = live
            .filter(|(number, address, entry)| {
                before.live.get(&(*number, *address)) != Some(*entry)
            })
            .collect();
        new.sort_unstable_by_key(|(number, address, entry)| (entry.at.time_ns, *number, *address));
        for (number, address, &Entry { at, size, allocated_ns, .. }) in new {
            let pool = self.pools[number].name;
            out(Op::Alloc { pool, at, address, size, allocated_ns });
        }
        let at = self.now();
        for pool in &self.pools {
            out(Op::Point { plot: pool.plot, at, value: signed(pool.used) });
        }
        for plot in &self.plots {
            out(Op::Point { plot: plot.name, at, value: plot.value });
        }
    }

    /// Takes in all that is live at an instant, after `left_out` deltas were missed. What is live
    /// comes in the order of its times.
    pub fn replace(
        &mut self,
        live: &[Delta],
        (time_ns, left_out): (u64, u64),
        out: &mut impl FnMut(Op<'_>),
    ) {
        // When they went is not known any more: as early as an address may have been taken anew.
        let gap = self.now();
        let key = |chip, delta: &Delta| {
            let address = delta.address.0 & ADDRESS_MASK;
            (delta.allocator, chip, Kind::Buffers(delta.buffer_type), address, delta.buffer)
        };
        let mut missing: HashMap<_, usize, RandomState> = HashMap::default();
        for (number, delta) in live.iter().enumerate() {
            missing.extend(delta.chips.iter().map(|chip| (key(*chip, delta), number)));
        }
        let circular = |kind: &Kind| *kind == Kind::Circular;
        for ((chip, kind), numbers) in &self.numbered {
            for number in numbers.iter().filter(|_| !circular(kind)) {
                let pool = &mut self.pools[*number];
                let mut gone = Vec::new();
                for (address, there) in &pool.live {
                    let key = (pool.owner, *chip, *kind, *address, there.owner);
                    // A buffer may have gone, and another have come in its place.
                    let is_it = |number: &usize| takes(&live[*number]) == (there.size, there.used);
                    if missing.get(&key).is_some_and(is_it) {
                        missing.remove(&key);
                    } else {
                        gone.push(*address);
                    }
                }
                gone.sort_unstable();
                for address in gone {
                    pool.remove(address, gap, out);
                }
            }
        }
        let mut missing: Vec<_> = missing.into_iter().collect();
        missing.sort_unstable_by_key(|((_, chip, ..), number)| (*number, *chip));
        for ((allocator, chip, kind, address, _), number) in missing {
            let delta = &live[number];
            let at = self.at(delta.time_ns, delta.tid);
            let entry = self.entry(delta, at);
            self.came((allocator, chip, kind), address, entry, out);
        }
        self.at(time_ns, None);
        self.settle(out);
        let text = format!("{left_out} allocations and frees came too fast to be shown one by one");
        self.message(Severity::Warning, &text, out);
    }

    fn announce_plots(&self, before: &Announced, out: &mut impl FnMut(Op<'_>)) {
        let pools = self.pools.iter().skip(before.pools).map(|pool| pool.plot);
        let others = self.plots.iter().skip(before.plots).map(|plot| plot.name);
        for plot in pools.chain(others) {
            out(Op::Plot { plot, format: Format::Memory });
        }
    }

    fn entry_at(&self, number: usize, address: u64) -> Option<&Entry> {
        self.pools.get(number)?.live.get(&address)
    }
}
