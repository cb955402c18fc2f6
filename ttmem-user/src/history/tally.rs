//! How large buffers are, how long they live, and who allocates them.

use hashbrown::HashMap;
use serde::Serialize;
use ttmem_common::layout::BUFFER_TYPES;

use super::row::Packed;
use crate::{event::BufferType, units::Tid};

/// One for 0, and one for each power of two of a 64-bit number.
pub const BINS: usize = 65;
/// Threads that are told apart.
pub(super) const MAX_THREADS: usize = 1024;
/// The time over which a rate is taken, seconds.
pub const RATE_SECONDS: usize = 8;

const SECOND: u64 = 1_000_000_000;

/// The bin of a number: 0 for 0, else n + 1 for 2^n up to twice that.
pub fn bin(number: u64) -> usize {
    number.checked_ilog2().map_or(0, |log| log as usize + 1)
}

/// The least number of a bin.
pub const fn bin_start(bin: usize) -> u64 {
    if bin == 0 { 0 } else { 1 << (bin - 1) }
}

/// The buffers of one bin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Bin {
    /// How many.
    pub buffers: u64,
    /// Their logical bytes.
    pub bytes: u64,
}

/// Counts of the buffers of one type, by powers of two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// What is live, by logical size in bytes.
    pub live: [Bin; BINS],
    /// All whose allocation was seen since the recording began, by logical size in bytes.
    pub allocated: [Bin; BINS],
    /// All whose allocation and free were seen, by how long they lived, ns.
    pub lifetimes: [Bin; BINS],
    /// Freed, and how long they lived is not known.
    pub unknown_lifetimes: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        let none = [Bin::default(); BINS];
        Self { live: none, allocated: none, lifetimes: none, unknown_lifetimes: 0 }
    }
}

/// What a thread allocated.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ThreadRow {
    /// The thread; `None`: not seen.
    pub tid: Option<Tid>,
    /// Its buffers that are live.
    pub live_buffers: u64,
    /// Their logical bytes.
    pub live_bytes: u64,
    /// Its allocations since the recording began.
    pub allocations: u64,
    /// Their logical bytes.
    pub allocated_bytes: u64,
    /// Its allocations per second of the last [`RATE_SECONDS`] whole seconds.
    pub rate: f64,
}

#[derive(Clone, Copy, Debug)]
struct Thread {
    live: Bin,
    all: Bin,
    recent: Recent,
    /// When the first of the live buffers that are counted here was allocated, ns. Earlier ones of the
    /// same thread were counted among the others: there was no room for it yet.
    since_ns: u64,
}

impl Default for Thread {
    fn default() -> Self {
        let (live, all, recent) = (Bin::default(), Bin::default(), Recent::default());
        Self { live, all, recent, since_ns: u64::MAX }
    }
}

/// Allocations in each of the last seconds.
#[derive(Clone, Copy, Debug, Default)]
struct Recent {
    /// The newest second.
    second: u64,
    counts: [u64; RATE_SECONDS + 1],
}

/// The counts of one target.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    types: [Box<Histogram>; BUFFER_TYPES],
    threads: HashMap<Option<Tid>, Thread, foldhash::fast::RandomState>,
    /// Threads that are not told apart.
    others: Thread,
    /// A thread may have nothing live any more.
    some_idle: bool,
}

impl Tally {
    /// The counts of a buffer type.
    pub fn histogram(&self, buffer_type: BufferType) -> &Histogram {
        &self.types[buffer_type.index()]
    }

    /// What each thread allocated, most live bytes first; and the threads together for which there
    /// was no room, if there are any.
    pub fn threads(&self, now_ns: u64) -> (Vec<ThreadRow>, Option<ThreadRow>) {
        let mut rows: Vec<ThreadRow> =
            self.threads.iter().map(|(&tid, thread)| thread.row(tid, now_ns)).collect();
        rows.sort_by_key(|row| (std::cmp::Reverse((row.live_bytes, row.allocations)), row.tid));
        let others = self.others.all.buffers + self.others.live.buffers > 0;
        (rows, others.then(|| self.others.row(None, now_ns)))
    }

    pub(super) fn allocated(&mut self, row: &Packed, time_ns: u64, is_new: bool) {
        let histogram = &mut self.types[row.buffer_type.index()];
        histogram.live[bin(row.size)].add(row.size);
        let thread = self.thread(row.tid());
        thread.live.add(row.size);
        thread.since_ns = thread.since_ns.min(row.allocated_ns().unwrap_or(0));
        if is_new {
            thread.all.add(row.size);
            thread.recent.count(time_ns);
            let histogram = &mut self.types[row.buffer_type.index()];
            histogram.allocated[bin(row.size)].add(row.size);
        }
    }

    pub(super) fn freed(&mut self, row: &Packed, time_ns: u64) {
        let histogram = &mut self.types[row.buffer_type.index()];
        histogram.live[bin(row.size)].subtract(row.size);
        match row.allocated_ns() {
            Some(since) => histogram.lifetimes[bin(time_ns.saturating_sub(since))].add(row.size),
            None => histogram.unknown_lifetimes += 1,
        }
        let allocated_ns = row.allocated_ns().unwrap_or(0);
        let thread = self.threads.get_mut(&row.tid());
        let thread = thread.filter(|thread| allocated_ns >= thread.since_ns);
        let thread = thread.unwrap_or(&mut self.others);
        thread.live.subtract(row.size);
        self.some_idle |= thread.live.buffers == 0;
    }

    /// Nothing is live.
    pub(super) fn forget_live(&mut self) {
        for histogram in &mut self.types {
            histogram.live = [Bin::default(); BINS];
        }
        for thread in self.threads.values_mut() {
            thread.live = Bin::default();
        }
        self.others.live = Bin::default();
        self.some_idle = true;
    }

    fn thread(&mut self, tid: Option<Tid>) -> &mut Thread {
        // Those of which no thread is known always have room: no time tells where one was counted.
        let is_full = tid.is_some() && self.threads.len() >= MAX_THREADS;
        if is_full && !self.threads.contains_key(&tid) {
            if !self.some_idle {
                return &mut self.others;
            }
            self.forget_idle();
            if self.threads.len() >= MAX_THREADS {
                return &mut self.others;
            }
        }
        self.threads.entry(tid).or_default()
    }

    fn forget_idle(&mut self) {
        let others = &mut self.others;
        self.threads.retain(|_, thread| {
            if thread.live.buffers == 0 {
                others.all.buffers += thread.all.buffers;
                others.all.bytes = others.all.bytes.saturating_add(thread.all.bytes);
            }
            thread.live.buffers > 0
        });
        self.some_idle = false;
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        BUFFER_TYPES * size_of::<Histogram>()
            + self.threads.capacity() * 8 / 7 * (size_of::<(Option<Tid>, Thread)>() + 1)
    }
}

impl Thread {
    fn row(&self, tid: Option<Tid>, now_ns: u64) -> ThreadRow {
        ThreadRow {
            tid,
            live_buffers: self.live.buffers,
            live_bytes: self.live.bytes,
            allocations: self.all.buffers,
            allocated_bytes: self.all.bytes,
            rate: self.recent.rate(now_ns),
        }
    }
}

impl Bin {
    fn add(&mut self, size: u64) {
        self.buffers += 1;
        self.bytes = self.bytes.saturating_add(size);
    }

    fn subtract(&mut self, size: u64) {
        self.buffers = self.buffers.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(size);
    }
}

impl Recent {
    fn count(&mut self, time_ns: u64) {
        let second = time_ns / SECOND;
        if second > self.second {
            for passed in (self.second + 1..=second).rev().take(self.counts.len()) {
                self.counts[Self::place(passed)] = 0;
            }
            self.second = second;
        }
        if self.second - second < self.counts.len() as u64 {
            self.counts[Self::place(second)] += 1;
        }
    }

    fn place(second: u64) -> usize {
        usize::try_from(second % (RATE_SECONDS as u64 + 1)).unwrap_or(0)
    }

    /// Per second, over the whole seconds before `now_ns`.
    #[expect(clippy::cast_precision_loss, reason = "a rate to be shown")]
    fn rate(&self, now_ns: u64) -> f64 {
        let now = now_ns / SECOND;
        let from = now.saturating_sub(RATE_SECONDS as u64);
        let seconds = (from..now).filter(|&second| {
            second <= self.second && self.second - second < self.counts.len() as u64
        });
        let sum: u64 = seconds.map(|second| self.counts[Self::place(second)]).sum();
        sum as f64 / RATE_SECONDS as f64
    }
}
