//! Describes a device and its allocator once, before the first record that names them.
//!
//! The agent could read both from the target's memory, but only later: a program may have closed
//! the device by then, or have ended.

use aya_ebpf::programs::ProbeContext;
use aya_log_ebpf::debug;
use ttmem_common::{
    control::{DESCRIBED, FORGOTTEN},
    layout::{ABSENT, Chain, LayoutTable, PoolLayout},
    record::{
        AllocatorRecord, DeviceRecord, KIND_ALLOCATOR, KIND_DEVICE, MAX_CHIPS, NO_BASE, NO_POOL,
        PoolGeometry, REMOTE_CHIP, UNREADABLE_CHIP,
    },
};

use crate::{
    count::fault,
    emit::{Hit, add_to_described, reserve, submit},
    maps::{KNOWN, KNOWN_ENTRIES, Known},
    user_memory::{Fault, read, read_chain, read_field},
};

/// `SubDeviceManagerTracker(this, IDevice*, unique_ptr<AllocatorImpl>&&, …)`.
#[inline(always)]
pub fn on_device_open(ctx: &ProbeContext, hit: &Hit, layout: &LayoutTable) -> Option<()> {
    let device: u64 = ctx.arg(1)?;
    let owner: u64 = ctx.arg(2)?;
    match read::<u64>(owner) {
        Ok(allocator) if device != 0 && allocator != 0 => {
            debug!(ctx, "device {:x} opened with allocator {:x}", device, allocator);
            describe(device, allocator, hit, layout);
        }
        Ok(_) => {}
        Err(Fault) => fault(hit),
    }
    Some(())
}

/// Describes the pair unless that has been done; whether this hit has records now.
#[inline(always)]
pub fn if_new(device: u64, allocator: u64, hit: &Hit, layout: &LayoutTable) -> bool {
    let is_new = !is_known(device, allocator, hit);
    if is_new {
        describe(device, allocator, hit, layout);
    }
    is_new
}

/// Whether the pair had been described before this hit began: what says so is earlier than a record
/// of this hit.
#[inline(always)]
pub fn is_known(device: u64, allocator: u64, hit: &Hit) -> bool {
    let pair = pair(device, allocator, hit, hit.described);
    KNOWN.get(index(&pair)).is_some_and(|known| *known == pair) && count(hit) == hit.described
}

/// How many pairs have been described so far, and in the upper half how often all were forgotten. If it
/// is the same as before, what is known now was so then.
#[inline(always)]
fn count(hit: &Hit) -> u64 {
    hit.control(DESCRIBED)
}

/// Forgets every pair: what is still there is described once more. That is seldom, and going through
/// them all would take the verifier a fifth of its time.
#[inline(always)]
pub fn forget_all(hit: &Hit) {
    add_to_described(hit, FORGOTTEN);
}

#[inline(always)]
fn pair(device: u64, allocator: u64, hit: &Hit, described: u64) -> Known {
    let (tgid, forgotten) = (hit.tgid, (described / FORGOTTEN) as u32);
    Known { device, allocator, tgid, forgotten }
}

#[inline(always)]
fn index(pair: &Known) -> u32 {
    let tgid = u64::from(pair.tgid);
    let mixed = (pair.device ^ pair.allocator.rotate_left(17) ^ tgid.rotate_left(40))
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as u32 & (KNOWN_ENTRIES - 1)
}

/// Emits both records; remembers the pair only if both could be delivered.
#[inline(never)]
fn describe(device: u64, allocator: u64, hit: &Hit, layout: &LayoutTable) {
    // What is forgotten meanwhile has been described too soon.
    let before = count(hit);
    let described = describe_device(device, hit, layout).is_some()
        && describe_allocator(device, allocator, hit, layout).is_some();
    if !described {
        return;
    }
    add_to_described(hit, 1);
    let pair = pair(device, allocator, hit, before);
    if let Some(known) = KNOWN.get_ptr_mut(index(&pair)) {
        // SAFETY: a live element of an array map. A torn write by two CPUs matches no pair, and
        // only costs one more description.
        unsafe { *known = pair };
    }
}

/// `None` if the record could not be delivered.
#[inline(always)]
fn describe_device(device: u64, hit: &Hit, layout: &LayoutTable) -> Option<()> {
    let ids = &layout.device;
    let vptr: u64 = counted(hit, read(device))?;
    let mut entry = reserve::<DeviceRecord>()?;
    let record = entry.as_mut_ptr();
    // SAFETY: `record` is room for a `DeviceRecord`; every field is written before the submit.
    unsafe {
        (*record).header = hit.header(KIND_DEVICE);
        (*record).device = device;
        (*record).is_mesh = 0;
        (*record).mesh_id = 0;
        (*record).chip_count = 0;
        (*record).reserved = 0;
    }
    let filled = if vptr == ids.mesh_vptr {
        mesh_chips(device, layout, record)
    } else if vptr == ids.device_vptr {
        single_chip(device, &ids.chip_id, record)
    } else {
        // Neither: no chips. The agent says that it does not know this device.
        Ok(())
    };
    if filled.is_err() {
        entry.discard(0);
        fault(hit);
        return None;
    }
    submit(entry, hit);
    Some(())
}

#[inline(always)]
fn single_chip(device: u64, chip_id: &Chain, record: *mut DeviceRecord) -> Result<(), Fault> {
    let id = read_chain(device, chip_id)? as i32;
    // SAFETY: as in `describe_device`.
    unsafe {
        (*record).chips[0] = id;
        (*record).chip_count = 1;
    }
    Ok(())
}

#[inline(always)]
fn mesh_chips(mesh: u64, layout: &LayoutTable, record: *mut DeviceRecord) -> Result<(), Fault> {
    let ids = &layout.device;
    let mesh_id = read_chain(mesh, &ids.mesh_id)? as i32;
    let begin = read_chain(mesh, &ids.mesh_devices_begin)?;
    let end = read_chain(mesh, &ids.mesh_devices_end)?;
    let stride = u64::from(ids.mesh_devices_stride);
    let count = if stride == 0 { 0 } else { end.wrapping_sub(begin) / stride };
    // A chip's id is a plain field: the agent refuses a library in which it is not.
    let id_offset = u64::from(ids.chip_id.offsets[0]);
    // One path through the loop, whatever it finds: else the verifier would have to follow all
    // combinations of what 128 elements could hold.
    let mut element = begin;
    for index in 0..MAX_CHIPS {
        if index as u64 >= count {
            break;
        }
        let id = chip_of(element, ids.mesh_devices_local, id_offset);
        // SAFETY: as in `describe_device`; `index` is in bounds.
        unsafe { (*record).chips[index] = id };
        element = element.wrapping_add(stride);
    }
    // SAFETY: as in `describe_device`.
    unsafe {
        (*record).is_mesh = 1;
        (*record).mesh_id = mesh_id;
        (*record).chip_count = if count > MAX_CHIPS as u64 { u32::MAX } else { count as u32 };
    }
    Ok(())
}

/// The chip of an element of a mesh's vector.
#[inline(never)]
fn chip_of(element: u64, local_flag: u32, id_offset: u64) -> i32 {
    if local_flag != ABSENT {
        match read::<u8>(element.wrapping_add(u64::from(local_flag))) {
            Ok(1) => {}
            Ok(_) => return REMOTE_CHIP,
            Err(Fault) => return UNREADABLE_CHIP,
        }
    }
    let Ok(chip) = read::<u64>(element) else { return UNREADABLE_CHIP };
    read::<i32>(chip.wrapping_add(id_offset)).unwrap_or(UNREADABLE_CHIP)
}

/// `None` if the record could not be delivered.
#[inline(always)]
fn describe_allocator(device: u64, allocator: u64, hit: &Hit, layout: &LayoutTable) -> Option<()> {
    let mut entry = reserve::<AllocatorRecord>()?;
    let record = entry.as_mut_ptr();
    // SAFETY: `record` is room for an `AllocatorRecord`; every field is written before the submit.
    unsafe {
        (*record).header = hit.header(KIND_ALLOCATOR);
        (*record).allocator = allocator;
        (*record).device = device;
    }
    for (index, pool) in layout.pools.iter().enumerate() {
        let geometry = read_geometry(allocator, pool);
        // SAFETY: as above; both arrays have the same length.
        unsafe {
            (*record).pools[index] =
                geometry.unwrap_or(PoolGeometry { banks: NO_POOL, ..NO_MEMORY });
        }
    }
    submit(entry, hit);
    Some(())
}

/// A pool that is there but empty.
pub(super) const NO_MEMORY: PoolGeometry = PoolGeometry {
    bank_size: 0,
    banks: 0,
    alignment: 0,
    block_minimum: 0,
    block_unit: 0,
    base: NO_BASE,
};

/// `None`: this allocator has no such pool.
#[inline(always)]
pub(super) fn read_geometry(allocator: u64, pool: &PoolLayout) -> Option<PoolGeometry> {
    let banks = read_chain(allocator, &pool.banks).ok()? as u32;
    if banks == 0 {
        // Such a pool has no free list, and so no size.
        return Some(NO_MEMORY);
    }
    let (bank_size, owner) = read_field(allocator, &pool.bank_size).ok()?;
    Some(PoolGeometry {
        bank_size,
        banks,
        alignment: read_alignment(allocator, pool).ok()?,
        block_minimum: read_chain(allocator, &pool.block_minimum).unwrap_or(0) as u32,
        block_unit: read_chain(allocator, &pool.block_unit).unwrap_or(0) as u32,
        base: read_base(owner, pool).unwrap_or(NO_BASE),
    })
}

/// Both are powers of two: rounded up to one and then to the other is rounded up to the larger.
#[inline(always)]
fn read_alignment(allocator: u64, pool: &PoolLayout) -> Result<u32, Fault> {
    let own = read_chain(allocator, &pool.alignment)? as u32;
    if !pool.manager_alignment.exists() {
        return Ok(own);
    }
    let manager = read_chain(allocator, &pool.manager_alignment)? as u32;
    Ok(if manager > own { manager } else { own })
}

/// The first byte of a bank that can be allocated.
#[inline(always)]
fn read_base(owner: u64, pool: &PoolLayout) -> Result<u64, Fault> {
    if pool.base == ABSENT || pool.shrunk == ABSENT {
        return Err(Fault);
    }
    let base: u64 = read(owner.wrapping_add(u64::from(pool.base)))?;
    Ok(base.wrapping_add(read(owner.wrapping_add(u64::from(pool.shrunk)))?))
}

/// Counts a fault.
#[inline(always)]
fn counted<T>(hit: &Hit, read: Result<T, Fault>) -> Option<T> {
    if read.is_err() {
        fault(hit);
    }
    read.ok()
}
