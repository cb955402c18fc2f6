//! ttmem's numbers against the stand-in's own tables: attached from the start, attached late, and
//! from memory alone; for every way in which the real library has been built.
//!
//! Compared at every checkpoint: each chip and buffer type (live buffers, logical bytes, bytes per
//! bank, used bytes, capacity, banks), each live buffer (type, address, unique id, size, page
//! size, bytes per bank, chips, mesh), and that ttmem calls all of it exact.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use e2e::{
    or_skip,
    standin::{Driver, Random, Standin, Truth, count_by_chip},
    ttmem::{Attached, Ttmem, now_ns},
};
use serde_json::Value;

/// A driver, and a ttmem that watches it since before it opened anything.
struct Watched<'a> {
    ttmem: &'a Ttmem,
    driver: Driver,
    watch: Attached,
    checkpoints: usize,
    figures: usize,
}

impl<'a> Watched<'a> {
    fn from_the_start(ttmem: &'a Ttmem, standin: &Standin) -> Result<Self> {
        let driver = standin.start()?;
        let mut watch = ttmem.attach(driver.pid(), &["--buffers", "--refresh", "20"])?;
        let first = watch.next()?.context("ttmem has ended")?;
        ensure!(first["devices"] == Value::Array(Vec::new()), "{first}");
        Ok(Self { ttmem, driver, watch, checkpoints: 0, figures: 0 })
    }

    /// What the watching ttmem says now.
    fn now(&mut self) -> Result<Value> {
        self.watch.at_or_after(now_ns())
    }

    /// Compares what the watching ttmem says with the truth.
    fn check(&mut self, at: &str) -> Result<Truth> {
        let truth = self.driver.truth()?;
        let snapshot = self.now()?;
        let figures = truth.compare(&snapshot).with_context(|| format!("from the start: {at}"))?;
        self.checkpoints += 1;
        self.figures += figures;
        Ok(truth)
    }

    /// The same, and what a ttmem says that attaches now, and what one reads from memory.
    fn check_all(&mut self, at: &str) -> Result<()> {
        let truth = self.check(at)?;
        let late = self.ttmem.once(self.driver.pid())?;
        self.figures += truth.compare(&late).with_context(|| format!("attached late: {at}"))?;
        for buffer in late["buffers"].as_array().context("no buffers")? {
            ensure!(buffer["pre_attach"] == true, "attached late: {at}: {buffer}");
        }
        let memory = self.ttmem.snapshot(self.driver.pid())?;
        self.figures += truth.compare(&memory).with_context(|| format!("from memory: {at}"))?;
        Ok(())
    }

    fn end(self, what: &str) -> Result<()> {
        println!("{what}: {} figures equal at {} checkpoints", self.figures, self.checkpoints);
        ensure!(self.driver.end_with("quit")?.success());
        let (rest, status) = self.watch.finish()?;
        ensure!(rest.last().is_some_and(|last| last["state"] == "exited"), "{rest:?}");
        ensure!(status.code() == Some(0), "{status}");
        Ok(())
    }
}

/// Makes a test for each variant.
macro_rules! for_each_variant {
    ($($name:ident)*) => {$(
        mod $name {
            #[test]
            fn pimpl() { super::run("pimpl", super::steps::$name); }
            #[test]
            fn inline() { super::run("inline", super::steps::$name); }
            #[test]
            fn cet() { super::run("cet", super::steps::$name); }
            #[test]
            fn stripped() { super::run("stripped", super::steps::$name); }
        }
    )*};
}

for_each_variant! {
    kinds_of_buffers
    what_allocates_nothing
    bulk_and_close
    other_capacity_after_reopening
    anything_in_any_order
    counts_under_load
    a_child_is_another_process
}

fn run(variant: &str, step: fn(&mut Watched<'_>) -> Result<()>) {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate(variant));
    let mut watched = Watched::from_the_start(&ttmem, &standin).unwrap();
    step(&mut watched).unwrap();
    watched.end(variant).unwrap();
}

const TYPES: [&str; 5] = ["DRAM", "L1", "SYSTEM_MEMORY", "L1_SMALL", "TRACE"];

/// Layouts of sharded buffers: shard specs, distribution specs, both.
const SHARDED: [&str; 10] = [
    "L1 65536 2048 cores=8 shard=64x32 page=32x32",
    "L1 65536 2048 cores=8 shard=64x32 page=32x32 layout=width",
    "L1 65536 2048 cores=9 shard=64x64 page=32x32 layout=block",
    "L1 66560 1040 cores=3 shard=100x32 page=32x32",
    "DRAM 65536 2048 cores=8 shard=64x32 page=32x32",
    "L1 40960 2048 dist=10,4,2",
    "L1 40960 2048 dist=3,12,7",
    "DRAM 40960 2048 dist=20,5,1",
    "L1 65536 2048 cores=8 shard=64x32 page=32x32 dist=16,8,2",
    "L1_SMALL 640 32 cores=2 shard=32x32 page=32x32",
];

/// What happens, and what is compared on the way.
mod steps {
    use super::*;

    /// A mesh, a submesh over one of its chips, a single chip of another kind.
    const OPEN: [&str; 3] =
        ["open mesh 0 2 name=m", "submesh m 1 1 name=s", "open device 4 arch=blackhole name=d"];

    pub fn kinds_of_buffers(watched: &mut Watched<'_>) -> Result<()> {
        watched.driver.all_ok(&OPEN)?;
        for device in ["m", "s", "d"] {
            for (index, kind) in TYPES.iter().enumerate() {
                for (size, page) in [(20_480, 2048), (16, 16), (7_000, 1000)] {
                    let name = format!("{device}{index}-{page}");
                    watched.driver.ok(&format!("alloc {name} {device} {kind} {size} {page}"))?;
                }
            }
        }
        watched.check_all("interleaved")?;
        for (index, spec) in SHARDED.iter().enumerate() {
            for device in ["m", "s", "d"] {
                watched.driver.ok(&format!("alloc {device}-shard{index} {device} {spec}"))?;
            }
        }
        watched.check_all("sharded")?;
        reuse_addresses(watched)?;
        watched.check_all("addresses reused")
    }

    /// Frees and allocates alike: the same addresses come back.
    fn reuse_addresses(watched: &mut Watched<'_>) -> Result<()> {
        let driver = &mut watched.driver;
        let first = driver.ok("alloc r1 m DRAM 1048576 2048")?;
        driver.ok("free r1")?;
        let second = driver.ok("alloc r2 m DRAM 1048576 2048")?;
        ensure!(first.text("address")? == second.text("address")?, "another address");
        driver.all_ok(&["free s1-2048", "alloc r3 s L1 20480 2048", "free d3-16"])?;
        Ok(())
    }

    pub fn what_allocates_nothing(watched: &mut Watched<'_>) -> Result<()> {
        watched.driver.all_ok(&OPEN)?;
        watched.driver.all_ok(&["alloc a m DRAM 4096 2048", "alloc d d L1 4096 2048"])?;
        watched.check_all("before")?;
        let before = counters(&watched.now()?)?;
        watched.driver.all_ok(&["hooked m", "hooked d", "throw 50", "alloc z m DRAM 0 2048"])?;
        for kind in TYPES {
            watched.driver.caught(&format!("oom m {kind}"))?;
            watched.driver.caught(&format!("oom d {kind}"))?;
        }
        watched.driver.all_ok(&["free z", "hooked m"])?;
        watched.check_all("after")?;
        let after = counters(&watched.now()?)?;
        ensure!(before == after, "counted: {before:?} became {after:?}");
        Ok(())
    }

    fn counters(snapshot: &Value) -> Result<Vec<BTreeMap<i64, u64>>> {
        ["allocations", "frees", "pre_attach_frees"]
            .iter()
            .map(|counter| count_by_chip(snapshot, counter))
            .collect()
    }

    pub fn bulk_and_close(watched: &mut Watched<'_>) -> Result<()> {
        watched.driver.all_ok(&OPEN)?;
        for device in ["m", "s", "d"] {
            for index in 0..8 {
                watched.driver.ok(&format!("alloc {device}{index} {device} L1 4096 1024"))?;
            }
        }
        watched.check_all("before the bulk free")?;
        watched.driver.ok("bulk s")?;
        watched.check_all("bulk free")?;
        watched.driver.all_ok(&["alloc fresh s L1 4096 1024", "free s0", "free s1"])?;
        watched.check_all("late frees after a bulk free")?;
        watched.driver.all_ok(&["close m", "free m0", "free m1"])?;
        watched.check_all("mesh closed")?;
        watched.driver.all_ok(&["close d", "free d0"])?;
        watched.check_all("device closed")?;
        watched.driver.all_ok(&[
            "open mesh 0 2 name=m",
            "open device 4 arch=blackhole name=d",
            "alloc n0 m L1 4096 1024",
            "alloc n1 d L1 4096 1024",
            "free m2",
            "free d1",
        ])?;
        watched.check_all("reopened")?;
        reopen_often(watched)
    }

    /// Host addresses of devices and allocators come back, with other chips behind them.
    fn reopen_often(watched: &mut Watched<'_>) -> Result<()> {
        for round in 0..12 {
            let (first, count) = (round % 3, 1 + round % 4);
            let open = format!("open mesh {first} {count} name=t{round}");
            let alloc = format!("alloc t{round} t{round} DRAM 8192 2048");
            watched.driver.all_ok(&[&open, &alloc])?;
            watched.check(&open)?;
            let close = format!("close t{round}");
            let free = format!("free t{round}");
            watched.driver.all_ok(&[&close, &free])?;
            watched.check(&close)?;
        }
        watched.check_all("opened and closed often")
    }

    /// The chip's pools are then as large as those of the allocator that is open, even if a buffer
    /// that was never freed keeps the closed device and its allocator in memory.
    pub fn other_capacity_after_reopening(watched: &mut Watched<'_>) -> Result<()> {
        watched.driver.all_ok(&[
            "open device 4 arch=blackhole name=d",
            "alloc kept d L1 4096 1024",
            "close d",
            "open device 4 name=d",
            "alloc new d L1 4096 1024",
        ])?;
        watched.check_all("reopened")
    }

    pub fn anything_in_any_order(watched: &mut Watched<'_>) -> Result<()> {
        watched.driver.all_ok(&OPEN)?;
        for device in ["m", "s", "d"] {
            watched.driver.ok(&format!("alloc first-{device} {device} DRAM 2048 2048"))?;
        }
        let mut random = Random(7);
        let mut names = Vec::new();
        for step in 1..=400 {
            one_step(&mut watched.driver, &mut random, &mut names, step)?;
            if step % 40 == 0 {
                watched.check(&format!("step {step}"))?;
            }
        }
        watched.check_all("at the end")
    }

    fn one_step(
        driver: &mut Driver,
        random: &mut Random,
        names: &mut Vec<String>,
        step: u64,
    ) -> Result<()> {
        let mut pick = |bound: usize| usize::try_from(random.below(bound as u64)).unwrap_or(0);
        if !names.is_empty() && pick(100) < 45 {
            let name = names.swap_remove(pick(names.len()));
            return driver.ok(&format!("free {name}")).map(drop);
        }
        let device = ["m", "s", "d"][pick(3)];
        let what = if pick(3) == 0 {
            SHARDED[pick(SHARDED.len())].to_owned()
        } else {
            let page = [16, 48, 512, 1000][pick(4)];
            format!("{} {} {page}", TYPES[pick(5)], page * (1 + pick(11)))
        };
        names.push(format!("b{step}"));
        driver.ok(&format!("alloc b{step} {device} {what}")).map(drop)
    }

    pub fn counts_under_load(watched: &mut Watched<'_>) -> Result<()> {
        watched.driver.all_ok(&[
            "open device 0 name=a",
            "open device 1 arch=blackhole name=b",
            "open mesh 2 1 name=c",
        ])?;
        for device in ["a", "b", "c"] {
            watched.driver.ok(&format!("alloc first-{device} {device} DRAM 2048 2048"))?;
        }
        let mut expected = [3, 0];
        for (command, keep) in [
            ("churn 1 4000 1", false),
            ("churn 4 2000 2 keep=5", true),
            ("churn 16 500 3 keep=1", true),
            ("storm 10000", false),
        ] {
            let counts = watched.driver.ok(command)?;
            ensure!((counts.number("kept")? > 0) == keep, "{counts:?}");
            expected[0] += counts.number("allocations")?;
            expected[1] += counts.number("frees")?;
            watched.check(command)?;
            seen(&watched.now()?, expected).context(command)?;
        }
        expected[1] += watched.driver.ok("release")?.number("frees")?;
        watched.check_all("release")?;
        seen(&watched.now()?, expected)?;
        println!("{} allocations and {} frees seen, and no others", expected[0], expected[1]);
        Ok(())
    }

    /// Each device has one chip of its own: the chips' counts add up to the driver's.
    fn seen(snapshot: &Value, expected: [u64; 2]) -> Result<()> {
        for (counter, expected) in ["allocations", "frees"].iter().zip(expected) {
            let seen: u64 = count_by_chip(snapshot, counter)?.values().sum();
            ensure!(seen == expected, "{counter}: {expected} made, {seen} seen");
        }
        Ok(())
    }

    pub fn a_child_is_another_process(watched: &mut Watched<'_>) -> Result<()> {
        watched.driver.all_ok(&["open mesh 0 2 name=m", "alloc a m DRAM 4096 2048"])?;
        let before = counters(&watched.now()?)?;
        let child = watched.driver.ok("fork 1000")?;
        ensure!(child.number("status")? == 0 && child.number("allocations")? == 1000);
        watched.check_all("after the child's end")?;
        let after = counters(&watched.now()?)?;
        ensure!(before == after, "the child was counted: {before:?} became {after:?}");
        watched.driver.all_ok(&["alloc b m L1 4096 2048", "free a"])?;
        watched.check_all("the parent goes on")
    }
}

#[test]
fn a_hundred_thousand_live_buffers() {
    let ttmem = or_skip!(Ttmem::locate());
    for variant in ["pimpl", "inline"] {
        let standin = or_skip!(Standin::locate(variant));
        let mut driver = standin.start().unwrap();
        let mut watch = ttmem.attach(driver.pid(), &["--refresh", "100"]).unwrap();
        watch.next().unwrap().unwrap();
        driver.all_ok(&["open mesh 0 2 name=m", "hold 100000"]).unwrap();
        let truth = driver.truth().unwrap();
        assert_eq!(truth.buffers(), 100_000);
        truth.compare_pools(&watch.at_or_after(now_ns()).unwrap()).context("watched").unwrap();
        truth.compare(&ttmem.once(driver.pid()).unwrap()).context("attached late").unwrap();
        truth.compare(&ttmem.snapshot(driver.pid()).unwrap()).context("from memory").unwrap();
        driver.ok("release").unwrap();
        let snapshot = watch.at_or_after(now_ns()).unwrap();
        driver.truth().unwrap().compare_pools(&snapshot).context("released").unwrap();
    }
}

#[test]
fn a_late_attach_amid_a_load_is_exact() {
    let ttmem = or_skip!(Ttmem::locate());
    for variant in ["pimpl", "inline"] {
        let standin = or_skip!(Standin::locate(variant));
        let mut driver = standin.start().unwrap();
        driver.all_ok(&["open mesh 0 2 name=m", "open device 4 name=d", "hold 2000"]).unwrap();
        for round in 0..8 {
            driver.tell(&format!("stir 2 {round} keep=10")).unwrap();
            let mut watch = ttmem.attach(driver.pid(), &["--buffers", "--refresh", "50"]).unwrap();
            let frees =
                |line: &Value| count_by_chip(line, "frees").map_or(0, |it| it.values().sum());
            // The load went on before the attach, and still does.
            watch.find(|line| frees(line) > 0_u64).unwrap();
            driver.ok("enough").unwrap();
            let truth = driver.truth().unwrap();
            let snapshot = watch.at_or_after(now_ns()).unwrap();
            truth.compare(&snapshot).with_context(|| format!("{variant} {round}")).unwrap();
        }
    }
}

/// A program that replaces itself has ended: the last snapshot is what it held.
#[test]
fn a_program_that_replaces_itself() {
    let ttmem = or_skip!(Ttmem::locate());
    for variant in ["pimpl", "inline"] {
        let standin = or_skip!(Standin::locate(variant));
        let mut watched = Watched::from_the_start(&ttmem, &standin).unwrap();
        watched.driver.all_ok(&["open mesh 0 2 name=m", "alloc a m DRAM 4096 2048"]).unwrap();
        watched.check(variant).unwrap();
        let truth = watched.driver.truth().unwrap();
        watched.driver.exec().unwrap();
        let last = watched.watch.find(|line| line["state"] == "replaced").unwrap();
        truth.compare(&last).with_context(|| format!("{variant}: what it held")).unwrap();
    }
}
