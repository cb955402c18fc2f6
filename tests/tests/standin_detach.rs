//! Whatever ends ttmem, the target runs on as before; whatever ends the target, ttmem says so and
//! ends.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    alone, or_skip,
    standin::{Driver, Standin, changed_code},
    ttmem::{Attached, Ttmem, now_ns},
};
use rustix::process::Signal;

/// What is aimed at is printed with what was measured, and `cargo xtask bench` measures it.
const GOAL: Duration = Duration::from_millis(200);
/// Only what has gone wrong takes so long, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(10);

/// How ttmem is ended.
#[derive(Clone, Copy, Debug)]
enum End {
    ByItself,
    By(Signal),
}

const ENDS: [End; 5] = [
    End::ByItself,
    End::By(Signal::TERM),
    End::By(Signal::INT),
    End::By(Signal::HUP),
    End::By(Signal::KILL),
];

/// A driver with an open mesh and live buffers, and where its library is.
fn prepared(variant: &str) -> Result<(Driver, PathBuf), String> {
    let standin = Standin::locate(variant)?;
    let prepare = || {
        let mut driver = standin.start()?;
        driver.all_ok(&["open mesh 0 2 name=m", "hold 100"])?;
        anyhow::Ok(driver)
    };
    Ok((prepare().map_err(|error| format!("{error:#}"))?, standin.library()))
}

/// Attaches and waits for the first snapshot; how long that took.
fn attach(ttmem: &Ttmem, driver: &Driver, options: &[&str]) -> Result<(Attached, Duration)> {
    let start = Instant::now();
    let mut watch = ttmem.attach(driver.pid(), options)?;
    watch.next()?.context("ttmem has ended")?;
    Ok((watch, start.elapsed()))
}

/// Ends ttmem; how long that took.
fn end(watch: Attached, how: End) -> Result<Duration> {
    let start = Instant::now();
    if let End::By(signal) = how {
        watch.signal(signal)?;
    }
    let (_, status) = watch.finish()?;
    match how {
        End::By(Signal::KILL) => ensure!(status.code().is_none(), "{status}"),
        _ => ensure!(status.code() == Some(0), "{how:?}: {status}"),
    }
    Ok(start.elapsed())
}

fn timely(what: &str, took: Duration) -> Result<()> {
    let mark = if took <= GOAL { "" } else { ", beyond the goal of 200 ms" };
    println!("{what}: {:.0} ms{mark}", took.as_secs_f64() * 1e3);
    ensure!(took < LIMIT, "{what} took {took:?}");
    Ok(())
}

#[test]
fn nothing_stays_behind() {
    let ttmem = or_skip!(Ttmem::locate());
    or_skip!(alone::no_other_ttmem());
    for variant in ["pimpl", "inline", "cet", "stripped"] {
        let (driver, library) = or_skip!(prepared(variant));
        detach_in_every_way(&ttmem, driver, &library).context(variant).unwrap();
    }
}

fn detach_in_every_way(ttmem: &Ttmem, mut driver: Driver, library: &Path) -> Result<()> {
    let (before, bytes) = changed_code(driver.pid(), library)?;
    ensure!(before == 0, "{before} bytes differ before any attach");
    for how in ENDS {
        let by_itself = ["--duration", "0.3"];
        let options = if matches!(how, End::ByItself) { &by_itself[..] } else { &[] };
        let (watch, attached) = attach(ttmem, &driver, options)?;
        timely("attach, up to the first snapshot", attached)?;
        let (during, _) = changed_code(driver.pid(), library)?;
        ensure!(during > 0, "there are no probes in the code");
        let detached = end(watch, how)?;
        if !matches!(how, End::ByItself) {
            timely(&format!("detach, {how:?}"), detached)?;
        }
        let (after, _) = changed_code(driver.pid(), library)?;
        ensure!(after == 0, "{how:?}: {after} of {bytes} bytes of code differ after the detach");
        ensure!(driver.ok("churn 1 1000 3")?.number("frees")? == 1000, "{how:?}");
    }
    println!("{bytes} bytes of code as in the file after {} attaches", ENDS.len());
    ensure!(driver.end_with("quit")?.success());
    Ok(())
}

#[test]
fn killed_amid_a_load() {
    let ttmem = or_skip!(Ttmem::locate());
    or_skip!(alone::no_other_ttmem());
    for variant in ["pimpl", "cet"] {
        let (mut driver, library) = or_skip!(prepared(variant));
        for round in 0..5 {
            let (watch, _) = attach(&ttmem, &driver, &[]).unwrap();
            driver.tell(&format!("churn 2 20000 {round}")).unwrap();
            let took = end(watch, End::By(Signal::KILL)).unwrap();
            timely("killed amid a load", took).unwrap();
            assert_eq!(driver.answer().unwrap().number("frees").unwrap(), 40_000);
            assert_eq!(changed_code(driver.pid(), &library).unwrap().0, 0, "{variant} {round}");
        }
        let truth = driver.truth().unwrap();
        truth.compare(&ttmem.once(driver.pid()).unwrap()).context(variant).unwrap();
        assert!(driver.end_with("quit").unwrap().success());
    }
}

/// The last snapshot is what the target had, and ttmem ends by itself.
#[test]
fn the_targets_end_is_shown() {
    let ttmem = or_skip!(Ttmem::locate());
    for variant in ["pimpl", "inline", "cet", "stripped"] {
        for command in ["crash", "quit 3", "quit"] {
            let (driver, _) = or_skip!(prepared(variant));
            last_snapshot(&ttmem, driver, command)
                .with_context(|| format!("{variant}: {command}"))
                .unwrap();
        }
    }
}

fn last_snapshot(ttmem: &Ttmem, mut driver: Driver, command: &str) -> Result<()> {
    let (watch, _) = attach(ttmem, &driver, &["--buffers", "--refresh", "60000"])?;
    driver.all_ok(&["alloc a m L1 4096 2048", "churn 1 500 1 keep=3"])?;
    let truth = driver.truth()?;
    let ended = driver.end_with(command)?;
    match command {
        "crash" => ensure!(ended.code().is_none(), "{ended}"),
        "quit 3" => ensure!(ended.code() == Some(3), "{ended}"),
        _ => ensure!(ended.success(), "{ended}"),
    }
    let time_ns = now_ns();
    let (snapshots, status) = watch.finish()?;
    let took = Duration::from_nanos(now_ns() - time_ns);
    timely("ttmem's end after its target's", took)?;
    let last = snapshots.last().context("no last snapshot")?;
    ensure!(last["state"] == "exited", "{}", last["state"]);
    truth.compare(last)?;
    ensure!(status.code() == Some(0), "{status}");
    Ok(())
}
