//! The live buffers of a running target, read from its memory without stopping it.
//!
//! Every allocator keeps the set of its live `Buffer*`. Allocators are found by their vtables,
//! the set is walked bucket by bucket, and each buffer is read and checked. The target runs on
//! meanwhile: what is true of a buffer that lives all the time is read right; of one that comes
//! or goes, anything may be read, and the events decide.
//!
//! Where a version does not allow that, it is still known that there are none as long as there is
//! no device and no mesh.

mod blocks;
mod free_lists;
mod hash_set;
mod objects;
mod owners;
mod per_core;

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _, Seek as _},
    time::{Duration, Instant},
};

use ttmem_common::layout::LayoutTable;

use super::{
    maps::{self, MemoryMap},
    memory::{LiveMemory, TargetMemory},
    pages::Pages,
    process::{Process, ProcessError},
    scan, shm,
    timed::Timed,
};
use crate::{
    event::{AllocatorSeen, BaselineBuffer, LiveBaseline, SharedFile},
    resolve::plan::MemoryLayout,
    units::{Avma, Pid},
};
use blocks::BlockTables;

/// Reads the live buffers of one target.
///
/// Everything it needs is opened beforehand: it goes on working without capabilities, and each
/// reading sees the mappings of its own time.
#[derive(Debug)]
pub struct Reader {
    memory: LiveMemory,
    pagemap: Option<File>,
    maps: File,
    layout: LayoutTable,
    memory_layout: Result<MemoryLayout, String>,
    bias: u64,
    /// Whose entries in shared memory are to be read, if any.
    shared: Option<shm::Owner>,
    pid: Pid,
    namespace_pid: Option<Pid>,
}

impl Reader {
    /// Opens what is needed. `layout` is the target's, with its load bias added; `memory_layout`
    /// may be the reason why only the absence of any device can be told.
    pub fn open(
        process: &Process,
        layout: LayoutTable,
        memory_layout: Result<MemoryLayout, String>,
        bias: u64,
    ) -> Result<Self, ProcessError> {
        Ok(Self {
            memory: LiveMemory::open(process)?,
            pagemap: process.open_proc("pagemap").ok(),
            maps: process.open_proc("maps")?,
            layout,
            memory_layout,
            bias,
            shared: None,
            pid: process.pid(),
            namespace_pid: process.namespace_pid(),
        })
    }

    /// The same, reading tt-metal's shared memory too.
    #[must_use]
    pub fn with_shared_memory(self) -> Self {
        let pid = self.namespace_pid.unwrap_or(self.pid);
        let same_namespace = self.namespace_pid.is_none();
        Self { shared: Some(shm::Owner { pid, same_namespace }), ..self }
    }

    /// Reads the live buffers. An error says why they cannot be known.
    pub fn read(&self) -> Result<LiveBaseline, String> {
        let maps = self.mappings().map_err(|error| format!("its mappings: {error}"))?;
        let shared = if self.shared.is_some() { shm::mappings(&maps) } else { Vec::new() };
        let objects = self.find_objects(&maps, &shared)?;
        let mut baseline = match &self.memory_layout {
            Ok(memory_layout) => {
                let walk = Walk { memory: &self.memory, layout: &self.layout, memory_layout };
                walk.read(&objects, Instant::now() + LONGEST)?
            }
            // Every buffer is on a device.
            Err(_) if objects.is_empty() => LiveBaseline::default(),
            Err(reason) => return Err(reason.clone()),
        };
        baseline.shared = self.read_shared(&shared, &objects);
        // The memory of a process that has ended reads like one that holds nothing.
        match self.memory.byte(Avma(self.layout.device.mesh_vptr)) {
            Ok(_) => Ok(baseline),
            Err(_) => Err("it ended while they were being read".to_owned()),
        }
    }

    /// Every word that is the vtable pointer of an allocator, device or mesh, or the address of
    /// shared memory.
    fn find_objects(
        &self,
        maps: &[MemoryMap],
        shared: &[shm::Mapping],
    ) -> Result<Vec<(Avma, Class)>, String> {
        let allocators = self.memory_layout.iter().flat_map(|layout| &layout.allocator_vptrs);
        let mut classes: HashMap<u64, Class> = allocators
            .map(|(_, vptr)| (vptr.0.wrapping_add(self.bias), Class::Allocator))
            .collect();
        classes.insert(self.layout.device.device_vptr, Class::Device);
        classes.insert(self.layout.device.mesh_vptr, Class::Mesh);
        let addresses = shared.iter().enumerate();
        classes.extend(addresses.map(|(index, file)| (file.start.0, Class::SharedMemory(index))));
        let wanted: Vec<u64> = classes.keys().copied().collect();
        let runs: Vec<_> = scan::regions(maps)
            .into_iter()
            .flat_map(|region| match &self.pagemap {
                Some(pagemap) => scan::present(pagemap, &region),
                None => vec![region],
            })
            .collect();
        let found = scan::find_words(&self.memory, &runs, &wanted)?;
        Ok(found.into_iter().map(|(at, word)| (at, classes[&word])).collect())
    }

    fn read_shared(&self, files: &[shm::Mapping], objects: &[(Avma, Class)]) -> Vec<SharedFile> {
        let Some(owner) = self.shared else { return Vec::new() };
        let read = |(index, file)| {
            let pointers = of_class(objects, Class::SharedMemory(index));
            shm::read(&self.memory, file, pointers, owner, shm::exists)
        };
        files.iter().enumerate().map(read).collect()
    }

    /// The mappings of now: they change while the target runs.
    fn mappings(&self) -> io::Result<Vec<MemoryMap>> {
        let mut text = Vec::new();
        let mut file = &self.maps;
        file.rewind()?;
        file.read_to_end(&mut text)?;
        maps::parse(&text)
    }
}

/// What an object in the target's memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// An `AllocatorImpl`.
    Allocator,
    /// A `Device`.
    Device,
    /// A `MeshDevice`.
    Mesh,
    /// Not an object itself: in it, the address of a file of shared memory, by its number.
    SharedMemory(usize),
}

/// What an allocator was found to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    /// Live buffers, or none.
    Buffers,
    /// None but such as were freed in bulk: most likely its device is closed, and only they keep it
    /// in memory.
    NoBlocks,
    /// Not even a set of buffers.
    NotASet,
}

/// After this time a reading is given up. A million buffers take a few seconds; but what only looks
/// like an allocator may be made to take long, and there may be many.
const LONGEST: Duration = Duration::from_secs(30);

/// One reading.
pub struct Walk<'a> {
    /// The target's memory.
    pub memory: &'a dyn TargetMemory,
    /// Its layout.
    pub layout: &'a LayoutTable,
    /// What else is needed.
    pub memory_layout: &'a MemoryLayout,
}

impl Walk<'_> {
    /// Reads all from the objects that were found, unless that takes longer than `until`.
    pub fn read(&self, objects: &[(Avma, Class)], until: Instant) -> Result<LiveBaseline, String> {
        let timed = Timed::new(self.memory, until);
        let read = Walk { memory: &timed, ..*self }.read_all(objects);
        if timed.is_over() {
            return Err("it takes too long to look at all that may be an allocator".to_owned());
        }
        read
    }

    fn read_all(&self, objects: &[(Avma, Class)]) -> Result<LiveBaseline, String> {
        let mut baseline = LiveBaseline::default();
        let mut blocks = BlockTables::default();
        let (mut closed, mut broken) = (Vec::new(), Vec::new());
        for allocator in of_class(objects, Class::Allocator) {
            match self.read_allocator(allocator, &mut blocks, &mut baseline)? {
                Held::Buffers => {}
                Held::NoBlocks => closed.push(allocator),
                Held::NotASet => broken.push(allocator),
            }
        }
        self.check_owned(objects, &broken)?;
        self.read_owners(objects, &closed, &mut baseline);
        self.describe_devices(&mut baseline);
        self.read_free_lists(&mut baseline);
        let single = of_class(objects, Class::Device).filter_map(|at| self.describe_device(at));
        baseline.chips = single.flat_map(|device| device.chips).collect();
        baseline.chips.sort_unstable();
        baseline.chips.dedup();
        Ok(baseline)
    }

    /// Reads the live buffers of one allocator.
    fn read_allocator(
        &self,
        allocator: Avma,
        blocks: &mut BlockTables,
        baseline: &mut LiveBaseline,
    ) -> Result<Held, String> {
        let set = allocator.plus(u64::from(self.memory_layout.live_set));
        let live = match hash_set::read(self.memory, set) {
            Ok(live) => live,
            // A word that only looks like an allocator: what it leads to is no set.
            Err(hash_set::Error::NotASet) => return Ok(Held::NotASet),
            Err(hash_set::Error::Unsteady) => {
                return Err(format!("the live set of allocator {allocator} changes too fast"));
            }
        };
        let mut pools = None;
        let mut device = None;
        let swept = baseline.swept.len();
        let (mut with_block, mut per_core) = (Vec::new(), Vec::new());
        // By page: they are in address order.
        let pages = Pages::new(self.memory);
        let by_page = Walk { memory: &pages, ..*self };
        for buffer in live {
            let Some(found) = by_page.read_buffer(allocator, buffer) else { continue };
            if found.shape.spread.is_per_core() {
                // Its address says nothing of the table that all banks share.
                per_core.push(found);
                continue;
            }
            let buffer_type = found.shape.buffer_type.index();
            let pool = pools.get_or_insert_with(|| self.pools_of(allocator))[buffer_type];
            let expected = pool.and_then(|pool| pool.bank_bytes(&found.shape));
            let still = || self.read_buffer(allocator, buffer).as_ref() == Some(&found);
            match blocks.size_of(self, allocator, &found.shape, expected, still) {
                blocks::Found::Size(bytes) => {
                    device = Some(found.device);
                    with_block.push(BaselineBuffer { block_bytes: Some(bytes), ..found });
                }
                blocks::Found::NoTable => {
                    device = Some(found.device);
                    with_block.push(found);
                }
                blocks::Found::Gone => {}
                // Freed in bulk; the set keeps such buffers until they are freed one by one.
                blocks::Found::NoBlock => baseline.swept.push(owners::swept(&found)),
            }
        }
        owners::tell_apart(with_block, baseline);
        device = self.enter_per_core(allocator, per_core, baseline).or(device);
        if let Some(device) = device {
            baseline.allocators.push(self.describe_allocator(allocator, device));
        }
        let none = device.is_none() && baseline.swept.len() > swept;
        Ok(if none { Held::NoBlocks } else { Held::Buffers })
    }

    /// What an open mesh calls its allocator is one, whatever its memory says.
    fn check_owned(&self, objects: &[(Avma, Class)], broken: &[Avma]) -> Result<(), String> {
        let Some(chain) = &self.memory_layout.mesh_allocator else { return Ok(()) };
        let owned = of_class(objects, Class::Mesh)
            .filter_map(|mesh| self.memory.chain(mesh, chain).ok().map(Avma));
        match owned.into_iter().find(|allocator| broken.contains(allocator)) {
            Some(allocator) => Err(format!("the live set of allocator {allocator} is damaged")),
            None => Ok(()),
        }
    }

    /// Allocators without buffers, through the devices and meshes that own them. A closed mesh
    /// has none any more; a closed device may still point to one of the `closed`.
    fn read_owners(&self, objects: &[(Avma, Class)], closed: &[Avma], baseline: &mut LiveBaseline) {
        let allocators: Vec<Avma> = of_class(objects, Class::Allocator).collect();
        let mut add = |device: Avma, chain, but_not: &[Avma]| {
            let allocator = self.memory.chain(device, chain).map(Avma).ok()?;
            let known = baseline.allocators.iter().any(|known| known.allocator == allocator);
            if known || but_not.contains(&allocator) || !allocators.contains(&allocator) {
                return None;
            }
            let described = self.describe_allocator(allocator, device);
            described.pools.iter().any(Option::is_some).then(|| {
                baseline.allocators.push(described);
                allocator
            })
        };
        let meshes: Vec<Avma> = of_class(objects, Class::Mesh).collect();
        if let Some(chain) = &self.memory_layout.mesh_allocator {
            for &mesh in &meshes {
                add(mesh, chain, &[]);
            }
        }
        // A mesh's chips have allocators of their own, which nobody uses.
        if meshes.is_empty()
            && let Some(chain) = &self.memory_layout.device_allocator
        {
            let devices = of_class(objects, Class::Device);
            baseline.spare = devices.filter_map(|device| add(device, chain, closed)).collect();
        }
    }

    fn describe_devices(&self, baseline: &mut LiveBaseline) {
        let mut devices: Vec<Avma> = baseline.allocators.iter().map(|a| a.device).collect();
        devices.extend(baseline.buffers.iter().map(|buffer| buffer.device));
        devices.sort_unstable();
        devices.dedup();
        baseline.devices =
            devices.into_iter().filter_map(|device| self.describe_device(device)).collect();
    }

    fn describe_allocator(&self, allocator: Avma, device: Avma) -> AllocatorSeen {
        AllocatorSeen { allocator, device, pools: self.pools_of(allocator) }
    }
}

fn of_class(objects: &[(Avma, Class)], class: Class) -> impl Iterator<Item = Avma> {
    objects.iter().filter(move |(_, is)| *is == class).map(|(at, _)| *at)
}
