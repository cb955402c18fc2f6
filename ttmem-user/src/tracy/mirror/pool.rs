//! One pool: what lies in it, and what that adds up to.

use std::collections::{HashMap, hash_map::Entry as Place};

use foldhash::fast::RandomState;

use crate::{
    tracy::op::{At, Name, Op},
    units::Avma,
};

/// Points of a plot are at least so far apart, ns; what comes in between is one point at the end.
const POINTS_APART_NS: u64 = 50_000;

/// Something live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is: `Buffer*`, or a program's buffer.
    pub owner: Avma,
    /// When it came, and on which thread.
    pub at: At,
    /// Bytes of each bank, as announced.
    pub size: u64,
    /// Bytes of all banks of the chip, as far as known.
    pub used: u64,
    /// When it was allocated, ns, as its record says; 0 if that was not seen.
    pub allocated_ns: u64,
    /// Others may have the same address: it lies on some cores only.
    pub on_some_cores: bool,
}

/// What is live in a pool, by address.
pub type Live = HashMap<u64, Entry, RandomState>;

/// A pool.
#[derive(Debug)]
pub struct Pool {
    /// Its name.
    pub name: Name,
    /// The plot of what is used.
    pub plot: Name,
    /// `AllocatorImpl*` of whoever it belongs to.
    pub owner: Avma,
    /// What is in it.
    pub live: Live,
    /// Bytes used, of all banks.
    pub used: u64,
    last_point_ns: u64,
    point_due: bool,
}

impl Pool {
    /// An empty one.
    pub fn new(name: Name, plot: Name, owner: Avma) -> Self {
        let live = Live::default();
        Self { name, plot, owner, live, used: 0, last_point_ns: 0, point_due: false }
    }

    /// Takes something in, if there is nothing at that address; or what is there.
    pub fn insert(
        &mut self,
        address: u64,
        entry: Entry,
        out: &mut impl FnMut(Op<'_>),
    ) -> Result<(), Entry> {
        match self.live.entry(address) {
            Place::Occupied(there) => return Err(*there.get()),
            Place::Vacant(place) => _ = place.insert(entry),
        }
        let Entry { at, size, allocated_ns, .. } = entry;
        let pool = self.name;
        self.used = self.used.saturating_add(entry.used);
        out(Op::Alloc { pool, at, address, size, allocated_ns });
        self.changed(at, out);
        Ok(())
    }

    /// Takes something in instead of what is at that address.
    pub fn replace(&mut self, address: u64, entry: Entry, out: &mut impl FnMut(Op<'_>)) {
        self.remove(address, entry.at, out);
        // There is nothing there now.
        let _ = self.insert(address, entry, out);
    }

    /// Lets go of what is at an address, if it is that.
    pub fn remove_owned(
        &mut self,
        address: u64,
        owner: Avma,
        at: At,
        out: &mut impl FnMut(Op<'_>),
    ) -> bool {
        match self.live.entry(address) {
            Place::Occupied(there) if there.get().owner == owner => {
                let entry = there.remove();
                self.removed(address, entry.used, at, out);
                true
            }
            _ => false,
        }
    }

    /// Lets go of what is at an address, if it is there.
    pub fn remove(&mut self, address: u64, at: At, out: &mut impl FnMut(Op<'_>)) -> bool {
        let Some(entry) = self.live.remove(&address) else { return false };
        self.removed(address, entry.used, at, out);
        true
    }

    fn removed(&mut self, address: u64, used: u64, at: At, out: &mut impl FnMut(Op<'_>)) {
        self.used = self.used.saturating_sub(used);
        out(Op::Free { pool: self.name, at, address });
        self.changed(at, out);
    }

    fn changed(&mut self, at: At, out: &mut impl FnMut(Op<'_>)) {
        if at.time_ns.saturating_sub(self.last_point_ns) < POINTS_APART_NS {
            self.point_due = true;
        } else {
            self.point(at, out);
        }
    }

    /// Says what is used, if that has not been said yet.
    pub fn settle(&mut self, at: At, out: &mut impl FnMut(Op<'_>)) {
        if self.point_due {
            self.point(at, out);
        }
    }

    fn point(&mut self, at: At, out: &mut impl FnMut(Op<'_>)) {
        self.point_due = false;
        self.last_point_ns = at.time_ns;
        out(Op::Point { plot: self.plot, at, value: signed(self.used) });
    }
}

/// As plots take it.
pub fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
