//! Words that the agent writes and the eBPF side reads (and clears) while probes run.
//!
//! They live in one element of a memory-mapped array map: flipping one costs no system call, and a
//! probe looks them all up at once.

/// Set by the agent before it sleeps; the next record wakes it up and clears the word.
///
/// A wake-up per record costs the target about 14 µs each; none at all costs the agent a busy
/// timer. This asks for exactly one.
pub const WAKE_ARMED: u32 = 0;

/// While not 0, a free also reads the freed buffer's type, address and unique id.
///
/// Normally the agent knows them from the allocation. Until the live buffers from before the
/// attach are known, it would not.
pub const DESCRIBE_FREES: u32 = 1;

/// As [`WAKE_ARMED`], for who takes the call stacks.
pub const STACKS_WAKE_ARMED: u32 = 2;

/// How many devices the eBPF side has described so far, and in the upper half how often all were
/// forgotten.
pub const DESCRIBED: u32 = 3;

/// What is added to [`DESCRIBED`] when all is to be forgotten: by the eBPF side when a device is closed,
/// by the agent when a target comes.
pub const FORGOTTEN: u64 = 1 << 32;

/// Number of control words: a cache line.
pub const CONTROL_WORDS: u32 = 8;
