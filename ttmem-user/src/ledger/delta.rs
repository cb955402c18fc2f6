//! What the ledger concludes, one buffer at a time: for outputs that follow along.
//!
//! They are only written down while somebody wants them. Whoever takes the state as it was when
//! that began, and applies each delta to it, has the state of the ledger.

use std::{mem, sync::Arc};

use serde::Serialize;

use super::{Entry, Ledger, LivePlace, Origin};
use crate::{
    event::BufferType,
    units::{Avma, ChipId, DeviceAddr, MeshId, Tid},
};

/// A buffer came or went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Delta {
    /// Counts the deltas of a target from 1, without a gap.
    pub sequence: u64,
    /// When, CLOCK_MONOTONIC nanoseconds; of what a reading of memory found, when that was taken
    /// in.
    pub time_ns: u64,
    /// The thread; `None` if no event told.
    pub tid: Option<Tid>,
    /// Whether it came or went.
    pub change: Change,
    /// What made it known.
    pub cause: Cause,
    /// `Buffer*`: names the buffer while it is live.
    pub buffer: Avma,
    /// `AllocatorImpl*`.
    #[serde(skip)]
    pub allocator: Avma,
    /// `Buffer::unique_id()`; `None` in versions that do not expose it.
    pub unique_id: Option<u64>,
    /// Buffer type.
    #[serde(rename = "type")]
    pub buffer_type: BufferType,
    /// Address, the same on every chip and bank it lies on.
    pub address: DeviceAddr,
    /// Logical size, bytes.
    pub size: u64,
    /// Page size, bytes.
    pub page_size: u64,
    /// What it takes of each bank, bytes.
    pub bank_bytes: Option<u64>,
    /// What it takes of all banks of one chip, bytes.
    pub used_bytes: Option<u64>,
    /// The number of cores whose banks it lies on, each at an address of its own; `None`: it lies on
    /// every bank, at one address.
    pub cores: Option<u32>,
    /// The chips it lies on.
    pub chips: Arc<[ChipId]>,
    /// The mesh it was allocated on; `None` for a single device.
    pub mesh: Option<MeshId>,
    /// The thread that allocated it; `None` if that was not seen.
    pub allocated_tid: Option<Tid>,
    /// When it was allocated, CLOCK_MONOTONIC nanoseconds; `None` if that was not seen. Of a free,
    /// `time_ns` minus this is how long it lived.
    pub allocated_ns: Option<u64>,
    /// Whether it was allocated before the attach.
    pub pre_attach: bool,
}

/// What became of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It is live from here on.
    Allocated,
    /// It is not any more.
    Freed,
}

/// What made a change known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A probe on the target's allocation or free; for several at once, a bulk or late free.
    #[default]
    Event,
    /// The first reading of memory: it is older than the attach.
    Baseline,
    /// A later reading of memory, which set something right.
    Resync,
}

/// The deltas since they were last taken.
#[derive(Debug, Default)]
pub(super) struct Deltas {
    wanted: bool,
    stamp: (u64, Option<Tid>),
    cause: Cause,
    log: Vec<Delta>,
    last: u64,
}

impl Ledger {
    /// Says when, and on which thread, what is applied next happened.
    pub fn stamp(&mut self, time_ns: u64, tid: Option<Tid>) {
        self.deltas.stamp = (time_ns, tid);
    }

    /// When what was applied last happened, ns.
    pub(super) const fn last_stamp_ns(&self) -> u64 {
        self.deltas.stamp.0
    }

    /// Has deltas written down from here on, or no more.
    pub fn want_deltas(&mut self, wanted: bool) {
        self.deltas.wanted = wanted;
        if !wanted {
            self.deltas.log = Vec::new();
        }
    }

    /// The deltas since the last call.
    pub fn take_deltas(&mut self) -> Vec<Delta> {
        mem::take(&mut self.deltas.log)
    }

    /// The number of the last delta.
    pub const fn last_delta(&self) -> u64 {
        self.deltas.last
    }

    /// What follows is known by other means than an event, until `f` is done.
    pub(super) fn because<T>(&mut self, cause: Cause, f: impl FnOnce(&mut Self) -> T) -> T {
        self.deltas.cause = cause;
        let result = f(self);
        self.deltas.cause = Cause::Event;
        result
    }

    #[inline]
    pub(super) fn note(&mut self, change: Change, place: LivePlace) {
        self.deltas.last += 1;
        if self.deltas.wanted {
            self.write_down(change, place);
        }
    }

    fn write_down(&mut self, change: Change, place: LivePlace) {
        let (stamp, cause) = (self.deltas.stamp, self.deltas.cause);
        let delta = self.describe(change, stamp, cause, self.live.at(place));
        self.deltas.log.push(delta);
    }

    /// All that is live, as if each buffer had been allocated when it was: for who has missed
    /// some deltas. What is older than the attach has the time given.
    pub fn live_deltas(&self, time_ns: u64) -> Vec<Delta> {
        let as_delta = |entry: &Entry| {
            let seen = entry.live().origin.seen();
            let stamp = seen.map_or((time_ns, None), |(tid, time_ns)| (time_ns, Some(tid)));
            self.describe(Change::Allocated, stamp, Cause::Resync, entry)
        };
        let mut all: Vec<Delta> = self.live.iter().map(as_delta).collect();
        all.sort_by_key(|delta| delta.time_ns);
        all
    }

    fn describe(
        &self,
        change: Change,
        (time_ns, tid): (u64, Option<Tid>),
        cause: Cause,
        entry: &Entry,
    ) -> Delta {
        let live = entry.live();
        let device = live.device.and_then(|entry| self.topology.device(entry as usize));
        let seen = live.origin.seen();
        Delta {
            sequence: self.deltas.last,
            time_ns,
            tid,
            change,
            cause,
            buffer: entry.buffer(),
            allocator: live.allocator,
            unique_id: live.shape.unique_id,
            buffer_type: live.shape.buffer_type,
            address: live.shape.address,
            size: live.shape.size,
            page_size: live.shape.page_size,
            bank_bytes: live.measured.map(|measured| measured.bank_bytes),
            used_bytes: live.measured.map(|measured| measured.used_bytes),
            cores: live.shape.spread.cores(),
            chips: device.map_or_else(|| [].into(), |device| Arc::clone(&device.chip_ids)),
            mesh: device.and_then(|device| device.mesh),
            allocated_tid: seen.map(|(tid, _)| tid),
            allocated_ns: seen.map(|(_, time_ns)| time_ns),
            pre_attach: live.origin == Origin::PreAttach,
        }
    }
}
