//! Single objects: a buffer, a device, an allocator's pools. The same reading that the eBPF side
//! does in the kernel, and the same decoder for what was read.

use ttmem_common::{
    layout::{ABSENT, BUFFER_TYPES},
    record::{
        AllocateRecord, FLAG_DISTRIBUTION_SPEC, FLAG_NO_UNIQUE_ID, FLAG_SHARD_SPEC, MAX_CHIPS,
        PoolGeometry,
    },
};
use zerocopy::FromZeros as _;

use super::Walk;
use crate::{
    event::{BaselineBuffer, DeviceSeen, Geometry, geometry, shape},
    target::memory::Unreadable,
    units::{Avma, ChipId, MeshId},
};

/// Allocation status of a live buffer.
const ALLOCATED: u8 = 1;
/// Size of one core coordinate.
const CORE_BYTES: u64 = 16;

impl Walk<'_> {
    /// A live buffer of an allocator; `None` if there is none at that address.
    pub(super) fn read_buffer(&self, allocator: Avma, buffer: Avma) -> Option<BaselineBuffer> {
        let record = self.buffer_record(buffer).ok()??;
        if record.allocator != allocator.0 {
            return None;
        }
        Some(BaselineBuffer {
            buffer,
            allocator,
            device: Avma(record.device),
            shape: shape(&record).ok()?,
            block_bytes: None,
        })
    }

    /// What the eBPF side would say of the buffer; `None` if it is not allocated.
    fn buffer_record(&self, buffer: Avma) -> Result<Option<AllocateRecord>, Unreadable> {
        let layout = &self.layout.buffer;
        let fields = if layout.implementation == ABSENT {
            buffer
        } else {
            self.memory.pointer(buffer.plus(u64::from(layout.implementation)))?
        };
        let at = |offset: u32| fields.plus(u64::from(offset));
        if self.memory.byte(at(layout.status))? != ALLOCATED
            || self.memory.byte(at(layout.hooked))? != 0
        {
            return Ok(None);
        }
        let mut record = AllocateRecord::new_zeroed();
        record.allocator = self.memory.word(at(layout.allocator))?;
        record.device = self.memory.word(at(layout.device))?;
        record.size = self.memory.word(at(layout.size))?;
        record.page_size = self.memory.word(at(layout.page_size))?;
        record.address = self.memory.word(at(layout.address))?;
        record.buffer_type = self.memory.half(at(layout.buffer_type))?;
        record.memory_layout = self.memory.half(at(layout.memory_layout))?;
        if layout.unique_id == ABSENT {
            record.flags |= FLAG_NO_UNIQUE_ID;
        } else {
            record.unique_id = self.memory.word(at(layout.unique_id))?;
        }
        if layout.shard_spec_present == ABSENT || layout.distribution_present == ABSENT {
            return Ok(Some(record));
        }
        if self.memory.byte(at(layout.shard_spec_present))? != 0 {
            record.flags |= FLAG_SHARD_SPEC;
            record.shard_shape = self.memory.word(at(layout.shard_shape))?;
            record.page_shape = self.memory.word(at(layout.page_shape))?;
        }
        if self.memory.byte(at(layout.distribution_present))? != 0 {
            record.flags |= FLAG_DISTRIBUTION_SPEC;
            let begin = self.memory.word(at(layout.cores_begin))?;
            let end = self.memory.word(at(layout.cores_end))?;
            record.shard_cores = end.wrapping_sub(begin) / CORE_BYTES;
            record.shard_count = self.memory.word(at(layout.shard_count))?;
            record.shard_pages = self.memory.half(at(layout.shard_pages))?;
        }
        Ok(Some(record))
    }

    /// What pools an allocator has.
    pub(super) fn pools_of(&self, allocator: Avma) -> [Option<Geometry>; BUFFER_TYPES] {
        self.layout.pools.map(|pool| {
            let number = |chain| self.memory.chain(allocator, chain).ok();
            let banks = u32::try_from(number(&pool.banks)?).ok()?;
            if banks == 0 {
                // Such a pool has no free list, and so no size.
                return geometry(&PoolGeometry::default());
            }
            geometry(&PoolGeometry {
                bank_size: number(&pool.bank_size)?,
                banks,
                alignment: u32::try_from(number(&pool.alignment)?).ok()?,
                block_minimum: small(number(&pool.block_minimum)),
                block_unit: small(number(&pool.block_unit)),
            })
        })
    }

    /// Which chips a device stands for; `None` if that cannot be read.
    pub(super) fn describe_device(&self, device: Avma) -> Option<DeviceSeen> {
        let layout = &self.layout.device;
        let vptr = self.memory.word(device).ok()?;
        if vptr == layout.mesh_vptr {
            let mesh = self.memory.chain(device, &layout.mesh_id).ok()?;
            let chips = self.mesh_chips(device).ok()??;
            return Some(DeviceSeen { device, mesh: Some(MeshId(signed(mesh))), chips });
        }
        if vptr != layout.device_vptr {
            return None;
        }
        let chip = self.memory.chain(device, &layout.chip_id).ok()?;
        Some(DeviceSeen { device, mesh: None, chips: vec![ChipId(signed(chip))] })
    }

    fn mesh_chips(&self, mesh: Avma) -> Result<Option<Vec<ChipId>>, Unreadable> {
        let layout = &self.layout.device;
        let begin = self.memory.chain(mesh, &layout.mesh_devices_begin)?;
        let end = self.memory.chain(mesh, &layout.mesh_devices_end)?;
        let stride = u64::from(layout.mesh_devices_stride);
        let count = end.checked_sub(begin).and_then(|bytes| bytes.checked_div(stride));
        let Some(count) = count.filter(|count| *count <= MAX_CHIPS as u64) else { return Ok(None) };
        let mut chips = Vec::new();
        for index in 0..count {
            let element = Avma(begin).plus(index * stride);
            let flag = layout.mesh_devices_local;
            if flag != ABSENT && self.memory.byte(element.plus(u64::from(flag)))? != 1 {
                continue;
            }
            let chip = self.memory.pointer(element)?;
            chips.push(ChipId(signed(self.memory.chain(chip, &layout.chip_id)?)));
        }
        Ok(Some(chips))
    }
}

/// 0 for what is not known, or too large to be.
fn small(number: Option<u64>) -> u32 {
    number.and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
}

/// The 32-bit id in a word.
fn signed(word: u64) -> i32 {
    ((word & 0xffff_ffff) as u32).cast_signed()
}
