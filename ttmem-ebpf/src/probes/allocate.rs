//! Allocation.
//!
//! A buffer that is not sharded, and whose device has been described, goes into this CPU's own ring
//! as soon as it is read. All others are read once more, in the order that they need.

use aya_ebpf::programs::ProbeContext;
use aya_log_ebpf::debug;
use ttmem_common::{
    layout::{ABSENT, BufferLayout, CORE_BYTES, FIRST_SHARDED, LayoutTable},
    record::{
        AllocateRecord, FLAG_CORE_COUNT, FLAG_DISTRIBUTION_SPEC, FLAG_PER_CORE, FLAG_SHARD_SPEC,
        KIND_ALLOCATE, KIND_ALLOCATE_SHARDED, RecordHeader, ShardedRecord, Sharding,
    },
    witness::UNREAD_ALLOCATIONS,
};

use super::{
    describe,
    fields::{Fields, is_per_core},
};
use crate::{
    count::{self, fault},
    emit::{Hit, emit_behind, hand_over, own_room},
    user_memory::{Fault, read},
};

/// `GraphTracker::track_allocate(this, const Buffer*)`. `None`: there is no record.
#[inline(always)]
pub fn on_allocate(ctx: &ProbeContext, hit: &Hit, layout: &LayoutTable) -> Option<()> {
    let buffer: u64 = ctx.arg(1)?;
    if at_once(buffer, hit, layout).is_some() {
        return Some(());
    }
    match in_order(buffer, hit, layout) {
        EMITTED => Some(()),
        UNREADABLE => {
            debug!(ctx, "buffer {:x} could not be read", buffer);
            fault(hit);
            None
        }
        _ => None,
    }
}

/// Emits it into this CPU's ring. `None`: nothing has been counted or emitted.
#[inline(always)]
fn at_once(buffer: u64, hit: &Hit, table: &LayoutTable) -> Option<()> {
    let layout = &table.buffer;
    if expects_sharded(hit) {
        return None;
    }
    let record = own_room::<AllocateRecord>(hit)?;
    let (_, read) = Fields::read_at_once(buffer, hit, layout)?;
    if read.hooked != 0
        || is_sharded(&read, layout)
        || !describe::is_known(read.device, read.allocator, hit)
    {
        return None;
    }
    count::allocation(hit, read.buffer_type, read.size);
    // SAFETY: room for a record.
    unsafe { record.write(record_of(hit.header(KIND_ALLOCATE), buffer, &read)) };
    hand_over::<AllocateRecord>(hit);
    Some(())
}

/// There is no record, and none is needed, or it has been counted as lost.
const NOTHING: u32 = 0;
/// The buffer could not be read.
const UNREADABLE: u32 = 1;
/// There is a record.
const EMITTED: u32 = 2;

/// Reads and describes the device, unless that has been done, and emits the record then. Returns one of
/// the numbers above.
///
/// What has been read before is read again: with it the verifier would have to follow all of this once
/// more, and it is seldom.
#[inline(never)]
fn in_order(buffer: u64, hit: &Hit, table: &LayoutTable) -> u32 {
    let layout = &table.buffer;
    let Ok((fields, read)) = Fields::read(buffer, hit, layout) else {
        count::one::<UNREAD_ALLOCATIONS>(hit);
        return UNREADABLE;
    };
    if read.hooked != 0 {
        // A graph capture pretended to allocate; nothing was.
        return NOTHING;
    }
    count::allocation(hit, read.buffer_type, read.size);
    let described = describe::if_new(read.device, read.allocator, hit, table);
    let is_sharded = is_sharded(&read, layout);
    expect_sharded(hit, is_sharded);
    let emitted = if is_sharded {
        let Ok((sharding, flags)) = read_sharding(fields, layout) else { return UNREADABLE };
        emit_behind(hit, described, || {
            let mut allocated = record_of(hit.header(KIND_ALLOCATE_SHARDED), buffer, &read);
            allocated.flags |= flags;
            ShardedRecord { buffer: allocated, sharding }
        })
    } else {
        emit_behind(hit, described, || record_of(hit.header(KIND_ALLOCATE), buffer, &read))
    };
    emitted.map_or(NOTHING, |()| EMITTED)
}

#[inline(always)]
fn record_of(header: RecordHeader, buffer: u64, read: &Fields) -> AllocateRecord {
    AllocateRecord {
        header,
        buffer,
        allocator: read.allocator,
        device: read.device,
        size: read.size,
        page_size: read.page_size,
        address: read.address,
        unique_id: read.unique_id,
        buffer_type: read.buffer_type,
        memory_layout: read.memory_layout,
        flags: read.flags,
        reserved: 0,
    }
}

#[inline(always)]
fn is_sharded(read: &Fields, layout: &BufferLayout) -> bool {
    (FIRST_SHARDED..=layout.last_sharded).contains(&read.memory_layout)
}

/// Whether the buffer before on this CPU was sharded: what has to be read twice is lost time.
#[inline(always)]
fn expects_sharded(hit: &Hit) -> bool {
    // SAFETY: a live element of an array map, and this program's alone.
    hit.cpu.alone().is_some_and(|state| unsafe { (*state).sharded } != 0)
}

#[inline(always)]
fn expect_sharded(hit: &Hit, is_sharded: bool) {
    if let Some(state) = hit.cpu.alone() {
        // SAFETY: as above.
        unsafe { (*state).sharded = is_sharded.into() };
    }
}

/// How a sharded buffer spreads over cores, and the flags that say what of it is known.
#[inline(always)]
fn read_sharding(fields: u64, layout: &BufferLayout) -> Result<(Sharding, u32), Fault> {
    let mut sharding = Sharding::default();
    let mut flags = 0;
    if layout.shard_spec_present == ABSENT {
        return Ok((sharding, flags));
    }
    let at = |offset: u32| fields.wrapping_add(u64::from(offset));
    if is_per_core(fields, layout)? {
        flags |= FLAG_PER_CORE;
        if layout.core_count != ABSENT {
            flags |= FLAG_CORE_COUNT;
            sharding.shard_cores = read(at(layout.core_count))?;
        }
    }
    if read::<u8>(at(layout.shard_spec_present))? != 0 {
        flags |= FLAG_SHARD_SPEC;
        sharding.shard_shape = read(at(layout.shard_shape))?;
        sharding.page_shape = read(at(layout.page_shape))?;
    }
    if flags & FLAG_PER_CORE == 0
        && layout.distribution_present != ABSENT
        && read::<u8>(at(layout.distribution_present))? != 0
    {
        flags |= FLAG_DISTRIBUTION_SPEC;
        let begin: u64 = read(at(layout.cores_begin))?;
        let end: u64 = read(at(layout.cores_end))?;
        sharding.shard_cores = end.wrapping_sub(begin) / CORE_BYTES;
        sharding.shard_count = read(at(layout.shard_count))?;
        sharding.shard_pages = u64::from(read::<u32>(at(layout.shard_pages))?);
    }
    Ok((sharding, flags))
}
