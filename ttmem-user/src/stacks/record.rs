//! The bytes of a stack's record.
//!
//! Invariant: whatever the bytes are, parsing returns, and a stack is never longer than what
//! follows its header.

use ttmem_common::{
    python::{
        MOST_FRAMES, PYTHON_DEEP, PYTHON_NO_THREAD, PYTHON_UNREADABLE, PYTHON_WHOLE, PythonFrame,
    },
    record::{KIND_STACK, StackRecord},
};
use zerocopy::FromBytes as _;

use crate::units::{Avma, Pid, Tid};

/// A stack as it was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The time of the allocation's record, CLOCK_MONOTONIC nanoseconds.
    pub time_ns: u64,
    /// The target's slot.
    pub slot: u32,
    /// The target.
    pub pid: Pid,
    /// The thread.
    pub tid: Tid,
    /// Where it was.
    pub ip: Avma,
    /// Where `stack` begins.
    pub sp: Avma,
    /// Frame pointer.
    pub bp: u64,
    /// rbx, r12, r13, r14, r15.
    pub preserved: [u64; 5],
    /// What was copied.
    pub stack: &'a [u8],
    /// The Python functions that the thread executed.
    pub python: PythonFrames,
}

/// The Python functions that a thread executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PythonFrames {
    count: usize,
    frames: [PythonFrame; MOST_FRAMES],
    /// Why there are no more.
    pub end: PythonEnd,
}

/// Why no more Python functions were recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PythonEnd {
    /// The process has no interpreter that is known.
    NoInterpreter,
    /// The interpreter knows no such thread.
    NoThread,
    /// There are none.
    Whole,
    /// There are more than are recorded.
    Deep,
    /// What the interpreter has there could not be read.
    Unreadable,
}

impl PythonFrames {
    /// Of a process without an interpreter.
    #[cfg(test)]
    pub const fn none() -> Self {
        let frames = [PythonFrame { code: 0, place: 0 }; MOST_FRAMES];
        Self { count: 0, frames, end: PythonEnd::NoInterpreter }
    }

    fn of(raw: &StackRecord) -> Self {
        let end = match raw.python_end {
            PYTHON_WHOLE => PythonEnd::Whole,
            PYTHON_NO_THREAD => PythonEnd::NoThread,
            PYTHON_DEEP => PythonEnd::Deep,
            PYTHON_UNREADABLE => PythonEnd::Unreadable,
            _ => PythonEnd::NoInterpreter,
        };
        let count = (raw.python_count as usize).min(MOST_FRAMES);
        Self { count, frames: raw.python, end }
    }

    /// The functions, the innermost first.
    pub fn frames(&self) -> &[PythonFrame] {
        &self.frames[..self.count]
    }
}

/// Bytes that are no record of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record that is no call stack")]
pub struct Malformed;

impl<'a> Record<'a> {
    /// Reads a record.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let (raw, rest) = StackRecord::read_from_prefix(bytes).map_err(|_| Malformed)?;
        if raw.header.kind != KIND_STACK {
            return Err(Malformed);
        }
        Ok(Self {
            time_ns: raw.header.time_ns,
            slot: raw.header.slot,
            pid: Pid(raw.header.tgid),
            tid: Tid(raw.header.tid),
            ip: Avma(raw.ip),
            sp: Avma(raw.sp),
            bp: raw.bp,
            preserved: raw.preserved,
            stack: rest.get(..raw.length as usize).ok_or(Malformed)?,
            python: PythonFrames::of(&raw),
        })
    }

    /// A word of the stack; `None` if it was not copied.
    pub fn word(&self, at: u64) -> Option<u64> {
        let offset = usize::try_from(at.checked_sub(self.sp.0)?).ok()?;
        let bytes = self.stack.get(offset..)?.first_chunk()?;
        Some(u64::from_le_bytes(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ttmem_common::record::RecordHeader;
    use zerocopy::{FromZeros as _, IntoBytes as _};

    use super::*;

    fn record(length: u32, stack: &[u8]) -> Vec<u8> {
        let header = RecordHeader { time_ns: 7, kind: KIND_STACK, slot: 1, tgid: 2, tid: 3 };
        let (ip, sp, bp, preserved) = (0x10, 0x1000, 0x20, [1, 2, 3, 4, 5]);
        let mut raw = StackRecord::new_zeroed();
        (raw.header, raw.ip, raw.sp, raw.bp) = (header, ip, sp, bp);
        (raw.preserved, raw.length) = (preserved, length);
        (raw.python_count, raw.python_end) = (2, PYTHON_DEEP);
        raw.python[1] = PythonFrame { code: 8, place: 9 };
        [raw.as_bytes(), stack].concat()
    }

    #[test]
    fn a_stack_is_what_could_be_copied() {
        let bytes = record(16, &[1; 24]);
        let parsed = Record::parse(&bytes).unwrap();
        assert_eq!((parsed.time_ns, parsed.slot, parsed.pid, parsed.tid), (7, 1, Pid(2), Tid(3)));
        assert_eq!((parsed.ip, parsed.bp, parsed.preserved), (Avma(0x10), 0x20, [1, 2, 3, 4, 5]));
        assert_eq!(
            parsed.python.frames(),
            [PythonFrame { code: 0, place: 0 }, PythonFrame { code: 8, place: 9 }]
        );
        assert_eq!(parsed.python.end, PythonEnd::Deep);
        let words = [0xfff, 0x1000, 0x1008, 0x1009, u64::MAX].map(|at| parsed.word(at));
        let ones = Some(0x0101_0101_0101_0101);
        assert_eq!(words, [None, ones, ones, None, None]);
    }

    #[test]
    fn what_is_too_short_or_something_else_is_refused() {
        let whole = record(8, &[0; 8]);
        for len in 0..whole.len() {
            assert_eq!(Record::parse(&whole[..len]), Err(Malformed), "{len}");
        }
        assert_eq!(Record::parse(&record(9, &[0; 8])), Err(Malformed), "longer than what follows");
        let mut other = whole;
        other[8] += 1;
        assert_eq!(Record::parse(&other), Err(Malformed), "another kind");
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..1500), at: u64,
        ) {
            if let Ok(parsed) = Record::parse(&bytes) {
                prop_assert!(parsed.stack.len() <= bytes.len());
                prop_assert!(parsed.python.frames().len() <= MOST_FRAMES);
                let _ = parsed.word(at);
            }
        }
    }
}
