//! Call stacks of the real tt-metal, under Python.

use anyhow::{Context as _, Result, ensure};
use e2e::{
    or_skip,
    real::{Program, both},
    stacks::{MOST_PYTHON, Made, Told, are_in_order, by_address, functions, python_functions},
    ttmem::{Ttmem, now_ns},
};
use serde_json::Value;

/// Where in the script there are buffers of all kinds.
const CHECKPOINT: &str = "interleaved/all";

#[test]
fn every_buffer_leads_from_ttnn_to_the_start_of_the_program() {
    let (real, ttmem) = or_skip!(both());
    let program = real.start("n300", &["--mesh", "1x2"]).unwrap();
    whole_stacks(&ttmem, program).unwrap();
}

fn whole_stacks(ttmem: &Ttmem, mut program: Program) -> Result<()> {
    let options = ["--wait", "--buffers", "-r", "20", "--stacks", "--no-table"];
    let whole = ["--stack-bytes", "16K"];
    let mut watch = ttmem.attach(program.pid(), &[&options[..], &whole].concat())?;
    program.expect("start")?;
    watch.settled()?;
    program.go_on()?;
    program.until(CHECKPOINT)?;
    let snapshot = watch.at_or_after(now_ns())?;
    ensure!(snapshot["exact"] == true, "{}", snapshot["inexact_because"]);
    let buffers = snapshot["buffers"].as_array().context("no buffers")?;
    ensure!(buffers.len() > 10, "{} buffers", buffers.len());
    for buffer in buffers {
        ensure!(buffer["stack_cut"].is_null() && buffer["stack_unknown"].is_null(), "{buffer}");
        let names = functions(buffer)?;
        let in_order = ["tt::tt_metal::GraphTracker::track_allocate", "_PyObject_Call", "main"];
        ensure!(are_in_order(&names, &in_order), "{names:?}");
        ensure!(names.last() == Some(&"_start"), "{names:?}");
        let site = buffer["site"].as_str().context("no site")?;
        ensure!(site.contains(".py:") && site.contains(" ttnn::"), "{site}: {names:?}");
    }
    let stacks = &snapshot["stacks"];
    ensure!(
        stacks["lost"] == 0 && stacks["seen"].as_u64() >= Some(buffers.len() as u64),
        "{stacks}"
    );
    println!("{} buffers, {stacks}", buffers.len());
    program.go_on()?;
    ensure!(program.finish()?.success());
    watch.finish()?;
    Ok(())
}

#[test]
fn python_functions_are_those_that_python_says() {
    let (real, ttmem) = or_skip!(both());
    // Most stacks end before the interpreter, or are whole.
    for stack_bytes in ["2K", "64K"] {
        let program = real.start_script("n300", "stacks.py", &[]).unwrap();
        python_functions_of(&ttmem, program, stack_bytes)
            .unwrap_or_else(|error| panic!("{stack_bytes}: {error:#}"));
    }
}

fn python_functions_of(ttmem: &Ttmem, mut program: Program, stack_bytes: &str) -> Result<()> {
    let options = ["--wait", "--buffers", "-r", "20", "--no-table", "--stacks"];
    let more = ["--stack-bytes", stack_bytes];
    let mut watch = ttmem.attach(program.pid(), &[&options[..], &more].concat())?;
    let mut told: Told = program.record()?.context("no start")?;
    watch.settled()?;
    program.go_on()?;
    while told.checkpoint != "stacks" {
        told = program.record()?.context("the script ended early")?;
    }
    let snapshot = watch.at_or_after(now_ns())?;
    ensure!(snapshot["exact"] == true, "{}", snapshot["inexact_because"]);
    let by_address = by_address(&snapshot)?;
    ensure!(told.made.len() == 13, "{} made", told.made.len());
    for made in &told.made {
        let buffer = by_address.get(&made.address).context("it is not there")?;
        check(buffer, made, stack_bytes).with_context(|| format!("{made:?}\n{buffer:#}"))?;
    }
    let stacks = &snapshot["stacks"];
    let deep = &stacks["python_unknown"]["too_many_functions"];
    ensure!(
        *deep == 1 && stacks["python_unknown"].as_object().map(serde_json::Map::len) == Some(1),
        "{stacks}"
    );
    program.go_on()?;
    program.record::<Value>()?.context("no end")?;
    program.go_on()?;
    ensure!(program.wait()?.success());
    watch.finish()?;
    Ok(())
}

/// Whether a buffer's stack is what Python says; on the way to the allocation there are more.
fn check(buffer: &Value, made: &Made, stack_bytes: &str) -> Result<()> {
    let seen = python_functions(buffer)?;
    let inner = seen.iter().position(|function| function.2.ends_with("make")).context("no make")?;
    ensure!(inner > 0 && seen[inner - 1].2 == "tensor", "what is called");
    let is_deep = made.stack.len() > MOST_PYTHON;
    ensure!(buffer["python_unknown"].is_null() != is_deep);
    if is_deep {
        // Some versions have frames in between that are no functions'.
        ensure!((MOST_PYTHON - 4..=MOST_PYTHON).contains(&seen.len()), "{} functions", seen.len());
        ensure!(made.stack.starts_with(&seen[inner..]), "{:?}", &seen[inner..]);
    } else {
        ensure!(seen[inner..] == made.stack, "{:?}", &seen[inner..]);
    }
    if stack_bytes == "64K" {
        ensure!(buffer["stack_cut"].is_null() && buffer["frames_beyond_cut"] == 0);
    } else {
        ensure!(buffer["frames_beyond_cut"] == seen.len());
    }
    let site = buffer["site"].as_str().context("no site")?;
    ensure!(site.starts_with("checkpoints.py:"), "{site}");
    Ok(())
}
