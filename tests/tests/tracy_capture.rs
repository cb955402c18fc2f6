//! `--tracy` with Tracy's own servers, of protocols 66 and 72: what they save is what was there, to
//! the byte and the nanosecond. And the same on the real ttnn.

use anyhow::Result;
use e2e::{
    or_skip,
    real::both,
    standin::{Driver, Standin},
    tracy::{
        Mirrored,
        capture::{Capture, locate},
        ended_exact,
        expected::{live_in, live_saved},
        picture::svg,
        receiver::Receiver,
        saved::Trace,
        scenarios::{Lines, lines_are_exact_again, lines_are_right},
        stopped::Stopped,
    },
    ttmem::{Ttmem, now_ns},
};

fn rig() -> Result<(Ttmem, Driver), String> {
    let driver = Standin::locate("pimpl")?.start().map_err(|error| format!("{error:#}"))?;
    Ok((Ttmem::locate()?, driver))
}

/// A trace of some work, and of what was live at its end.
fn saves_what_was_there(protocol: u32) {
    let server = or_skip!(locate(protocol));
    let (ttmem, mut driver) = or_skip!(rig());
    driver.all_ok(&["open mesh 0 2 name=m", "hold 200", "alloc old m L1 65536 2048"]).unwrap();
    let mirrored = Mirrored::attach(&ttmem, driver.pid(), &[]).unwrap();
    let mut mirrored = mirrored.attached().unwrap();
    mirrored.line_with("a Tracy viewer has connected").unwrap();
    let capture = Capture::start(&server, mirrored.port).unwrap();
    let connected = format!("a Tracy viewer has connected, protocol {protocol}");
    mirrored.line_with(&connected).unwrap();
    let before = now_ns();
    driver.ok("alloc timed m TRACE 8192 2048").unwrap();
    let after = now_ns();
    driver.ok("churn 2 1500 11 keep=20").unwrap();
    driver.caught("oom m DRAM").unwrap();
    driver.all_ok(&["storm 300", "free old"]).unwrap();
    let expected = live_in(&ttmem, driver.pid()).unwrap();
    let end = now_ns();
    // It goes on to run, so what is live stays.
    mirrored.end().unwrap();
    let trace = capture.finish().unwrap();
    assert_eq!(live_saved(&trace), expected);
    let [timed, other] = [0, 1].map(|chip| trace.pools[&format!("TT_Dev{chip}_TRACE")].events[0]);
    // Times are those of the target's probes, from the start of the trace on.
    let begun = trace.begun_ns();
    let at = begun + u64::try_from(timed.came_ns).unwrap();
    assert!((before..=after).contains(&at), "{before} {at} {after}");
    assert_eq!((timed.came_ns, timed.size), (other.came_ns, other.size));
    for (name, pool) in &trace.pools {
        let mut last = i64::MIN;
        for event in &pool.events {
            assert!(event.came_ns >= last, "{name}: in order");
            assert!(begun + u64::try_from(event.came_ns).unwrap() <= end);
            last = event.came_ns;
        }
    }
    let dram = &trace.pools["TT_Dev0_DRAM"];
    assert!(dram.events.len() >= 500, "{}", dram.events.len());
    let used = trace.plots["TT_Dev0_DRAM used"].last().unwrap().1;
    let capacity = trace.plots["TT_Dev0_DRAM capacity"].last().unwrap().1;
    let snapshot = ttmem.snapshot(driver.pid()).unwrap();
    let pool = &snapshot["devices"][0]["pools"][0];
    assert_eq!(
        (Some(used), Some(capacity)),
        (pool["used_bytes"].as_f64(), pool["capacity_bytes"].as_f64())
    );
    for text in
        ["driver", "failed allocation: ", "ttmem begins to watch", "ttmem watches it no more"]
    {
        assert!(trace.has_text(text), "{text}");
    }
    let threads: std::collections::BTreeSet<u16> =
        trace.pools.values().flat_map(|pool| &pool.events).map(|event| event.thread).collect();
    assert!(threads.len() >= 3, "the main thread and two that churn: {threads:?}");
}

/// With the call stacks of the target.
fn saves_call_stacks(protocol: u32) {
    let server = or_skip!(locate(protocol));
    let (ttmem, mut driver) = or_skip!(rig());
    driver.all_ok(&["open mesh 0 2 name=m", "alloc old m L1 65536 2048"]).unwrap();
    let mirrored = Mirrored::attach(&ttmem, driver.pid(), &["--stacks"]).unwrap();
    let mut mirrored = mirrored.attached().unwrap();
    mirrored.line_with("a Tracy viewer has connected").unwrap();
    driver.ok("alloc before m DRAM 4096 2048").unwrap();
    let capture = Capture::start(&server, mirrored.port).unwrap();
    mirrored.line_with(&format!("a Tracy viewer has connected, protocol {protocol}")).unwrap();
    driver.ok("alloc after m TRACE 8192 2048").unwrap();
    // Fewer than the ring buffer of the stacks has room for.
    driver.ok("churn 2 400 11 keep=20").unwrap();
    let expected = live_in(&ttmem, driver.pid()).unwrap();
    mirrored.end().unwrap();
    let trace = capture.finish().unwrap();
    assert_eq!(live_saved(&trace), expected);
    let events = trace.pools.values().flat_map(|pool| &pool.events);
    let without = events.clone().filter(|event| event.stack == 0).count();
    assert_eq!(without, 2, "the older one on two chips, of {}", events.count());
    let stack = |pool: &str| trace.pools[pool].events[0].stack;
    assert_eq!(stack("TT_Dev0_TRACE"), stack("TT_Dev1_TRACE"));
    for text in ["standin::allocate", "tt::tt_metal::BufferImpl::create", "libtt_metal.so+0x"] {
        assert!(trace.has_text(text), "{text}");
    }
}

#[test]
fn protocol_66_saves_call_stacks() {
    saves_call_stacks(66);
}

#[test]
fn protocol_72_saves_call_stacks() {
    saves_call_stacks(72);
}

#[test]
fn protocol_66_saves_what_was_there() {
    saves_what_was_there(66);
}

#[test]
fn protocol_72_saves_what_was_there() {
    saves_what_was_there(72);
}

/// ttmem on a process, with lines of JSON, and a server that is connected.
fn watched(
    protocol: u32,
    driver: &Driver,
    ttmem: &Ttmem,
    ring: &str,
) -> (Mirrored, Capture, Lines) {
    let lines = Lines::new().unwrap();
    let more = [&["--ring-size", ring], &lines.options().unwrap()[..]].concat();
    let mirrored = Mirrored::attach(ttmem, driver.pid(), &more).unwrap();
    let mut mirrored = mirrored.attached().unwrap();
    mirrored.line_with("a Tracy viewer has connected").unwrap();
    let capture = Capture::start(&locate(protocol).unwrap(), mirrored.port).unwrap();
    mirrored.line_with(&format!("a Tracy viewer has connected, protocol {protocol}")).unwrap();
    (mirrored, capture, lines)
}

/// All that was ever in a pool.
fn events(trace: &Trace) -> usize {
    trace.pools.values().map(|pool| pool.events.len()).sum()
}

/// Whoever keeps up with a storm has all of it.
fn saves_a_storm(protocol: u32) {
    or_skip!(locate(protocol));
    let (ttmem, mut driver) = or_skip!(rig());
    driver.all_ok(&["open mesh 0 2 name=m", "hold 100"]).unwrap();
    let (mirrored, capture, lines) = watched(protocol, &driver, &ttmem, "65536");
    driver.ok("churn 4 10000 7 keep=50").unwrap();
    lines_are_right(&lines.file, &mut driver).unwrap();
    let expected = live_in(&ttmem, driver.pid()).unwrap();
    mirrored.end().unwrap();
    ended_exact(&lines.file).unwrap();
    let trace = capture.finish().unwrap();
    assert_eq!(live_saved(&trace), expected);
    for left_out in ["the viewer was too slow", "came too fast", "records were lost"] {
        assert!(!trace.has_text(left_out), "{left_out}");
    }
    assert!(events(&trace) > 4 * 10_000, "{}", events(&trace));
}

#[test]
fn protocol_66_saves_a_storm() {
    saves_a_storm(66);
}

#[test]
fn protocol_72_saves_a_storm() {
    saves_a_storm(72);
}

/// Records are lost, and what is live is read again: the server's session goes on.
fn survives_a_loss(protocol: u32) {
    or_skip!(locate(protocol));
    let (ttmem, mut driver) = or_skip!(rig());
    driver.all_ok(&["open mesh 0 4 name=m", "hold 100"]).unwrap();
    // A ring that is far too small.
    let (mirrored, capture, lines) = watched(protocol, &driver, &ttmem, "4");
    driver.ok("churn 4 20000 7 keep=50").unwrap();
    lines_are_exact_again(&lines.file).unwrap();
    let expected = live_in(&ttmem, driver.pid()).unwrap();
    mirrored.end().unwrap();
    let trace = capture.finish().unwrap();
    assert_eq!(live_saved(&trace), expected);
    for text in ["records were lost", "memory was read again"] {
        assert!(trace.has_text(text), "{text}");
    }
}

#[test]
fn protocol_66_survives_a_loss() {
    survives_a_loss(66);
}

#[test]
fn protocol_72_survives_a_loss() {
    survives_a_loss(72);
}

/// A server that is stopped while more happens than waits for anybody knows in the end what is
/// live, and what it has missed.
fn is_stopped_for_a_while(protocol: u32) {
    or_skip!(locate(protocol));
    let (ttmem, mut driver) = or_skip!(rig());
    driver.ok("open mesh 0 32 name=m").unwrap();
    let (mirrored, capture, lines) = watched(protocol, &driver, &ttmem, "65536");
    let stopped = Stopped::process(capture.pid()).unwrap();
    driver.ok("churn 4 20000 3 keep=20").unwrap();
    lines_are_right(&lines.file, &mut driver).unwrap();
    let expected = live_in(&ttmem, driver.pid()).unwrap();
    stopped.go_on().unwrap();
    mirrored.end().unwrap();
    ended_exact(&lines.file).unwrap();
    let trace = capture.finish().unwrap();
    assert_eq!(live_saved(&trace), expected);
    assert!(trace.has_text("the viewer was too slow"));
}

#[test]
fn protocol_66_is_stopped_for_a_while() {
    is_stopped_for_a_while(66);
}

#[test]
fn protocol_72_is_stopped_for_a_while() {
    is_stopped_for_a_while(72);
}

#[test]
fn a_server_that_comes_late_and_again_sees_all_that_is_live() {
    let server = or_skip!(locate(72));
    let (ttmem, mut driver) = or_skip!(rig());
    driver.ok("open mesh 0 2 name=m").unwrap();
    let mut mirrored = Mirrored::attach(&ttmem, driver.pid(), &[]).unwrap().attached().unwrap();
    driver.ok("churn 4 2000 5 keep=30").unwrap();
    for round in 0..3 {
        let receiver = Receiver::connect(mirrored.port).unwrap();
        receiver.disconnect().unwrap();
        driver.ok(&format!("alloc r{round} m DRAM 4096 2048")).unwrap();
    }
    let capture = Capture::start(&server, mirrored.port).unwrap();
    mirrored.line_with("a Tracy viewer has connected, protocol 72").unwrap();
    driver.ok("storm 50").unwrap();
    let expected = live_in(&ttmem, driver.pid()).unwrap();
    mirrored.end().unwrap();
    let trace = capture.finish().unwrap();
    assert_eq!(live_saved(&trace), expected);
    // Each with the time of its allocation, which was before anybody looked.
    let dram = &trace.pools["TT_Dev0_DRAM"].events;
    let times: std::collections::BTreeSet<i64> = dram.iter().map(|event| event.came_ns).collect();
    assert!(times.len() > 10, "{} times of {} buffers", times.len(), dram.len());
}

#[test]
fn the_real_ttnn_on_two_chips_is_saved() {
    let (real, ttmem) = or_skip!(both());
    let server = or_skip!(locate(72));
    let arguments = ["--mesh", "1x2", "--random", "7", "--steps", "150"];
    let mut program = real.start("n300", &arguments).unwrap();
    let mut mirrored = Mirrored::attach(&ttmem, program.pid(), &["--wait"]).unwrap();
    let capture = Capture::start(&server, mirrored.port).unwrap();
    program.expect("start").unwrap();
    mirrored.line_with("a Tracy viewer has connected").unwrap();
    assert!(program.finish().unwrap().success());
    mirrored.ended().unwrap();
    let trace = capture.finish().unwrap();
    let pools: Vec<(&String, usize)> =
        trace.pools.iter().map(|(name, pool)| (name, pool.events.len())).collect();
    println!("{pools:?}");
    for chip in [0, 1] {
        let dram = &trace.pools[&format!("TT_Dev{chip}_DRAM")].events;
        assert!(dram.len() > 5 && dram.iter().all(|event| event.stayed_ns >= 0));
    }
    // `docs/tracy.svg` is made like this.
    if let Some(file) = std::env::var_os("TTMEM_TRACY_SVG") {
        std::fs::write(file, svg(&trace)).unwrap();
    }
    assert!(trace.has_text("the process has exited") && trace.has_text("libtt_metal.so"));
}
