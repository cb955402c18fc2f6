//! How ttmem attaches: what it gives up once attached, what a slow reader of its output does to
//! its counting, and the way for older kernels.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    alone, or_skip,
    standin::{Copied, Driver, Standin, changed_code},
    ttmem::{Attached, Ttmem, now_ns},
};
use rustix::process::Signal;

/// For the kernel to take probes away.
const DEADLINE: Duration = Duration::from_secs(5);

fn prepared() -> Result<(Ttmem, Driver, PathBuf), String> {
    let ttmem = Ttmem::locate()?;
    let standin = Standin::locate("pimpl")?;
    let driver = standin.start().map_err(|error| format!("{error:#}"))?;
    Ok((ttmem, driver, standin.library()))
}

/// A line of `/proc/PID/task/TID/status`.
fn status(task: &fs::DirEntry, key: &str) -> Result<String> {
    let text = fs::read_to_string(task.path().join("status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)).context("no such line")?;
    Ok(line.trim_start_matches(':').trim().to_owned())
}

/// No thread of an attached ttmem has a capability left, or can get one.
#[test]
fn capabilities_are_gone_once_attached() {
    let (ttmem, mut driver, _) = or_skip!(prepared());
    driver.all_ok(&["open mesh 0 2 name=m", "alloc a m DRAM 4096 2048"]).unwrap();
    let mut watch = ttmem.attach(driver.pid(), &["-r", "20"]).unwrap();
    watch.next().unwrap().expect("a snapshot");
    let mut threads = 0;
    for task in fs::read_dir(format!("/proc/{}/task", watch.pid())).unwrap() {
        let task = task.unwrap();
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(status(&task, set).unwrap(), "0000000000000000", "{set}");
        }
        assert_eq!(status(&task, "NoNewPrivs").unwrap(), "1");
        threads += 1;
    }
    assert!(threads >= 2, "the pipeline has a thread of its own");
    // And it still works: the numbers are those of the driver.
    driver.all_ok(&["alloc b m L1 4096 2048", "free a"]).unwrap();
    let snapshot = watch.at_or_after(now_ns()).unwrap();
    let compared = driver.truth().unwrap().compare_pools(&snapshot).unwrap();
    println!("{threads} threads without capabilities; {compared} figures equal");
}

/// As a package that was updated, or built anew, while its program ran.
#[test]
fn a_library_that_was_replaced_is_the_one_that_runs() {
    let (ttmem, copied) = or_skip!(Ttmem::locate().and_then(|t| Ok((t, Copied::locate("pimpl")?))));
    let mut driver = copied.standin.start().unwrap();
    driver.all_ok(&["open mesh 0 2 name=m", "alloc a m DRAM 4096 2048"]).unwrap();
    let library = copied.standin.library();
    fs::remove_file(&library).unwrap();
    fs::write(&library, "another").unwrap();
    let pid = driver.pid().to_string();
    for select in [["--pid", &pid], ["--name", copied.name().unwrap()]] {
        let mut watch = ttmem.attach_to(&[&select[..], &["-r", "20"]].concat()).unwrap();
        watch.of_at(driver.pid(), now_ns()).unwrap();
        driver.all_ok(&["alloc b m L1 4096 2048"]).unwrap();
        let snapshot = watch.of_at(driver.pid(), now_ns()).unwrap();
        driver.truth().unwrap().compare_pools(&snapshot).unwrap();
        driver.all_ok(&["free b"]).unwrap();
        watch.signal(Signal::INT).unwrap();
        watch.finish().unwrap();
    }
}

/// Whoever does not read ttmem's output does not keep it from counting.
#[test]
fn a_stuck_reader_loses_nothing() {
    let (ttmem, mut driver, _) = or_skip!(prepared());
    driver.ok("open mesh 0 2 name=m").unwrap();
    let options = ["-r", "10", "--ring-size", "1024"];
    let mut watch = ttmem.attach(driver.pid(), &options).unwrap();
    watch.next().unwrap().expect("a snapshot");
    // A pipe holds 64 KiB, and a snapshot is about 2 KiB: from here on ttmem's writer is stuck,
    // while ten times what the ring holds goes through it.
    driver.ok("rate 60000 1.5").unwrap();
    let answer = driver.ok("churn 1 20000 7").unwrap();
    let expected = answer.number("allocations").unwrap();
    let snapshot = watch.at_or_after(now_ns()).unwrap();
    assert_eq!(snapshot["lost"]["ring_full"], 0, "{}", snapshot["lost"]);
    assert_eq!(snapshot["exact"], true, "{}", snapshot["inexact_because"]);
    let seen: u64 = snapshot["devices"][0]["pools"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|pool| pool["allocations"].as_u64())
        .sum();
    assert!(seen >= expected, "{seen} allocations seen, at least {expected} made");
    println!("{seen} allocations seen behind a stuck reader, none lost");
}

/// The way for kernels without a dependable `uprobe_multi`.
#[test]
fn perf_events_count_the_same() {
    or_skip!(alone::no_other_ttmem());
    let prepared = or_skip!(prepared());
    println!("{} figures equal through perf events", counts_the_same(prepared, "--perf-events"));
}

/// What finds its CPU taken takes another way. Kernels that preempt no program never take it.
#[test]
fn hits_that_preempt_others_count_the_same() {
    or_skip!(alone::no_other_ttmem());
    let prepared = or_skip!(prepared());
    let compared = counts_the_same(prepared, "--pretend-preempting");
    println!("{compared} figures equal, with every other hit beside nobody");
}

fn counts_the_same((ttmem, mut driver, library): (Ttmem, Driver, PathBuf), option: &str) -> usize {
    driver.ok("open mesh 0 2 name=m").unwrap();
    let mut watch = ttmem.attach(driver.pid(), &["-r", "20", option]).unwrap();
    watch.next().unwrap().expect("a snapshot");
    driver
        .all_ok(&[
            "churn 2 5000 3 keep=7",
            "alloc a m L1 32768 2048 cores=8 shard=64x32 page=32x32",
        ])
        .unwrap();
    let snapshot = watch.at_or_after(now_ns()).unwrap();
    let compared = driver.truth().unwrap().compare_pools(&snapshot).unwrap();
    assert_eq!(snapshot["exact"], true, "{}", snapshot["inexact_because"]);
    detached(watch, &driver, &library).unwrap();
    compared
}

fn detached(watch: Attached, driver: &Driver, library: &Path) -> Result<()> {
    let (changed, bytes) = changed_code(driver.pid(), library)?;
    ensure!(changed > 0, "attached, and none of {bytes} bytes differs");
    watch.signal(rustix::process::Signal::TERM)?;
    let (_, status) = watch.finish()?;
    ensure!(status.success(), "{status}");
    // The kernel takes perf events away one by one, after the process has ended.
    let start = Instant::now();
    loop {
        let (changed, bytes) = changed_code(driver.pid(), library)?;
        if changed == 0 {
            println!("all {bytes} bytes as before after {:?}", start.elapsed());
            return Ok(());
        }
        ensure!(start.elapsed() < DEADLINE, "{changed} of {bytes} bytes still differ");
    }
}
