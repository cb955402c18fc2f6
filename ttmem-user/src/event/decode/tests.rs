//! Records, whole and broken.

use proptest::prelude::*;
use ttmem_common::record::{FLAG_SHARD_SPEC, NO_POOL};
use zerocopy::{FromZeros as _, IntoBytes as _};

use super::*;

fn allocate_record() -> AllocateRecord {
    let mut record = AllocateRecord::new_zeroed();
    record.header = RecordHeader { time_ns: 7, kind: KIND_ALLOCATE, slot: 3, tgid: 10, tid: 11 };
    record.buffer = 0x5000;
    record.allocator = 0x6000;
    record.device = 0x7000;
    record.size = 4096;
    record.page_size = 2048;
    record.address = 0x10_0040;
    record.unique_id = 42;
    record
}

fn sharded_record() -> ShardedRecord {
    let mut record = ShardedRecord::new_zeroed();
    record.buffer = allocate_record();
    record.buffer.header.kind = KIND_ALLOCATE_SHARDED;
    record
}

/// A record that is shorter or longer is refused, whatever its kind.
pub(in crate::event) fn is_of_one_length(record: &[u8]) {
    for len in 0..record.len() {
        assert!(matches!(decode(&record[..len]), Err(DecodeError::Length { .. })), "{len}");
    }
    let long = [record, &[0]].concat();
    assert!(matches!(decode(&long), Err(DecodeError::Length { .. })));
}

fn spread_of(record: &ShardedRecord) -> Spread {
    match decode(record.as_bytes()).unwrap().event {
        Event::Allocated(allocated) => allocated.shape.spread,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_allocation_keeps_every_field() {
    let decoded = decode(allocate_record().as_bytes()).unwrap();
    let seen = decoded.seen;
    assert_eq!((seen.time_ns, seen.slot, seen.pid), (7, 3, Pid(10)));
    let Event::Allocated(allocated) = decoded.event else { panic!("not an allocation") };
    assert_eq!(allocated.tid, Tid(11));
    assert_eq!(allocated.buffer, Avma(0x5000));
    assert_eq!(allocated.allocator, Avma(0x6000));
    assert_eq!(allocated.device, Avma(0x7000));
    assert_eq!(
        allocated.shape,
        BufferShape {
            unique_id: Some(42),
            buffer_type: BufferType::Dram,
            address: DeviceAddr(0x10_0040),
            size: 4096,
            page_size: 2048,
            spread: Spread::Interleaved,
        }
    );
}

#[test]
fn the_buffer_of_a_record_is_at_its_start() {
    let allocated = allocate_record();
    let allocator = allocated.allocator;
    let of_kind = |kind| RecordHeader { kind, ..allocated.header };
    let free = FreeRecord { header: of_kind(KIND_FREE), buffer: 0x5000, allocator };
    let mut sharded = sharded_record();
    sharded.buffer.buffer = 0x5000;
    let mut described = DescribedFreeRecord::new_zeroed();
    described.free = FreeRecord { header: of_kind(KIND_FREE_DESCRIBED), ..free };
    let ahead = |goes| Some(Ahead { slot: 3, buffer: Avma(0x5000), goes });
    for comes in [allocated.as_bytes(), sharded.as_bytes()] {
        assert_eq!(look_ahead(comes), ahead(false));
    }
    for goes in [free.as_bytes(), described.as_bytes()] {
        assert_eq!(look_ahead(goes), ahead(true));
    }
    let mut bulk = BulkFreeRecord::new_zeroed();
    bulk.header = of_kind(KIND_BULK_FREE);
    assert_eq!(look_ahead(bulk.as_bytes()), None);
    assert_eq!(look_ahead(&free.as_bytes()[..32]), None);
}

#[test]
fn a_missing_unique_id_is_not_zero() {
    let mut record = allocate_record();
    record.flags = FLAG_NO_UNIQUE_ID;
    let Event::Allocated(allocated) = decode(record.as_bytes()).unwrap().event else {
        panic!("not an allocation")
    };
    assert_eq!(allocated.shape.unique_id, None);
}

#[test]
fn a_shard_spec_gives_the_pages_of_one_shard() {
    let mut record = sharded_record();
    record.buffer.memory_layout = 2;
    record.buffer.flags = FLAG_SHARD_SPEC;
    record.sharding.shard_shape = 64 | (96 << 32);
    record.sharding.page_shape = 32 | (32 << 32);
    assert_eq!(spread_of(&record), Spread::PagesPerBank(6));
    record.sharding.page_shape = 0;
    assert_eq!(spread_of(&record), Spread::PagesPerBank(0));
}

#[test]
fn a_distribution_spec_gives_the_fullest_cores_pages() {
    let mut record = sharded_record();
    record.buffer.memory_layout = 5;
    record.buffer.flags = FLAG_DISTRIBUTION_SPEC;
    record.sharding.shard_count = 9;
    record.sharding.shard_cores = 4;
    record.sharding.shard_pages = 8;
    assert_eq!(spread_of(&record), Spread::PagesPerBank(24));
    record.sharding.shard_cores = 0;
    assert_eq!(spread_of(&record), Spread::PagesPerBank(0));
}

#[test]
fn sharded_without_any_spec_is_unknown() {
    let mut record = sharded_record();
    record.buffer.memory_layout = 4;
    assert_eq!(spread_of(&record), Spread::Unknown);
    let mut short = allocate_record();
    short.memory_layout = 9;
    let Event::Allocated(allocated) = decode(short.as_bytes()).unwrap().event else { panic!() };
    assert_eq!(allocated.shape.spread, Spread::Unknown, "a layout that no version has");
}

#[test]
fn cores_with_an_address_of_their_own_are_counted() {
    let mut record = sharded_record();
    record.buffer.memory_layout = 2;
    record.buffer.flags = FLAG_PER_CORE | FLAG_SHARD_SPEC | FLAG_CORE_COUNT;
    record.sharding.shard_shape = 64 | (96 << 32);
    record.sharding.page_shape = 32 | (32 << 32);
    record.sharding.shard_cores = 8;
    assert_eq!(spread_of(&record), Spread::PerCore { pages: 6, cores: 8 });
    for cores in [0, 1 << 32] {
        record.sharding.shard_cores = cores;
        assert_eq!(spread_of(&record), Spread::PerUnknownCore, "{cores} cores");
    }
    record.sharding.shard_cores = 8;
    for without in [FLAG_CORE_COUNT, FLAG_SHARD_SPEC] {
        let flags = record.buffer.flags & !without;
        assert_eq!(
            spread_of(&ShardedRecord {
                buffer: AllocateRecord { flags, ..record.buffer },
                ..record
            }),
            Spread::PerUnknownCore
        );
    }
}

#[test]
fn unknown_numbers_are_refused() {
    let mut record = allocate_record();
    record.buffer_type = 5;
    assert_eq!(decode(record.as_bytes()), Err(DecodeError::UnknownBufferType(5)));
    record.header.kind = 99;
    assert_eq!(decode(record.as_bytes()), Err(DecodeError::UnknownKind(99)));
    let mut device = DeviceRecord::new_zeroed();
    device.header.kind = KIND_DEVICE;
    device.chip_count = u32::try_from(MAX_CHIPS).unwrap() + 1;
    assert_eq!(decode(device.as_bytes()), Err(DecodeError::TooManyChips(65)));
    device.chip_count = 1;
    device.chips[0] = UNREADABLE_CHIP;
    assert_eq!(decode(device.as_bytes()), Err(DecodeError::UnreadableChip));
}

#[test]
fn chips_of_another_host_are_left_out() {
    let mut device = DeviceRecord::new_zeroed();
    device.header.kind = KIND_DEVICE;
    device.chip_count = 3;
    device.chips[..3].copy_from_slice(&[4, REMOTE_CHIP, 6]);
    let Event::Device(seen) = decode(device.as_bytes()).unwrap().event else {
        panic!("not a device")
    };
    assert_eq!(seen.chips, [ChipId(4), ChipId(6)]);
}

#[test]
fn a_wrapped_bank_size_is_no_pool() {
    let wrapped = PoolGeometry {
        bank_size: u64::MAX - 4096,
        banks: 12,
        alignment: 32,
        ..PoolGeometry::default()
    };
    assert_eq!(geometry(&wrapped), None);
    let none = PoolGeometry { banks: NO_POOL, ..PoolGeometry::default() };
    assert_eq!(geometry(&none), None);
}

#[test]
fn a_pool_without_banks_is_one_of_no_capacity() {
    let empty = geometry(&PoolGeometry::default()).unwrap();
    assert_eq!((empty.banks, empty.capacity()), (0, 0));
}

#[test]
fn every_truncation_is_refused() {
    is_of_one_length(allocate_record().as_bytes());
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..700)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn random_records_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 400..401), kind in 1_u32..20) {
        let len = ttmem_common::record::len_of(kind).unwrap_or(size_of::<AllocatorRecord>());
        bytes.truncate(len);
        bytes[8..12].copy_from_slice(&kind.to_le_bytes());
        let _ = decode(&bytes);
    }
}
