//! A reader of the shared table, made from `docs/shared-table.md` alone: none of ttmem's own code.

use std::{
    fs::File,
    io::Read as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

const UNKNOWN: u64 = u64::MAX;
const TYPES: [&str; 5] = ["DRAM", "L1", "SYSTEM_MEMORY", "L1_SMALL", "TRACE"];

/// The bytes of a table at about one instant.
#[derive(Debug)]
pub struct Table(Vec<u8>);

impl Table {
    /// Reads the table of a process, again while a write came between.
    pub fn read(directory: &Path, pid: u32) -> Result<Self> {
        let path = directory.join(format!("{pid}.table"));
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let (before, after) = (Self::once(&path)?, Self::once(&path)?);
            // Nothing but the heartbeat may have changed.
            let sequences = before.sequences();
            if sequences.is_some() && sequences == after.sequences() {
                return Ok(before);
            }
            ensure!(Instant::now() < deadline, "{} is never at rest", path.display());
        }
    }

    fn once(path: &Path) -> Result<Self> {
        let mut bytes = Vec::new();
        let mut file = File::open(path).with_context(|| path.display().to_string())?;
        file.read_to_end(&mut bytes)?;
        let table = Self(bytes);
        ensure!(table.0.starts_with(b"TTMEMTAB"), "no table: {}", path.display());
        ensure!(table.word(8) == 1, "version {}", table.word(8));
        ensure!(table.word(16) == table.0.len() as u64, "{} bytes", table.0.len());
        Ok(table)
    }

    /// A word of the header.
    pub fn word(&self, at: u64) -> u64 {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let bytes = self.0.get(at..at.saturating_add(8)).unwrap_or(&[0xff; 8]);
        u64::from_le_bytes(bytes.try_into().unwrap_or([0xff; 8]))
    }

    /// Whether every total is known to equal the allocator's own.
    pub fn is_exact(&self) -> bool {
        self.word(160) == 1
    }

    /// The time up to which every event is included, ns.
    pub fn time_ns(&self) -> u64 {
        self.word(144)
    }

    /// The pools of all chips, as the JSON of a snapshot has them.
    pub fn devices(&self) -> Value {
        let mut chips: Vec<(u64, Value)> = (0..self.word(192))
            .map(|slot| {
                let block = self.word(24) + slot * self.word(32);
                let pools: Vec<Value> = (0..5).filter_map(|kind| self.pool(block, kind)).collect();
                let chip = self.word(block + 8);
                (chip, json!({"chip": chip, "pools": pools}))
            })
            .collect();
        chips.sort_by_key(|(chip, _)| *chip);
        chips.into_iter().map(|(_, chip)| chip).collect()
    }

    /// A word of a chip's block.
    pub fn chip_word(&self, slot: u64, at: u64) -> u64 {
        self.word(self.word(24) + slot * self.word(32) + at)
    }

    fn pool(&self, block: u64, kind: usize) -> Option<Value> {
        let pool = block + self.word(48) + kind as u64 * self.word(56);
        let word = |at: u64| self.word(pool + at);
        let known = |at: u64| Some(word(at)).filter(|value| *value != UNKNOWN);
        (word(80) == 1).then(|| {
            json!({
                "type": TYPES[kind],
                "buffers": word(0),
                "logical_bytes": word(8),
                "used_bytes": known(16),
                "peak_used_bytes": known(24),
                // The same where it is known, and not in the table where it is not.
                "peak_at_least_bytes": known(24),
                "capacity_bytes": known(32),
                "allocations": word(40),
                "frees": word(48),
                "pre_attach_frees": word(56),
                "bank_bytes": known(64),
                "banks": known(72),
            })
        })
    }

    /// All sequence words; `None` if something is being written.
    fn sequences(&self) -> Option<Vec<u64>> {
        let chips = (0..self.word(192)).map(|slot| self.word(24) + slot * self.word(32));
        let found: Vec<u64> = [128].into_iter().chain(chips).map(|at| self.word(at)).collect();
        found.iter().all(|word| word % 2 == 0).then_some(found)
    }
}
