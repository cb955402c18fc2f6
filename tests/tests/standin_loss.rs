//! Nothing is lost without being counted, and with the usual ring nothing is lost.

use anyhow::{Context as _, Error, Result, ensure};
use e2e::{
    or_skip,
    standin::{Answer, Driver, Standin, count_by_chip},
    ttmem::{Attached, Ttmem, now_ns},
};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Attaches, and lets the target's only device be described: the records from then on are one for
/// each allocation and one for each free.
fn attach_described(
    ttmem: &Ttmem,
    standin: &Standin,
    options: &[&str],
) -> Result<(Driver, Attached)> {
    let mut driver = standin.start()?;
    let mut watch = ttmem.attach(driver.pid(), options)?;
    watch.next()?.context("ttmem has ended")?;
    driver.all_ok(&["open mesh 0 1 name=m", "alloc a m DRAM 4096 2048"])?;
    let snapshot = watch.at_or_after(now_ns())?;
    ensure!(snapshot["exact"] == true, "{snapshot}");
    ensure!(count(&snapshot, "allocations")? == 1, "{snapshot}");
    Ok((driver, watch))
}

/// A counter of the only chip.
fn count(snapshot: &Value, counter: &str) -> Result<u64> {
    Ok(count_by_chip(snapshot, counter)?.values().sum())
}

fn number(value: &Value) -> Result<u64> {
    value.as_u64().with_context(|| format!("no count: {value}"))
}

/// Waits until every thread of a process has stopped.
fn wait_until_stopped(pid: u32) -> Result<()> {
    let deadline = now_ns() + 10_000_000_000;
    while now_ns() < deadline {
        let mut stopped = true;
        for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let stat = std::fs::read_to_string(thread?.path().join("stat"))?;
            stopped &= stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'));
        }
        if stopped {
            return Ok(());
        }
        std::thread::yield_now();
    }
    anyhow::bail!("process {pid} did not stop")
}

#[test]
fn every_record_is_seen_or_counted_as_lost() {
    let ttmem = or_skip!(Ttmem::locate());
    for variant in ["pimpl", "inline", "cet", "stripped"] {
        let standin = or_skip!(Standin::locate(variant));
        small_ring(&ttmem, &standin).context(variant).unwrap();
    }
}

fn small_ring(ttmem: &Ttmem, standin: &Standin) -> Result<()> {
    let options = ["--ring-size", "4", "--refresh", "20"];
    let (mut driver, mut watch) = attach_described(ttmem, standin, &options)?;
    let before = watch.at_or_after(now_ns())?["witness"].clone();
    watch.signal(Signal::STOP)?;
    wait_until_stopped(watch.pid())?;
    let told = driver.ok("churn 2 3000 5")?;
    // While it is stopped: the first snapshot behind this is from before the loss is repaired,
    // however long this test waits for its turn.
    let time_ns = now_ns();
    watch.signal(Signal::CONT)?;
    let snapshot = watch.find(|line| line["time_ns"].as_u64() >= Some(time_ns))?;

    let made = told.number("allocations")? + told.number("frees")?;
    let lost = number(&snapshot["lost"]["ring_full"])?;
    let allocations = count(&snapshot, "allocations")? - 1;
    let frees = count(&snapshot, "frees")?;
    // A free whose allocation was lost is seen, too.
    let unknown_frees = number(&snapshot["anomalies"]["unknown_free"])?;
    let seen = allocations + frees + unknown_frees;
    println!(
        "{made} events = {allocations} allocations + {frees} frees + {unknown_frees} frees of \
         unknown buffers seen + {lost} lost"
    );
    ensure!(made == seen + lost, "{made} events, {seen} seen, {lost} lost: {snapshot}");
    ensure!(lost > 0 && seen > 0, "{seen} seen, {lost} lost");
    witness_knows_all(&before, &told, &snapshot["witness"])?;
    ensure!(snapshot["lost"]["read_fault"] == 0, "{snapshot}");
    says_so(&snapshot, lost)?;
    watch.signal(Signal::TERM)?;
    let (rest, status) = watch.finish()?;
    // By now it may have been repaired.
    let end = rest.last().unwrap_or(&snapshot);
    let code = if end["exact"] == true { 0 } else { 2 };
    ensure!(status.code() == Some(code), "{status}: {end}");
    if code == 2 {
        says_so(end, lost)?;
    }
    ensure!(driver.end_with("quit")?.success());
    Ok(())
}

/// What the probes counted is what the driver did, type by type and byte by byte, whatever was lost.
fn witness_knows_all(before: &Value, told: &Answer, after: &Value) -> Result<()> {
    let grown = |of: fn(&Value) -> &Value| Ok::<_, Error>(number(of(after))? - number(of(before))?);
    ensure!(grown(|it| &it["frees"])? == told.number("frees")?, "{before} {after}");
    ensure!(grown(|it| &it["bulk_frees"])? == 0 && after["unread_allocations"] == 0, "{after}");
    let rows = |it: &Value| it["allocations"].as_array().cloned().context("no rows");
    let (rows_before, rows_after) = (rows(before)?, rows(after)?);
    let (counts, bytes) = (told.numbers("of_type")?, told.numbers("bytes")?);
    ensure!(counts.len() == rows_after.len() && counts.iter().all(|count| *count > 0));
    for (at, (was, is)) in rows_before.iter().zip(&rows_after).enumerate() {
        let grown = |what: &str| Ok::<_, Error>(number(&is[what])? - number(&was[what])?);
        let grown = (grown("count")?, grown("logical_bytes")?);
        ensure!(
            grown == (counts[at], bytes[at]),
            "{was} {is}: {grown:?}, not {counts:?} {bytes:?}"
        );
    }
    Ok(())
}

fn says_so(snapshot: &Value, lost: u64) -> Result<()> {
    ensure!(snapshot["exact"] == false, "{snapshot}");
    let reasons = snapshot["inexact_because"].as_array().context("no reasons")?;
    let count = lost.to_string();
    let says = |reason: &Value| {
        let words: Vec<&str> = reason.as_str().unwrap_or("").split_whitespace().collect();
        words.contains(&count.as_str()) && words.contains(&"records")
    };
    ensure!(reasons.iter().any(says), "{reasons:?}");
    Ok(())
}

/// Pairs of allocation and free, over both threads.
const PAIRS: u64 = 200_000;

#[test]
fn the_usual_ring_loses_nothing() {
    let ttmem = or_skip!(Ttmem::locate());
    for variant in ["pimpl", "inline"] {
        let standin = or_skip!(Standin::locate(variant));
        usual_ring(&ttmem, &standin).context(variant).unwrap();
    }
}

fn usual_ring(ttmem: &Ttmem, standin: &Standin) -> Result<()> {
    let (mut driver, mut watch) = attach_described(ttmem, standin, &["--buffers"])?;
    let made = driver.ok(&format!("churn 2 {} 5", PAIRS / 2))?;
    let snapshot = watch.at_or_after(now_ns())?;
    driver.truth()?.compare(&snapshot)?;
    ensure!(count(&snapshot, "allocations")? - 1 == made.number("allocations")?, "{snapshot}");
    ensure!(count(&snapshot, "frees")? == made.number("frees")?, "{snapshot}");
    println!("{PAIRS} pairs in {} s, none lost", made.text("seconds")?);
    watch.signal(Signal::TERM)?;
    let (_, status) = watch.finish()?;
    ensure!(status.code() == Some(0), "{status}");
    ensure!(driver.end_with("quit")?.success());
    Ok(())
}

#[test]
fn what_cannot_be_read_of_one_leaves_the_other_exact() {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate("pimpl"));
    unreadable(&ttmem, &standin).unwrap();
}

fn unreadable(ttmem: &Ttmem, standin: &Standin) -> Result<()> {
    let (mut odd, mut other) = (standin.start()?, standin.start()?);
    let pids = [odd.pid(), other.pid()].map(|pid| pid.to_string());
    let options = ["--pid", &pids[0], "--pid", &pids[1], "--refresh", "20"];
    let mut watch = ttmem.attach_to(&options)?;
    watch.find(|line| line["schema"] == "ttmem.totals/1")?;
    for driver in [&mut odd, &mut other] {
        let program = ["program p", "cb p 4096 0,0-1,1", "dispatch p m"];
        driver.all_ok(&["open mesh 0 1 name=m", "alloc a m DRAM 4096 2048"])?;
        driver.all_ok(&program)?;
    }
    for _ in 0..3 {
        odd.ok("wild")?;
    }
    let time_ns = now_ns();
    let told = watch.of_at(odd.pid(), time_ns)?;
    ensure!(told["lost"] == json!({"ring_full": 0, "read_fault": 3}), "{told}");
    let why = "records were lost, and programs cannot be read again";
    ensure!(told["devices"][0]["circular"]["unknown_because"] == why, "{told}");
    let told = watch.of_at(other.pid(), time_ns)?;
    ensure!(told["lost"] == json!({"ring_full": 0, "read_fault": 0}), "{told}");
    ensure!(told["exact"] == true && told["resync"]["done"] == 0, "{told}");
    let circular = &told["devices"][0]["circular"];
    ensure!(circular["core_bytes"] == 4096 && circular["unknown_because"].is_null(), "{told}");
    for driver in [odd, other] {
        ensure!(driver.end_with("quit")?.success());
    }
    watch.finish()?;
    Ok(())
}
