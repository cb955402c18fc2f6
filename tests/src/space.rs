//! What allocators have free, against what ttmem shows of it: figures, and each hole.

use anyhow::{Context as _, Result};
use serde_json::Value;

/// What one allocator has free of a buffer type, by its own tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrueSpace {
    /// The mesh; `None` for a single device.
    pub mesh: Option<i64>,
    /// Its chips, in any order.
    pub chips: Vec<i64>,
    /// Buffer type.
    pub buffer_type: String,
    /// Banks.
    pub banks: u64,
    /// Bytes of a bank.
    pub bank_size: u64,
    /// Address of the first byte, where the truth has it.
    pub base: Option<u64>,
    /// Free bytes of a bank.
    pub free: u64,
    /// Bytes of the largest hole.
    pub largest: u64,
    /// How many holes.
    pub holes: u64,
    /// A sub-device without buffers: nothing leads to its allocator, so it need not be shown.
    pub may_be_hidden: bool,
    /// The holes in order of address, where the truth has them: bytes from the base, bytes.
    pub map: Option<Vec<(u64, u64)>>,
    /// Its banks have free lists of their own, so that there is no figure of each of them.
    pub uneven: bool,
}

impl TrueSpace {
    /// ttmem's names, and what it must show there.
    fn figures(&self) -> Vec<(&'static str, u64)> {
        let bank = [("banks", self.banks), ("bank_size", self.bank_size)];
        if self.uneven {
            return bank.to_vec();
        }
        let scattered = (self.free - self.largest) * 1000;
        let mut figures = bank.to_vec();
        figures.extend([
            ("free_bank_bytes", self.free),
            ("largest_free_bank_bytes", self.largest),
            ("holes", self.holes),
            ("fragmentation_permille", scattered.checked_div(self.free).unwrap_or(0)),
        ]);
        figures.extend(self.base.map(|base| ("base", base)));
        figures
    }

    /// The row that says the most of what is expected: those of a mesh and of its sub-devices have
    /// the same name.
    fn most_like(&self, rows: &[&Value]) -> Option<usize> {
        let right = |row: &Value| {
            self.figures().iter().filter(|(name, figure)| row[*name] == *figure).count()
        };
        let candidates = rows.iter().enumerate().filter(|(_, row)| self.is(row));
        let (at, row) = candidates.max_by_key(|(_, row)| right(row))?;
        // An idle sub-device must not be taken for another allocator.
        let is_it = !self.may_be_hidden || right(row) == self.figures().len();
        is_it.then_some(at)
    }

    fn is(&self, row: &Value) -> bool {
        let sorted = |mut chips: Vec<i64>| {
            chips.sort_unstable();
            chips
        };
        let chips = row["chips"].as_array().into_iter().flatten().filter_map(Value::as_i64);
        row["mesh"].as_i64() == self.mesh
            && row["type"] == self.buffer_type.as_str()
            && sorted(chips.collect()) == sorted(self.chips.clone())
    }
}

/// The holes of a row: bytes from the base, bytes.
fn shown_holes(row: &Value) -> Result<Vec<(u64, u64)>> {
    let base = row["base"].as_u64().context("no base")?;
    let map = row["map"].as_array().context("no map")?;
    let mut next = base;
    let mut holes = Vec::new();
    for block in map {
        let place = block["start"].as_u64().zip(block["end"].as_u64());
        let (start, end) = place.context("a block without a place")?;
        anyhow::ensure!(start == next && end > start, "{block} is not behind the one before");
        next = end;
        if block["free"] == true {
            holes.push((start - base, end - start));
        }
    }
    anyhow::ensure!(Some(next - base) == row["bank_size"].as_u64(), "the map is not all: {row}");
    Ok(holes)
}

/// Compares a snapshot made with `--map`. How many figures were equal, and what differs.
pub fn compare(truth: &[TrueSpace], snapshot: &Value) -> Result<(usize, Vec<String>)> {
    let mut rows: Vec<&Value> =
        snapshot["allocators"].as_array().context("no allocators")?.iter().collect();
    let (mut equal, mut differences) = (0, Vec::new());
    for space in truth {
        let what = format!("mesh {:?} {}", space.mesh, space.buffer_type);
        let Some(at) = space.most_like(&rows) else {
            if !space.may_be_hidden {
                differences.push(format!("{what}: no row of allocators[]: {space:?}"));
            }
            continue;
        };
        let row = rows.remove(at);
        for (name, figure) in space.figures() {
            if row[name] == figure {
                equal += 1;
            } else {
                let why = &row["unknown_because"];
                let shown = &row[name];
                differences.push(format!("{what} {name}: truth {figure}, ttmem {shown} ({why})"));
            }
        }
        if space.uneven && !row["free_bank_bytes"].is_null() {
            differences.push(format!("{what}: banks that differ, and still {row}"));
        }
        if let Some(holes) = space.map.as_ref().filter(|_| space.banks > 0) {
            let shown = shown_holes(row).with_context(|| what.clone())?;
            if shown == *holes {
                equal += 1;
            } else {
                differences.push(format!("{what}: holes {holes:?}, ttmem {shown:?}"));
            }
        }
    }
    // What is left is closed; of an open one the truth would know.
    let open = rows.iter().filter(|row| row["maybe_closed"] != true);
    let with_memory = open.filter(|row| row["banks"] != 0 && !truth.is_empty());
    differences.extend(with_memory.map(|row| format!("no such allocator is open: {row}")));
    Ok((equal, differences))
}
