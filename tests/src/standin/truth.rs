//! What the stand-in says is allocated, and comparing ttmem's numbers with it.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::space::{self, TrueSpace};

#[derive(Debug, Deserialize)]
struct State {
    allocators: Vec<AllocatorRow>,
}

/// One buffer type of one allocator.
#[derive(Clone, Debug, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "as the stand-in says it")]
struct AllocatorRow {
    device: String,
    mesh: bool,
    id: i64,
    chips: Vec<i64>,
    #[serde(rename = "type")]
    buffer_type: String,
    buffers: u64,
    logical_bytes: u64,
    bank_bytes: u64,
    banks: u64,
    used: u64,
    capacity: u64,
    consistent: bool,
    base: u64,
    bank_size: u64,
    free: u64,
    largest_free: u64,
    holes: u64,
    sub_device: bool,
    /// Live buffers with an address of their own on each core.
    per_core_buffers: u64,
    /// Whether its banks have free lists of their own.
    hybrid: bool,
}

impl AllocatorRow {
    fn space(&self) -> TrueSpace {
        TrueSpace {
            mesh: self.mesh.then_some(self.id),
            chips: self.chips.clone(),
            buffer_type: self.buffer_type.clone(),
            banks: self.banks,
            bank_size: self.bank_size,
            base: (self.banks > 0).then_some(self.base),
            free: self.free,
            largest: self.largest_free,
            holes: self.holes,
            may_be_hidden: self.sub_device && self.buffers == 0,
            map: None,
            uneven: self.hybrid,
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
struct LiveRow {
    uid: Option<u64>,
    device: String,
    chips: Vec<i64>,
    #[serde(rename = "type")]
    buffer_type: String,
    address: u64,
    size: u64,
    page_size: u64,
    bank_bytes: u64,
    cores: Option<u64>,
}

/// What is allocated, by the allocators' own tables.
#[derive(Clone, Debug)]
pub struct Truth {
    allocators: Vec<AllocatorRow>,
    live: Vec<LiveRow>,
}

/// Chip and buffer type.
type PoolKey = (i64, String);

/// The figures of a pool that the truth knows, by their names in ttmem's JSON.
const POOL_FIGURES: [&str; 6] =
    ["buffers", "logical_bytes", "bank_bytes", "used_bytes", "capacity_bytes", "banks"];

/// Those of them that the allocators' tables and the buffers tell alike.
const POOL_USE: [&str; 2] = ["buffers", "bank_bytes"];

/// Everything that tells a live buffer from others, with ttmem's names.
const BUFFER_FIGURES: [&str; 9] =
    ["type", "address", "size", "page_size", "bank_bytes", "cores", "chips", "mesh", "unique_id"];

impl Truth {
    /// From the driver's answers to `state` and `live`.
    pub(super) fn parse(state: &str, live: &str) -> Result<Self> {
        let state: State = serde_json::from_str(state)?;
        let live: Vec<LiveRow> = serde_json::from_str(live)?;
        for row in &state.allocators {
            ensure!(row.consistent, "the stand-in contradicts itself: {row:?}");
        }
        Ok(Self { allocators: state.allocators, live })
    }

    /// Number of live buffers.
    pub fn buffers(&self) -> usize {
        self.live.len()
    }

    /// By pool: [`POOL_FIGURES`]; there is no figure of each bank where they differ. Sums over the allocators of a chip; capacity and banks are those
    /// of the largest, since they all hand out the same memory.
    fn pools(&self) -> BTreeMap<PoolKey, [Option<u64>; 6]> {
        let mut pools = BTreeMap::new();
        for row in &self.allocators {
            for &chip in &row.chips {
                let pool: &mut [Option<u64>; 6] =
                    pools.entry((chip, row.buffer_type.clone())).or_insert([Some(0); 6]);
                let bank_bytes = (row.per_core_buffers == 0).then_some(row.bank_bytes);
                let added =
                    [Some(row.buffers), Some(row.logical_bytes), bank_bytes, Some(row.used)];
                for (sum, added) in pool.iter_mut().zip(added) {
                    *sum = sum.zip(added).map(|(sum, added)| sum + added);
                }
                if Some(row.capacity) > pool[4] {
                    (pool[4], pool[5]) = (Some(row.capacity), Some(row.banks));
                }
            }
        }
        pools
    }

    fn mesh_of(&self, device: &str) -> Option<i64> {
        self.allocators.iter().find(|row| row.device == device && row.mesh).map(|row| row.id)
    }

    /// One line per live buffer, with [`BUFFER_FIGURES`].
    fn live_lines(&self) -> Vec<String> {
        let known = figures_of(self);
        let line = |row: &LiveRow| {
            let figures: [Value; 9] = [
                row.buffer_type.as_str().into(),
                row.address.into(),
                row.size.into(),
                row.page_size.into(),
                row.bank_bytes.into(),
                row.cores.into(),
                row.chips.clone().into(),
                self.mesh_of(&row.device).into(),
                row.uid.into(),
            ];
            named(&figures[..known])
        };
        self.live.iter().map(line).collect()
    }

    /// Compares all that the truth knows with a snapshot that was made `--buffers`, and that has to
    /// be exact. Returns how many figures were compared.
    pub fn compare(&self, snapshot: &Value) -> Result<usize> {
        let mut comparison = Comparison::default();
        comparison.exact(snapshot);
        comparison.pools(&self.pools(), snapshot)?;
        comparison.spaces(&self.allocators, snapshot)?;
        comparison.live(self.live_lines(), figures_of(self), snapshot)?;
        comparison.finish()
    }

    /// The same of a snapshot that has been set right: what was lost is still counted.
    pub fn compare_set_right(&self, snapshot: &Value) -> Result<usize> {
        let mut comparison = Comparison::default();
        comparison.undoubted(snapshot);
        comparison.pools(&self.pools(), snapshot)?;
        comparison.spaces(&self.allocators, snapshot)?;
        comparison.live(self.live_lines(), figures_of(self), snapshot)?;
        comparison.finish()
    }

    /// The same of what holds nothing but the pools of each chip.
    pub fn compare_totals(&self, devices: &Value) -> Result<usize> {
        let mut comparison = Comparison::default();
        comparison.pools(&self.pools(), devices)?;
        comparison.finish()
    }

    /// Only how many buffers there are and what they take: what is told of them twice in memory.
    pub fn compare_use(&self, snapshot: &Value) -> Result<usize> {
        let mut comparison = Comparison::default();
        comparison.figures(&POOL_USE, &self.pools(), snapshot)?;
        comparison.finish()
    }

    /// The same as [`Truth::compare_set_right`] without the live set.
    pub fn compare_pools_set_right(&self, snapshot: &Value) -> Result<usize> {
        let mut comparison = Comparison::default();
        comparison.undoubted(snapshot);
        comparison.pools(&self.pools(), snapshot)?;
        comparison.spaces(&self.allocators, snapshot)?;
        comparison.finish()
    }

    /// The same as [`Truth::compare`] without the live set.
    pub fn compare_pools(&self, snapshot: &Value) -> Result<usize> {
        let mut comparison = Comparison::default();
        comparison.exact(snapshot);
        comparison.pools(&self.pools(), snapshot)?;
        comparison.spaces(&self.allocators, snapshot)?;
        comparison.finish()
    }
}

/// How many of [`BUFFER_FIGURES`] the truth knows: the inline variant has no getter for unique ids.
fn figures_of(truth: &Truth) -> usize {
    let known = truth.live.iter().all(|row| row.uid.is_some());
    BUFFER_FIGURES.len() - usize::from(!known)
}

fn named(figures: &[Value]) -> String {
    let pairs = BUFFER_FIGURES.iter().zip(figures);
    pairs.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

/// Figures compared, and where they differ.
#[derive(Debug, Default)]
struct Comparison {
    figures: usize,
    differences: Vec<String>,
}

impl Comparison {
    fn same(&mut self, what: impl FnOnce() -> String, truth: &Value, shown: &Value) {
        self.figures += 1;
        if truth != shown {
            self.differences.push(format!("{}: truth {truth}, ttmem {shown}", what()));
        }
    }

    fn exact(&mut self, snapshot: &Value) {
        let zero = 0.into();
        self.undoubted(snapshot);
        for group in ["lost", "anomalies"] {
            for (name, count) in snapshot[group].as_object().into_iter().flatten() {
                self.same(|| format!("{group} {name}"), &zero, count);
            }
        }
    }

    fn undoubted(&mut self, snapshot: &Value) {
        self.same(|| "exact".into(), &true.into(), &snapshot["exact"]);
        self.same(
            || "inexact_because".into(),
            &Value::Array(Vec::new()),
            &snapshot["inexact_because"],
        );
    }

    fn pools(
        &mut self,
        truth: &BTreeMap<PoolKey, [Option<u64>; 6]>,
        snapshot: &Value,
    ) -> Result<()> {
        self.figures(&POOL_FIGURES, truth, snapshot)
    }

    fn figures(
        &mut self,
        names: &[&str],
        truth: &BTreeMap<PoolKey, [Option<u64>; 6]>,
        snapshot: &Value,
    ) -> Result<()> {
        let shown = shown_pools(snapshot)?;
        for (key, figures) in truth {
            let pool = shown.get(key).unwrap_or(&Value::Null);
            let wanted = POOL_FIGURES.iter().zip(figures);
            for (name, figure) in wanted.filter(|(name, _)| names.contains(*name)) {
                let what = || format!("chip {} {} {name}", key.0, key.1);
                self.same(what, &(*figure).into(), &pool[*name]);
            }
        }
        // A chip that is open no more keeps its pools, and they are empty.
        for (key, pool) in shown.iter().filter(|(key, _)| !truth.contains_key(*key)) {
            for name in &POOL_FIGURES[..4] {
                let what = || format!("closed chip {} {} {name}", key.0, key.1);
                self.same(what, &0.into(), &pool[*name]);
            }
        }
        Ok(())
    }

    fn spaces(&mut self, truth: &[AllocatorRow], snapshot: &Value) -> Result<()> {
        let truth: Vec<TrueSpace> = truth.iter().map(AllocatorRow::space).collect();
        let (equal, differences) = space::compare(&truth, snapshot)?;
        self.figures += equal + differences.len();
        self.differences.extend(differences);
        Ok(())
    }

    fn live(&mut self, mut truth: Vec<String>, known: usize, snapshot: &Value) -> Result<()> {
        let buffers = snapshot["buffers"].as_array().context("no live set in the snapshot")?;
        let figures = |buffer: &Value| BUFFER_FIGURES.map(|name| buffer[name].clone());
        let mut shown: Vec<String> =
            buffers.iter().map(|buffer| named(&figures(buffer)[..known])).collect();
        self.figures += truth.len() * known;
        let mut ids = HashSet::new();
        let mut given = buffers.iter().filter_map(|buffer| buffer["unique_id"].as_u64());
        if let Some(twice) = given.find(|id| !ids.insert(*id)) {
            self.differences.push(format!("two buffers with the unique id {twice}"));
        }
        truth.sort_unstable();
        shown.sort_unstable();
        if truth != shown {
            let missing = truth.iter().filter(|line| shown.binary_search(line).is_err());
            self.differences.extend(missing.map(|line| format!("ttmem lacks {line}")));
            let extra = shown.iter().filter(|line| truth.binary_search(line).is_err());
            self.differences.extend(extra.map(|line| format!("ttmem invents {line}")));
            let counts = format!("live buffers: truth {}, ttmem {}", truth.len(), shown.len());
            self.differences.push(counts);
        }
        Ok(())
    }

    fn finish(self) -> Result<usize> {
        if self.differences.is_empty() {
            return Ok(self.figures);
        }
        let shown = self.differences.iter().take(40).cloned().collect::<Vec<_>>().join("\n  ");
        bail!("{} of {} figures differ:\n  {shown}", self.differences.len(), self.figures)
    }
}

fn shown_pools(snapshot: &Value) -> Result<BTreeMap<PoolKey, Value>> {
    let mut shown = BTreeMap::new();
    for device in snapshot["devices"].as_array().context("no devices in the snapshot")? {
        let chip = device["chip"].as_i64().context("no chip id")?;
        for pool in device["pools"].as_array().context("no pools")? {
            let buffer_type = pool["type"].as_str().context("no type")?.to_owned();
            let before = shown.insert((chip, buffer_type), pool.clone());
            ensure!(before.is_none(), "chip {chip} twice in {snapshot}");
        }
    }
    Ok(shown)
}

/// A counter of each chip, summed over its pools.
pub fn count_by_chip(snapshot: &Value, counter: &str) -> Result<BTreeMap<i64, u64>> {
    let mut counts = BTreeMap::new();
    for ((chip, _), pool) in shown_pools(snapshot)? {
        *counts.entry(chip).or_default() += pool[counter].as_u64().context("no such counter")?;
    }
    Ok(counts)
}
