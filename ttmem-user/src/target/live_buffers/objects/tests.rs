//! Sharded buffers of versions that know fewer layouts, or whose distribution is not known.

use std::time::Instant;

use ttmem_common::{
    failure::FailureLayout,
    layout::{Chain, DeviceLayout, LayoutTable, PoolLayout},
};

use super::*;
use crate::{
    event::Spread,
    resolve::plan::MemoryLayout,
    target::{
        live_buffers::{Class, LONGEST},
        memory::SavedMemory,
    },
};

const BUFFER: Avma = Avma(0x1000);
const ALLOCATOR: Avma = Avma(0x500);

fn layout() -> LayoutTable {
    let absent = Chain::ABSENT;
    let buffer = BufferLayout {
        device: 0,
        size: 8,
        page_size: 16,
        address: 24,
        allocator: 32,
        buffer_type: 40,
        memory_layout: 44,
        status: 48,
        hooked: 49,
        shard_spec_present: 64,
        shard_shape: 72,
        page_shape: 80,
        last_sharded: 4,
        ..BufferLayout::ABSENT
    };
    let device = DeviceLayout {
        device_vptr: 0,
        mesh_vptr: 0,
        chip_id: absent,
        mesh_id: absent,
        mesh_devices_begin: absent,
        mesh_devices_end: absent,
        mesh_devices_stride: 0,
        mesh_devices_local: ABSENT,
    };
    let pool = PoolLayout {
        banks: absent,
        alignment: absent,
        manager_alignment: Chain::ABSENT,
        bank_size: absent,
        block_minimum: absent,
        block_unit: absent,
        base: ABSENT,
        shrunk: ABSENT,
    };
    let buffer = buffer.with_window().unwrap();
    LayoutTable {
        tgid: 1,
        in_use: 1,
        buffer,
        device,
        pools: [pool; BUFFER_TYPES],
        failure: FailureLayout::ABSENT,
        circular: ttmem_common::layout::CircularLayout::ABSENT,
    }
}

fn no_layout() -> MemoryLayout {
    MemoryLayout {
        allocator_vptrs: Vec::new(),
        live_set: 0,
        mesh_allocator: None,
        device_allocator: None,
        blocks: None,
        flags: None,
        core_lists: None,
    }
}

/// How a buffer of that layout, with or without a shard spec of two pages, is spread.
fn spread(layout: &LayoutTable, memory_layout: u32, has_spec: bool) -> Spread {
    let mut bytes = vec![0; 96];
    for (offset, word) in [
        (0, 0x100),
        (8, 4096),
        (16, 2048),
        (24, 0x40),
        (32, ALLOCATOR.0),
        (40, 1 | (u64::from(memory_layout) << 32)),
        (48, u64::from(ALLOCATED)),
        (64, u64::from(has_spec)),
        (72, 64 | (32 << 32)),
        (80, 32 | (32 << 32)),
    ] {
        bytes[offset..offset + 8].copy_from_slice(&u64::to_le_bytes(word));
    }
    let mut memory = SavedMemory::default();
    memory.add(BUFFER, bytes);
    let memory_layout = no_layout();
    let walk = Walk { memory: &memory, layout, memory_layout: &memory_layout };
    walk.read_buffer(ALLOCATOR, BUFFER).unwrap().shape.spread
}

#[test]
fn a_shard_spec_is_read_without_a_distribution() {
    let layout = layout();
    assert_eq!(spread(&layout, 0, true), Spread::Interleaved);
    assert_eq!(spread(&layout, 2, true), Spread::PagesPerBank(2));
    assert_eq!(spread(&layout, 4, true), Spread::PagesPerBank(2));
    assert_eq!(spread(&layout, 2, false), Spread::Unknown);
}

#[test]
fn of_a_later_layout_nothing_is_known() {
    assert_eq!(spread(&layout(), 5, true), Spread::Unknown);
    let mut newer = layout();
    newer.buffer.last_sharded = 5;
    assert_eq!(spread(&newer, 5, true), Spread::PagesPerBank(2));
}

#[test]
fn a_reading_that_takes_too_long_is_given_up() {
    let (memory, memory_layout, layout) = (SavedMemory::default(), no_layout(), layout());
    let walk = Walk { memory: &memory, layout: &layout, memory_layout: &memory_layout };
    let objects = [(ALLOCATOR, Class::Allocator)];
    let now = Instant::now();
    let error = walk.read(&objects, now).unwrap_err();
    assert_eq!(error, "it takes too long to look at all that may be an allocator");
    assert!(walk.read(&objects, now + LONGEST).is_ok());
}
