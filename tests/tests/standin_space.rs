//! What is free, where it is not only a matter of what is live: a shrunk bank, a reading amid a
//! load, blocks that come back to others, what is asked for in the options.

use anyhow::{Context as _, Result, ensure};
use e2e::{
    or_skip,
    standin::Standin,
    ttmem::{Ttmem, now_ns},
};
use serde_json::Value;

fn row<'a>(snapshot: &'a Value, buffer_type: &str) -> Result<&'a Value> {
    let rows = snapshot["allocators"].as_array().context("no allocators")?;
    rows.iter().find(|row| row["type"] == buffer_type).context("no such row")
}

/// A bank whose start was given away before the attach begins later and is smaller.
fn shrunk(ttmem: &Ttmem, standin: &Standin) -> Result<()> {
    let mut driver = standin.start()?;
    driver.all_ok(&[
        "open mesh 0 2 name=m",
        "shrink m L1 65536",
        "alloc a m L1 524288 2048",
        "alloc b m DRAM 4096 2048",
    ])?;
    let truth = driver.truth()?;
    let late = ttmem.once(driver.pid())?;
    truth.compare(&late).context("attached late")?;
    let memory = ttmem.snapshot(driver.pid())?;
    truth.compare(&memory).context("from memory")?;
    ensure!(row(&memory, "L1")?["checked"] == true, "not compared with the free list: {memory}");
    // Taken back: the free list is longer again, and the geometry with it.
    driver.all_ok(&["free a", "shrink m L1 0", "alloc c m L1 2048 2048"])?;
    driver.truth()?.compare(&ttmem.snapshot(driver.pid())?).context("taken back")?;
    Ok(())
}

#[test]
fn a_shrunk_bank_begins_later() {
    let ttmem = or_skip!(Ttmem::locate());
    for variant in ["pimpl", "inline", "cet", "stripped"] {
        let standin = or_skip!(Standin::locate(variant));
        shrunk(&ttmem, &standin).with_context(|| variant).unwrap();
    }
}

/// Every free list is compared with the one in memory, also where there are no buffers.
#[test]
fn the_free_list_in_memory_is_read_and_agrees() {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate("pimpl"));
    let mut driver = standin.start_with_holes().unwrap();
    driver.truth().unwrap().compare(&ttmem.snapshot(driver.pid()).unwrap()).unwrap();
    for snapshot in [ttmem.snapshot(driver.pid()).unwrap(), ttmem.once(driver.pid()).unwrap()] {
        let rows = snapshot["allocators"].as_array().unwrap();
        assert_eq!(rows.len(), 5, "{snapshot}");
        assert!(rows.iter().all(|row| row["checked"] == true), "{snapshot}");
    }
}

/// Attaching while threads allocate and free: the figures are right as soon as they stand still.
#[test]
fn amid_a_load_nothing_is_contradicted() {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate("pimpl"));
    let mut driver = standin.start_with_holes().unwrap();
    for round in 0..4 {
        driver.tell(&format!("churn 4 40000 {round} keep=3")).unwrap();
        let mut attached =
            ttmem.attach(driver.pid(), &["--buffers", "--map", "--refresh", "20"]).unwrap();
        driver.answer().unwrap();
        let truth = driver.truth().unwrap();
        truth.compare(&attached.at_or_after(now_ns()).unwrap()).unwrap();
        truth.compare(&ttmem.snapshot(driver.pid()).unwrap()).unwrap();
    }
}

/// The map is long: it is there only when asked for.
#[test]
fn the_map_is_there_when_asked_for() {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate("pimpl"));
    let driver = standin.start_with_holes().unwrap();
    let pid = driver.pid().to_string();
    let json = |options: &[&str]| -> Value {
        let mut arguments = vec!["snapshot", "--pid", &pid, "--json"];
        arguments.extend(options);
        let output = ttmem.run(&arguments).unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    };
    assert!(row(&json(&[]), "L1").unwrap().get("map").is_none());
    let snapshot = json(&["--map"]);
    let blocks = row(&snapshot, "L1").unwrap()["map"].as_array().unwrap();
    let kinds: Vec<bool> = blocks.iter().map(|block| block["free"] == true).collect();
    assert_eq!(kinds, [true, false, true, false, true], "{blocks:?}");
    let ids: Vec<Option<u64>> = blocks.iter().map(|block| block["unique_id"].as_u64()).collect();
    assert_eq!(ids, [None, Some(1), None, Some(3), None]);
}

/// The blocks of a map, those that are free or the others: bytes of a bank.
fn block_bytes(row: &Value, free: bool) -> Result<u64> {
    let blocks = row["map"].as_array().with_context(|| format!("no map: {row}"))?;
    let of_kind = blocks.iter().filter(|block| block["free"] == free);
    let place = |block: &Value| block["end"].as_u64()?.checked_sub(block["start"].as_u64()?);
    of_kind.map(|block| place(block).with_context(|| format!("no place: {block}"))).sum()
}

/// `snapshot --map` alone: every block of a bank, in JSON, is as much as the pool shows.
#[test]
fn the_blocks_of_the_map_add_up_to_the_pool() {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate("pimpl"));
    let mut driver = standin.start_with_holes().unwrap();
    driver.ok("alloc e m DRAM 10240000 2048").unwrap();
    let output = ttmem.run(&["snapshot", "--map", "--pid", &driver.pid().to_string()]).unwrap();
    let snapshot: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(snapshot.get("buffers").is_none(), "{snapshot}");
    for chip in snapshot["devices"].as_array().unwrap() {
        for buffer_type in ["DRAM", "L1"] {
            let row = row(&snapshot, buffer_type).unwrap();
            let pools = chip["pools"].as_array().unwrap();
            let pool = pools.iter().find(|pool| pool["type"] == buffer_type).unwrap();
            let [taken, free] = [false, true].map(|free| block_bytes(row, free).unwrap());
            let banks = pool["banks"].as_u64().unwrap();
            assert!(taken > 0 && free > 0, "{row}");
            assert_eq!(pool["used_bytes"], taken * banks, "{buffer_type}: {row}");
            assert_eq!(pool["capacity_bytes"], (taken + free) * banks, "{buffer_type}: {row}");
            assert_eq!(row["free_bank_bytes"], free, "{row}");
        }
    }
}
