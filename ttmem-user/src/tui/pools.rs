//! Every pool of every chip as rows: what the overview exports.

use super::export::Export;
use crate::ledger::snapshot::Snapshot;

/// One row per pool.
pub fn export(snapshot: &Snapshot) -> Export {
    let columns = [
        "chip",
        "type",
        "buffers",
        "logical_bytes",
        "used_bytes",
        "capacity_bytes",
        "peak_used_bytes",
        "allocations",
        "frees",
        "pre_attach_frees",
    ];
    let mut rows = Vec::new();
    for chip in &snapshot.devices {
        for pool in &chip.pools {
            rows.push(vec![
                chip.chip.0.into(),
                pool.buffer_type.name().into(),
                pool.buffers.into(),
                pool.logical_bytes.into(),
                pool.used_bytes.into(),
                pool.capacity_bytes.into(),
                pool.peak_used_bytes.into(),
                pool.allocations.into(),
                pool.frees.into(),
                pool.pre_attach_frees.into(),
            ]);
        }
    }
    Export { view: "overview", columns: columns.to_vec(), rows }
}
