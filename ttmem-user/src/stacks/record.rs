//! The bytes of a stack's record.
//!
//! Invariant: whatever the bytes are, parsing returns, and a stack is never longer than what
//! follows its header.

use ttmem_common::record::{KIND_STACK, StackRecord};
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
    use zerocopy::IntoBytes as _;

    use super::*;

    fn record(length: u32, stack: &[u8]) -> Vec<u8> {
        let header = RecordHeader { time_ns: 7, kind: KIND_STACK, slot: 1, tgid: 2, tid: 3 };
        let (ip, sp, bp, preserved) = (0x10, 0x1000, 0x20, [1, 2, 3, 4, 5]);
        let raw = StackRecord { header, ip, sp, bp, preserved, length, reserved: 0 };
        [raw.as_bytes(), stack].concat()
    }

    #[test]
    fn a_stack_is_what_could_be_copied() {
        let bytes = record(16, &[1; 24]);
        let parsed = Record::parse(&bytes).unwrap();
        assert_eq!((parsed.time_ns, parsed.slot, parsed.pid, parsed.tid), (7, 1, Pid(2), Tid(3)));
        assert_eq!((parsed.ip, parsed.bp, parsed.preserved), (Avma(0x10), 0x20, [1, 2, 3, 4, 5]));
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
            bytes in proptest::collection::vec(any::<u8>(), 0..300), at: u64,
        ) {
            if let Ok(parsed) = Record::parse(&bytes) {
                prop_assert!(parsed.stack.len() <= bytes.len());
                let _ = parsed.word(at);
            }
        }
    }
}
