//! A ring of records for each CPU, and whose turn it is to write there.
//!
//! A probe takes its CPU's ring for itself: no lock, no room that others reserve. What preempts it
//! there, what finds the ring full, and what is seldom goes through the ring buffer that all share.
//! The order between rings is that of time.
//!
//! A ring lies in chunks: elements of one array map. Each has more bytes than count, so that a
//! record that begins in one never has to be split.
//!
//! Once the agent has read everything, a ring that has come some way begins anew where it started: so
//! few records at a time always lie in the same few cache lines, instead of in a megabyte that is in
//! nobody's cache by the time it comes round again. What is skipped is never read: who reads looks at
//! [`CpuState::produced`] first, then at [`CpuState::restarted`], and goes on at the later of that and
//! where it was.

use crate::layout::MAX_SPAN;

/// Bytes of a ring that lie in one chunk; a power of two.
pub const CHUNK: u32 = 4096;

/// Room behind each chunk for the rest of the record that is last in it.
pub const SLACK: u32 = 192;

/// The most bytes that a record in such a ring has. Records are multiples of 8 bytes.
pub const MAX_RECORD: u32 = SLACK + 8;

/// Bytes of a chunk in memory.
pub const CHUNK_BYTES: u32 = CHUNK + SLACK;

/// Number of words that are read of a buffer; a power of two.
pub const SPAN_WORDS: usize = MAX_SPAN as usize / 8;

/// A ring that has come so many bytes begins anew when all has been read: a good reach of the cache,
/// and seldom enough for the words that say so to be cheap.
pub const RESTART: u64 = 2048;

/// A chunk.
pub type Chunk = [u64; CHUNK_BYTES as usize / 8];

/// The state of a CPU. Positions count bytes since the start, and wrap in the ring.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CpuState {
    /// Not 0 while a probe has this CPU's ring for itself.
    pub taken: u64,
    /// How many probes run on this CPU that found it taken.
    pub beside: u64,
    /// When it was last taken, CLOCK_MONOTONIC nanoseconds. No record that is still to come from
    /// who has taken it is earlier.
    pub taken_ns: u64,
    /// Where the next record begins; what is before is there to be read.
    pub produced: u64,
    /// Where the ring last began anew; nothing that is before is still to be read. Set before
    /// [`Self::produced`] is.
    pub restarted: u64,
    /// Not 0 if the last buffer that this CPU has seen being allocated was sharded.
    pub sharded: u64,
    /// The first chunk of this ring. The agent sets it before anything is attached.
    pub first_chunk: u32,
    /// Number of its chunks less one; they are a power of two. Set as well.
    pub chunk_mask: u32,
    /// Bytes of the ring. Set as well.
    pub size: u64,
    /// Up to where the agent has read. A cache line of its own: the agent's.
    pub consumed: u64,
    /// Fills the line.
    pub reserved: [u64; 7],
    /// What was read of a buffer, for which the stack has no room.
    pub words: [u64; SPAN_WORDS],
}

/// Words of a state.
pub const STATE_WORDS: u32 = 16 + MAX_SPAN / 8;

/// Where a state has its words: [`CpuState::taken`].
pub const TAKEN: u32 = 0;
/// [`CpuState::beside`].
pub const BESIDE: u32 = 1;
/// [`CpuState::taken_ns`].
pub const TAKEN_NS: u32 = 2;
/// [`CpuState::produced`].
pub const PRODUCED: u32 = 3;
/// [`CpuState::restarted`].
pub const RESTARTED: u32 = 4;
/// [`CpuState::first_chunk`] and [`CpuState::chunk_mask`].
pub const CHUNKS: u32 = 6;
/// [`CpuState::size`].
pub const SIZE: u32 = 7;
/// [`CpuState::consumed`].
pub const CONSUMED: u32 = 8;

const _: () = {
    assert!(core::mem::offset_of!(CpuState, taken) == TAKEN as usize * 8);
    assert!(core::mem::offset_of!(CpuState, beside) == BESIDE as usize * 8);
    assert!(core::mem::offset_of!(CpuState, taken_ns) == TAKEN_NS as usize * 8);
    assert!(core::mem::offset_of!(CpuState, produced) == PRODUCED as usize * 8);
    assert!(core::mem::offset_of!(CpuState, restarted) == RESTARTED as usize * 8);
    assert!(core::mem::offset_of!(CpuState, first_chunk) == CHUNKS as usize * 8);
    assert!(core::mem::offset_of!(CpuState, size) == SIZE as usize * 8);
    assert!(core::mem::offset_of!(CpuState, consumed) == CONSUMED as usize * 8);
    assert!(size_of::<CpuState>() == STATE_WORDS as usize * 8);
    // Neither shares a cache line with the next.
    assert!(STATE_WORDS.is_multiple_of(8) && CHUNK_BYTES.is_multiple_of(64));
};
