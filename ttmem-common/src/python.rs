//! How the eBPF side finds the functions that a thread executes in CPython.
//!
//! Every offset was decoded from the interpreter that the target has mapped.

#[cfg(doc)]
use crate::layout::ABSENT;

/// Python functions of one stack that are recorded, the innermost first.
pub const MOST_FRAMES: usize = 64;

/// Threads that are looked at to find the one that has hit a probe.
pub const MOST_THREADS: u32 = 64;

/// Most that is read of a thread's state, in bytes; a power of two.
pub const MOST_OF_THREAD: u32 = 256;

/// Most that is read of a frame, in bytes; a power of two.
pub const MOST_OF_FRAME: u32 = 128;

/// Where an interpreter keeps what its threads execute. Offsets count from the object that holds the
/// field; pointers have 8 bytes, and lie at multiples of 8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct PythonLayout {
    /// Address of the pointer to the first `PyThreadState`; 0: the target has no interpreter.
    pub threads: u64,
    /// Bytes of a `PyThreadState` that hold all of its fields below; at most [`MOST_OF_THREAD`].
    pub thread_len: u32,
    /// Bytes of a frame that hold all of its fields below; at most [`MOST_OF_FRAME`].
    pub frame_len: u32,
    /// Of a thread: the next one.
    pub next: u32,
    /// Of a thread: its `pthread_t`.
    pub ident: u32,
    /// Of a thread: its innermost frame, or what that is in.
    pub frame: u32,
    /// Of what it is in: the frame; [`ABSENT`]: it is in nothing.
    pub frame_in: u32,
    /// Of a frame: its caller's.
    pub back: u32,
    /// Of a frame: `PyCodeObject*`.
    pub code: u32,
    /// Of a frame: where in its code it is, 8 bytes; what they mean is the agent's business.
    pub place: u32,
    /// Keeps the size a multiple of 8.
    pub reserved: u32,
}

/// A Python function that was being executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct PythonFrame {
    /// `PyCodeObject*`, or what else is executed.
    pub code: u64,
    /// Where in it.
    pub place: u64,
}

/// The target has no interpreter that is known.
pub const PYTHON_NONE: u32 = 0;
/// All frames of the thread.
pub const PYTHON_WHOLE: u32 = 1;
/// The thread is none that the interpreter knows, as far as it was looked for.
pub const PYTHON_NO_THREAD: u32 = 2;
/// There are more frames than are recorded.
pub const PYTHON_DEEP: u32 = 3;
/// A thread or frame could not be read.
pub const PYTHON_UNREADABLE: u32 = 4;
