//! An allocator gives the start of its banks to sub-devices, or has just got it back.
//!
//! tt-metal first takes back what was given away, and then gives away what the next manager of
//! sub-devices wants, which may be nothing: so this is entered at each change, and the memory
//! shows what the pool is like before.

use aya_ebpf::programs::ProbeContext;
use ttmem_common::{
    layout::LayoutTable,
    record::{KIND_RESIZE, NO_POOL, PoolGeometry, ResizeRecord},
};

use super::describe::{NO_MEMORY, read_geometry};
use crate::{
    count::fault,
    emit::{Hit, reserve, submit},
    user_memory::read,
};

/// What the function was called with.
struct Asked {
    allocator: u64,
    size: u64,
    buffer_type: u32,
    from_start: u32,
}

/// `AllocatorImpl::shrink_allocator_size(this, const BufferType&, size, bottom up)`.
#[inline(always)]
pub fn on_resize(ctx: &ProbeContext, hit: &Hit, layout: &LayoutTable) -> Option<()> {
    let buffer_type: u64 = ctx.arg(1)?;
    let bottom_up: u64 = ctx.arg(3)?;
    let Ok(buffer_type) = read::<u32>(buffer_type) else {
        fault(hit);
        return None;
    };
    let from_start = u32::from(bottom_up & 0xff != 0);
    let asked = Asked { allocator: ctx.arg(0)?, size: ctx.arg(2)?, buffer_type, from_start };
    tell(&asked, hit, layout)
}

#[inline(never)]
fn tell(asked: &Asked, hit: &Hit, layout: &LayoutTable) -> Option<()> {
    let pool = layout.pools.get(asked.buffer_type as usize);
    let pool = pool.and_then(|pool| read_geometry(asked.allocator, pool));
    let mut entry = reserve::<ResizeRecord>()?;
    entry.write(ResizeRecord {
        header: hit.header(KIND_RESIZE),
        allocator: asked.allocator,
        size: asked.size,
        buffer_type: asked.buffer_type,
        from_start: asked.from_start,
        pool: pool.unwrap_or(PoolGeometry { banks: NO_POOL, ..NO_MEMORY }),
    });
    submit(entry, hit);
    Some(())
}
