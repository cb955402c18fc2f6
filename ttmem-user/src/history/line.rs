//! How much of one pool was used over the session, in bounded memory.
//!
//! What changes within a short time is one bucket; where nothing changes there is none. The newest
//! buckets are as they were made. Older ones are merged by twos, and by twos again, level by level:
//! the older, the coarser. A bucket keeps the lowest, the highest and the last value, so that no
//! merging loses a peak.
//!
//! Invariant: the buckets of all levels, from the last level to the first, are in the order of their
//! time and do not overlap.

use std::collections::VecDeque;

use serde::Serialize;

/// What is one bucket at first, ns: about 67 ms.
pub const BUCKET_NS: u64 = 1 << 26;
/// Each level's buckets may stand for twice as many as those of the level before.
pub(super) const LEVELS: usize = 16;
/// Bytes that a bucket takes.
pub(super) const BUCKET_BYTES: usize = size_of::<Bucket>();

/// A pool between two instants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// The first change in it, CLOCK_MONOTONIC nanoseconds.
    pub first_ns: u64,
    /// The last change in it, ns.
    pub last_ns: u64,
    /// Least use after a change, bytes.
    pub min_used: u64,
    /// Highest use after a change, bytes.
    pub max_used: u64,
    /// When that was first reached, ns.
    pub max_ns: u64,
    /// Use after the last change, bytes.
    pub last_used: u64,
    /// Live buffers after the last change.
    pub last_buffers: u64,
    /// Most live buffers after a change.
    pub max_buffers: u64,
    /// Allocations.
    pub allocations: u64,
    /// Frees.
    pub frees: u64,
    /// Not all of it is known: a buffer of unknown size was live, or changes were missed.
    pub inexact: bool,
}

/// What a pool holds at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Level {
    /// What the buffers of known size take of the banks, bytes.
    pub used_bytes: u64,
    /// Live buffers.
    pub buffers: u64,
    /// Those of unknown size.
    pub unmeasured: u64,
}

/// A pool over a stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Span {
    /// Least use, bytes.
    pub min_used: u64,
    /// Highest use, bytes.
    pub max_used: u64,
    /// Use at its end, bytes.
    pub last_used: u64,
    /// Live buffers at its end.
    pub last_buffers: u64,
    /// Allocations that may be in it: of a bucket that only partly is, all.
    pub allocations: u64,
    /// Not all of it is known.
    pub inexact: bool,
}

/// One pool over the session.
#[derive(Clone, Debug, Default)]
pub struct Line {
    now: Level,
    peak_used: u64,
    allocations: u64,
    frees: u64,
    /// The newest first; in each the oldest in front.
    levels: [VecDeque<Bucket>; LEVELS],
}

impl Bucket {
    /// The two as one; `later` follows.
    fn merged(self, later: Self) -> Self {
        let (max_used, max_ns) = if later.max_used > self.max_used {
            (later.max_used, later.max_ns)
        } else {
            (self.max_used, self.max_ns)
        };
        Self {
            first_ns: self.first_ns,
            last_ns: later.last_ns,
            min_used: self.min_used.min(later.min_used),
            max_used,
            max_ns,
            last_used: later.last_used,
            last_buffers: later.last_buffers,
            max_buffers: self.max_buffers.max(later.max_buffers),
            allocations: self.allocations + later.allocations,
            frees: self.frees + later.frees,
            inexact: self.inexact || later.inexact,
        }
    }
}

/// A change of a pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub time_ns: u64,
    pub allocated: bool,
    /// `None`: unknown.
    pub used_bytes: Option<u64>,
}

impl Line {
    /// What it holds now.
    pub const fn now(&self) -> Level {
        self.now
    }

    /// Highest use since the recording began, bytes.
    pub const fn peak_used(&self) -> u64 {
        self.peak_used
    }

    /// Allocations and frees since the recording began.
    pub const fn changes(&self) -> (u64, u64) {
        (self.allocations, self.frees)
    }

    /// All there is, the oldest first.
    pub fn buckets(&self) -> impl DoubleEndedIterator<Item = &Bucket> + Clone {
        self.levels.iter().rev().flatten()
    }

    /// A pool between two instants, both included; `None` before its first change.
    pub fn span(&self, from_ns: u64, to_ns: u64) -> Option<Span> {
        let mut span: Option<Span> = None;
        for bucket in self.buckets() {
            if bucket.first_ns > to_ns {
                break;
            }
            if bucket.last_ns < from_ns {
                // What it left is what there was at the begin.
                span = Some(still(bucket));
                continue;
            }
            span = Some(extended(span, bucket));
        }
        span
    }

    /// The time between two instants in `columns` parts of the same length; of each what
    /// [`Self::span`] says.
    pub fn columns(&self, from_ns: u64, to_ns: u64, columns: usize) -> Vec<Option<Span>> {
        let length = u128::from(to_ns.saturating_sub(from_ns)) + 1;
        let edge = |column: usize| {
            let offset = length * column as u128 / columns.max(1) as u128;
            u128::from(from_ns) + offset
        };
        let mut buckets = self.buckets().peekable();
        let mut before: Option<&Bucket> = None;
        let mut found = Vec::with_capacity(columns);
        for column in 0..columns {
            let (start, end) = (edge(column), edge(column + 1).max(edge(column) + 1));
            while let Some(bucket) = buckets.next_if(|it| u128::from(it.last_ns) < start) {
                before = Some(bucket);
            }
            let mut span = before.map(still);
            let mut ahead = buckets.clone();
            while let Some(bucket) = ahead.next_if(|it| u128::from(it.first_ns) < end) {
                span = Some(extended(span, bucket));
            }
            found.push(span);
        }
        found
    }

    pub(super) fn step(&mut self, step: Step, kept: usize) {
        let add = |value: &mut u64, more: u64| *value = value.saturating_add(more);
        if step.allocated {
            self.now.buffers += 1;
            self.allocations += 1;
            match step.used_bytes {
                Some(bytes) => add(&mut self.now.used_bytes, bytes),
                None => self.now.unmeasured += 1,
            }
        } else {
            self.now.buffers = self.now.buffers.saturating_sub(1);
            self.frees += 1;
            match step.used_bytes {
                Some(bytes) => self.now.used_bytes = self.now.used_bytes.saturating_sub(bytes),
                None => self.now.unmeasured = self.now.unmeasured.saturating_sub(1),
            }
        }
        let (came, went) = if step.allocated { (1, 0) } else { (0, 1) };
        self.note(step.time_ns, came, went, false, kept);
    }

    /// Changes were missed: from here on it holds this.
    pub(super) fn jump(&mut self, time_ns: u64, now: Level, kept: usize) {
        self.now = now;
        self.note(time_ns, 0, 0, true, kept);
    }

    fn note(&mut self, time_ns: u64, allocations: u64, frees: u64, gap: bool, kept: usize) {
        self.peak_used = self.peak_used.max(self.now.used_bytes);
        let bucket = Bucket {
            first_ns: time_ns,
            last_ns: time_ns,
            min_used: self.now.used_bytes,
            max_used: self.now.used_bytes,
            max_ns: time_ns,
            last_used: self.now.used_bytes,
            last_buffers: self.now.buffers,
            max_buffers: self.now.buffers,
            allocations,
            frees,
            inexact: gap || self.now.unmeasured > 0,
        };
        match self.levels[0].back_mut() {
            Some(open) if open.first_ns / BUCKET_NS == time_ns / BUCKET_NS => {
                *open = open.merged(bucket);
            }
            _ => {
                self.levels[0].push_back(bucket);
                self.thin_out(kept);
            }
        }
    }

    /// Has each level keep less than so many buckets.
    pub(super) fn thin_out(&mut self, kept: usize) {
        for level in 0..LEVELS {
            while self.levels[level].len() >= kept {
                let buckets = &mut self.levels[level];
                let Some(older) = buckets.pop_front() else { break };
                let Some(newer) = buckets.pop_front() else { break };
                let merged = older.merged(newer);
                match self.levels.get_mut(level + 1) {
                    Some(next) => next.push_back(merged),
                    // There is no further one: the first bucket takes it all in.
                    None => self.levels[level].push_front(merged),
                }
            }
            if self.levels[level].capacity() > kept {
                self.levels[level].shrink_to(kept);
            }
        }
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        let buckets: usize = self.levels.iter().map(VecDeque::capacity).sum();
        size_of::<Self>() + buckets * BUCKET_BYTES
    }
}

/// Nothing changes after a bucket.
fn still(before: &Bucket) -> Span {
    Span {
        min_used: before.last_used,
        max_used: before.last_used,
        last_used: before.last_used,
        last_buffers: before.last_buffers,
        allocations: 0,
        inexact: before.inexact,
    }
}

fn extended(span: Option<Span>, bucket: &Bucket) -> Span {
    let before = span.unwrap_or(Span {
        min_used: bucket.min_used,
        max_used: bucket.max_used,
        ..still(bucket)
    });
    Span {
        min_used: before.min_used.min(bucket.min_used),
        max_used: before.max_used.max(bucket.max_used),
        last_used: bucket.last_used,
        last_buffers: bucket.last_buffers,
        allocations: before.allocations + bucket.allocations,
        inexact: before.inexact || bucket.inexact,
    }
}
