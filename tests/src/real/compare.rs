//! Snapshots against the truth.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Deserialize;
use serde_json::Value;

use super::truth::{Checkpoint, Live, Pages, Pool, Truth};
use crate::space;

/// How ttmem came by a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Attached before any device was open.
    FromStart,
    /// Attached later, or never.
    Late,
}

/// What of a snapshot is compared.
#[derive(Debug, Deserialize)]
struct Snapshot {
    exact: bool,
    inexact_because: Vec<String>,
    lost: BTreeMap<String, u64>,
    anomalies: BTreeMap<String, u64>,
    unresolved: Vec<Value>,
    devices: Vec<Chip>,
    buffers: Vec<Shown>,
}

#[derive(Debug, Deserialize)]
struct Chip {
    chip: i64,
    pools: Vec<ShownPool>,
}

#[derive(Debug, Deserialize)]
struct ShownPool {
    #[serde(rename = "type")]
    buffer_type: String,
    buffers: u64,
    logical_bytes: u64,
    bank_bytes: Option<u64>,
    banks: Option<u64>,
    used_bytes: Option<u64>,
    capacity_bytes: Option<u64>,
    peak_used_bytes: Option<u64>,
    peak_at_least_bytes: Option<u64>,
    allocations: u64,
    frees: u64,
    pre_attach_frees: u64,
}

#[derive(Clone, Debug, Deserialize)]
struct Shown {
    unique_id: Option<u64>,
    #[serde(rename = "type")]
    buffer_type: String,
    address: u64,
    size: u64,
    page_size: u64,
    bank_bytes: Option<u64>,
    chips: Vec<i64>,
    mesh: Option<i64>,
    pre_attach: bool,
}

/// What was found equal, and what was not.
#[derive(Debug, Default)]
pub struct Tally {
    /// Snapshots compared.
    pub snapshots: usize,
    /// Pools found equal.
    pub pools: usize,
    /// Live buffers found equal.
    pub buffers: usize,
    /// Figures and maps of free space found equal.
    pub spaces: usize,
    /// Every difference, in words.
    pub differences: Vec<String>,
}

impl Tally {
    /// Compares one snapshot with the truth, and says what was compared.
    pub fn compare(&mut self, who: &str, how: How, checkpoint: &Checkpoint, snapshot: &Value) {
        let (pools, buffers) = (self.pools, self.buffers);
        let before = self.differences.len();
        let result = self.compare_all(how, checkpoint, snapshot);
        self.snapshots += 1;
        let name = &checkpoint.name;
        match result {
            Ok(freed_in_bulk) => println!(
                "checkpoint {name}, {who}: {} chips, {} pools, {} buffers equal{}{}",
                checkpoint.chips().len(),
                self.pools - pools,
                self.buffers - buffers,
                if freed_in_bulk > 0 {
                    format!(" ({freed_in_bulk} freed in bulk not among them)")
                } else {
                    String::new()
                },
                match self.differences.len() - before {
                    0 => String::new(),
                    count => format!(", {count} DIFFERENCES"),
                }
            ),
            Err(error) => self.differences.push(format!("{error:#}")),
        }
        for difference in &mut self.differences[before..] {
            *difference = format!("checkpoint {name}, {who}: {difference}");
            println!("{difference}");
        }
    }

    /// Ends the test if there was any difference.
    ///
    /// # Panics
    ///
    /// If there was one, or nothing was compared.
    pub fn close(&self) {
        println!(
            "{} snapshots, {} pools, {} buffers, {} figures of free space equal, {} differences",
            self.snapshots,
            self.pools,
            self.buffers,
            self.spaces,
            self.differences.len()
        );
        assert!(self.snapshots > 0, "nothing was compared");
        let differences = &self.differences;
        assert!(differences.is_empty(), "differences:\n{}", differences.join("\n"));
    }

    fn compare_all(&mut self, how: How, checkpoint: &Checkpoint, value: &Value) -> Result<usize> {
        let truth = checkpoint.truth()?;
        // Where nothing was freed in bulk, tt-metal must not contradict itself.
        let bulk = checkpoint.name == "deallocate_buffers/after";
        self.equal("freed in bulk", &bulk, &(truth.freed_in_bulk > 0));
        let snapshot: Snapshot = serde_json::from_value(value.clone())?;
        self.compare_state(&snapshot);
        self.compare_pools(how, &truth, &snapshot);
        self.compare_buffers(how, &truth, &snapshot);
        let (equal, differences) = space::compare(&checkpoint.spaces(), value)?;
        self.spaces += equal;
        self.differences.extend(differences);
        self.add_up(&snapshot);
        Ok(truth.freed_in_bulk)
    }

    fn compare_state(&mut self, snapshot: &Snapshot) {
        self.equal("exact", &true, &snapshot.exact);
        self.equal("inexact_because", &Vec::new(), &snapshot.inexact_because);
        self.equal("unresolved", &Vec::new(), &snapshot.unresolved);
        for (name, count) in snapshot.lost.iter().chain(&snapshot.anomalies) {
            self.equal(name, &0, count);
        }
    }

    /// Every pool that either side knows. Those of chips that no open mesh covers must be empty.
    fn compare_pools(&mut self, how: How, truth: &Truth, snapshot: &Snapshot) {
        let mut missing = truth.pools.clone();
        for chip in &snapshot.devices {
            for pool in &chip.pools {
                let key = (chip.chip, pool.buffer_type.clone());
                let what = format!("chip {} {}", key.0, key.1);
                let before = self.differences.len();
                let expected = missing.remove(&key);
                self.compare_pool(&what, expected.as_ref(), pool);
                self.compare_counters(&what, how, pool);
                if before == self.differences.len() && expected.is_some() {
                    self.pools += 1;
                }
            }
        }
        for ((chip, buffer_type), pool) in missing {
            self.differences.push(format!("chip {chip} {buffer_type} is not listed: {pool:?}"));
        }
    }

    fn compare_pool(&mut self, what: &str, expected: Option<&Pool>, pool: &ShownPool) {
        let none = Pool::default();
        let Pool { buffers, bank_bytes, used_bytes, banks, capacity_bytes } =
            expected.unwrap_or(&none);
        self.equal(&format!("{what} buffers"), buffers, &pool.buffers);
        self.equal(&format!("{what} bank_bytes"), &Some(*bank_bytes), &pool.bank_bytes);
        self.equal(&format!("{what} used_bytes"), &Some(*used_bytes), &pool.used_bytes);
        // While no mesh is open, tt-metal says nothing of banks.
        if expected.is_some() {
            self.equal(&format!("{what} banks"), &Some(*banks), &pool.banks);
            let capacity = Some(*capacity_bytes);
            self.equal(&format!("{what} capacity_bytes"), &capacity, &pool.capacity_bytes);
        }
    }

    fn compare_counters(&mut self, what: &str, how: How, pool: &ShownPool) {
        // A table says nothing of a peak that may have been missed.
        let peak = pool.peak_used_bytes.or(pool.peak_at_least_bytes);
        let peak_holds = peak.is_none() || peak >= pool.used_bytes;
        self.equal(&format!("{what} peak is at least what is used"), &true, &peak_holds);
        let seen = pool.allocations.checked_sub(pool.frees);
        if how == How::FromStart {
            let what = format!("{what} allocations - frees");
            self.equal(&what, &Some(pool.buffers), &seen);
            self.equal(&format!("{what} frees of older"), &0, &pool.pre_attach_frees);
        }
    }

    /// The live sets, as multisets.
    fn compare_buffers(&mut self, how: How, truth: &Truth, snapshot: &Snapshot) {
        let mut expected = truth.live.clone();
        expected.sort_by(|one, other| one.0.cmp(&other.0));
        let mut shown: Vec<(Live, &Shown)> =
            snapshot.buffers.iter().map(|buffer| (buffer.live(), buffer)).collect();
        shown.sort_by(|one, other| one.0.cmp(&other.0));
        for (live, buffer) in shown {
            match expected.iter().position(|(truth, _)| *truth == live) {
                Some(place) => {
                    let (_, pages) = expected.remove(place);
                    self.compare_pages(&pages, buffer);
                    if how == How::FromStart {
                        self.equal(&format!("{buffer:?} before"), &false, &buffer.pre_attach);
                    }
                    self.buffers += 1;
                }
                None => self.differences.push(format!("tt-metal has no {buffer:?}")),
            }
        }
        let missing = expected.iter().map(|missing| format!("not shown: {missing:?}"));
        self.differences.extend(missing);
    }

    fn compare_pages(&mut self, pages: &Pages, buffer: &Shown) {
        let rest = pages.max_size_per_bank.checked_rem(buffer.page_size);
        self.equal(&format!("{buffer:?} part of a page in a bank"), &Some(0), &rest);
        if let (Some(page_size), Some(count)) = (pages.page_size, pages.pages) {
            self.equal(&format!("{buffer:?} page_size"), &page_size, &buffer.page_size);
            self.equal(&format!("{buffer:?} size"), &(page_size * count), &buffer.size);
        }
    }

    /// A snapshot must agree with itself: pools are the sums over the buffers.
    fn add_up(&mut self, snapshot: &Snapshot) {
        for chip in &snapshot.devices {
            for pool in &chip.pools {
                let inside = snapshot.buffers.iter().filter(|buffer| {
                    buffer.buffer_type == pool.buffer_type && buffer.chips.contains(&chip.chip)
                });
                let sums = inside.fold((0, 0, Some(0)), |(count, size, bank), buffer| {
                    let bank = bank.zip(buffer.bank_bytes).map(|(sum, bytes)| sum + bytes);
                    (count + 1, size + buffer.size, bank)
                });
                let what = format!("chip {} {} is the sum", chip.chip, pool.buffer_type);
                self.equal(&what, &sums, &(pool.buffers, pool.logical_bytes, pool.bank_bytes));
            }
        }
        let mut ids: Vec<Option<u64>> = snapshot.buffers.iter().map(|b| b.unique_id).collect();
        ids.sort_unstable();
        ids.dedup();
        self.equal("buffers with unique ids", &snapshot.buffers.len(), &ids.len());
    }

    fn equal<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, truth: &T, shown: &T) {
        if truth != shown {
            self.differences.push(format!("{what}: {truth:?} in truth, {shown:?} shown"));
        }
    }
}

impl Shown {
    /// A mesh lists its chips in its own order, row by row; what counts is which they are.
    fn live(&self) -> Live {
        let mut chips = self.chips.clone();
        chips.sort_unstable();
        Live {
            buffer_type: self.buffer_type.clone(),
            address: self.address,
            bank_bytes: self.bank_bytes.unwrap_or(u64::MAX),
            mesh: self.mesh.unwrap_or(-1),
            chips,
        }
    }
}
