//! Failed allocations of the stand-in: every number, what was live, and how many there were.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use e2e::{
    failure::{agrees, is_failure, up_to},
    or_skip,
    standin::{Driver, Standin},
    ttmem::{Ttmem, now_ns},
};
use serde_json::Value;

const OPTIONS: [&str; 4] = ["--on-failure", "json", "--refresh", "20"];

/// Type, address, size and bytes per bank of each live buffer.
fn set(buffers: &Value) -> Result<BTreeSet<(String, u64, u64, u64)>> {
    let buffers = buffers.as_array().with_context(|| format!("no buffers: {buffers}"))?;
    let of = |buffer: &Value| {
        let number = |key: &str| buffer[key].as_u64().with_context(|| format!("{key}: {buffer}"));
        let kind = buffer["type"].as_str().unwrap_or_default().to_owned();
        Ok((kind, number("address")?, number("size")?, number("bank_bytes")?))
    };
    buffers.iter().map(of).collect()
}

fn live(driver: &mut Driver) -> Result<BTreeSet<(String, u64, u64, u64)>> {
    set(&serde_json::from_str(&driver.ask("live")?)?)
}

/// Lets an allocation fail; the message that the driver caught.
fn fail(driver: &mut Driver, command: &str) -> Result<String> {
    let answer = driver.ask(command)?;
    ensure!(answer.starts_with("caught Out of Memory"), "{command}: {answer}");
    Ok(answer)
}

fn every_number(ttmem: &Ttmem, standin: &Standin) -> Result<()> {
    let mut driver = standin.start()?;
    driver.all_ok(&["open mesh 0 2 name=m", "open device 5 name=d", "alloc old m L1 8192 1024"])?;
    let mut watch = ttmem.attach(driver.pid(), &OPTIONS)?;
    up_to(&mut watch, now_ns())?;
    driver.all_ok(&["alloc a m DRAM 1048576 2048", "alloc b d L1 65536 1024"])?;
    let mut id = 0;
    for (place, kind, chips) in
        [("m", "DRAM", &[0, 1][..]), ("d", "L1", &[5]), ("m", "L1_SMALL", &[0, 1])]
    {
        let message = fail(&mut driver, &format!("oom {place} {kind}"))?;
        let truth = live(&mut driver)?;
        let (failures, snapshot) = up_to(&mut watch, now_ns())?;
        id += 1;
        let [failure] = &failures[..] else { anyhow::bail!("not one failure: {failures:?}") };
        agrees(failure, &message)?;
        ensure!(failure["id"] == id && failure["skipped"] == 0, "{failure}");
        ensure!(failure["pid"] == driver.pid() && failure["tid"] == driver.pid(), "{failure}");
        ensure!(failure["chips"] == serde_json::json!(chips), "{failure}");
        ensure!(failure["mesh"].is_null() == (place == "d"), "{failure}");
        ensure!(failure["exact"] == true, "{failure}");
        ensure!(set(&failure["buffers"])? == truth, "{failure} but {truth:?}");
        ensure!(snapshot["failures"]["count"] == id, "{snapshot}");
        ensure!(snapshot["exact"] == true, "{snapshot}");
        // What is live changes from one failure to the next.
        driver.ok(&format!("alloc more{id} m DRAM 4096 2048"))?;
    }
    driver.end_with("quit")?;
    let (rest, status) = watch.finish()?;
    ensure!(rest.iter().all(|line| !is_failure(line)), "{rest:?}");
    ensure!(status.success(), "{status}");
    Ok(())
}

#[test]
fn every_number_is_that_of_the_message() {
    let ttmem = or_skip!(Ttmem::locate());
    for variant in ["pimpl", "inline", "cet", "stripped"] {
        let standin = or_skip!(Standin::locate(variant));
        every_number(&ttmem, &standin).context(variant).unwrap();
    }
}

#[test]
fn a_storm_is_counted_to_the_last_one() {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate("pimpl"));
    let storm = || -> Result<()> {
        let mut driver = standin.start()?;
        driver.all_ok(&["open mesh 0 2 name=m", "alloc a m DRAM 1048576 2048"])?;
        let options = [&OPTIONS[..], &["--keep-failures", "4"]].concat();
        let mut watch = ttmem.attach(driver.pid(), &options)?;
        up_to(&mut watch, now_ns())?;
        ensure!(driver.ok("throw 100000")?.number("caught")? == 100_000, "not all were caught");
        let truth = live(&mut driver)?;
        let (failures, snapshot) = up_to(&mut watch, now_ns())?;
        let count = snapshot["failures"]["count"].as_u64().context("no count")?;
        let lost = snapshot["lost"]["ring_full"].as_u64().context("no loss")?;
        let faults = &snapshot["lost"]["read_fault"];
        println!("{count} counted, {lost} lost, {} printed", failures.len());
        ensure!(count + lost == 100_000 && faults == 0, "{snapshot}");
        ensure!((snapshot["exact"] == true) == (lost == 0), "{snapshot}");
        // Each line says how many came before it that were not kept.
        let mut next = 0;
        for failure in &failures {
            next += failure["skipped"].as_u64().context("skipped")? + 1;
            ensure!(failure["id"] == next, "{failure}");
            ensure!(set(&failure["buffers"])? == truth, "{failure}");
        }
        ensure!(next == count, "the last failure is not the last line: {next}");
        ensure!(snapshot["failures"]["last"].as_array().context("last")?.len() <= 4, "{snapshot}");
        Ok(())
    };
    storm().unwrap();
}

#[test]
fn allocations_that_succeed_are_no_failures() {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate("pimpl"));
    let steady = || -> Result<()> {
        let mut driver = standin.start()?;
        driver.ok("open mesh 0 1 name=m")?;
        let mut watch = ttmem.attach(driver.pid(), &OPTIONS)?;
        up_to(&mut watch, now_ns())?;
        let answer = driver.ok("churn 2 5000 7")?;
        ensure!(answer.number("failed")? == 0, "{answer:?}");
        let (failures, snapshot) = up_to(&mut watch, now_ns())?;
        ensure!(failures.is_empty() && snapshot["failures"]["count"] == 0, "{snapshot}");
        ensure!(snapshot["failures"]["unknown_because"].is_null(), "{snapshot}");
        Ok(())
    };
    steady().unwrap();
}

#[test]
fn text_has_a_line_for_each() {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate("inline"));
    let text = || -> Result<()> {
        let mut driver = standin.start()?;
        driver.ok("open mesh 0 2 name=m")?;
        let pid = driver.pid().to_string();
        let mut watch = ttmem.attach(driver.pid(), &OPTIONS)?;
        up_to(&mut watch, now_ns())?;
        let mut command = ttmem.command(&["attach", "--pid", &pid, "--headless", "--no-table"]);
        let child = command.stdout(std::process::Stdio::piped()).spawn()?;
        e2e::ttmem::readable_within(
            child.stdout.as_ref().context("no pipe")?,
            e2e::ttmem::PATIENCE,
        )?;
        fail(&mut driver, "oom m DRAM")?;
        up_to(&mut watch, now_ns())?;
        driver.end_with("quit")?;
        let output = child.wait_with_output()?;
        let text = String::from_utf8(output.stdout)?;
        let lines: Vec<&str> =
            text.lines().filter(|line| line.starts_with("failed: no room for 16.0 TiB")).collect();
        ensure!(lines.len() == 1, "{text}");
        ensure!(lines[0].contains("of DRAM") && lines[0].contains("chips 0,1"), "{text}");
        Ok(())
    };
    text().unwrap();
}
