//! Much of everything at once: sixteen threads, eight chips, a hundred thousand live buffers,
//! sixty-four programs, one agent attached throughout and one attached amid it.

use anyhow::{Context as _, Result, ensure};
use e2e::{
    or_skip, programs,
    standin::{Driver, Standin, count_by_chip},
    ttmem::{Attached, Ttmem, now_ns},
};
use rustix::process::Signal;
use serde_json::Value;

/// Live buffers in the end.
const LIVE: usize = 100_000;
/// Chips of the mesh: each has all of them.
const CHIPS: usize = 8;
/// What the agent may grow by for a live buffer, bytes. Generous: a reading of the target's memory
/// after a loss holds them once more, and the heap keeps that. `memory.rs` measures the ledger.
const GROWTH: u64 = 800;

#[test]
fn a_hundred_thousand_buffers_of_sixteen_threads_are_exact() {
    let ttmem = or_skip!(Ttmem::locate());
    for variant in ["pimpl", "inline"] {
        let standin = or_skip!(Standin::locate(variant));
        stress(&ttmem, &standin).context(variant).unwrap();
    }
}

/// Allocations and frees so far.
#[derive(Clone, Copy, Debug, Default)]
struct Made {
    allocations: u64,
    frees: u64,
}

impl Made {
    /// Adds what a load says.
    fn add(&mut self, answer: &e2e::standin::Answer) -> Result<()> {
        self.allocations += answer.number("allocations")?;
        self.frees += answer.number("frees")?;
        Ok(())
    }
}

fn stress(ttmem: &Ttmem, standin: &Standin) -> Result<()> {
    let mut driver = standin.start()?;
    let mut throughout = attach(ttmem, &driver, &[])?;
    throughout.find(|line| line["exact"] == true)?;
    let before = resident_bytes(throughout.pid())?;
    driver.all_ok(&["open mesh 0 8 name=m", "programs 64 m 7"])?;

    let mut made = Made::default();
    made.add(&driver.ok("churn 16 3000 1 keep=20")?)?;
    driver.tell("churn 16 12000 2 keep=6000 small=DRAM")?;
    // Without a table it has numbers of its own, and does not show what the first one says.
    let mut amid = attach(ttmem, &driver, &["--no-table"])?;
    amid.next()?.context("ttmem has ended")?;
    made.add(&driver.answer()?)?;
    let rest = LIVE - driver.truth()?.buffers();
    made.add(&driver.ok(&format!("hold {rest}"))?)?;

    let time_ns = now_ns();
    for (who, watch) in [("throughout", &mut throughout), ("amid", &mut amid)] {
        let settled = watch.find(|line| line["exact"] == true && time(line) >= time_ns)?;
        is_true(&mut driver, &settled).context(who)?;
    }
    let shown = throughout.at_or_after(now_ns())?;
    counts_are_true(&made, &shown)?;
    let truth: Vec<Value> = serde_json::from_str(&driver.ask("programs")?)?;
    ensure!(truth.len() == 64, "{} programs", truth.len());
    programs::compare_chips(&truth, &shown)?;
    let grown = resident_bytes(throughout.pid())?.saturating_sub(before);
    println!("{made:?}, lost {}; the agent has grown by {grown} bytes", shown["lost"]);
    ensure!(grown <= GROWTH * LIVE as u64, "the agent has grown by {grown} bytes");

    // Each of the buffers, by one that comes when all is at rest, and from memory alone.
    let figures = driver.truth()?.compare(&ttmem.once(driver.pid())?)?;
    driver.truth()?.compare(&ttmem.snapshot(driver.pid())?)?;
    println!("{figures} figures agree");

    driver.ok("release")?;
    for (who, watch) in [("throughout", &mut throughout), ("amid", &mut amid)] {
        let empty = watch.find(|line| buffers(line) == 0 && line["exact"] == true)?;
        is_true(&mut driver, &empty).context(who)?;
    }
    for watch in [throughout, amid] {
        watch.signal(Signal::TERM)?;
        watch.finish()?;
    }
    ensure!(driver.end_with("quit")?.success());
    Ok(())
}

/// Without the live set: a line of all buffers for each glance would be most of the load.
fn attach(ttmem: &Ttmem, driver: &Driver, more: &[&str]) -> Result<Attached> {
    ttmem.attach(driver.pid(), &[&["--refresh", "100"], more].concat())
}

/// Whether it is exact, and all totals are those of the stand-in. What was lost must have been set
/// right.
fn is_true(driver: &mut Driver, shown: &Value) -> Result<()> {
    let truth = driver.truth()?;
    if lost(shown) == 0 {
        truth.compare_pools(shown).map(drop)
    } else {
        truth.compare_pools_set_right(shown).map(drop)
    }
}

/// Whoever was there from the start has seen each allocation and free, unless it says otherwise.
fn counts_are_true(made: &Made, shown: &Value) -> Result<()> {
    if lost(shown) > 0 {
        ensure!(shown["resync"]["done"].as_u64() > Some(0), "{}", shown["resync"]);
        return Ok(());
    }
    for (counter, expected) in [("allocations", made.allocations), ("frees", made.frees)] {
        let counts = count_by_chip(shown, counter)?;
        ensure!(counts.len() == CHIPS, "{counts:?}");
        ensure!(counts.values().all(|count| *count == expected), "{counter}: {counts:?}, {made:?}");
    }
    Ok(())
}

fn time(line: &Value) -> u64 {
    line["time_ns"].as_u64().unwrap_or(0)
}

fn lost(line: &Value) -> u64 {
    let lost = line["lost"].as_object().into_iter().flatten();
    lost.filter_map(|(_, count)| count.as_u64()).sum()
}

/// Live buffers on all chips.
fn buffers(line: &Value) -> u64 {
    count_by_chip(line, "buffers").map_or(u64::MAX, |counts| counts.values().sum())
}

/// What a process has in memory.
fn resident_bytes(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = line.trim().strip_suffix("kB").context(line.to_owned())?.trim().parse()?;
    Ok(kib * 1024)
}
