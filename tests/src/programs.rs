//! Comparing what ttmem shows of programs with the stand-in's own lists.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

const PROGRAM_FIELDS: [&str; 6] = ["chips", "core_bytes", "chip_bytes", "cores", "end", "buffers"];

/// Compares each program, and the figures of each chip, with the driver's answer to `programs`.
/// The snapshot must have been made `--buffers`.
pub fn compare(truth: &[Value], snapshot: &Value) -> Result<()> {
    let placed = placed(truth);
    let shown = snapshot["programs"].as_array().context("no programs")?;
    ensure!(shown.len() == placed.len(), "{} programs, not {}", shown.len(), placed.len());
    for expected in &placed {
        let row = shown.iter().find(|row| row["program"] == expected["program"]);
        let row = row.with_context(|| format!("not shown: {expected}"))?;
        for field in PROGRAM_FIELDS {
            ensure!(row[field] == expected[field], "{field}: {row} instead of {expected}");
        }
    }
    compare_chips(truth, snapshot)
}

/// Compares the figures of each chip alone.
pub fn compare_chips(truth: &[Value], snapshot: &Value) -> Result<()> {
    let placed = placed(truth);
    for chip in snapshot["devices"].as_array().context("no devices")? {
        let circular = &chip["circular"];
        let on_it: Vec<&&Value> = placed
            .iter()
            .filter(|row| row["chips"].as_array().is_some_and(|c| c.contains(&chip["chip"])))
            .collect();
        let most = |field: &str| on_it.iter().filter_map(|row| row[field].as_u64()).max();
        ensure!(circular["unknown_because"] == Value::Null, "{circular}");
        ensure!(circular["core_bytes"] == json!(most("core_bytes").unwrap_or(0)), "{circular}");
        ensure!(circular["programs"] == json!(on_it.len()), "{circular}");
        let end = most("end").filter(|end| *end > 0);
        ensure!(circular["headroom"]["circular_end"] == json!(end), "{circular}");
    }
    Ok(())
}

fn placed(truth: &[Value]) -> Vec<&Value> {
    truth.iter().filter(|row| row["chips"] != json!([])).collect()
}
