//! After a loss, and on request: the live set is read from memory again, and is exact again.

use anyhow::{Context as _, Result, ensure};
use e2e::{
    or_skip,
    standin::{Driver, Standin},
    ttmem::{Attached, Ttmem, now_ns},
};
use rustix::process::Signal;
use serde_json::Value;

fn prepared(variant: &str) -> Result<(Ttmem, Driver), String> {
    let ttmem = Ttmem::locate()?;
    let standin = Standin::locate(variant)?;
    let mut driver = standin.start().map_err(|error| format!("{error:#}"))?;
    driver.ok("open mesh 0 2 name=m").map_err(|error| format!("{error:#}"))?;
    Ok((ttmem, driver))
}

/// Attached, with the older buffers read.
fn attach(ttmem: &Ttmem, driver: &Driver, options: &[&str]) -> Result<Attached> {
    let mut all = vec!["--buffers", "--map", "-r", "30"];
    all.extend(options);
    let mut watch = ttmem.attach(driver.pid(), &all)?;
    watch.find(|line| line["exact"] == true)?;
    Ok(watch)
}

/// A stopped agent with a ring of a few pages loses nearly everything, of which it is told.
fn lose(watch: &mut Attached, driver: &mut Driver) -> Result<()> {
    watch.signal(Signal::STOP)?;
    driver.ok("churn 2 20000 5 keep=40")?;
    driver.ok("release")?;
    driver.ok("churn 2 5000 6 keep=25")?;
    watch.signal(Signal::CONT)?;
    Ok(())
}

#[test]
fn after_a_loss_it_is_exact_again() {
    for variant in ["pimpl", "inline", "stripped"] {
        let (ttmem, mut driver) = or_skip!(prepared(variant));
        let mut watch = attach(&ttmem, &driver, &["--ring-size", "16"]).unwrap();
        for round in 0..3 {
            driver.ok("churn 1 200 9 keep=3").unwrap();
            lose(&mut watch, &mut driver).unwrap();
            let time_ns = now_ns();
            let inexact = |line: &Value| !line["inexact_because"].as_array().unwrap().is_empty();
            let later = |line: &Value| line["time_ns"].as_u64().unwrap() >= time_ns;
            let told = |line: &Value| line["resync"]["last_ns"].as_u64() > Some(time_ns);
            let settled = watch.find(|line| later(line) && told(line) && !inexact(line)).unwrap();
            assert!(settled["lost"]["ring_full"].as_u64().unwrap() > 0, "still counted");
            let anomalies = &settled["anomalies"];
            let missed = ["missed_allocation", "missed_free"].map(|kind| anomalies[kind].as_u64());
            assert!(missed.iter().all(|count| *count > Some(0)), "{anomalies}");
            let truth = driver.truth().unwrap();
            truth
                .compare_set_right(&settled)
                .with_context(|| format!("{variant} {round}"))
                .unwrap();
            println!("{variant} {round}: lost {}, {anomalies}", settled["lost"]);
        }
        // And what happens from then on is counted on top of it.
        driver.ok("release").unwrap();
        let snapshot = watch.at_or_after(now_ns()).unwrap();
        driver.truth().unwrap().compare_set_right(&snapshot).context(variant).unwrap();
        watch.signal(Signal::INT).unwrap();
        assert!(watch.finish().unwrap().1.success());
    }
}

/// Under load, with losses all the time: what settles it does so while events come in.
#[test]
fn under_load_it_is_exact_in_the_end() {
    let (ttmem, mut driver) = or_skip!(prepared("pimpl"));
    let mut watch = attach(&ttmem, &driver, &["--ring-size", "16"]).unwrap();
    for round in 0..4 {
        driver.tell(&format!("churn 4 30000 {round} keep=10")).unwrap();
        watch.signal(Signal::STOP).unwrap();
        watch.signal(Signal::CONT).unwrap();
        driver.answer().unwrap();
    }
    let time_ns = now_ns();
    let settled = watch
        .find(|line| line["exact"] == true && line["time_ns"].as_u64().unwrap() >= time_ns)
        .unwrap();
    println!("lost {}, anomalies {}, {}", settled["lost"], settled["anomalies"], settled["resync"]);
    driver.truth().unwrap().compare_set_right(&settled).unwrap();
}

#[test]
fn on_request_nothing_differs() {
    let (ttmem, mut driver) = or_skip!(prepared("pimpl"));
    driver.ok("churn 1 100 2 keep=20").unwrap();
    let mut watch = attach(&ttmem, &driver, &[]).unwrap();
    for asked in 1..=3_u64 {
        driver.tell("rate 20000 0.4").unwrap();
        watch.signal(Signal::USR1).unwrap();
        driver.answer().unwrap();
        let done = watch.find(|line| line["resync"]["done"] == asked).unwrap();
        no_difference(&done).unwrap();
    }
    let snapshot = watch.at_or_after(now_ns()).unwrap();
    driver.truth().unwrap().compare(&snapshot).unwrap();
    assert_eq!(snapshot["exact"], true);
}

#[test]
fn an_audit_repeats_by_itself() {
    let (ttmem, mut driver) = or_skip!(prepared("pimpl"));
    let mut watch = attach(&ttmem, &driver, &["--audit", "0.1"]).unwrap();
    driver.ok("rate 20000 1").unwrap();
    let done = watch.find(|line| line["resync"]["done"].as_u64() >= Some(5)).unwrap();
    no_difference(&done).unwrap();
    // The stand-in keeps no shared memory: that is said, and the other two agree.
    driver.ok("churn 1 100 3 keep=5").unwrap();
    let at_rest = now_ns();
    let done = watch.find(|line| line["audit"]["last_ns"].as_u64() > Some(at_rest)).unwrap();
    let audit = &done["audit"];
    assert!(audit["shm_unknown_because"].as_str().unwrap().contains("has mapped no"), "{audit}");
    let rows = audit["rows"].as_array().unwrap();
    assert!(rows.iter().any(|row| row["memory_logical_bytes"].as_u64() > Some(0)), "{audit}");
    for row in rows {
        assert_eq!(row["verdict"], "agree_without_shm", "{row}");
        assert_eq!(row["shm_bytes"], Value::Null, "{row}");
    }
}

fn no_difference(line: &Value) -> Result<()> {
    ensure!(line["lost"]["ring_full"] == 0, "{}", line["lost"]);
    let resync = &line["resync"];
    for kind in ["missed_allocation", "missed_free", "changed"] {
        ensure!(resync["last_differences"][kind] == 0, "{resync}");
        ensure!(line["anomalies"][kind] == 0, "{}", line["anomalies"]);
    }
    ensure!(resync["failed"] == 0, "{resync}");
    Ok(())
}

/// A free that had entered the allocator before the probes came has no event. It is seen to be
/// gone by the reading that confirms the first, and nothing is said to have been missed.
#[test]
fn a_free_under_way_at_the_attach_is_noticed() {
    for variant in ["pimpl", "inline"] {
        let (ttmem, mut driver) = or_skip!(prepared(variant));
        let mut under_way = || -> Result<()> {
            driver.all_ok(&["alloc a m DRAM 65536 2048", "alloc b m L1 65536 2048", "park a"])?;
            let mut watch = attach(&ttmem, &driver, &[])?;
            // What confirms the reading comes after the end of the free.
            watch.signal(Signal::STOP)?;
            driver.all_ok(&["unpark", "alloc c m L1 4096 2048"])?;
            let truth = driver.truth()?;
            watch.signal(Signal::CONT)?;
            let confirmed = watch.find(|line| {
                line["buffers"].as_array().is_some_and(|live| live.len() == truth.buffers())
                    && line["devices"][0]["pools"][1]["allocations"] == 1
            })?;
            truth.compare(&confirmed)?;
            ensure!(confirmed["devices"][0]["pools"][0]["pre_attach_frees"] == 1, "{confirmed}");
            Ok(())
        };
        under_way().with_context(|| variant).unwrap();
    }
}

/// One that goes on only after that is a missed free, at the next reading.
#[test]
fn a_free_that_stays_under_way_for_long_is_found_on_request() {
    let (ttmem, mut driver) = or_skip!(prepared("pimpl"));
    let mut under_way = || -> Result<()> {
        driver.all_ok(&["alloc a m DRAM 65536 2048", "park a"])?;
        let mut watch = attach(&ttmem, &driver, &[])?;
        watch.signal(Signal::USR1)?;
        watch.find(|line| line["resync"]["done"] == 1)?;
        driver.ok("unpark")?;
        watch.signal(Signal::USR1)?;
        let found = watch.find(|line| line["resync"]["done"] == 2)?;
        ensure!(found["anomalies"]["missed_free"] == 1, "{found}");
        driver.truth()?.compare_set_right(&found)?;
        Ok(())
    };
    under_way().unwrap();
}
