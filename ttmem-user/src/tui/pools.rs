//! What is said of the pools of a chip besides their own numbers, and all of it as rows: what the
//! overview exports.

use super::export::Export;
use crate::{
    event::BufferType,
    ledger::snapshot::{ChipSnapshot, PoolSnapshot, Snapshot},
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

/// One row per pool of which `wanted` says something: its allocations per second.
pub fn export(
    snapshot: &Snapshot,
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
                pool.logical_bytes.into(),
                pool.used_bytes.into(),
                pool.capacity_bytes.into(),
                pool.peak_used_bytes.into(),
                largest_hole(snapshot, chip, pool.buffer_type).into(),
                pool.allocations.into(),
                pool.frees.into(),
                pool.pre_attach_frees.into(),
                rate.into(),
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
