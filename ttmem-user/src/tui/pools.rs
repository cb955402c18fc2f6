//! What is said of the pools of a chip besides their own numbers, and all of it as rows: what the
//! overview exports.

use std::collections::BTreeMap;

use serde_json::Value;

use super::export::Export;
use crate::{
    event::BufferType,
    ledger::snapshot::{ChipSnapshot, PoolSnapshot, Snapshot},
    units::ChipId,
};

/// Names of the columns.
const COLUMNS: [&str; 13] = [
    "chip",
    "type",
    "buffers",
    "logical_bytes",
    "used_bytes",
    "capacity_bytes",
    "peak_used_bytes",
    "largest_free_bank_bytes",
    "allocations",
    "frees",
    "pre_attach_frees",
    "allocations_per_second",
    "growth_bytes",
];

/// Logical bytes by pool; a pool that holds nothing is not in it.
pub type Logical = BTreeMap<(ChipId, BufferType), u64>;

/// What instant a snapshot is of.
#[derive(Clone, Debug)]
pub enum When {
    /// Now, or when it was held: all of it.
    Now,
    /// An earlier one: what is counted is of now, and not known of then. With the logical bytes, if
    /// it can be said what was live.
    Then(Option<Logical>),
}

impl When {
    /// A number that is only known of now.
    fn now(&self, number: impl Into<Value>) -> Value {
        match self {
            Self::Now => number.into(),
            Self::Then(_) => Value::Null,
        }
    }

    fn logical_bytes(&self, chip: ChipId, pool: &PoolSnapshot) -> Option<u64> {
        match self {
            Self::Now => Some(pool.logical_bytes),
            Self::Then(logical) => {
                let bytes = logical.as_ref()?.get(&(chip, pool.buffer_type)).copied();
                Some(bytes.unwrap_or(0))
            }
        }
    }
}

/// One row per pool of which `wanted` says something: its allocations per second.
pub fn export(
    snapshot: &Snapshot,
    when: &When,
    mark: Option<&Snapshot>,
    wanted: impl Fn(&ChipSnapshot, &PoolSnapshot) -> Option<Option<f64>>,
) -> Export {
    let mut rows = Vec::new();
    for chip in &snapshot.devices {
        for pool in &chip.pools {
            let Some(rate) = wanted(chip, pool) else { continue };
            let grown = mark.and_then(|mark| growth(mark, chip, pool));
            rows.push(vec![
                chip.chip.0.into(),
                pool.buffer_type.name().into(),
                pool.buffers.into(),
                when.logical_bytes(chip.chip, pool).into(),
                pool.used_bytes.into(),
                pool.capacity_bytes.into(),
                pool.peak_used_bytes.into(),
                largest_hole(snapshot, chip, pool.buffer_type).into(),
                when.now(pool.allocations),
                when.now(pool.frees),
                when.now(pool.pre_attach_frees),
                when.now(rate),
                grown.into(),
            ]);
        }
    }
    Export { view: "overview", of: Vec::new(), columns: COLUMNS.to_vec(), rows }
}

/// The pool of a chip.
pub fn of_chip(chip: &ChipSnapshot, kind: BufferType) -> Option<&PoolSnapshot> {
    chip.pools.iter().find(|pool| pool.buffer_type == kind)
}

/// What a pool uses more than when it was marked; what came later had nothing then.
pub fn growth(mark: &Snapshot, chip: &ChipSnapshot, pool: &PoolSnapshot) -> Option<i64> {
    let then = mark.devices.iter().find(|then| then.chip == chip.chip);
    let then = then.and_then(|then| of_chip(then, pool.buffer_type));
    let then = then.map_or(Some(0), |then| then.used_bytes);
    pool.used_bytes.zip(then).map(|(now, then)| now.wrapping_sub(then).cast_signed())
}

/// The largest hole of each bank; `None` if it is not known, or if several allocators share the
/// chip: what they have free is not one number.
pub fn largest_hole(snapshot: &Snapshot, chip: &ChipSnapshot, kind: BufferType) -> Option<u64> {
    let mut of_chip = snapshot.allocators.iter().filter(|space| {
        space.buffer_type == kind && space.chips.contains(&chip.chip) && !space.maybe_closed
    });
    let space = of_chip.next()?;
    of_chip.next().is_none().then_some(space.largest_free_bank_bytes)?
}
