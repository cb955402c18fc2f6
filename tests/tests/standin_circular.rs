//! Circular and dataflow buffers against the stand-in's own lists, for every variant.
//!
//! Compared at every checkpoint: each program's chips, buffers (kind, address, size, cores),
//! bytes on the fullest core and on a chip, cores and end; and for each chip the largest program,
//! the number of programs, and the headroom.

use anyhow::{Context as _, Result, ensure};
use e2e::{
    or_skip, programs,
    standin::{Driver, Standin},
    ttmem::{Attached, Ttmem, now_ns},
};
use serde_json::Value;

/// A driver with a mesh, and a ttmem that watches it from the start.
struct Watched {
    driver: Driver,
    watch: Attached,
}

impl Watched {
    fn start(ttmem: &Ttmem, standin: &Standin, options: &[&str]) -> Result<Self> {
        let driver = standin.start()?;
        let always = ["--buffers", "--refresh", "20"];
        let mut watch = ttmem.attach(driver.pid(), &[&always[..], options].concat())?;
        watch.next()?.context("ttmem has ended")?;
        Ok(Self { driver, watch })
    }

    fn now(&mut self) -> Result<Value> {
        self.watch.at_or_after(now_ns())
    }

    /// Compares all with the truth; the snapshot.
    fn check(&mut self, at: &str) -> Result<Value> {
        let truth: Vec<Value> = serde_json::from_str(&self.driver.ask("programs")?)?;
        let snapshot = self.now()?;
        ensure!(snapshot["exact"] == true, "{at}: {snapshot}");
        programs::compare(&truth, &snapshot).with_context(|| at.to_owned())?;
        Ok(snapshot)
    }

    fn end(self) -> Result<()> {
        ensure!(self.driver.end_with("quit")?.success());
        let (_, status) = self.watch.finish()?;
        ensure!(status.code() == Some(0), "{status}");
        Ok(())
    }
}

/// Everything that can happen to a program.
fn life_of_programs(ttmem: &Ttmem, standin: &Standin) -> Result<()> {
    let mut watched = Watched::start(ttmem, standin, &[])?;
    watched.driver.all_ok(&["open mesh 0 3", "program a", "program empty"])?;
    watched.check("nothing placed")?;
    watched.driver.all_ok(&[
        "cb a 4096 0,0-7,6",
        "cb a 2048 1,1-2,2;5,5-5,5",
        "cb a 64 0,0-7,6 alias=1400000",
        "dispatch a mesh0",
    ])?;
    let first = watched.check("placed")?;
    ensure!(first["programs"][0]["core_bytes"] == 6144, "{first}");
    watched.driver.all_ok(&["dispatch a mesh0 5"])?;
    watched.check("a cached run changes nothing")?;
    watched.driver.all_ok(&["resize a 0 128", "dispatch a mesh0"])?;
    let replaced = watched.check("placed anew: replaced, not added")?;
    let circular = &replaced["devices"][0]["circular"];
    ensure!(circular["core_bytes"] == 2176 && circular["peak_core_bytes"] == 6144, "{circular}");
    watched.driver.all_ok(&[
        "program d",
        "dfb d 512 0,0-3,3",
        "dfb d 1024 0,0-3,3;6,6-6,6",
        "dfb d 96 1,1-1,1",
        "dispatch d mesh0",
    ])?;
    watched.check("dataflow buffers")?;
    watched.driver.all_ok(&["end a"])?;
    watched.check("one gone")?;
    watched.driver.all_ok(&["end d", "end empty"])?;
    let last = watched.check("all gone")?;
    ensure!(last["devices"][0]["circular"]["core_bytes"] == 0, "{last}");
    watched.end()
}

fn run(variant: &str, test: impl Fn(&Ttmem, &Standin) -> Result<()>) {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate(variant));
    test(&ttmem, &standin).with_context(|| variant.to_owned()).unwrap();
}

#[test]
fn every_variant_tells_the_life_of_programs() {
    for variant in ["pimpl", "inline", "cet", "stripped"] {
        run(variant, life_of_programs);
    }
}

#[test]
fn sixty_four_programs_on_eight_chips_are_exact() {
    run("pimpl", |ttmem, standin| {
        let mut watched = Watched::start(ttmem, standin, &[])?;
        watched.driver.all_ok(&["open mesh 0 8", "programs 64 mesh0 7"])?;
        let snapshot = watched.check("64 programs")?;
        ensure!(snapshot["programs"].as_array().is_some_and(|programs| programs.len() == 64));
        ensure!(snapshot["devices"].as_array().is_some_and(|chips| chips.len() == 8));
        for number in (0..64).step_by(2) {
            watched.driver.ok(&format!("end p{number}"))?;
        }
        watched.check("32 programs")?;
        watched.driver.all_ok(&["programs 64 mesh0 8"])?;
        watched.check("others under the same names")?;
        watched.end()
    });
}

#[test]
fn headroom_is_what_is_left_below_the_lowest_tensor() {
    run("pimpl", |ttmem, standin| {
        let mut watched = Watched::start(ttmem, standin, &[])?;
        watched.driver.all_ok(&["open mesh 0 2", "program a", "cb a 4096 0,0-7,6"])?;
        let unknown = &watched.now()?["devices"][0]["circular"]["headroom"];
        ensure!(unknown["bytes"] == Value::Null, "{unknown}");
        ensure!(
            unknown["unknown_because"] == "no program keeps circular buffers here",
            "{unknown}"
        );
        watched.driver.all_ok(&["dispatch a mesh0"])?;
        let unknown = &watched.now()?["devices"][0]["circular"]["headroom"];
        ensure!(unknown["unknown_because"] == "no tensor lies in L1", "{unknown}");
        // The stand-in fills L1 from below: a tensor lies where circular buffers begin.
        watched.driver.all_ok(&["alloc low mesh0 L1 131072 2048"])?;
        let snapshot = watched.check("a clash")?;
        let live: Vec<Value> = serde_json::from_str(&watched.driver.ask("live")?)?;
        let lowest = live.first().and_then(|row| row["address"].as_u64()).context("no buffer")?;
        for chip in snapshot["devices"].as_array().context("no devices")? {
            let room = &chip["circular"]["headroom"];
            let bytes = i64::try_from(lowest)? - (105_824 + 4096);
            ensure!(room["bytes"] == bytes && room["lowest_buffer"] == lowest, "{room}");
            ensure!(room["state"] == if bytes < 0 { "clash" } else { "low" }, "{room}");
        }
        watched.driver.all_ok(&["free low"])?;
        watched.check("free again")?;
        watched.end()
    });
}

#[test]
fn programs_from_before_the_attach_are_unknown_and_not_zero() {
    run("pimpl", |ttmem, standin| {
        let mut driver = standin.start()?;
        driver.all_ok(&["open mesh 0 2", "programs 3 mesh0 1"])?;
        let mut watch = ttmem.attach(driver.pid(), &["--buffers", "--refresh", "20"])?;
        watch.next()?.context("ttmem has ended")?;
        driver.all_ok(&["program late", "cb late 4096 0,0-7,6", "dispatch late mesh0"])?;
        let snapshot = watch.at_or_after(now_ns())?;
        ensure!(snapshot["exact"] == true, "the totals of buffers are exact: {snapshot}");
        let circular = &snapshot["devices"][0]["circular"];
        let reason = "programs from before the attach are not known";
        ensure!(circular["unknown_because"] == reason, "{circular}");
        ensure!(circular["core_bytes"] == Value::Null, "{circular}");
        ensure!(circular["headroom"]["bytes"] == Value::Null, "{circular}");
        ensure!(circular["seen_core_bytes"] == 4096 && circular["programs"] == 1, "{circular}");
        let memory = ttmem.snapshot(driver.pid())?;
        let circular = &memory["devices"][0]["circular"];
        ensure!(circular["core_bytes"] == Value::Null, "{circular}");
        ensure!(circular["unknown_because"] == "only `ttmem attach` sees programs", "{circular}");
        ensure!(driver.end_with("quit")?.success());
        watch.finish().map(drop)
    });
}

#[test]
fn dispatches_are_counted_only_when_asked_for() {
    run("inline", |ttmem, standin| {
        let steps = [
            "open mesh 0 2",
            "program a",
            "cb a 64 0,0-0,0",
            "program b",
            "cb b 64 0,0-0,0",
            "dispatch a mesh0 7",
            "dispatch b mesh0 2",
            "dispatch a mesh0",
        ];
        let mut watched = Watched::start(ttmem, standin, &[])?;
        watched.driver.all_ok(&steps)?;
        let silent = watched.check("not asked for")?;
        ensure!(silent["devices"][0]["circular"]["dispatches"] == Value::Null, "{silent}");
        ensure!(silent["programs"][0]["dispatches"] == Value::Null, "{silent}");
        watched.end()?;
        let mut watched = Watched::start(ttmem, standin, &["--dispatches"])?;
        let before = now_ns();
        watched.driver.all_ok(&steps)?;
        let truth: Vec<Value> = serde_json::from_str(&watched.driver.ask("programs")?)?;
        let snapshot = watched.check("asked for")?;
        for chip in snapshot["devices"].as_array().context("no devices")? {
            let dispatches = &chip["circular"]["dispatches"];
            ensure!(dispatches["count"] == 10, "{dispatches}");
            ensure!(dispatches["last_program"] == truth[0]["program"], "{dispatches}");
            ensure!(dispatches["last_ns"].as_u64() >= Some(before), "{dispatches}");
        }
        for (name, count) in [("a", 8), ("b", 2)] {
            let program =
                truth.iter().find(|row| row["name"] == name).context("no such program")?;
            let rows = snapshot["programs"].as_array().context("no programs")?;
            let row = rows.iter().find(|row| row["program"] == program["program"]);
            ensure!(row.is_some_and(|row| row["dispatches"] == count), "{row:?}");
        }
        watched.end()
    });
}
