//! Circular buffers on the real ttnn, against what its own graph capture says of them; and dataflow
//! buffers, of which a capture says nothing.

use anyhow::{Context as _, Result, ensure};
use e2e::{
    or_skip,
    real::{Program, Real, attach_early, both},
    ttmem::{Ttmem, now_ns},
};
use serde_json::{Value, json};

fn next(program: &mut Program, name: &str) -> Result<Value> {
    let record: Value = program.record()?.context("the script has ended")?;
    ensure!(record["checkpoint"] == name, "{record}");
    Ok(record)
}

/// One line for each circular buffer on each chip.
fn shown(snapshot: &Value) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for program in snapshot["programs"].as_array().context("no programs")? {
        for chip in program["chips"].as_array().context("no chips")? {
            for buffer in program["buffers"].as_array().context("no buffers")? {
                if buffer["kind"] == "dataflow" {
                    continue;
                }
                let cores = buffer["cores"].as_array().context("no cores")?;
                let cores: Vec<Value> = cores
                    .iter()
                    .map(|r| json!([r["start"][0], r["start"][1], r["end"][0], r["end"][1]]))
                    .collect();
                let alias = buffer["kind"] == "alias";
                let [address, size] = [&buffer["address"], &buffer["size"]];
                lines.push(format!("{chip} {address} {size} {alias} {}", json!(cores)));
            }
        }
    }
    lines.sort_unstable();
    Ok(lines)
}

fn expected(record: &Value) -> Result<Vec<String>> {
    let buffers = record["buffers"].as_array().context("no buffers")?;
    let line = |b: &Value| {
        format!("{} {} {} {} {}", b["chip"], b["address"], b["size"], b["alias"], b["cores"])
    };
    let mut lines: Vec<String> = buffers.iter().map(line).collect();
    lines.sort_unstable();
    Ok(lines)
}

/// Dataflow buffers lie one above the other, from where a core's memory begins.
fn dataflow_buffers(snapshot: &Value) -> Result<usize> {
    let mut count = 0;
    for program in snapshot["programs"].as_array().context("no programs")? {
        let buffers = program["buffers"].as_array().context("no buffers")?;
        let mut reached = std::collections::BTreeMap::new();
        for buffer in buffers.iter().filter(|buffer| buffer["kind"] == "dataflow") {
            let address = buffer["address"].as_u64().context("no address")?;
            let size = buffer["size"].as_u64().context("no size")?;
            let begin = reached.insert(buffer["cores"].to_string(), address + size);
            ensure!(begin.is_none_or(|begin| begin <= address), "{program}");
            count += 1;
        }
    }
    Ok(count)
}

fn compare(real: &Real, ttmem: &Ttmem, kind: &str, mesh: &str, chips: usize) -> Result<()> {
    let mut program = real.start_script(kind, "programs.py", &["--mesh", mesh])?;
    let mut attached = attach_early(ttmem, &program)?;
    next(&mut program, "start")?;
    attached.at_or_after(now_ns())?;
    program.go_on()?;
    let record = next(&mut program, "ran")?;
    let snapshot = attached.at_or_after(now_ns())?;
    ensure!(snapshot["exact"] == true, "{}", snapshot["inexact_because"]);
    let (shown_now, expected_now) = (shown(&snapshot)?, expected(&record)?);
    ensure!(shown_now == expected_now, "{shown_now:#?} instead of {expected_now:#?}");
    ensure!(!expected_now.is_empty(), "nothing was run: {record}");
    let aliases = expected_now.iter().filter(|line| line.contains(" true ")).count();
    let dataflow = dataflow_buffers(&snapshot)?;
    ensure!(dataflow > 0, "no dataflow buffers: {}", record["ran"]);
    let devices = snapshot["devices"].as_array().context("no devices")?;
    ensure!(devices.len() == chips, "{} chips", devices.len());
    for chip in devices {
        let circular = &chip["circular"];
        ensure!(circular["unknown_because"] == Value::Null, "{circular}");
        let largest = snapshot["programs"].as_array().context("no programs")?;
        let largest = largest.iter().filter_map(|program| program["core_bytes"].as_u64()).max();
        ensure!(circular["core_bytes"] == json!(largest), "{circular}");
        let room = &circular["headroom"];
        ensure!(room["state"] == "ok" && room["lowest_buffer"] == record["lowest"], "{circular}");
        let end = room["circular_end"].as_i64().context("no end")?;
        let lowest = record["lowest"].as_i64().context("no lowest")?;
        ensure!(room["bytes"] == lowest - end, "{circular}");
    }
    let equal = expected_now.len();
    println!("{kind}: {equal} circular buffers equal ({aliases} aliases), {dataflow} of dataflow");
    println!("ran {}", record["ran"]);
    program.go_on()?;
    next(&mut program, "cleared")?;
    let cleared = attached.at_or_after(now_ns())?;
    ensure!(shown(&cleared)?.is_empty(), "left after the end: {}", cleared["programs"]);
    program.go_on()?;
    next(&mut program, "end")?;
    ensure!(program.finish()?.success(), "the script failed");
    let (_, status) = attached.finish()?;
    ensure!(status.code() == Some(0), "{status}");
    Ok(())
}

#[test]
fn n300_agrees_with_the_graph_capture() {
    let (real, ttmem) = or_skip!(both());
    compare(&real, &ttmem, "n300", "1x2", 2).unwrap();
}

#[test]
fn t3k_agrees_with_the_graph_capture() {
    let (real, ttmem) = or_skip!(both());
    compare(&real, &ttmem, "t3k", "2x4", 8).unwrap();
}
