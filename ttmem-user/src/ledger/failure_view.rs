//! What is shown of failed allocations.
//!
//! Serialised as they stand they are part of the JSON; an unknown number is `None`, never 0.

use std::{
    borrow::Cow,
    sync::{Arc, OnceLock},
};

use serde::{Serialize, Serializer};

use super::{
    call::{Call, Lookup},
    exactness::Settled,
    snapshot::BufferSnapshot,
};
use crate::{
    event::BufferType,
    units::{ChipId, MeshId, Pid, Tid},
};

/// Name and version of the JSON schema of one failure.
pub const FAILURE_SCHEMA: &str = "ttmem.failure/1";

/// The failed allocations of one target.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct FailuresSnapshot {
    /// How many were seen; `None` if they cannot be.
    pub count: Option<u64>,
    /// Why they cannot be seen.
    pub unknown_because: Option<String>,
    /// The last ones, oldest first. Their ids increase; one that is missing was not kept.
    #[serde(serialize_with = "each")]
    pub last: Vec<Arc<Failure>>,
}

fn each<S: Serializer>(failures: &[Arc<Failure>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(failures.iter().map(|failure| &**failure))
}

/// One failed allocation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Failure {
    /// Counts the failures of the target from 1.
    pub id: u64,
    /// When, CLOCK_MONOTONIC nanoseconds.
    pub time_ns: u64,
    /// The thread that asked for the memory.
    pub tid: Tid,
    /// Buffer type.
    #[serde(rename = "type")]
    pub buffer_type: Option<BufferType>,
    /// Bytes of the whole buffer.
    pub size: Option<u64>,
    /// Banks that it would lie on.
    pub banks: Option<u64>,
    /// Bytes that each bank would have to give.
    pub bank_bytes: Option<u64>,
    /// Bytes of one bank.
    pub bank_size_bytes: Option<u64>,
    /// Bytes of a bank that were allocated.
    pub bank_allocated_bytes: Option<u64>,
    /// Bytes of a bank that were free.
    pub bank_free_bytes: Option<u64>,
    /// Bytes of the largest free block of a bank.
    pub bank_largest_free_bytes: Option<u64>,
    /// The chips on which it would have lain.
    pub chips: Option<Vec<ChipId>>,
    /// The mesh on which it was wanted; `None` also for a single device.
    pub mesh: Option<MeshId>,
    /// What called for it; `None` if call stacks are not recorded.
    #[serde(flatten)]
    pub call: Option<Call>,
    /// What was live at that instant.
    #[serde(skip)]
    pub(super) live: OnceLock<Arc<[BufferSnapshot]>>,
    /// Why that may be wrong.
    #[serde(skip)]
    pub(super) doubts: OnceLock<Vec<String>>,
    /// The buffers from before the attach were still being read.
    #[serde(skip)]
    pub(super) older_unread: bool,
    /// Changes of the live set before it.
    #[serde(skip)]
    pub(super) changes_before: u64,
    /// What had been set right before it.
    #[serde(skip)]
    pub(super) settled_before: Settled,
}

impl Failure {
    /// What was live at that instant; `None` if it was not kept.
    pub fn buffers(&self) -> Option<&Arc<[BufferSnapshot]>> {
        self.live.get()
    }

    /// Looks up what called for it.
    pub fn look_up(&mut self, known: &dyn Lookup) {
        self.call = Some(known.call(Some(self.tid), Some(self.time_ns), false));
    }

    /// The allocations whose call stacks it takes to show it: its own, and of what was live.
    pub(super) fn allocations(&self) -> impl Iterator<Item = (u64, Tid)> {
        let live = self.buffers().into_iter().flat_map(|live| live.iter());
        let of_live = live.filter_map(|buffer| buffer.allocated_ns.zip(buffer.tid));
        of_live.chain([(self.time_ns, self.tid)])
    }

    /// Why what was live may not be exact; empty: it is.
    pub fn inexact_because(&self) -> &[String] {
        self.doubts.get().map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
impl Failure {
    /// One that never was, for tests.
    pub fn made_up(id: u64, time_ns: u64, live: Option<Vec<BufferSnapshot>>) -> Self {
        const GIB: u64 = 1 << 30;
        Self {
            id,
            time_ns,
            tid: Tid(4250),
            buffer_type: Some(BufferType::Dram),
            size: Some(GIB),
            banks: Some(12),
            bank_bytes: Some(89_480_192),
            bank_size_bytes: Some(GIB),
            bank_allocated_bytes: Some(GIB - 80_000_000),
            bank_free_bytes: Some(80_000_000),
            bank_largest_free_bytes: Some(40_000_000),
            chips: Some(vec![ChipId(0), ChipId(1)]),
            mesh: Some(MeshId(1)),
            call: None,
            live: live.map_or_else(OnceLock::new, |live| OnceLock::from(Arc::from(live))),
            doubts: OnceLock::from(Vec::new()),
            older_unread: false,
            changes_before: 0,
            settled_before: Settled::default(),
        }
    }
}

/// A failure as a line of its own.
#[derive(Debug, Serialize)]
pub struct FailureLine<'a> {
    /// Always [`FAILURE_SCHEMA`].
    pub schema: &'static str,
    /// The target.
    pub pid: Pid,
    /// The failure.
    #[serde(flatten)]
    pub failure: &'a Failure,
    /// Failures since the line before this one that were not kept.
    pub skipped: u64,
    /// Whether `buffers` is known to be what was live.
    pub exact: bool,
    /// Why not.
    pub inexact_because: &'a [String],
    /// What was live; `None` if it was not kept.
    pub buffers: Option<Cow<'a, [BufferSnapshot]>>,
}

/// Why there is no telling of failures where no probe is.
pub(super) const NOT_ATTACHED: &str = "nothing is attached";

impl FailuresSnapshot {
    /// Why they are not seen although probes are attached.
    pub fn unseen_because(&self) -> Option<&str> {
        self.unknown_because.as_deref().filter(|reason| *reason != NOT_ATTACHED)
    }

    /// The failures kept with an id above `shown`, as lines, each with how many came before it
    /// that were not kept.
    pub fn lines_after(&self, pid: Pid, shown: u64) -> impl Iterator<Item = FailureLine<'_>> {
        let mut shown = shown;
        self.last.iter().filter(move |failure| failure.id > shown).map(move |failure| {
            let skipped = failure.id - shown - 1;
            shown = failure.id;
            let buffers = failure.buffers().map(|live| Cow::Borrowed(&**live));
            FailureLine {
                schema: FAILURE_SCHEMA,
                pid,
                failure,
                skipped,
                exact: failure.inexact_because().is_empty() && buffers.is_some(),
                inexact_because: failure.inexact_because(),
                buffers,
            }
        })
    }
}
