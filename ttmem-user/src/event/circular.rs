//! Facts about circular and dataflow buffers, and the programs that they belong to.

use serde::Serialize;
use ttmem_common::record::{
    CircularRecord, DispatchRecord, FLAG_DATAFLOW, FLAG_GLOBALLY_ALLOCATED, NO_CHIP, RawCoreRange,
};

use super::DecodeError;
use crate::units::{Avma, ChipId, DeviceAddr, Tid};

/// More columns or rows than any chip could have.
const MAX_COORDINATE: u64 = 1 << 12;

/// A rectangle of cores; both ends belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct CoreRange {
    /// First column and row.
    pub start: (u32, u32),
    /// Last column and row.
    pub end: (u32, u32),
}

/// What kind of buffer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CircularKind {
    /// A circular buffer with memory of its own.
    Circular,
    /// A circular buffer that lies over a tensor.
    Alias,
    /// A dataflow buffer, or the part of one that one range of cores holds.
    Dataflow,
}

/// On which chips something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The chip, if the device is a single one.
    pub chip: Option<ChipId>,
    /// `IDevice*`.
    pub device: Avma,
}

/// A circular or dataflow buffer has got its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CircularPlaced {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub time_ns: u64,
    /// The thread that places it.
    pub tid: Tid,
    /// `ProgramImpl*`; `None` if it is not known.
    pub program: Option<Avma>,
    /// Buffers of one batch are placed together, and replace those of an earlier batch.
    pub batch: u64,
    /// Where.
    pub place: Place,
    /// The buffer.
    pub buffer: CircularBuffer,
}

/// A circular or dataflow buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CircularBuffer {
    /// What it is.
    pub kind: CircularKind,
    /// Address, the same on each of its cores.
    pub address: DeviceAddr,
    /// Bytes on each core.
    pub size: u64,
    /// Its cores; `None` if there were more ranges than a record can hold.
    pub cores: Option<Vec<CoreRange>>,
}

/// A program is dispatched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dispatched {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub time_ns: u64,
    /// `ProgramImpl*`.
    pub program: Avma,
    /// Where.
    pub place: Place,
}

/// What a record says of a buffer.
pub fn placed(record: &CircularRecord) -> Result<CircularPlaced, DecodeError> {
    let kind = match record.flags {
        0 => CircularKind::Circular,
        FLAG_GLOBALLY_ALLOCATED => CircularKind::Alias,
        FLAG_DATAFLOW => CircularKind::Dataflow,
        unknown => return Err(DecodeError::UnknownCircularKind(unknown)),
    };
    let count = usize::try_from(record.range_count).unwrap_or(usize::MAX);
    let cores = match record.ranges.get(..count) {
        Some(ranges) => Some(ranges.iter().map(range).collect::<Result<_, _>>()?),
        None => None,
    };
    Ok(CircularPlaced {
        time_ns: record.header.time_ns,
        tid: Tid(record.header.tid),
        program: (record.program != 0).then_some(Avma(record.program)),
        batch: record.batch,
        place: place(record.chip, record.device),
        buffer: CircularBuffer {
            kind,
            address: DeviceAddr(record.address),
            size: record.size,
            cores,
        },
    })
}

/// What a record says of a dispatch.
pub fn dispatched(record: &DispatchRecord) -> Dispatched {
    Dispatched {
        time_ns: record.header.time_ns,
        program: Avma(record.program),
        place: place(record.chip, record.device),
    }
}

fn place(chip: i32, device: u64) -> Place {
    Place { chip: (chip != NO_CHIP).then_some(ChipId(chip)), device: Avma(device) }
}

fn range(raw: &RawCoreRange) -> Result<CoreRange, DecodeError> {
    let bad = DecodeError::BadCoreRange;
    if raw.start_x > raw.end_x || raw.start_y > raw.end_y {
        return Err(bad);
    }
    let coordinate = |value: u64| match u32::try_from(value) {
        Ok(small) if value < MAX_COORDINATE => Ok(small),
        _ => Err(bad),
    };
    Ok(CoreRange {
        start: (coordinate(raw.start_x)?, coordinate(raw.start_y)?),
        end: (coordinate(raw.end_x)?, coordinate(raw.end_y)?),
    })
}

#[cfg(test)]
mod tests {
    use ttmem_common::record::{
        KIND_CIRCULAR, KIND_DISPATCH, KIND_PROGRAM_END, MAX_RANGES, ProgramEndRecord, RecordHeader,
    };
    use zerocopy::{FromZeros as _, IntoBytes as _};

    use super::*;
    use crate::event::decode::tests::is_of_one_length;
    use crate::event::{Event, decode};

    fn header(kind: u32) -> RecordHeader {
        RecordHeader { time_ns: 9, kind, slot: 0, tgid: 1, tid: 2 }
    }

    fn record() -> CircularRecord {
        let mut record = CircularRecord::new_zeroed();
        record.header = header(KIND_CIRCULAR);
        record.program = 0x500;
        record.batch = 8;
        record.device = 0x700;
        record.address = 0x1_9d60;
        record.size = 4096;
        record.chip = 3;
        record.range_count = 1;
        record.ranges[0] = RawCoreRange { start_x: 1, start_y: 2, end_x: 7, end_y: 6 };
        record
    }

    fn decoded(record: &CircularRecord) -> CircularPlaced {
        match decode(record.as_bytes()).unwrap().event {
            Event::Circular(placed) => placed,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_placed_buffer_keeps_every_field() {
        let expected = CircularPlaced {
            time_ns: 9,
            tid: Tid(2),
            program: Some(Avma(0x500)),
            batch: 8,
            place: Place { chip: Some(ChipId(3)), device: Avma(0x700) },
            buffer: CircularBuffer {
                kind: CircularKind::Circular,
                address: DeviceAddr(0x1_9d60),
                size: 4096,
                cores: Some(vec![CoreRange { start: (1, 2), end: (7, 6) }]),
            },
        };
        assert_eq!(decoded(&record()), expected);
    }

    #[test]
    fn what_is_not_known_is_none() {
        let mut record = record();
        record.program = 0;
        record.chip = NO_CHIP;
        record.range_count = u32::try_from(MAX_RANGES).unwrap() + 1;
        let placed = decoded(&record);
        assert_eq!((placed.program, placed.place.chip, placed.buffer.cores), (None, None, None));
    }

    #[test]
    fn flags_tell_the_kinds_apart() {
        let kinds = [0, 1, 2].map(|flags| decoded(&CircularRecord { flags, ..record() }));
        let expected = [CircularKind::Circular, CircularKind::Alias, CircularKind::Dataflow];
        assert_eq!(kinds.map(|placed| placed.buffer.kind), expected);
        let odd = CircularRecord { flags: 4, ..record() };
        assert_eq!(decode(odd.as_bytes()), Err(DecodeError::UnknownCircularKind(4)));
    }

    #[test]
    fn a_range_that_cannot_be_is_refused() {
        for (start_x, end_x) in [(3, 2), (0, 4096), (u64::MAX, u64::MAX)] {
            let mut record = record();
            record.ranges[0] = RawCoreRange { start_x, start_y: 0, end_x, end_y: 0 };
            assert_eq!(decode(record.as_bytes()), Err(DecodeError::BadCoreRange));
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        let end = ProgramEndRecord { header: header(KIND_PROGRAM_END), program: 5 };
        let dispatch = DispatchRecord {
            header: header(KIND_DISPATCH),
            program: 5,
            device: 6,
            chip: NO_CHIP,
            reserved: 0,
        };
        let circular = record();
        for whole in [circular.as_bytes(), end.as_bytes(), dispatch.as_bytes()] {
            assert!(decode(whole).is_ok());
            is_of_one_length(whole);
        }
    }

    #[test]
    fn an_end_and_a_dispatch_name_their_program() {
        let end = ProgramEndRecord { header: header(KIND_PROGRAM_END), program: 5 };
        let event = decode(end.as_bytes()).unwrap().event;
        assert_eq!(event, Event::ProgramEnded { program: Avma(5) });
        let dispatch = DispatchRecord {
            header: header(KIND_DISPATCH),
            program: 5,
            device: 6,
            chip: 1,
            reserved: 0,
        };
        let place = Place { chip: Some(ChipId(1)), device: Avma(6) };
        let expected = Dispatched { time_ns: 9, program: Avma(5), place };
        assert_eq!(decode(dispatch.as_bytes()).unwrap().event, Event::Dispatched(expected));
    }
}
