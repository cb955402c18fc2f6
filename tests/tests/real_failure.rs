//! Failed allocations of the real tt-metal: every number is that of the exception's message, and
//! what was live is what tt-metal reports.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use e2e::{
    failure::{agrees, up_to},
    or_skip,
    real::{Real, both, truth::Live},
    ttmem::{Ttmem, now_ns},
};
use serde_json::Value;

fn live_of(buffer: &Value) -> Result<Live> {
    let number = |key: &str| buffer[key].as_u64().with_context(|| format!("{key}: {buffer}"));
    let chips = buffer["chips"].as_array().context("chips")?;
    Ok(Live {
        buffer_type: buffer["type"].as_str().context("type")?.to_owned(),
        address: number("address")?,
        bank_bytes: number("bank_bytes")?,
        mesh: buffer["mesh"].as_i64().context("mesh")?,
        chips: chips.iter().filter_map(Value::as_i64).collect(),
    })
}

fn every_number(real: &Real, ttmem: &Ttmem, kind: &str, mesh: &str) -> Result<()> {
    let mut program = real.start(kind, &["--mesh", mesh, "--phases", "out_of_memory"])?;
    program.expect("start")?;
    let options = ["--on-failure", "json", "--refresh", "50"];
    let mut attached = ttmem.attach(program.pid(), &options)?;
    attached.settled()?;
    program.go_on()?;
    for (id, name) in [(1, "out_of_memory/DRAM"), (2, "out_of_memory/L1")] {
        let checkpoint = program.expect(name)?;
        let (failures, snapshot) = up_to(&mut attached, now_ns())?;
        let [failure] = &failures[..] else { anyhow::bail!("not one failure: {failures:?}") };
        let message = checkpoint.caught.as_ref().context("nothing was caught")?;
        agrees(failure, message)?;
        ensure!(failure["id"] == id && snapshot["failures"]["count"] == id, "{snapshot}");
        ensure!(failure["tid"] == program.pid(), "{failure}");
        ensure!(failure["exact"] == true, "{failure}");
        let chips = checkpoint.chips();
        ensure!(failure["chips"] == serde_json::json!(chips), "{failure} but {chips:?}");
        let truth = checkpoint.truth()?;
        let truth: BTreeSet<Live> = truth.live.into_iter().map(|(live, _)| live).collect();
        let buffers = failure["buffers"].as_array().context("no buffers")?;
        let shown = buffers.iter().map(live_of).collect::<Result<BTreeSet<Live>>>()?;
        ensure!(shown == truth, "{shown:?} but {truth:?}");
        ensure!(!truth.is_empty(), "nothing was live");
        println!("{kind}: {name}: {} numbers and {} buffers agree", 8, truth.len());
        program.go_on()?;
    }
    program.expect("out_of_memory/freed")?;
    ensure!(program.finish()?.success(), "the target failed");
    let (_, status) = attached.finish()?;
    ensure!(status.success(), "ttmem ended with {status}");
    Ok(())
}

#[test]
fn every_number_of_a_wormhole_mesh_is_that_of_the_message() {
    let (real, ttmem) = or_skip!(both());
    every_number(&real, &ttmem, "n300", "1x2").unwrap();
}

#[test]
fn every_number_of_a_blackhole_is_that_of_the_message() {
    let (real, ttmem) = or_skip!(both());
    every_number(&real, &ttmem, "p150", "1x1").unwrap();
}
