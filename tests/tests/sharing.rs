//! What ttmem shares is what the allocators hold: the table, the socket, deltas, marks.

use std::collections::BTreeMap;

use e2e::{or_skip, sharing::Rig, table::Table, ttmem::now_ns};
use serde_json::{Value, json};

/// Sizes of live buffers by their unique id.
type Known = BTreeMap<u64, u64>;

#[test]
fn table_and_socket_say_what_the_allocators_hold() {
    let mut rig = or_skip!(Rig::new());
    rig.driver.all_ok(&["open mesh 0 4 name=m", "alloc old m DRAM 4096 2048"]).unwrap();
    let _watch = rig.attach(&[]).unwrap();
    rig.driver.all_ok(&["open device 6 name=d", "alloc a d L1 65536 2048", "free old"]).unwrap();
    rig.driver.ok("churn 4 3000 7 keep=50").unwrap();
    rig.sync().unwrap();
    let table = Table::read(&rig.place(), rig.driver.pid()).unwrap();
    assert!(table.is_exact());
    let truth = rig.driver.truth().unwrap();
    let devices = json!({"devices": table.devices()});
    let figures = truth.compare_totals(&devices).unwrap();
    let mut asking = rig.ask().unwrap();
    let snapshot = asking.ask(&json!({"get": "snapshot", "buffers": true})).unwrap();
    truth.compare_pools(&snapshot).unwrap();
    let buffers = asking.ask(&json!({"get": "buffers"})).unwrap();
    assert_eq!(buffers["buffers"], snapshot["buffers"]);
    assert_eq!(buffers["total"], truth.buffers());
    for (from_table, chip) in
        table.devices().as_array().unwrap().iter().zip(snapshot["devices"].as_array().unwrap())
    {
        assert_eq!(from_table["pools"], chip["pools"]);
    }
    println!("{figures} figures equal in the table, {} buffers at the socket", truth.buffers());
}

#[test]
fn circular_buffers_are_in_the_table_too() {
    let mut rig = or_skip!(Rig::new());
    // From the start: programs from before the attach are not known.
    let mut watch = rig.attach_with("50", &[]).unwrap();
    rig.driver
        .all_ok(&[
            "open mesh 0 2 name=m",
            "program p",
            "cb p 4096 0,0-1,1",
            "cb p 8192 0,0-0,0",
            "dispatch p m",
        ])
        .unwrap();
    let snapshot = watch.at_or_after(now_ns()).unwrap();
    let table = Table::read(&rig.place(), rig.driver.pid()).unwrap();
    for (slot, chip) in snapshot["devices"].as_array().unwrap().iter().enumerate() {
        let circular = &chip["circular"];
        assert_eq!(circular["core_bytes"], 12_288);
        for (at, figure) in [
            (16, "core_bytes"),
            (24, "peak_core_bytes"),
            (32, "core_capacity_bytes"),
            (56, "programs"),
            (64, "buffers"),
        ] {
            assert_eq!(table.chip_word(slot as u64, at), circular[figure], "{figure}");
        }
    }
}

#[test]
fn a_time_in_the_table_means_what_it_says() {
    let mut rig = or_skip!(Rig::new());
    rig.driver.ok("open mesh 0 1 name=m").unwrap();
    let _watch = rig.attach(&[]).unwrap();
    for round in 0..20 {
        rig.driver.ok(&format!("alloc b{round} m DRAM 4096 2048")).unwrap();
        let after = now_ns();
        rig.sync().unwrap();
        let table = Table::read(&rig.place(), rig.driver.pid()).unwrap();
        assert!(table.time_ns() >= after);
        assert_eq!(table.devices()[0]["pools"][0]["buffers"], round + 1);
    }
}

#[test]
fn deltas_add_up_to_the_live_set() {
    let mut rig = or_skip!(Rig::new());
    rig.driver.all_ok(&["open mesh 0 2 name=m", "hold 500"]).unwrap();
    let _watch = rig.attach(&[]).unwrap();
    let mut asking = rig.ask().unwrap();
    let begun = asking.ask(&json!({"subscribe": "deltas"})).unwrap();
    assert_eq!(begun["schema"], "ttmem.subscribed/1");
    let mut sequence = begun["sequence"].as_u64().unwrap();
    // What was there before has no delta here: it is told from the rest by its id.
    let before = asking.ask(&json!({"get": "buffers"})).unwrap();
    let mut known: Known = ids_and_sizes(&before["buffers"]);
    rig.driver.ok("churn 4 2000 3 keep=40").unwrap();
    rig.driver.all_ok(&["alloc z m TRACE 8192 2048", "bulk m"]).unwrap();
    let last = asking.ask(&json!({"get": "buffers", "id": "last"})).unwrap();
    let mut line = last;
    let mut deltas = 0;
    // Deltas may come before the answer, and go on after it.
    let after = loop {
        if line["id"] == "last" {
            break line;
        }
        deltas += apply(&line, &mut known, &mut sequence);
        line = asking.line().unwrap().expect("a line");
    };
    while sequence < after["sequence"].as_u64().unwrap() {
        let line = asking.line().unwrap().expect("a line");
        deltas += apply(&line, &mut known, &mut sequence);
    }
    assert_eq!(known, ids_and_sizes(&after["buffers"]));
    println!("{deltas} deltas add up to {} live buffers", known.len());
}

fn ids_and_sizes(buffers: &Value) -> Known {
    let buffers = buffers.as_array().expect("buffers");
    buffers
        .iter()
        .map(|it| (it["unique_id"].as_u64().unwrap(), it["size"].as_u64().unwrap()))
        .collect()
}

fn apply(line: &Value, known: &mut Known, sequence: &mut u64) -> u64 {
    assert_eq!(line["schema"], "ttmem.deltas/1", "{line}");
    for delta in line["deltas"].as_array().unwrap() {
        assert_eq!(delta["sequence"], *sequence + 1, "without a gap");
        *sequence += 1;
        let id = delta["unique_id"].as_u64().unwrap();
        let size = delta["size"].as_u64().unwrap();
        if delta["change"] == "allocated" {
            assert_eq!(known.insert(id, size), None);
        } else {
            assert_eq!(known.remove(&id), Some(size));
        }
    }
    line["deltas"].as_array().unwrap().len() as u64
}

#[test]
fn since_a_mark_growth_and_peak_are_known() {
    let mut rig = or_skip!(Rig::new());
    rig.driver.all_ok(&["open mesh 0 2 name=m", "alloc old m DRAM 49152 2048"]).unwrap();
    let _watch = rig.attach(&[]).unwrap();
    let mut asking = rig.ask().unwrap();
    let marked = asking.ask(&json!({"mark": "step"})).unwrap();
    assert_eq!((&marked["schema"], &marked["previous"]), (&json!("ttmem.mark/1"), &Value::Null));
    let one = rig.driver.ok("alloc a m DRAM 49152 2048").unwrap().number("bank_bytes").unwrap();
    rig.driver.all_ok(&["alloc b m DRAM 49152 2048", "free a", "free old"]).unwrap();
    let since = asking.ask(&json!({"since": "step"})).unwrap();
    let chips = since["since"]["devices"].as_array().unwrap();
    assert_eq!(chips.len(), 2);
    for chip in chips {
        let pool = &chip["pools"][0];
        assert_eq!(pool["buffers"], 0);
        assert_eq!((&pool["allocations"], &pool["frees"]), (&json!(2), &json!(2)));
        assert_eq!(pool["used_bytes"], 0);
        assert_eq!(pool["peak_growth_bytes"], one * 2 * 12);
    }
    // What came since and is still there.
    let left = asking
        .ask(&json!({"get": "buffers", "allocated_after_ns": since["since"]["marked_ns"]}))
        .unwrap();
    assert_eq!((&left["matched"], &left["matched_bytes"]), (&json!(1), &json!(49_152)));
}

#[test]
fn who_falls_behind_is_cut_off_and_delays_nothing() {
    let mut rig = or_skip!(Rig::new());
    rig.driver.ok("open mesh 0 1 name=m").unwrap();
    let mut watch = rig.attach_with("50", &[]).unwrap();
    let mut stuck = rig.ask().unwrap();
    stuck.ask(&json!({"subscribe": "deltas"})).unwrap();
    let made = rig.driver.ok("rate 60000 4").unwrap();
    let snapshot = watch.at_or_after(now_ns()).unwrap();
    assert_eq!(snapshot["lost"], json!({"ring_full": 0, "read_fault": 0}));
    assert_eq!(snapshot["exact"], true);
    rig.driver.truth().unwrap().compare_pools(&snapshot).unwrap();
    let made = made.number("allocations").unwrap() + made.number("frees").unwrap();
    // Still open after a while is an error.
    let lines = stuck.rest().unwrap();
    let told: usize = lines.iter().filter_map(|line| Some(line["deltas"].as_array()?.len())).sum();
    let code = lines.last().map(|line| &line["error"]["code"]).filter(|code| !code.is_null());
    println!("cut off after {told} of {made} deltas, with {code:?}");
    assert!((told as u64) < made, "{told} deltas of {made}");
    rig.sync().unwrap();
}
