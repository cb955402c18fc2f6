//! Call stacks of the real tt-metal, under Python.

use anyhow::{Context as _, Result, ensure};
use e2e::{
    or_skip,
    real::{Program, both},
    stacks::{are_in_order, functions},
    ttmem::{Ttmem, now_ns},
};

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
        let in_order = ["tt::tt_metal::GraphTracker::track_allocate", "_PyEval_EvalFrameDefault"];
        ensure!(are_in_order(&names, &in_order), "{names:?}");
        ensure!(names.last() == Some(&"_start"), "{names:?}");
        let site = buffer["site"].as_str().context("no site")?;
        ensure!(site.starts_with("ttnn::"), "{site}: {names:?}");
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
