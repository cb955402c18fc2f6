//! Single objects: a buffer, a device, an allocator's pools. The same reading that the eBPF side
//! does in the kernel, and the same decoder for what was read.

use ttmem_common::{
    layout::{
        ABSENT, BUFFER_TYPES, BufferLayout, CORE_BYTES, Chain, FIRST_SHARDED, MAX_WINDOW,
        PoolLayout,
    },
    record::{
        FLAG_CORE_COUNT, FLAG_DISTRIBUTION_SPEC, FLAG_NO_UNIQUE_ID, FLAG_PER_CORE, FLAG_SHARD_SPEC,
        MAX_CHIPS, NO_BASE, PoolGeometry, ShardedRecord,
    },
};
use zerocopy::FromZeros as _;

use super::Walk;
use crate::{
    event::{BaselineBuffer, DeviceSeen, Geometry, geometry, sharded_shape},
    target::memory::{TargetMemory, Unreadable},
    units::{Avma, ChipId, MeshId},
};

/// Allocation status of a live buffer.
const ALLOCATED: u8 = 1;

/// The fields of a buffer that lie close together: one read, not one for each.
struct Window {
    bytes: [u8; MAX_WINDOW as usize],
    start: u32,
    len: u32,
}

impl Window {
    fn read(
        memory: &dyn TargetMemory,
        fields: Avma,
        layout: &BufferLayout,
    ) -> Result<Self, Unreadable> {
        let at = fields.plus(u64::from(layout.window_start));
        let mut window = Self {
            bytes: [0; MAX_WINDOW as usize],
            start: layout.window_start,
            len: layout.window_len,
        };
        let bytes = window.bytes.get_mut(..layout.window_len as usize).ok_or(Unreadable(at))?;
        memory.read(at, bytes)?;
        Ok(window)
    }

    fn get<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let from = offset.checked_sub(self.start)? as usize;
        let read = self.bytes.get(..self.len as usize)?;
        read.get(from..from + N)?.try_into().ok()
    }

    fn byte(&self, offset: u32) -> Option<u8> {
        self.get(offset).map(u8::from_le_bytes)
    }

    fn half(&self, offset: u32) -> Option<u32> {
        self.get(offset).map(u32::from_le_bytes)
    }

    fn word(&self, offset: u32) -> Option<u64> {
        self.get(offset).map(u64::from_le_bytes)
    }
}

impl Walk<'_> {
    /// A live buffer of an allocator; `None` if there is none at that address.
    pub(super) fn read_buffer(&self, allocator: Avma, buffer: Avma) -> Option<BaselineBuffer> {
        let record = self.buffer_record(buffer).ok()??;
        if record.buffer.allocator != allocator.0 {
            return None;
        }
        Some(BaselineBuffer {
            buffer,
            allocator,
            device: Avma(record.buffer.device),
            shape: sharded_shape(&record).ok()?,
            block_bytes: None,
        })
    }

    /// What the eBPF side would say of the buffer; `None` if it is not allocated.
    fn buffer_record(&self, buffer: Avma) -> Result<Option<ShardedRecord>, Unreadable> {
        let layout = &self.layout.buffer;
        let fields = if layout.implementation == ABSENT {
            buffer
        } else {
            self.memory.pointer(buffer.plus(u64::from(layout.implementation)))?
        };
        let at = |offset: u32| fields.plus(u64::from(offset));
        let window = Window::read(self.memory, fields, layout)?;
        if window.byte(layout.status) != Some(ALLOCATED) || window.byte(layout.hooked) != Some(0) {
            return Ok(None);
        }
        let mut found = ShardedRecord::new_zeroed();
        let record = &mut found.buffer;
        let word = |offset| window.word(offset).ok_or(Unreadable(at(offset)));
        record.allocator = word(layout.allocator)?;
        record.device = word(layout.device)?;
        record.size = word(layout.size)?;
        record.page_size = word(layout.page_size)?;
        record.address = word(layout.address)?;
        let half = |offset| window.half(offset).ok_or(Unreadable(at(offset)));
        record.buffer_type = half(layout.buffer_type)?;
        record.memory_layout = half(layout.memory_layout)?;
        if layout.unique_id == ABSENT {
            record.flags |= FLAG_NO_UNIQUE_ID;
        } else {
            record.unique_id = self.memory.word(at(layout.unique_id))?;
        }
        if (FIRST_SHARDED..=layout.last_sharded).contains(&record.memory_layout) {
            self.read_sharding(fields, &mut found)?;
        }
        Ok(Some(found))
    }

    fn read_sharding(&self, fields: Avma, found: &mut ShardedRecord) -> Result<(), Unreadable> {
        let layout = &self.layout.buffer;
        let (record, sharding) = (&mut found.buffer, &mut found.sharding);
        let at = |offset: u32| fields.plus(u64::from(offset));
        if layout.shard_spec_present == ABSENT {
            return Ok(());
        }
        if layout.per_core != ABSENT && self.memory.byte(at(layout.per_core))? != 0 {
            record.flags |= FLAG_PER_CORE;
            if layout.core_count != ABSENT {
                record.flags |= FLAG_CORE_COUNT;
                sharding.shard_cores = self.memory.word(at(layout.core_count))?;
            }
        }
        if self.memory.byte(at(layout.shard_spec_present))? != 0 {
            record.flags |= FLAG_SHARD_SPEC;
            sharding.shard_shape = self.memory.word(at(layout.shard_shape))?;
            sharding.page_shape = self.memory.word(at(layout.page_shape))?;
        }
        if record.flags & FLAG_PER_CORE == 0
            && layout.distribution_present != ABSENT
            && self.memory.byte(at(layout.distribution_present))? != 0
        {
            record.flags |= FLAG_DISTRIBUTION_SPEC;
            let begin = self.memory.word(at(layout.cores_begin))?;
            let end = self.memory.word(at(layout.cores_end))?;
            sharding.shard_cores = end.wrapping_sub(begin) / CORE_BYTES;
            sharding.shard_count = self.memory.word(at(layout.shard_count))?;
            sharding.shard_pages = u64::from(self.memory.half(at(layout.shard_pages))?);
        }
        Ok(())
    }

    /// What pools an allocator has.
    pub(super) fn pools_of(&self, allocator: Avma) -> [Option<Geometry>; BUFFER_TYPES] {
        self.layout.pools.map(|pool| {
            let number = |chain| self.memory.chain(allocator, chain).ok();
            let banks = u32::try_from(number(&pool.banks)?).ok()?;
            if banks == 0 {
                // Such a pool has no free list, and so no size.
                return geometry(&PoolGeometry { base: NO_BASE, ..PoolGeometry::default() });
            }
            geometry(&PoolGeometry {
                bank_size: number(&pool.bank_size)?,
                banks,
                alignment: u32::try_from(self.alignment_of(allocator, &pool)?).ok()?,
                block_minimum: small(number(&pool.block_minimum)),
                block_unit: small(number(&pool.block_unit)),
                base: self.base_of(allocator, &pool).unwrap_or(NO_BASE),
            })
        })
    }

    /// What pages are rounded up to, by the buffer and then by the pool's manager.
    fn alignment_of(&self, allocator: Avma, pool: &PoolLayout) -> Option<u64> {
        let own = self.memory.chain(allocator, &pool.alignment).ok()?;
        if !pool.manager_alignment.exists() {
            return Some(own);
        }
        Some(own.max(self.memory.chain(allocator, &pool.manager_alignment).ok()?))
    }

    /// The first byte of a bank that can be allocated.
    fn base_of(&self, allocator: Avma, pool: &PoolLayout) -> Option<u64> {
        let beside = |offset: u32| {
            let owner = pool.bank_size.steps().split_last().filter(|_| offset != ABSENT)?.1;
            let chain = Chain::new(&[owner, &[offset]].concat(), 8)?;
            self.memory.chain(allocator, &chain).ok()
        };
        Some(beside(pool.base)?.wrapping_add(beside(pool.shrunk)?))
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

#[cfg(test)]
mod tests;
