//! A failed allocation: what the exception's message says, and where the memory was wanted.
//!
//! Invariant: what the record does not mark as known is `None`; so is a device whose buffer is not
//! of the type that the message names.

use ttmem_common::{
    failure::{FAILURE_FIELDS, FailureField},
    record::{FAILURE_HAS_BUFFER, FailureRecord},
};

use super::types::BufferType;
use crate::units::{Avma, Tid};

/// An allocation has failed for want of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocationFailed {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub time_ns: u64,
    /// The thread that asked for the memory.
    pub tid: Tid,
    /// What the message says.
    pub numbers: FailureNumbers,
    /// Where the memory was wanted; `None` if that could not be proven.
    pub place: Option<FailurePlace>,
}

/// What the message of a failed allocation says; `None`: it does not, or it could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailureNumbers {
    /// Bytes of the whole buffer.
    pub size: Option<u64>,
    /// Buffer type.
    pub buffer_type: Option<BufferType>,
    /// Number of banks.
    pub banks: Option<u64>,
    /// Bytes that each bank would have to give.
    pub bank_bytes: Option<u64>,
    /// Bytes of one bank.
    pub bank_size: Option<u64>,
    /// Bytes of a bank that were allocated.
    pub allocated: Option<u64>,
    /// Bytes of a bank that were free.
    pub free: Option<u64>,
    /// Bytes of the largest free block of a bank.
    pub largest_free: Option<u64>,
}

/// Where the memory was wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailurePlace {
    /// `AllocatorImpl*`.
    pub allocator: Avma,
    /// `IDevice*`.
    pub device: Avma,
}

/// What a record says.
pub(super) fn failed(record: &FailureRecord) -> AllocationFailed {
    let value = |field: FailureField| {
        let index = field as usize;
        let known = index < FAILURE_FIELDS && record.known & (1 << index) != 0;
        known.then(|| record.values[index])
    };
    let buffer_type = value(FailureField::Type).and_then(|len| type_of_name(record, len));
    let place = (record.known & FAILURE_HAS_BUFFER != 0
        && buffer_type.is_some()
        && BufferType::from_raw(record.buffer_type) == buffer_type)
        .then_some(FailurePlace { allocator: Avma(record.allocator), device: Avma(record.device) });
    AllocationFailed {
        time_ns: record.header.time_ns,
        tid: Tid(record.header.tid),
        numbers: FailureNumbers {
            size: value(FailureField::Size),
            buffer_type,
            banks: value(FailureField::Banks),
            bank_bytes: value(FailureField::BankBytes),
            bank_size: value(FailureField::BankSize),
            allocated: value(FailureField::Allocated),
            free: value(FailureField::Free),
            largest_free: value(FailureField::LargestFree),
        },
        place,
    }
}

fn type_of_name(record: &FailureRecord, len: u64) -> Option<BufferType> {
    let name = record.type_name.get(..usize::try_from(len).ok()?)?;
    BufferType::ALL.into_iter().find(|buffer_type| buffer_type.name().as_bytes() == name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use ttmem_common::record::KIND_FAILURE;
    use zerocopy::{FromZeros as _, IntoBytes as _};

    use super::*;
    use crate::event::decode::tests::is_of_one_length;
    use crate::event::{Event, decode};

    fn record() -> FailureRecord {
        let mut record = FailureRecord::new_zeroed();
        record.header.kind = KIND_FAILURE;
        record.header.time_ns = 5;
        record.header.tid = 9;
        record.values = [100, 8, 12, 10, 50, 45, 5, 4];
        record.type_name[..8].copy_from_slice(b"L1_SMALL");
        record.allocator = 0x6000;
        record.device = 0x7000;
        record.buffer_type = 3;
        record.known = 0xff | FAILURE_HAS_BUFFER;
        record
    }

    fn decoded(record: &FailureRecord) -> AllocationFailed {
        match decode(record.as_bytes()).unwrap().event {
            Event::Failed(failed) => *failed,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn keeps_every_field() {
        let failed = decoded(&record());
        assert_eq!((failed.time_ns, failed.tid), (5, Tid(9)));
        assert_eq!(
            failed.numbers,
            FailureNumbers {
                size: Some(100),
                buffer_type: Some(BufferType::L1Small),
                banks: Some(12),
                bank_bytes: Some(10),
                bank_size: Some(50),
                allocated: Some(45),
                free: Some(5),
                largest_free: Some(4),
            }
        );
        let place = FailurePlace { allocator: Avma(0x6000), device: Avma(0x7000) };
        assert_eq!(failed.place, Some(place));
    }

    #[test]
    fn what_is_not_marked_is_not_known() {
        let none = decoded(&FailureRecord { known: 0, ..record() });
        assert_eq!((none.numbers, none.place), (FailureNumbers::default(), None));
        for field in 0..FAILURE_FIELDS {
            let known = record().known & !(1 << field);
            assert_ne!(decoded(&FailureRecord { known, ..record() }), decoded(&record()));
        }
    }

    #[test]
    fn a_buffer_of_another_type_is_another_buffer() {
        let other = FailureRecord { buffer_type: 1, ..record() };
        assert_eq!(decoded(&other).place, None);
        assert_eq!(decoded(&other).numbers.buffer_type, Some(BufferType::L1Small));
        let mut unknown = record();
        unknown.type_name[0] = b'X';
        assert_eq!(decoded(&unknown).numbers.buffer_type, None);
        assert_eq!(decoded(&unknown).place, None);
    }

    #[test]
    fn every_truncation_is_refused() {
        is_of_one_length(record().as_bytes());
    }

    proptest! {
        #[test]
        fn any_record_is_decoded(mut bytes in prop::collection::vec(any::<u8>(), size_of::<FailureRecord>())) {
            bytes[8..12].copy_from_slice(&KIND_FAILURE.to_le_bytes());
            prop_assert!(decode(&bytes).is_ok());
        }
    }
}
