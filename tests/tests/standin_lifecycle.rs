//! The ways in which buffers and their allocators come and go, each against the allocators' own
//! tables: attached from the start, attached late, and from memory alone.

use anyhow::{Context as _, Result, ensure};
use e2e::{
    or_skip,
    standin::{Driver, Standin},
    ttmem::{Attached, Ttmem, now_ns},
};
use serde_json::Value;

const VARIANTS: [&str; 2] = ["pimpl", "inline"];
const OPTIONS: [&str; 4] = ["--buffers", "--map", "--refresh", "20"];

/// A driver, and ttmem attached to it before any device was open.
struct Watched<'a> {
    ttmem: &'a Ttmem,
    driver: Driver,
    attached: Attached,
}

impl Watched<'_> {
    /// Compares all three ways of knowing with the truth; what the one from the start says.
    fn check(&mut self, when: &str) -> Result<Value> {
        let truth = self.driver.truth()?;
        let snapshot = self.attached.at_or_after(now_ns())?;
        truth.compare(&snapshot).with_context(|| format!("{when}: from the start"))?;
        let pid = self.driver.pid();
        truth.compare(&self.ttmem.once(pid)?).with_context(|| format!("{when}: attached late"))?;
        truth.compare(&self.ttmem.snapshot(pid)?).with_context(|| format!("{when}: memory"))?;
        Ok(snapshot)
    }

    fn ok(&mut self, commands: &[&str]) -> Result<()> {
        self.driver.all_ok(commands)
    }
}

/// Does it with a driver of each family.
fn with_each(test: impl Fn(&mut Watched<'_>) -> Result<()>) {
    let ttmem = or_skip!(Ttmem::locate());
    for variant in VARIANTS {
        let standin = or_skip!(Standin::locate(variant));
        let run = || -> Result<()> {
            let driver = standin.start()?;
            let mut attached = ttmem.attach(driver.pid(), &OPTIONS)?;
            attached.at_or_after(now_ns())?;
            test(&mut Watched { ttmem: &ttmem, driver, attached })
        };
        run().with_context(|| variant).unwrap();
    }
}

/// The late free of a buffer gives back the block of whoever has its address by then.
#[test]
fn a_late_free_takes_the_block_of_a_newer_buffer() {
    with_each(|watched| {
        watched.ok(&[
            "open mesh 0 2 name=m",
            "alloc a m DRAM 65536 2048",
            "alloc b m DRAM 131072 2048",
            "alloc c m L1 65536 2048",
            "bulk m",
        ])?;
        watched.check("bulk free")?;
        watched.ok(&["alloc x m DRAM 65536 2048", "alloc y m DRAM 131072 2048", "free a"])?;
        let snapshot = watched.check("the late free of the first")?;
        ensure!(snapshot["taken_blocks"] == 1, "{}", snapshot["taken_blocks"]);
        // Nobody is where `c` was.
        watched.ok(&["free c"])?;
        let snapshot = watched.check("a late free of what is free")?;
        ensure!(snapshot["taken_blocks"] == 1, "{}", snapshot["taken_blocks"]);
        Ok(())
    });
}

/// A buffer that has lost its block takes that of the next one there when it goes.
#[test]
fn a_buffer_without_block_frees_by_address_in_turn() {
    with_each(|watched| {
        watched.ok(&["open mesh 0 2 name=m", "alloc a m DRAM 65536 2048", "bulk m"])?;
        watched.ok(&["alloc x m DRAM 65536 2048", "free a"])?;
        watched.check("x has lost its block")?;
        watched.ok(&["alloc y m DRAM 131072 2048", "free x"])?;
        let snapshot = watched.check("y has lost its block")?;
        ensure!(snapshot["taken_blocks"] == 2, "{}", snapshot["taken_blocks"]);
        watched.ok(&["alloc z m DRAM 65536 2048", "free y", "free z"])?;
        let snapshot = watched.check("nothing is left")?;
        ensure!(snapshot["taken_blocks"] == 3, "{}", snapshot["taken_blocks"]);
        Ok(())
    });
}

/// Attached between the bulk free and the late ones, with newer buffers at the addresses.
#[test]
fn a_late_free_of_a_buffer_from_before_the_attach_takes_blocks_too() {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate("pimpl"));
    let late = || -> Result<()> {
        let mut driver = standin.start()?;
        driver.all_ok(&[
            "open mesh 0 2 name=m",
            "alloc a m DRAM 65536 2048",
            "alloc b m DRAM 65536 2048",
            "bulk m",
            "alloc x m DRAM 65536 2048",
        ])?;
        let mut attached = ttmem.attach(driver.pid(), &OPTIONS)?;
        let exact = attached.find(|line| line["exact"] == true)?;
        driver.truth()?.compare(&exact).context("the baseline")?;
        // `x` is older too; `y` is not.
        driver.all_ok(&["alloc y m DRAM 65536 2048", "free a"])?;
        driver.truth()?.compare(&attached.at_or_after(now_ns())?).context("x")?;
        driver.ok("free b")?;
        let last = attached.at_or_after(now_ns())?;
        driver.truth()?.compare(&last).context("y")?;
        ensure!(last["taken_blocks"] == 2, "{}", last["taken_blocks"]);
        driver.all_ok(&["free x", "free y"])?;
        driver.truth()?.compare(&attached.at_or_after(now_ns())?).context("all freed")?;
        Ok(())
    };
    late().unwrap();
}

/// At close all blocks go at once, and no late free comes.
#[test]
fn a_close_frees_all_and_late_frees_come_no_more() {
    with_each(|watched| {
        watched.ok(&["open mesh 0 2 name=m", "alloc a m DRAM 65536 2048", "close m"])?;
        watched.check("closed")?;
        watched.ok(&["open mesh 0 2 name=n", "alloc x n DRAM 65536 2048", "free a"])?;
        let snapshot = watched.check("the same chips again")?;
        ensure!(snapshot["taken_blocks"] == 0, "{}", snapshot["taken_blocks"]);
        Ok(())
    });
}

/// A submesh has an allocator of its own: its bulk and late frees leave the parent's alone,
/// although the addresses are the same.
#[test]
fn a_submesh_frees_its_own() {
    with_each(|watched| {
        watched.ok(&["open mesh 0 2 name=m", "submesh m 1 1 name=s"])?;
        watched.ok(&["alloc a m DRAM 65536 2048", "alloc b s DRAM 65536 2048"])?;
        watched.check("the same address twice")?;
        watched.ok(&["bulk s", "alloc c s DRAM 65536 2048", "free b"])?;
        let snapshot = watched.check("the late free of the submesh")?;
        ensure!(snapshot["taken_blocks"] == 1, "{}", snapshot["taken_blocks"]);
        watched.ok(&["close s"])?;
        watched.check("the submesh is closed")?;
        Ok(())
    });
}

/// Sharded over 8 cores of L1: 8 KiB of each bank.
const ON_CORES: &str = "cores=8 shard=32x128 page=32x32";

/// Each sub-device has an allocator of its own, on a part of the cores and of L1, which the mesh's
/// own allocator gives away meanwhile.
#[test]
fn sub_devices_count_in_their_own_allocators() {
    with_each(|watched| {
        watched.ok(&["open mesh 0 2 name=m", "alloc a m L1 4194304 2048", "free a"])?;
        watched.ok(&["alloc a m DRAM 65536 2048"])?;
        watched.ok(&["subdevices m 131072 16 48"])?;
        watched.check("made, not loaded")?;
        watched.ok(&["load m 1"])?;
        watched.check("loaded")?;
        // The same address in both sub-devices; the mesh's own begins behind them.
        let commands = [
            "alloc b m L1 65536 2048".to_owned(),
            format!("alloc c m L1 65536 2048 {ON_CORES} sub=0"),
            format!("alloc d m L1 65536 2048 {ON_CORES} sub=1"),
            format!("alloc e m L1 65536 2048 {ON_CORES} sub=1"),
        ];
        watched.ok(&commands.each_ref().map(String::as_str))?;
        watched.check("a buffer in each")?;
        watched.driver.caught("unload m")?;
        watched.ok(&["free c"])?;
        watched.check("one freed")?;
        watched.driver.caught(&format!("alloc f m L1 2097152 2048 {ON_CORES} sub=5"))?;
        watched.ok(&["free d", "free e", "unload m"])?;
        watched.check("nothing loaded")?;
        watched.ok(&["alloc f m L1 4194304 2048", "remove m 1"])?;
        watched.check("removed")?;
        watched.ok(&["close m"])?;
        watched.check("closed")?;
        Ok(())
    });
}

/// From one manager to another: the mesh's allocator takes back what it gave to the first, and
/// gives the second what that wants.
#[test]
fn another_manager_of_sub_devices_is_loaded() {
    with_each(|watched| {
        watched.ok(&["open mesh 0 2 name=m"])?;
        watched.ok(&["subdevices m 131072 16 48", "subdevices m 65536 64", "load m 1"])?;
        watched.ok(&[&format!("alloc a m L1 65536 2048 {ON_CORES} sub=1")])?;
        watched.check("the first")?;
        watched.ok(&["free a", "load m 2"])?;
        watched.ok(&[&format!("alloc b m L1 65536 2048 {ON_CORES} sub=0")])?;
        watched.check("the second")?;
        // Ends with the mesh, and so does its buffer.
        watched.ok(&["close m", "open mesh 0 2 name=n", "alloc c n L1 65536 2048"])?;
        watched.check("closed and opened again")?;
        Ok(())
    });
}

/// A manager that is not loaded because a buffer of the mesh is where its part of L1 would be.
#[test]
fn a_buffer_in_the_way_keeps_the_bank_as_it_is() {
    with_each(|watched| {
        watched.ok(&[
            "open mesh 0 2 name=m",
            "alloc a m L1 65536 2048",
            "subdevices m 65536 64",
        ])?;
        watched.driver.caught("load m 1")?;
        watched.check("refused")?;
        watched.ok(&["free a", "load m 1", "alloc a m L1 65536 2048"])?;
        watched.check("loaded")?;
        // Given back, and then refused: the buffer is where the larger part would end.
        watched.ok(&["subdevices m 131072 64"])?;
        watched.driver.caught("load m 2")?;
        watched.check("given back, and not given away again")?;
        Ok(())
    });
}

/// Attached when a manager of sub-devices is loaded and has buffers.
#[test]
fn sub_devices_from_before_the_attach_are_counted() {
    let ttmem = or_skip!(Ttmem::locate());
    for variant in VARIANTS {
        let standin = or_skip!(Standin::locate(variant));
        let late = || -> Result<()> {
            let mut driver = standin.start()?;
            driver.all_ok(&["open mesh 0 2 name=m", "subdevices m 131072 16 48", "load m 1"])?;
            for (name, sub_device) in [("a", 0), ("b", 1), ("c", 1)] {
                driver.ok(&format!("alloc {name} m L1 65536 2048 {ON_CORES} sub={sub_device}"))?;
            }
            driver.ok("alloc d m L1 65536 2048")?;
            let mut attached = ttmem.attach(driver.pid(), &OPTIONS)?;
            let exact = attached.find(|line| line["exact"] == true)?;
            driver.truth()?.compare(&exact).context("the baseline")?;
            driver.all_ok(&["free b", "free d"])?;
            driver.truth()?.compare(&attached.at_or_after(now_ns())?).context("two freed")?;
            driver.all_ok(&["free a", "free c", "unload m", "alloc e m L1 4194304 2048"])?;
            driver.truth()?.compare(&attached.at_or_after(now_ns())?).context("unloaded")?;
            driver.all_ok(&["close m"])?;
            driver.truth()?.compare(&attached.at_or_after(now_ns())?).context("closed")?;
            Ok(())
        };
        late().with_context(|| variant).unwrap();
    }
}

/// A graph capture that dispatches nothing allocates nothing.
#[test]
fn a_hooked_allocation_counts_for_nothing() {
    with_each(|watched| {
        watched.ok(&["open mesh 0 2 name=m", "alloc a m DRAM 65536 2048", "hooked m"])?;
        let snapshot = watched.check("hooked")?;
        let pool = &snapshot["devices"][0]["pools"][0];
        ensure!(pool["allocations"] == 1 && pool["frees"] == 0, "{pool}");
        Ok(())
    });
}

/// Views of a mesh buffer on one chip, and buffers on memory that the caller owns.
#[test]
fn a_buffer_that_owns_no_memory_counts_for_nothing() {
    with_each(|watched| {
        watched.ok(&["open mesh 0 2 name=m", "alloc a m DRAM 65536 2048"])?;
        let address = watched.driver.ok("alloc b m L1 65536 2048")?.text("address")?.to_owned();
        let address = u64::from_str_radix(address.trim_start_matches("0x"), 16)?;
        watched.ok(&[&format!("place v m L1 65536 2048 {address}")])?;
        watched.ok(&["place p m DRAM 4096 2048 536870912"])?;
        watched.check("placed")?;
        watched.ok(&["free v", "free p"])?;
        let snapshot = watched.check("their end")?;
        let pools = snapshot["devices"][0]["pools"].as_array().context("no pools")?;
        ensure!(pools.iter().all(|pool| pool["frees"] == 0), "{pools:?}");
        Ok(())
    });
}

/// Hybrid allocators: a block of each core that such a buffer lies on, from the start and late.
#[test]
fn buffers_with_an_address_per_core_are_counted() {
    let ttmem = or_skip!(Ttmem::locate());
    for variant in VARIANTS {
        let standin = or_skip!(Standin::locate(variant));
        let per_core = || -> Result<()> {
            let mut driver = standin.start()?;
            let mut attached = ttmem.attach(driver.pid(), &OPTIONS)?;
            attached.at_or_after(now_ns())?;
            let shards = "shard=32x128 page=32x32 percore=1";
            let steps: [&[&str]; 5] = [
                &[
                    "open mesh 0 2 name=m",
                    "alloc l m L1 65536 2048 cores=8 shard=32x128 page=32x32",
                ],
                &[&format!("alloc a m L1 65536 2048 cores=8 {shards}")],
                &[&format!("alloc b m L1 8192 2048 cores=1 {shards}"), "free a"],
                &[&format!("alloc c m L1 90112 2048 cores=11 {shards}"), "bulk m"],
                &[&format!("alloc d m L1 65536 2048 cores=8 {shards}")],
            ];
            for (number, step) in steps.iter().enumerate() {
                driver.all_ok(step)?;
                let truth = driver.truth()?;
                truth.compare(&attached.at_or_after(now_ns())?).context("from the start")?;
                // Late, of those that were freed in bulk and of later ones it cannot be told which
                // still have their blocks.
                let told_apart = number < 4;
                for late in [ttmem.once(driver.pid())?, ttmem.snapshot(driver.pid())?] {
                    if told_apart {
                        truth.compare(&late).with_context(|| format!("late, step {number}"))?;
                    } else {
                        let why = late["inexact_because"][0].as_str().unwrap_or_default();
                        let expected = "buffers with an address on each core that may have lost their blocks: 3";
                        ensure!(why == expected, "{}", late["inexact_because"]);
                    }
                }
            }
            Ok(())
        };
        per_core().with_context(|| variant).unwrap();
    }
}

/// What a crashed or exited target had is its last state.
#[test]
fn what_was_live_at_the_end_is_told() {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate("pimpl"));
    for end in ["crash", "quit 3"] {
        let ends = || -> Result<()> {
            let mut driver = standin.start()?;
            driver.all_ok(&["open mesh 0 2 name=m", "alloc a m DRAM 65536 2048"])?;
            let mut attached = ttmem.attach(driver.pid(), &OPTIONS)?;
            attached.find(|line| line["exact"] == true)?;
            driver.ok("alloc b m L1 65536 2048")?;
            let truth = driver.truth()?;
            driver.end_with(end)?;
            let (rest, status) = attached.finish()?;
            let last = rest.last().context("no last snapshot")?;
            ensure!(last["state"] == "exited", "{last}");
            truth.compare(last)?;
            ensure!(status.code() == Some(0), "ttmem ended with {status}");
            Ok(())
        };
        ends().with_context(|| end).unwrap();
    }
}
