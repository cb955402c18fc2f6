//! How ttmem itself does: what it costs, and how near it is to losing something.
//!
//! It is published beside the snapshots, since it is of the agent and not of a target. What is not
//! known is `None`.

use serde::Serialize;

/// How the agent does. Sums count from its start; whoever wants a rate takes two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Health {
    /// The ring buffer between kernel and agent; `None` if the source has none.
    pub ring: Option<RingFill>,
    /// Records taken out of it.
    pub records: u64,
    /// Time spent on draining, decoding and applying them, nanoseconds.
    pub busy_ns: u64,
    /// Processor time of the whole process, nanoseconds.
    pub cpu_ns: u64,
    /// Memory of the process that is resident, bytes.
    pub resident_bytes: Option<u64>,
    /// The queues of what follows the targets' changes.
    pub queues: Vec<Queue>,
}

/// How full a ring buffer was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RingFill {
    /// Bytes that waited at the last drain.
    pub waiting_bytes: u64,
    /// Most bytes that waited at a drain so far.
    pub most_bytes: u64,
    /// Its size, bytes.
    pub size_bytes: u64,
}

/// A queue between the agent and an output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Queue {
    /// What it leads to.
    pub name: &'static str,
    /// Changes that wait in it.
    pub waiting: u64,
    /// Changes that have room.
    pub room: u64,
    /// How often there was none, so far.
    pub overflows: u64,
}
