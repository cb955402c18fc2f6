//! The versions whose allocators have no vtable to find them in memory by: exact if ttmem was
//! there before the first device was opened; afterwards it says that it is not.

use anyhow::{Context as _, Result, ensure};
use e2e::{
    or_skip,
    standin::{Driver, Standin},
    ttmem::{Ttmem, now_ns},
};
use serde_json::Value;

const REASON: &str =
    "older buffers are not known: its allocators have no vtable to find them in memory by";

/// Buffers of every sharding that these versions have, some freed, some freed with their device.
const SCRIPT: [&str; 10] = [
    "open mesh 0 2 name=m",
    "alloc a m DRAM 2097152 2048",
    "alloc b m L1 65536 2048 cores=8 shard=32x64 page=32x32",
    "alloc c m L1 65536 2048 cores=12 shard=64x32 page=32x32 layout=block",
    "alloc d m L1 65536 1024 dist=16,5,4 layout=width",
    "free b",
    "churn 2 200 7 keep=3",
    "open device 5 name=d",
    "alloc e d TRACE 4096 1024",
    "free a",
];

fn both() -> Result<(Standin, Ttmem), String> {
    Ok((Standin::locate("old")?, Ttmem::locate()?))
}

fn is_exact(driver: &mut Driver, snapshot: &Value) -> Result<()> {
    driver.truth()?.compare(snapshot)?;
    ensure!(snapshot["exact"] == true, "{}", snapshot["inexact_because"]);
    Ok(())
}

#[test]
fn attached_before_the_first_device_it_is_exact() {
    let (standin, ttmem) = or_skip!(both());
    from_the_start(&standin, &ttmem).unwrap();
}

fn from_the_start(standin: &Standin, ttmem: &Ttmem) -> Result<()> {
    let mut driver = standin.start()?;
    // Nothing is there yet, and that is known.
    for snapshot in [ttmem.snapshot(driver.pid())?, ttmem.once(driver.pid())?] {
        is_exact(&mut driver, &snapshot).context("before any device")?;
    }
    let mut watch = ttmem.attach(driver.pid(), &["--buffers", "--refresh", "20"])?;
    watch.next()?.context("ttmem has ended")?;
    for command in SCRIPT {
        driver.ok(command)?;
        // Only meshes tell that they are opened; a device is seen with its first buffer.
        if command.starts_with("open device") {
            continue;
        }
        let snapshot = watch.at_or_after(now_ns())?;
        is_exact(&mut driver, &snapshot).with_context(|| format!("after {command}"))?;
    }
    driver.ok("close m")?;
    let snapshot = watch.at_or_after(now_ns())?;
    is_exact(&mut driver, &snapshot).context("after the close")
}

#[test]
fn attached_later_it_says_what_it_does_not_know() {
    let (standin, ttmem) = or_skip!(both());
    attached_later(&standin, &ttmem).unwrap();
}

fn attached_later(standin: &Standin, ttmem: &Ttmem) -> Result<()> {
    let mut driver = standin.start()?;
    driver.all_ok(&SCRIPT)?;
    let late = ttmem.once(driver.pid())?;
    let memory = ttmem.snapshot(driver.pid())?;
    for (how, snapshot) in [("attached", late), ("from memory", memory)] {
        ensure!(snapshot["exact"] == false, "{how}: it calls itself exact");
        let reasons = &snapshot["inexact_because"];
        ensure!(reasons[0] == REASON, "{how}: {reasons}");
    }
    // A device without any buffer is enough: there may have been some.
    let mut driver = standin.start()?;
    driver.ok("open device 3")?;
    let snapshot = ttmem.snapshot(driver.pid())?;
    ensure!(snapshot["inexact_because"][0] == REASON, "{snapshot}");
    Ok(())
}
