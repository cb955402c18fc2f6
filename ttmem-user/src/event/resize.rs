//! An allocator that gives the start of its banks away.

use ttmem_common::record::ResizeRecord;

use super::{
    decode::{DecodeError, geometry},
    types::{BufferType, Geometry},
};
use crate::units::{Avma, DeviceAddr};

/// An allocator is about to give bytes of each bank to sub-devices; 0: it has got all back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resized {
    /// `AllocatorImpl*`.
    pub allocator: Avma,
    /// Buffer type.
    pub buffer_type: BufferType,
    /// What the pool is like before, if that could be read.
    pub before: Option<Geometry>,
    /// What it is like afterwards; `None`: tt-metal refuses that, and it stays as it is.
    pub after: Option<Geometry>,
}

/// Decodes a record's fields.
pub(super) fn resized(record: &ResizeRecord) -> Result<Resized, DecodeError> {
    let buffer_type = BufferType::from_raw(record.buffer_type)
        .ok_or(DecodeError::UnknownBufferType(record.buffer_type))?;
    let before = geometry(&record.pool);
    let after = before.filter(|_| record.size == 0 || record.from_start == 1).and_then(|pool| {
        let bank_size = pool.bank_size.checked_sub(record.size)?;
        let base = match pool.base {
            Some(base) => Some(DeviceAddr(base.0.checked_add(record.size)?)),
            None => None,
        };
        Some(Geometry { bank_size, base, ..pool })
    });
    Ok(Resized { allocator: Avma(record.allocator), buffer_type, before, after })
}

#[cfg(test)]
mod tests {
    use ttmem_common::record::{KIND_RESIZE, NO_BASE, NO_POOL, PoolGeometry};
    use zerocopy::{FromZeros as _, IntoBytes as _};

    use super::*;
    use crate::event::decode::tests::is_of_one_length;
    use crate::event::{Event, decode};

    fn record(size: u64) -> ResizeRecord {
        let mut record = ResizeRecord::new_zeroed();
        record.header.kind = KIND_RESIZE;
        (record.allocator, record.size, record.buffer_type, record.from_start) = (7, size, 1, 1);
        record.pool =
            PoolGeometry { bank_size: 4096, banks: 64, alignment: 16, base: 1024, ..record.pool };
        record
    }

    fn seen(record: &ResizeRecord) -> Resized {
        match decode(record.as_bytes()).unwrap().event {
            Event::Resized(resized) => resized,
            other => panic!("{other:?}"),
        }
    }

    fn places(record: &ResizeRecord) -> [Option<(u64, Option<u64>)>; 2] {
        let seen = seen(record);
        [seen.before, seen.after]
            .map(|pool| pool.map(|pool| (pool.bank_size, pool.base.map(|base| base.0))))
    }

    #[test]
    fn the_start_is_given_away() {
        let start = Some((4096, Some(1024)));
        assert_eq!(places(&record(1000)), [start, Some((3096, Some(2024)))]);
        assert_eq!(places(&record(0)), [start, start]);
        assert_eq!(places(&record(4097)), [start, None], "more than there is");
        let mut from_end = record(1000);
        from_end.from_start = 0;
        assert_eq!(places(&from_end), [start, None], "tt-metal cannot do that");
    }

    #[test]
    fn what_is_not_known_stays_so() {
        let mut unknown = record(1000);
        unknown.pool.base = NO_BASE;
        assert_eq!(places(&unknown), [Some((4096, None)), Some((3096, None))]);
        unknown.pool.banks = NO_POOL;
        assert_eq!(places(&unknown), [None, None]);
        unknown.buffer_type = 99;
        assert_eq!(decode(unknown.as_bytes()), Err(DecodeError::UnknownBufferType(99)));
    }

    #[test]
    fn every_truncation_is_refused() {
        is_of_one_length(record(1).as_bytes());
    }
}
