//! One buffer: packed as it is kept, and as readers get it.
//!
//! Nothing is narrowed: whatever numbers the target has, they come out as they went in. Which chips
//! it lies on is kept once for all buffers that lie on the same ones ([`Places`]).

use std::sync::Arc;

use hashbrown::HashMap;
use serde::Serialize;

use crate::{
    event::BufferType,
    ledger::delta::Delta,
    units::{Avma, ChipId, DeviceAddr, MeshId, Tid},
};

/// Bytes that each buffer takes, without the index.
pub const ROW_BYTES: usize = 88;
const _: () = assert!(size_of::<Packed>() == ROW_BYTES);

/// Sets of chips that are told apart; more than a process has, unless its memory is nonsense.
const MAX_PLACES: usize = 4096;

/// A buffer as readers see it, while they hold what it lies in.
pub type Row<'a> = RowOf<&'a [ChipId]>;
/// A buffer that outlives what it was read from.
pub type OwnedRow = RowOf<Vec<ChipId>>;

/// A buffer as readers see it, with its chips in one form or another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RowOf<C> {
    /// `Buffer*`: names the buffer while it is live.
    pub buffer: Avma,
    /// `Buffer::unique_id()`; `None` in versions that do not expose it.
    pub unique_id: Option<u64>,
    /// Buffer type.
    #[serde(rename = "type")]
    pub buffer_type: BufferType,
    /// Address, the same on every chip and bank it lies on, but with `cores`: the first core's.
    pub address: DeviceAddr,
    /// Logical size, bytes.
    pub size: u64,
    /// Page size, bytes.
    pub page_size: u64,
    /// What it takes of each bank that it lies on, bytes.
    pub bank_bytes: Option<u64>,
    /// What it takes of all banks of one chip, bytes.
    pub used_bytes: Option<u64>,
    /// The number of cores whose banks it lies on, each at an address of its own; `None`: it lies on
    /// every bank, at one address.
    pub cores: Option<u32>,
    /// The chips it lies on.
    pub chips: C,
    /// The mesh it was allocated on; `None` for a single device.
    pub mesh: Option<MeshId>,
    /// The thread that allocated it; `None` if that was not seen.
    pub tid: Option<Tid>,
    /// When it was allocated, CLOCK_MONOTONIC nanoseconds; `None` if that was not seen.
    pub allocated_ns: Option<u64>,
    /// Whether it was allocated before the attach.
    pub pre_attach: bool,
}

impl Row<'_> {
    /// A copy to keep.
    pub fn to_owned_row(&self) -> OwnedRow {
        OwnedRow {
            buffer: self.buffer,
            unique_id: self.unique_id,
            buffer_type: self.buffer_type,
            address: self.address,
            size: self.size,
            page_size: self.page_size,
            bank_bytes: self.bank_bytes,
            used_bytes: self.used_bytes,
            cores: self.cores,
            chips: self.chips.to_vec(),
            mesh: self.mesh,
            tid: self.tid,
            allocated_ns: self.allocated_ns,
            pre_attach: self.pre_attach,
        }
    }
}

/// One buffer as it is kept. A number that no flag says is known is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packed {
    pub buffer: Avma,
    unique_id: u64,
    address: DeviceAddr,
    pub size: u64,
    page_size: u64,
    bank_bytes: u64,
    used_bytes: u64,
    allocated_ns: u64,
    tid: Tid,
    cores: u32,
    mesh: MeshId,
    pub place: u32,
    /// Tells it from every other row of its live set; see [`super::live::Slot`].
    pub stamp: u32,
    pub buffer_type: BufferType,
    known: u8,
}

const UNIQUE_ID: u8 = 1;
const BANK_BYTES: u8 = 1 << 1;
const USED_BYTES: u8 = 1 << 2;
const CORES: u8 = 1 << 3;
const MESH: u8 = 1 << 4;
const TID: u8 = 1 << 5;
const ALLOCATED: u8 = 1 << 6;
const PRE_ATTACH: u8 = 1 << 7;

impl Packed {
    /// Makes it no buffer.
    pub const fn vacate(&mut self) {
        self.place = u32::MAX;
    }

    /// Whether it is no buffer.
    pub const fn is_vacant(&self) -> bool {
        self.place == u32::MAX
    }

    /// What a delta says of its buffer, which lies at `place`.
    pub fn new(delta: &Delta, place: u32) -> Self {
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        Self {
            buffer: delta.buffer,
            unique_id: delta.unique_id.unwrap_or(0),
            address: delta.address,
            size: delta.size,
            page_size: delta.page_size,
            bank_bytes: delta.bank_bytes.unwrap_or(0),
            used_bytes: delta.used_bytes.unwrap_or(0),
            allocated_ns: delta.allocated_ns.unwrap_or(0),
            tid: delta.allocated_tid.unwrap_or_default(),
            cores: delta.cores.unwrap_or(0),
            mesh: delta.mesh.unwrap_or_default(),
            place,
            stamp: 0,
            buffer_type: delta.buffer_type,
            known: flag(delta.unique_id.is_some(), UNIQUE_ID)
                | flag(delta.bank_bytes.is_some(), BANK_BYTES)
                | flag(delta.used_bytes.is_some(), USED_BYTES)
                | flag(delta.cores.is_some(), CORES)
                | flag(delta.mesh.is_some(), MESH)
                | flag(delta.allocated_tid.is_some(), TID)
                | flag(delta.allocated_ns.is_some(), ALLOCATED)
                | flag(delta.pre_attach, PRE_ATTACH),
        }
    }

    const fn is(&self, flag: u8) -> bool {
        self.known & flag != 0
    }

    /// What it takes of all banks of one chip, bytes.
    pub fn used_bytes(&self) -> Option<u64> {
        self.is(USED_BYTES).then_some(self.used_bytes)
    }

    /// The thread that allocated it.
    pub fn tid(&self) -> Option<Tid> {
        self.is(TID).then_some(self.tid)
    }

    /// When it was allocated, ns.
    pub fn allocated_ns(&self) -> Option<u64> {
        self.is(ALLOCATED).then_some(self.allocated_ns)
    }

    /// As readers see it.
    pub fn row<'a>(&self, places: &'a Places) -> Row<'a> {
        Row {
            buffer: self.buffer,
            unique_id: self.is(UNIQUE_ID).then_some(self.unique_id),
            buffer_type: self.buffer_type,
            address: self.address,
            size: self.size,
            page_size: self.page_size,
            bank_bytes: self.is(BANK_BYTES).then_some(self.bank_bytes),
            used_bytes: self.used_bytes(),
            cores: self.is(CORES).then_some(self.cores),
            chips: places.chips(self.place),
            mesh: self.is(MESH).then_some(self.mesh),
            tid: self.tid(),
            allocated_ns: self.allocated_ns(),
            pre_attach: self.is(PRE_ATTACH),
        }
    }
}

/// The sets of chips on which buffers lie, each once.
#[derive(Clone, Debug)]
pub(super) struct Places {
    /// The first one is empty: chips that are not known.
    all: Vec<Arc<[ChipId]>>,
    by_chips: HashMap<Arc<[ChipId]>, u32, foldhash::fast::RandomState>,
    /// The last one asked for: most buffers follow one on the same chips.
    last: u32,
}

impl Default for Places {
    fn default() -> Self {
        let nowhere: Arc<[ChipId]> = [].into();
        let by_chips = std::iter::once((Arc::clone(&nowhere), 0)).collect();
        Self { all: vec![nowhere], by_chips, last: 0 }
    }
}

impl Places {
    /// The number of a set. One too many is taken as not known.
    pub fn number(&mut self, chips: &Arc<[ChipId]>) -> u32 {
        // Each is kept, so that no other can come to its address.
        if Arc::ptr_eq(&self.all[self.last as usize], chips) {
            return self.last;
        }
        let known = self.by_chips.get(chips).copied();
        self.last = known.unwrap_or_else(|| {
            let next = u32::try_from(self.all.len()).unwrap_or(0);
            if self.all.len() >= MAX_PLACES {
                return 0;
            }
            self.all.push(Arc::clone(chips));
            self.by_chips.insert(Arc::clone(chips), next);
            next
        });
        self.last
    }

    /// The chips of a set.
    pub fn chips(&self, place: u32) -> &[ChipId] {
        self.all.get(place as usize).map_or(&[], |chips| chips)
    }

    /// Learns what `later`, of which this is an earlier copy, has learnt since.
    pub fn follow(&mut self, later: &Self) {
        if self.all.len() < later.all.len() {
            self.clone_from(later);
        }
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        let chips: usize = self.all.iter().map(|chips| 16 + size_of_val::<[ChipId]>(chips)).sum();
        chips + self.all.capacity() * 16 + self.by_chips.capacity() * 32
    }
}
