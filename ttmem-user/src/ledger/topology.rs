//! Which chips a device stands for, and what pools its allocator has.
//!
//! Host addresses name devices and allocators only while those live: a closed device's address
//! may be reused. So each description makes a new entry, and live buffers refer to entries.

use std::sync::Arc;

use ttmem_common::layout::BUFFER_TYPES;

use super::by_address::ByAddress;
use crate::{
    event::{AllocatorSeen, BufferType, DeviceSeen, Geometry},
    units::{Avma, ChipId, MeshId},
};

/// A device or mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The mesh, unless it is a single device.
    pub mesh: Option<MeshId>,
    /// Places of its chips in [`Topology::chips`].
    pub chips: Vec<usize>,
    /// The chips themselves, in the same order.
    pub chip_ids: Arc<[ChipId]>,
}

/// An allocator.
#[derive(Clone, Debug)]
struct Allocator {
    address: Avma,
    /// When it was first seen, or first seen again after it was closed.
    opened: u64,
    device: usize,
    pools: [Option<Geometry>; BUFFER_TYPES],
    /// Its buffers have been freed in bulk and it has not been seen since: most likely closed.
    closed: bool,
    /// It was only found as a single device's own, and no event has told of it since: nobody uses
    /// it if its chip is part of a mesh.
    spare: bool,
}

/// An allocator that is open, or the last that was on its chips.
#[derive(Clone, Copy, Debug)]
pub struct OpenAllocator<'a> {
    /// Its number.
    pub id: u32,
    /// `AllocatorImpl*`.
    pub address: Avma,
    /// Its device or mesh.
    pub device: &'a Device,
    /// By buffer type.
    pub pools: &'a [Option<Geometry>; BUFFER_TYPES],
    /// Its buffers have been freed in bulk and it has not been seen since: most likely closed.
    pub closed: bool,
}

/// What is known of the target's devices.
#[derive(Debug, Default)]
pub struct Topology {
    chips: Vec<ChipId>,
    /// What each chip's pools measure, by place in `chips`.
    capacities: Vec<[Option<Geometry>; BUFFER_TYPES]>,
    devices: Vec<Device>,
    allocators: Vec<Allocator>,
    /// Counts when allocators were opened.
    openings: u64,
    device_at: ByAddress<usize>,
    allocator_at: ByAddress<usize>,
}

impl Topology {
    /// The chips seen, in the order in which they were seen.
    pub fn chips(&self) -> &[ChipId] {
        &self.chips
    }

    /// The device of an entry.
    #[inline]
    pub fn device(&self, entry: usize) -> Option<&Device> {
        self.devices.get(entry)
    }

    /// The entry of the device that lives at an address now.
    #[inline]
    pub fn device_at(&self, address: Avma) -> Option<usize> {
        self.device_at.get(address).copied()
    }

    /// The pool of the allocator that lives at an address now.
    #[inline]
    pub fn geometry(&self, allocator: Avma, buffer_type: BufferType) -> Option<&Geometry> {
        let entry = *self.allocator_at.get(allocator)?;
        self.allocators[entry].pools[buffer_type.index()].as_ref()
    }

    /// The allocators that are open, and of those that are closed or idle the last on their
    /// chips, in the order of their numbers.
    pub fn open_allocators(&self) -> Vec<OpenAllocator<'_>> {
        let chips = |allocator: &Allocator| &self.devices[allocator.device].chips;
        let is_past = |it: &Allocator| {
            let newer = |other: &Allocator| other.opened > it.opened;
            let shares = |other| chips(it).iter().any(|chip| chips(other).contains(chip));
            it.closed && self.allocators.iter().any(|other| newer(other) && shares(other))
        };
        let shown = self.allocators.iter().filter(|it| !is_past(it) && !self.is_left_to_a_mesh(it));
        let number = |allocator: &Allocator| {
            u32::try_from(self.allocator_at.get(allocator.address).copied().unwrap_or(0))
        };
        let mut shown: Vec<OpenAllocator<'_>> = shown
            .map(|allocator| OpenAllocator {
                id: number(allocator).unwrap_or(u32::MAX),
                address: allocator.address,
                device: &self.devices[allocator.device],
                pools: &allocator.pools,
                closed: allocator.closed,
            })
            .collect();
        shown.sort_unstable_by_key(|allocator| allocator.id);
        shown
    }

    /// Whether an allocator at this address has been described.
    pub fn knows_allocator(&self, allocator: Avma) -> bool {
        self.allocator_at.get(allocator).is_some()
    }

    /// What a chip's pool measures, by the chip's place.
    pub fn capacity(&self, chip: usize, buffer_type: BufferType) -> Option<Geometry> {
        self.capacities.get(chip)?[buffer_type.index()]
    }

    /// Takes a description of a device in.
    pub fn learn_device(&mut self, seen: &DeviceSeen) {
        let chips: Vec<usize> = seen.chips.iter().map(|&chip| self.place_of(chip)).collect();
        let chip_ids = seen.chips.as_slice().into();
        let device = Device { mesh: seen.mesh, chips, chip_ids };
        let known = self.device_at(seen.device).and_then(|entry| self.devices.get(entry));
        if known != Some(&device) {
            self.devices.push(device);
            self.device_at.insert(seen.device, self.devices.len() - 1);
        }
    }

    /// Takes a description of an allocator in; its device must be known.
    pub fn learn_allocator(&mut self, seen: &AllocatorSeen) {
        let Some(device) = self.device_at(seen.device) else { return };
        let known = self.allocator_at.get(seen.allocator).copied();
        let still_open = known.map(|entry| &self.allocators[entry]).filter(|known| !known.closed);
        let opened = still_open.map_or(self.openings + 1, |known| known.opened);
        self.openings = self.openings.max(opened);
        let (address, pools) = (seen.allocator, seen.pools);
        let allocator = Allocator { address, opened, device, pools, closed: false, spare: false };
        if let Some(entry) = known {
            self.allocators[entry] = allocator;
        } else {
            self.allocators.push(allocator);
            self.allocator_at.insert(seen.allocator, self.allocators.len() - 1);
        }
        self.measure_chips(device);
    }

    /// A pool of an allocator has become larger or smaller; the allocator's pools, if it is known.
    pub fn resize(
        &mut self,
        allocator: Avma,
        buffer_type: BufferType,
        geometry: Geometry,
    ) -> Option<[Option<Geometry>; BUFFER_TYPES]> {
        let entry = *self.allocator_at.get(allocator)?;
        let known = &mut self.allocators[entry];
        known.pools[buffer_type.index()] = Some(geometry);
        let (device, pools) = (known.device, known.pools);
        self.measure_chips(device);
        Some(pools)
    }

    /// The buffers of an allocator have been freed in bulk.
    pub fn close_allocator(&mut self, allocator: Avma) {
        if let Some(&entry) = self.allocator_at.get(allocator) {
            self.allocators[entry].closed = true;
            self.measure_chips(self.allocators[entry].device);
        }
    }

    /// An allocator was found only as a single device's own, without buffers.
    pub fn make_spare(&mut self, allocator: Avma) {
        if let Some(&entry) = self.allocator_at.get(allocator) {
            self.allocators[entry].spare = true;
            self.measure_chips(self.allocators[entry].device);
        }
    }

    /// Whether a mesh hands out the memory that this one could.
    fn is_left_to_a_mesh(&self, allocator: &Allocator) -> bool {
        let chips = |allocator: &Allocator| &self.devices[allocator.device].chips;
        let in_a_mesh = |other: &Allocator| {
            self.devices[other.device].mesh.is_some()
                && chips(allocator).iter().any(|chip| chips(other).contains(chip))
        };
        allocator.spare && self.allocators.iter().any(in_a_mesh)
    }

    fn place_of(&mut self, chip: ChipId) -> usize {
        self.chips.iter().position(|&known| known == chip).unwrap_or_else(|| {
            self.chips.push(chip);
            self.capacities.push([None; BUFFER_TYPES]);
            self.chips.len() - 1
        })
    }

    /// A chip's pool is as large as the largest that an open allocator has on it: sub-devices and
    /// submeshes hand out parts of the same memory. While none is open the last figure stays.
    fn measure_chips(&mut self, device: usize) {
        for chip in self.devices[device].chips.clone() {
            for buffer_type in 0..BUFFER_TYPES {
                let largest = self
                    .allocators
                    .iter()
                    .filter(|allocator| !allocator.closed && !self.is_left_to_a_mesh(allocator))
                    .filter(|allocator| self.devices[allocator.device].chips.contains(&chip))
                    .filter_map(|allocator| allocator.pools[buffer_type])
                    .max_by_key(Geometry::capacity);
                if largest.is_some() {
                    self.capacities[chip][buffer_type] = largest;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(address: u64, mesh: Option<i32>, chips: &[i32]) -> DeviceSeen {
        DeviceSeen {
            device: Avma(address),
            mesh: mesh.map(MeshId),
            chips: chips.iter().copied().map(ChipId).collect(),
        }
    }

    fn allocator(address: u64, device: u64, bank_size: u64) -> AllocatorSeen {
        let mut pools = [None; BUFFER_TYPES];
        pools[0] = Some(Geometry {
            bank_size,
            banks: 12,
            alignment: 32,
            block_minimum: 32,
            block_unit: 32,
            base: None,
        });
        AllocatorSeen { allocator: Avma(address), device: Avma(device), pools }
    }

    fn dram(topology: &Topology, chip: usize) -> Option<u64> {
        topology.capacity(chip, BufferType::Dram).map(|geometry| geometry.bank_size)
    }

    #[test]
    fn an_address_reused_by_another_device_keeps_the_old_entry() {
        let mut topology = Topology::default();
        topology.learn_device(&device(1, Some(0), &[0, 1]));
        let old = topology.device_at(Avma(1)).unwrap();
        topology.learn_device(&device(1, Some(1), &[1]));
        let new = topology.device_at(Avma(1)).unwrap();
        assert_ne!(old, new);
        assert_eq!(topology.device(old).unwrap().chips.len(), 2);
        topology.learn_device(&device(1, Some(1), &[1]));
        assert_eq!(topology.device_at(Avma(1)), Some(new), "the same again makes no new entry");
    }

    #[test]
    fn a_part_of_the_memory_does_not_shrink_the_pool() {
        let mut topology = Topology::default();
        topology.learn_device(&device(1, Some(0), &[0]));
        topology.learn_allocator(&allocator(10, 1, 1000));
        topology.learn_allocator(&allocator(11, 1, 100));
        assert_eq!(dram(&topology, 0), Some(1000));
    }

    #[test]
    fn a_closed_device_gives_way_to_the_next() {
        let mut topology = Topology::default();
        topology.learn_device(&device(1, Some(0), &[0]));
        topology.learn_allocator(&allocator(10, 1, 1000));
        topology.close_allocator(Avma(10));
        assert_eq!(dram(&topology, 0), Some(1000), "the last figure stays");
        topology.learn_device(&device(2, Some(1), &[0]));
        topology.learn_allocator(&allocator(12, 2, 900));
        assert_eq!(dram(&topology, 0), Some(900));
    }

    #[test]
    fn a_closed_allocator_is_shown_until_another_takes_its_chips() {
        let mut topology = Topology::default();
        let shown = |topology: &Topology| -> Vec<(u64, bool)> {
            let open = topology.open_allocators();
            open.iter().map(|allocator| (allocator.address.0, allocator.closed)).collect()
        };
        topology.learn_device(&device(1, Some(0), &[0, 1]));
        topology.learn_device(&device(2, Some(1), &[1]));
        topology.learn_allocator(&allocator(10, 1, 1000));
        topology.learn_allocator(&allocator(11, 2, 100));
        topology.close_allocator(Avma(11));
        assert_eq!(shown(&topology), [(10, false), (11, true)], "it may only be idle");
        topology.learn_allocator(&allocator(10, 1, 1000));
        assert_eq!(shown(&topology), [(10, false), (11, true)], "the older one is not newer");
        topology.close_allocator(Avma(10));
        assert_eq!(shown(&topology), [(11, true)]);
        topology.learn_allocator(&allocator(12, 2, 100));
        assert_eq!(shown(&topology), [(12, false)]);
        topology.learn_allocator(&allocator(10, 1, 1000));
        assert_eq!(shown(&topology), [(10, false), (12, false)], "seen again");
    }

    #[test]
    fn a_chips_own_allocator_is_left_out_once_a_mesh_has_the_chip() {
        let mut topology = Topology::default();
        let shown = |topology: &Topology| -> Vec<u64> {
            topology.open_allocators().iter().map(|allocator| allocator.address.0).collect()
        };
        topology.learn_device(&device(1, None, &[0]));
        topology.learn_allocator(&allocator(10, 1, 1000));
        topology.make_spare(Avma(10));
        assert_eq!(shown(&topology), [10], "it may be all there is");
        topology.learn_device(&device(2, Some(0), &[0, 1]));
        topology.learn_allocator(&allocator(11, 2, 900));
        assert_eq!(shown(&topology), [11]);
        assert_eq!(dram(&topology, 0), Some(900));
        topology.learn_allocator(&allocator(10, 1, 1000));
        assert_eq!(shown(&topology), [10, 11], "an event of it says that it is used");
    }

    #[test]
    fn an_allocator_of_an_unknown_device_is_left_out() {
        let mut topology = Topology::default();
        topology.learn_allocator(&allocator(10, 1, 1000));
        assert_eq!(topology.geometry(Avma(10), BufferType::Dram), None);
    }
}
