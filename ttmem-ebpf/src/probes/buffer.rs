//! Allocation, free and bulk free.

use aya_ebpf::programs::ProbeContext;
use aya_log_ebpf::debug;
use ttmem_common::{
    control::DESCRIBE_FREES,
    layout::{ABSENT, BufferLayout, CORE_BYTES, FIRST_SHARDED, LayoutTable, MAX_WINDOW},
    loss::LossCause,
    record::{
        AllocateRecord, BulkFreeRecord, FLAG_CORE_COUNT, FLAG_DESCRIBED, FLAG_DISTRIBUTION_SPEC,
        FLAG_NO_UNIQUE_ID, FLAG_PER_CORE, FLAG_SHARD_SPEC, FreeRecord, KIND_ALLOCATE,
        KIND_BULK_FREE, KIND_FREE,
    },
};

use super::describe;
use crate::{
    emit::{Hit, control, lose, reserve, submit},
    user_memory::{Fault, read, read_into},
};

/// A power of two.
const WINDOW_WORDS: usize = MAX_WINDOW as usize / 8;

/// The fields of a buffer that lie close together, as read from the target.
pub(super) struct Window {
    bytes: [u64; WINDOW_WORDS],
    start: u32,
}

impl Window {
    #[inline(always)]
    pub(super) fn read(fields: u64, layout: &BufferLayout) -> Result<Self, Fault> {
        let mut window = Self { bytes: [0; WINDOW_WORDS], start: layout.window_start };
        let len = layout.window_len;
        if len > MAX_WINDOW {
            return Err(Fault);
        }
        let from = fields.wrapping_add(u64::from(window.start));
        read_into(window.bytes.as_mut_ptr().cast(), len, from)?;
        Ok(window)
    }

    #[inline(always)]
    pub(super) fn word(&self, offset: u32) -> u64 {
        // A mask, and not a comparison: the verifier loses track of comparisons. The agent refuses
        // a layout with a field outside the window.
        let index = offset.wrapping_sub(self.start) as usize / 8;
        self.bytes[index & (WINDOW_WORDS - 1)]
    }

    #[inline(always)]
    pub(super) fn half(&self, offset: u32) -> u32 {
        (self.word(offset) >> ((offset & 4) * 8)) as u32
    }

    #[inline(always)]
    fn byte(&self, offset: u32) -> u8 {
        (self.word(offset) >> ((offset & 7) * 8)) as u8
    }
}

/// Address of the object that holds a buffer's fields.
#[inline(always)]
pub(super) fn fields_of(buffer: u64, layout: &BufferLayout) -> Result<u64, Fault> {
    if layout.implementation == ABSENT {
        Ok(buffer)
    } else {
        read(buffer.wrapping_add(u64::from(layout.implementation)))
    }
}

/// The unique id and the flag that says whether there is one.
#[inline(always)]
fn unique_id(fields: u64, layout: &BufferLayout) -> Result<(u64, u32), Fault> {
    if layout.unique_id == ABSENT {
        return Ok((0, FLAG_NO_UNIQUE_ID));
    }
    Ok((read(fields.wrapping_add(u64::from(layout.unique_id)))?, 0))
}

/// How a sharded buffer spreads over cores.
#[derive(Default)]
struct Sharding {
    flags: u32,
    shard_pages: u32,
    shard_shape: u64,
    page_shape: u64,
    shard_count: u64,
    shard_cores: u64,
}

impl Sharding {
    #[inline(always)]
    fn read(fields: u64, layout: &BufferLayout) -> Result<Self, Fault> {
        let mut sharding = Self::default();
        if layout.shard_spec_present == ABSENT {
            return Ok(sharding);
        }
        let at = |offset: u32| fields.wrapping_add(u64::from(offset));
        if is_per_core(fields, layout)? {
            sharding.flags |= FLAG_PER_CORE;
            if layout.core_count != ABSENT {
                sharding.flags |= FLAG_CORE_COUNT;
                sharding.shard_cores = read(at(layout.core_count))?;
            }
        }
        if read::<u8>(at(layout.shard_spec_present))? != 0 {
            sharding.flags |= FLAG_SHARD_SPEC;
            sharding.shard_shape = read(at(layout.shard_shape))?;
            sharding.page_shape = read(at(layout.page_shape))?;
        }
        if sharding.flags & FLAG_PER_CORE == 0
            && layout.distribution_present != ABSENT
            && read::<u8>(at(layout.distribution_present))? != 0
        {
            sharding.flags |= FLAG_DISTRIBUTION_SPEC;
            let begin: u64 = read(at(layout.cores_begin))?;
            let end: u64 = read(at(layout.cores_end))?;
            sharding.shard_cores = end.wrapping_sub(begin) / CORE_BYTES;
            sharding.shard_count = read(at(layout.shard_count))?;
            sharding.shard_pages = read(at(layout.shard_pages))?;
        }
        Ok(sharding)
    }
}

/// Whether each core of a buffer has an address of its own.
#[inline(always)]
fn is_per_core(fields: u64, layout: &BufferLayout) -> Result<bool, Fault> {
    if layout.per_core == ABSENT {
        return Ok(false);
    }
    Ok(read::<u8>(fields.wrapping_add(u64::from(layout.per_core)))? != 0)
}

/// `GraphTracker::track_allocate(this, const Buffer*)`.
#[inline(always)]
pub fn on_allocate(ctx: &ProbeContext, hit: &Hit, layout: &LayoutTable) -> Option<()> {
    let buffer: u64 = ctx.arg(1)?;
    if allocate(buffer, hit, layout).is_err() {
        debug!(ctx, "buffer {:x} could not be read", buffer);
        lose(LossCause::ReadFault);
    }
    Some(())
}

#[inline(always)]
fn allocate(buffer: u64, hit: &Hit, table: &LayoutTable) -> Result<(), Fault> {
    let layout = &table.buffer;
    let fields = fields_of(buffer, layout)?;
    let window = Window::read(fields, layout)?;
    if window.byte(layout.hooked) != 0 {
        // A graph capture pretended to allocate; nothing was.
        return Ok(());
    }
    let (unique_id, mut flags) = unique_id(fields, layout)?;
    let memory_layout = window.half(layout.memory_layout);
    let sharding = if memory_layout < FIRST_SHARDED || memory_layout > layout.last_sharded {
        Sharding::default()
    } else {
        Sharding::read(fields, layout)?
    };
    flags |= sharding.flags;
    let device = window.word(layout.device);
    let allocator = window.word(layout.allocator);
    describe::if_new(device, allocator, hit, table);
    let Some(mut entry) = reserve::<AllocateRecord>() else { return Ok(()) };
    entry.write(AllocateRecord {
        header: hit.header(KIND_ALLOCATE),
        buffer,
        allocator,
        device,
        size: window.word(layout.size),
        page_size: window.word(layout.page_size),
        address: window.word(layout.address),
        unique_id,
        buffer_type: window.half(layout.buffer_type),
        memory_layout,
        flags,
        shard_pages: sharding.shard_pages,
        shard_shape: sharding.shard_shape,
        page_shape: sharding.page_shape,
        shard_count: sharding.shard_count,
        shard_cores: sharding.shard_cores,
    });
    submit(entry);
    Ok(())
}

/// `AllocatorImpl::deallocate_buffer(this, Buffer*)`.
#[inline(always)]
pub fn on_free(ctx: &ProbeContext, hit: &Hit, layout: &LayoutTable) -> Option<()> {
    let allocator = ctx.arg(0)?;
    let buffer = ctx.arg(1)?;
    let described = if control(DESCRIBE_FREES) {
        Described::read(buffer, &layout.buffer).unwrap_or_default()
    } else {
        Described::default()
    };
    let mut entry = reserve::<FreeRecord>()?;
    entry.write(FreeRecord {
        header: hit.header(KIND_FREE),
        buffer,
        allocator,
        device: described.device,
        address: described.address,
        unique_id: described.unique_id,
        buffer_type: described.buffer_type,
        flags: described.flags,
    });
    submit(entry);
    Some(())
}

/// What a free says of its buffer while the agent cannot know it.
#[derive(Default)]
struct Described {
    device: u64,
    address: u64,
    unique_id: u64,
    buffer_type: u32,
    flags: u32,
}

impl Described {
    #[inline(always)]
    fn read(buffer: u64, layout: &BufferLayout) -> Option<Self> {
        let fields = fields_of(buffer, layout).ok()?;
        let window = Window::read(fields, layout).ok()?;
        let (unique_id, mut flags) = unique_id(fields, layout).ok()?;
        if is_per_core(fields, layout).ok()? {
            flags |= FLAG_PER_CORE;
        }
        Some(Self {
            device: window.word(layout.device),
            address: window.word(layout.address),
            unique_id,
            buffer_type: window.half(layout.buffer_type),
            flags: flags | FLAG_DESCRIBED,
        })
    }
}

/// `AllocatorImpl::deallocate_buffers(this)`.
#[inline(always)]
pub fn on_bulk_free(ctx: &ProbeContext, hit: &Hit) -> Option<()> {
    let allocator: u64 = ctx.arg(0)?;
    debug!(ctx, "bulk free of allocator {:x}", allocator);
    // The device is being closed: its address may soon mean another one.
    describe::forget(allocator, hit);
    let mut entry = reserve::<BulkFreeRecord>()?;
    entry.write(BulkFreeRecord { header: hit.header(KIND_BULK_FREE), allocator });
    submit(entry);
    Some(())
}
