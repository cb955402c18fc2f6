//! Which chips a device stands for, and what pools its allocator has.
//!
//! Host addresses name devices and allocators only while those live: a closed device's address
//! may be reused. So each description makes a new entry, and live buffers refer to entries.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use ttmem_common::layout::BUFFER_TYPES;

use super::by_address::ByAddress;
use crate::{
    event::{AllocatorSeen, BufferType, DeviceSeen, Geometry},
    units::{Avma, ChipId, MeshId},
};

/// Fewer devices or allocators than this are not many.
const CROWD: usize = 64;

/// Entries of devices.
type Places = HashSet<usize, RandomState>;

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
    id: u32,
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
    place_of: HashMap<ChipId, usize, RandomState>,
    /// What each chip's pools measure, by place in `chips`.
    capacities: Vec<[Option<Geometry>; BUFFER_TYPES]>,
    devices: Vec<Device>,
    /// Entries that nothing refers to.
    vacant: Vec<usize>,
    allocators: Vec<Allocator>,
    /// Allocators that were ever described.
    described: u32,
    /// So many devices or allocators are many.
    crowd: usize,
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
        let (newest, meshed) = (self.newest(), self.meshed());
        let is_past = |it: &Allocator| {
            it.closed && self.chips_of(it).iter().any(|&chip| newest[chip] > it.opened)
        };
        let shown = self.allocators.iter();
        let shown = shown.filter(|it| !is_past(it) && !self.is_left_to_a_mesh(it, &meshed));
        let mut shown: Vec<OpenAllocator<'_>> = shown
            .map(|allocator| OpenAllocator {
                id: allocator.id,
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
            let entry = self.vacant.pop().unwrap_or(self.devices.len());
            if let Some(vacant) = self.devices.get_mut(entry) {
                *vacant = device;
            } else {
                self.devices.push(device);
            }
            self.device_at.insert(seen.device, entry);
        }
    }

    /// Devices whose entry something refers to.
    pub fn device_count(&self) -> usize {
        self.devices.len() - self.vacant.len()
    }

    /// Allocators, the closed ones that have not been forgotten included.
    pub fn allocator_count(&self) -> usize {
        self.allocators.len()
    }

    /// Whether an allocator is known, and not closed.
    pub fn is_open(&self, allocator: Avma) -> bool {
        let entry = self.allocator_at.get(allocator);
        entry.is_some_and(|&entry| !self.allocators[entry].closed)
    }

    /// Whether there are so many devices or allocators that it pays to look which are closed.
    pub fn is_crowded(&self) -> bool {
        self.device_count().max(self.allocators.len()) >= self.crowd.max(CROWD)
    }

    /// Forgets the allocators that are closed and not the last on their chips, and their devices, but
    /// for those that are in use; the allocators. If they are not closed after all, they will be
    /// described once more: after each bulk free all are.
    pub fn prune(
        &mut self,
        is_device_used: impl Fn(usize) -> bool,
        is_allocator_used: impl Fn(Avma) -> bool,
    ) -> Vec<Avma> {
        let newest = self.newest();
        let stays = |it: &Allocator| {
            let is_last = self.chips_of(it).iter().any(|&chip| newest[chip] == it.opened);
            !it.closed || is_last || is_allocator_used(it.address)
        };
        let (stay, go): (Vec<Allocator>, Vec<Allocator>) =
            self.allocators.iter().cloned().partition(stays);
        let refers = |allocators: &[Allocator]| -> Places {
            allocators.iter().map(|it| it.device).collect()
        };
        let (used, closed) = (refers(&stay), refers(&go));
        let is_used = |entry: usize| used.contains(&entry) || is_device_used(entry);
        self.device_at.retain(|_, &entry| is_used(entry) || !closed.contains(&entry));
        let mapped: Places = self.device_at.values().copied().collect();
        self.vacant = (0..self.devices.len())
            .filter(|entry| !is_used(*entry) && !mapped.contains(entry))
            .collect();
        for &entry in &self.vacant {
            self.devices[entry] = Device { mesh: None, chips: Vec::new(), chip_ids: [].into() };
        }
        self.allocators = stay;
        self.allocator_at = ByAddress::default();
        for (entry, allocator) in self.allocators.iter().enumerate() {
            self.allocator_at.insert(allocator.address, entry);
        }
        self.crowd = 2 * self.device_count().max(self.allocators.len());
        go.iter().map(|it| it.address).collect()
    }

    fn chips_of(&self, allocator: &Allocator) -> &[usize] {
        &self.devices[allocator.device].chips
    }

    /// By chip, when the last allocator on it was opened.
    fn newest(&self) -> Vec<u64> {
        let mut newest = vec![0; self.chips.len()];
        for allocator in &self.allocators {
            for &chip in self.chips_of(allocator) {
                newest[chip] = allocator.opened.max(newest[chip]);
            }
        }
        newest
    }

    /// By chip, whether a mesh has an allocator on it.
    fn meshed(&self) -> Vec<bool> {
        let mut meshed = vec![false; self.chips.len()];
        let of_a_mesh = |it: &&Allocator| self.devices[it.device].mesh.is_some();
        for allocator in self.allocators.iter().filter(of_a_mesh) {
            for &chip in self.chips_of(allocator) {
                meshed[chip] = true;
            }
        }
        meshed
    }

    /// Takes a description of an allocator in; its device must be known.
    pub fn learn_allocator(&mut self, seen: &AllocatorSeen) {
        let Some(device) = self.device_at(seen.device) else { return };
        let known = self.allocator_at.get(seen.allocator).copied();
        let still_open = known.map(|entry| &self.allocators[entry]).filter(|known| !known.closed);
        let opened = still_open.map_or(self.openings + 1, |known| known.opened);
        self.openings = self.openings.max(opened);
        let id = known.map_or(self.described, |entry| self.allocators[entry].id);
        self.described = self.described.max(id.saturating_add(1));
        let (address, pools, closed, spare) = (seen.allocator, seen.pools, false, false);
        let allocator = Allocator { id, address, opened, device, pools, closed, spare };
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
    fn is_left_to_a_mesh(&self, allocator: &Allocator, meshed: &[bool]) -> bool {
        allocator.spare && self.chips_of(allocator).iter().any(|&chip| meshed[chip])
    }

    fn place_of(&mut self, chip: ChipId) -> usize {
        *self.place_of.entry(chip).or_insert_with(|| {
            self.chips.push(chip);
            self.capacities.push([None; BUFFER_TYPES]);
            self.chips.len() - 1
        })
    }

    /// A chip's pool is as large as the largest that an open allocator has on it: sub-devices and
    /// submeshes hand out parts of the same memory. While none is open the last figure stays.
    fn measure_chips(&mut self, device: usize) {
        let meshed = self.meshed();
        let mut largest: HashMap<usize, [Option<Geometry>; BUFFER_TYPES], RandomState> =
            self.devices[device].chips.iter().map(|&chip| (chip, [None; BUFFER_TYPES])).collect();
        let open = self.allocators.iter();
        for allocator in open.filter(|it| !it.closed && !self.is_left_to_a_mesh(it, &meshed)) {
            for chip in self.chips_of(allocator) {
                let Some(largest) = largest.get_mut(chip) else { continue };
                for (largest, pool) in largest.iter_mut().zip(allocator.pools) {
                    let is_largest =
                        pool.map(|it| it.capacity()) >= largest.map(|it| it.capacity());
                    if is_largest {
                        *largest = pool.or(*largest);
                    }
                }
            }
        }
        for (chip, largest) in largest {
            for (capacity, largest) in self.capacities[chip].iter_mut().zip(largest) {
                *capacity = largest.or(*capacity);
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
