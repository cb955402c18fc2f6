//! Bulk and late frees, captures and submeshes on the real tt-metal, against its memory views.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use e2e::{
    or_skip,
    real::{Program, Real, attach_early, both},
    ttmem::{Attached, Ttmem, now_ns},
};
use serde::Deserialize;
use serde_json::Value;

/// What the script says; of its buffers nothing: the set of them has also such without a block.
#[derive(Debug, Deserialize)]
struct Checkpoint {
    #[serde(rename = "checkpoint")]
    name: String,
    views: Vec<View>,
}

#[derive(Debug, Deserialize)]
struct View {
    mesh: i64,
    #[serde(rename = "type")]
    buffer_type: String,
    num_banks: u64,
    total_bytes_per_bank: u64,
    total_bytes_allocated_per_bank: u64,
    total_bytes_free_per_bank: u64,
    largest_contiguous_bytes_free_per_bank: u64,
    blocks: Vec<(u64, u64)>,
}

/// Compares a snapshot with the views; how many figures were equal.
fn compare(checkpoint: &Checkpoint, snapshot: &Value, who: &str) -> Result<usize> {
    let what = format!("{}: {who}", checkpoint.name);
    ensure!(snapshot["exact"] == true, "{what}: {}", snapshot["inexact_because"]);
    let rows = snapshot["allocators"].as_array().context("no allocators")?;
    let mut figures = 0;
    for view in &checkpoint.views {
        let is_it = |row: &&Value| row["mesh"] == view.mesh && row["type"] == *view.buffer_type;
        let Some(row) = rows.iter().find(is_it) else {
            // Of a mesh that was not used yet nothing is known to those who came early.
            ensure!(view.blocks.is_empty(), "{what}: no row of {view:?}");
            continue;
        };
        let pairs = [
            ("bank_size", view.total_bytes_per_bank),
            ("banks", view.num_banks),
            ("free_bank_bytes", view.total_bytes_free_per_bank),
            ("largest_free_bank_bytes", view.largest_contiguous_bytes_free_per_bank),
        ];
        for (key, figure) in pairs {
            ensure!(row[key] == figure, "{what}: {key} is {}, truth {view:?}", row[key]);
        }
        let map = row["map"].as_array().with_context(|| format!("{what}: no map in {row}"))?;
        let taken = map.iter().filter(|block| block["free"] == false).count();
        ensure!(taken == view.blocks.len(), "{what}: {taken} blocks, truth {view:?}");
        figures += pairs.len() + 1;
    }
    Ok(figures + totals(checkpoint, snapshot, &what)?)
}

/// The pools of a chip are the sums over the allocators that cover it.
fn totals(checkpoint: &Checkpoint, snapshot: &Value, what: &str) -> Result<usize> {
    let chips = snapshot["devices"].as_array().context("no devices")?;
    let mut truth: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for view in &checkpoint.views {
        let sum = truth.entry(&view.buffer_type).or_default();
        sum.0 += view.blocks.len() as u64;
        sum.1 += view.total_bytes_allocated_per_bank;
    }
    // The first chip is in every mesh of the script.
    let pools = chips.iter().find(|chip| chip["chip"] == 0).map(|chip| &chip["pools"]);
    let mut figures = 0;
    for pool in pools.and_then(Value::as_array).into_iter().flatten() {
        let kind = pool["type"].as_str().context("no type")?;
        let (buffers, bytes) = truth.get(kind).copied().unwrap_or_default();
        ensure!(pool["buffers"] == buffers, "{what}: {pool}, truth {buffers} buffers");
        ensure!(pool["bank_bytes"] == bytes, "{what}: {pool}, truth {bytes} bytes");
        figures += 2;
    }
    Ok(figures)
}

/// Follows the script, also by late comers, up to a checkpoint; the snapshot there.
fn follow(
    ttmem: &Ttmem,
    program: &mut Program,
    attached: &mut Attached,
    last: &str,
) -> Result<(Value, usize)> {
    let mut figures = 0;
    loop {
        program.go_on()?;
        let checkpoint: Checkpoint = program.record()?.context("the script has ended")?;
        let snapshot = attached.at_or_after(now_ns())?;
        figures += compare(&checkpoint, &snapshot, "from the start")?;
        figures += compare(&checkpoint, &ttmem.once(program.pid())?, "attached late")?;
        figures += compare(&checkpoint, &ttmem.snapshot(program.pid())?, "memory")?;
        if checkpoint.name == last {
            return Ok((snapshot, figures));
        }
    }
}

fn start(real: &Real, ttmem: &Ttmem) -> Result<(Program, Attached)> {
    let mut program = real.start_script("n300", "lifecycle.py", &[])?;
    let mut attached = attach_early(ttmem, &program)?;
    let begin: Checkpoint = program.record()?.context("the script has ended")?;
    ensure!(begin.name == "start", "{begin:?}");
    attached.settled()?;
    Ok((program, attached))
}

#[test]
fn bulk_and_late_frees_captures_and_submeshes_are_as_tt_metal_says() {
    let (real, ttmem) = or_skip!(both());
    let lifecycle = || -> Result<()> {
        let (mut program, mut attached) = start(&real, &ttmem)?;
        let (snapshot, figures) = follow(&ttmem, &mut program, &mut attached, "late_frees/L1/end")?;
        println!("late frees: {figures} figures, {} blocks taken", snapshot["taken_blocks"]);
        ensure!(snapshot["taken_blocks"].as_u64() >= Some(6), "no block was taken");
        let (_, figures) = follow(&ttmem, &mut program, &mut attached, "captures/within")?;
        println!("captures: {figures} figures");
        let (_, figures) = follow(&ttmem, &mut program, &mut attached, "submeshes/late")?;
        println!("submeshes: {figures} figures");
        program.go_on()?;
        let end: Checkpoint = program.record()?.context("the script has ended")?;
        ensure!(end.name == "end", "{end:?}");
        compare(&end, &attached.at_or_after(now_ns())?, "from the start")?;
        program.go_on()?;
        ensure!(program.wait()?.success(), "the script failed");
        Ok(())
    };
    lifecycle().unwrap();
}
