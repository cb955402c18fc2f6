//! What tt-metal itself says is allocated.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::space::TrueSpace;

/// Where the script waits, and the truth there.
#[derive(Debug, Deserialize)]
pub struct Checkpoint {
    /// Its name.
    #[serde(rename = "checkpoint")]
    pub name: String,
    /// Whether nothing changes while the script waits; else there is no truth.
    pub still: bool,
    /// The message of the exception that the script caught last.
    #[serde(default)]
    pub caught: Option<String>,
    views: Vec<View>,
    buffers: Vec<Reported>,
}

/// `ttnn.get_memory_view()` of an open mesh and a buffer type.
#[derive(Debug, Deserialize)]
struct View {
    mesh: i64,
    chips: Vec<i64>,
    #[serde(rename = "type")]
    buffer_type: String,
    num_banks: u64,
    total_bytes_per_bank: u64,
    total_bytes_allocated_per_bank: u64,
    total_bytes_free_per_bank: u64,
    largest_contiguous_bytes_free_per_bank: u64,
    /// The free blocks: address from the beginning of the bank, and size.
    holes: Vec<(u64, u64)>,
    /// The allocated blocks: address from the beginning of the bank, and size.
    blocks: Vec<(u64, u64)>,
}

/// One of `ttnn._ttnn.reports.get_buffers()`.
#[derive(Debug, Deserialize)]
struct Reported {
    mesh: i64,
    address: u64,
    #[serde(rename = "type")]
    buffer_type: String,
    max_size_per_bank: u64,
    device_id: i64,
    page_size: Option<u64>,
    pages: Option<u64>,
}

/// What a pool must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// Live buffers.
    pub buffers: u64,
    /// What they take of each bank, bytes.
    pub bank_bytes: u64,
    /// What they take of all banks, bytes.
    pub used_bytes: u64,
    /// Banks.
    pub banks: u64,
    /// Bytes of all banks.
    pub capacity_bytes: u64,
}

/// What a live buffer must be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Live {
    /// Its type.
    pub buffer_type: String,
    /// Its address.
    pub address: u64,
    /// What it takes of each bank, bytes.
    pub bank_bytes: u64,
    /// The mesh it was allocated on.
    pub mesh: i64,
    /// The chips that it lies on, in order.
    pub chips: Vec<i64>,
}

/// What tt-metal says of a live buffer's pages.
#[derive(Clone, Debug)]
pub struct Pages {
    /// Pages per bank times the size of a page, as it is before it is aligned.
    pub max_size_per_bank: u64,
    /// The size of a page, in L1.
    pub page_size: Option<u64>,
    /// The number of pages, in L1.
    pub pages: Option<u64>,
}

/// The truth at a checkpoint, in the shape of a snapshot.
#[derive(Debug, Default)]
pub struct Truth {
    /// Every pool, by chip and type.
    pub pools: BTreeMap<(i64, String), Pool>,
    /// Every live buffer.
    pub live: Vec<(Live, Pages)>,
    /// Buffers that tt-metal still reports although they were freed in bulk.
    pub freed_in_bulk: usize,
}

impl Checkpoint {
    /// The chips of open meshes.
    pub fn chips(&self) -> BTreeSet<i64> {
        self.views.iter().flat_map(|view| view.chips.iter().copied()).collect()
    }

    /// What each allocator has free.
    pub fn spaces(&self) -> Vec<TrueSpace> {
        self.views.iter().map(View::space).collect()
    }

    /// The truth. Fails where tt-metal contradicts itself.
    pub fn truth(&self) -> Result<Truth> {
        ensure!(self.still, "{} is not still", self.name);
        let mut truth = Truth::default();
        for view in &self.views {
            let live = self.live_of(view, &mut truth.freed_in_bulk)?;
            for &chip in &view.chips {
                let key = (chip, view.buffer_type.clone());
                truth.pools.entry(key).or_default().add(view, live.len());
            }
            truth.live.extend(live);
        }
        let counted = truth.live.len() + truth.freed_in_bulk;
        ensure!(counted == self.buffers.len(), "a buffer in no view");
        Ok(truth)
    }

    /// The live buffers of a view: `get_buffers()` says where they are, the block table how large.
    ///
    /// `max_size_per_bank` is not what a buffer takes of a bank: it counts pages as they are, and
    /// the allocator aligns each, and then the sum. Only the block table has that. Its addresses
    /// count from the beginning of the bank, so in order of address they must all differ by the
    /// same from those of the buffers.
    ///
    /// `get_buffers()` walks the set of `Buffer` objects, which a bulk free leaves as it is: it
    /// reports those buffers until their objects go, although nothing is allocated any more. A
    /// live buffer takes at least one byte, so where the allocator has not one allocated byte
    /// none of them lives.
    fn live_of(&self, view: &View, freed_in_bulk: &mut usize) -> Result<Vec<(Live, Pages)>> {
        view.check()?;
        let of_view =
            |buffer: &&Reported| buffer.mesh == view.mesh && buffer.buffer_type == view.buffer_type;
        let mut buffers: Vec<&Reported> = self.buffers.iter().filter(of_view).collect();
        if view.total_bytes_allocated_per_bank == 0 {
            *freed_in_bulk += buffers.len();
            return Ok(Vec::new());
        }
        buffers.sort_by_key(|buffer| buffer.address);
        let mut blocks = view.blocks.clone();
        blocks.sort_unstable();
        let (reported, allocated) = (buffers.len(), blocks.len());
        ensure!(reported == allocated, "{allocated} blocks, but {reported} buffers: {view:?}");
        let mut base = None;
        let pair = |(buffer, (start, size)): (&Reported, (u64, u64))| {
            let start = buffer.address.checked_sub(start).context("a buffer before its bank")?;
            ensure!(*base.get_or_insert(start) == start, "{buffer:?} is not where its block is");
            buffer.live(view, size)
        };
        buffers.into_iter().zip(blocks).map(pair).collect()
    }
}

impl View {
    /// What `get_memory_view()` says is free.
    fn space(&self) -> TrueSpace {
        let mut map = self.holes.clone();
        map.sort_unstable();
        TrueSpace {
            mesh: Some(self.mesh),
            chips: self.chips.clone(),
            buffer_type: self.buffer_type.clone(),
            banks: self.num_banks,
            bank_size: self.total_bytes_per_bank,
            base: None,
            free: self.total_bytes_free_per_bank,
            largest: self.largest_contiguous_bytes_free_per_bank,
            holes: map.len() as u64,
            may_be_hidden: false,
            uneven: false,
            map: Some(map),
        }
    }

    fn check(&self) -> Result<()> {
        let total = self.total_bytes_allocated_per_bank + self.total_bytes_free_per_bank;
        ensure!(total == self.total_bytes_per_bank, "allocated and free are not all: {self:?}");
        let blocks: u64 = self.blocks.iter().map(|(_, size)| size).sum();
        ensure!(blocks == self.total_bytes_allocated_per_bank, "blocks are missing: {self:?}");
        Ok(())
    }
}

impl Reported {
    fn live(&self, view: &View, block: u64) -> Result<(Live, Pages)> {
        ensure!(self.device_id == view.mesh, "{self:?} is of another device");
        ensure!(self.max_size_per_bank <= block, "{self:?} has a block of {block} bytes only");
        let mut chips = view.chips.clone();
        chips.sort_unstable();
        let live = Live {
            buffer_type: self.buffer_type.clone(),
            address: self.address,
            bank_bytes: block,
            mesh: self.mesh,
            chips,
        };
        let pages = Pages {
            max_size_per_bank: self.max_size_per_bank,
            page_size: self.page_size,
            pages: self.pages,
        };
        Ok((live, pages))
    }
}

impl Pool {
    /// Meshes over the same chips have allocators of their own: what is used adds up, and the
    /// pool is as large as the largest.
    fn add(&mut self, view: &View, buffers: usize) {
        self.buffers += buffers as u64;
        self.bank_bytes += view.total_bytes_allocated_per_bank;
        self.used_bytes += view.total_bytes_allocated_per_bank * view.num_banks;
        let capacity = view.total_bytes_per_bank * view.num_banks;
        if capacity >= self.capacity_bytes {
            self.capacity_bytes = capacity;
            self.banks = view.num_banks;
        }
    }
}
