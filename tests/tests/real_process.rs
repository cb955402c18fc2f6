//! The real target's life: how it begins, how it ends, and what goes wrong in it meanwhile.

use anyhow::{Context as _, Result, ensure};
use e2e::{
    or_skip,
    real::{
        Program, Real, STAY, attach_early, both,
        compare::{How, Tally},
    },
    ttmem::now_ns,
};
use serde_json::Value;

/// A script of those phases on two chips.
fn start(real: &Real, phases: &str) -> Result<Program> {
    real.start("n300", &["--mesh", "1x2", "--phases", phases])
}

#[test]
fn the_end_of_the_target_is_the_end_of_ttmem() {
    let (real, ttmem) = or_skip!(both());
    let target_ends = || -> Result<()> {
        let mut program = start(&real, "interleaved")?;
        program.until("interleaved/freed")?;
        let mut attached = ttmem.attach(program.pid(), &STAY)?;
        attached.settled()?;
        ensure!(program.finish()?.success(), "the target failed");
        let (rest, status) = attached.finish()?;
        let last = rest.last().context("no last snapshot")?;
        println!("state {}, ttmem ended with {status}", last["state"]);
        ensure!(last["state"] == "exited", "the last snapshot: {last}");
        ensure!(last["exact"] == true, "inexact: {}", last["inexact_because"]);
        ensure!(last["buffers"] == Value::Array(Vec::new()), "still alive: {}", last["buffers"]);
        ensure!(status.code() == Some(0), "ttmem ended with {status}");
        Ok(())
    };
    target_ends().unwrap();
}

#[test]
fn a_killed_target_leaves_its_last_state() {
    let (real, ttmem) = or_skip!(both());
    let target_is_killed = || -> Result<()> {
        let mut program = start(&real, "shards")?;
        program.until("shards/ND")?;
        let mut attached = ttmem.attach(program.pid(), &STAY)?;
        let before = attached.settled()?;
        // Dropping it kills it.
        drop(program);
        let (rest, status) = attached.finish()?;
        let last = rest.last().context("no last snapshot")?;
        println!("state {}, ttmem ended with {status}", last["state"]);
        ensure!(last["state"] == "exited", "the last snapshot: {last}");
        ensure!(last["buffers"] == before["buffers"], "{} is not {}", last["buffers"], before);
        ensure!(status.code() == Some(0), "ttmem ended with {status}");
        Ok(())
    };
    target_is_killed().unwrap();
}

#[test]
fn a_caught_out_of_memory_is_still_caught() {
    let (real, ttmem) = or_skip!(both());
    let out_of_memory = || -> Result<Tally> {
        let mut tally = Tally::default();
        let mut program = start(&real, "out_of_memory")?;
        program.expect("start")?;
        let mut attached = ttmem.attach(program.pid(), &STAY)?;
        attached.settled()?;
        program.go_on()?;
        for name in ["out_of_memory/DRAM", "out_of_memory/L1", "out_of_memory/freed"] {
            let checkpoint = program.expect(name)?;
            let snapshot = attached.at_or_after(now_ns())?;
            tally.compare("while attached", How::FromStart, &checkpoint, &snapshot);
            program.go_on()?;
        }
        program.expect("end")?;
        ensure!(program.finish()?.success(), "the target failed");
        let (_, status) = attached.finish()?;
        ensure!(status.success(), "ttmem ended with {status}");
        Ok(tally)
    };
    out_of_memory().unwrap().close();
}

#[test]
fn ttmem_can_wait_for_the_library() {
    let (real, ttmem) = or_skip!(both());
    let wait = || -> Result<Tally> {
        let mut tally = Tally::default();
        let arguments = ["--mesh", "1x2", "--phases", "frees"];
        let mut program = real.start_late("n300", &arguments)?;
        let at_once = ttmem.run(&["attach", "--pid", &program.pid().to_string(), "--once"])?;
        let message = String::from_utf8_lossy(&at_once.stderr);
        println!("without --wait: {}", message.trim());
        ensure!(at_once.status.code() == Some(1), "ended with {}", at_once.status);
        ensure!(message.lines().count() == 1, "not one line: {message}");
        let mut attached = attach_early(&ttmem, &program)?;
        ensure!(!program.has_library(&real)?, "it has imported ttnn too early");
        program.go_on()?;
        program.expect("start")?;
        attached.settled()?;
        program.go_on()?;
        while let Some(checkpoint) = program.checkpoint()? {
            let snapshot = attached.at_or_after(now_ns())?;
            tally.compare("after --wait", How::FromStart, &checkpoint, &snapshot);
            program.go_on()?;
        }
        ensure!(program.wait()?.success(), "the target failed");
        Ok(tally)
    };
    wait().unwrap().close();
}

#[test]
fn text_names_every_pool() {
    let (real, ttmem) = or_skip!(both());
    let text = || -> Result<()> {
        let mut program = start(&real, "small_and_trace")?;
        program.until("small_and_trace/both")?;
        let output = ttmem.run(&["attach", "--pid", &program.pid().to_string(), "--once"])?;
        let text = String::from_utf8(output.stdout)?;
        println!("{text}");
        ensure!(output.status.code() == Some(0), "ttmem ended with {}", output.status);
        let header = format!("ttmem pid {}  running  exact", program.pid());
        ensure!(text.starts_with(&header), "no header");
        for chip in ["0", "1"] {
            for (pool, buffers) in [("DRAM", "0"), ("L1", "0"), ("L1_SMALL", "1"), ("TRACE", "3")] {
                let row = text.lines().find(|line| {
                    let words: Vec<&str> = line.split_whitespace().collect();
                    words.starts_with(&[chip, pool]) && words.len() >= 9
                });
                let words: Vec<&str> =
                    row.with_context(|| format!("no {chip} {pool}"))?.split_whitespace().collect();
                // The last three columns: buffers, allocations, frees.
                let shown = words[words.len() - 3];
                ensure!(shown == buffers, "{pool}: {buffers} buffers in truth, {shown} shown");
            }
        }
        ensure!(program.finish()?.success(), "the target failed");
        Ok(())
    };
    text().unwrap();
}

#[test]
fn doctor_finds_all_it_needs() {
    let (real, ttmem) = or_skip!(both());
    let doctor = || -> Result<()> {
        let mut program = start(&real, "shards")?;
        program.until("shards/ND")?;
        let output = ttmem.run(&["doctor", "--pid", &program.pid().to_string()])?;
        let text = String::from_utf8(output.stdout)?;
        println!("{text}");
        ensure!(output.status.code() == Some(0), "doctor ended with {}", output.status);
        for line in ["Probes", "Fields"] {
            ensure!(text.lines().any(|shown| shown == line), "no section {line}");
        }
        for words in ["track_allocate", "deallocate_buffer", "deallocate_buffers", "live buffers"] {
            ensure!(text.contains(words), "no {words}");
        }
        ensure!(!text.contains("MISSING"), "something is missing");
        ensure!(text.contains("7 in "), "the 7 live buffers are not counted");
        ensure!(program.finish()?.success(), "the target failed");
        Ok(())
    };
    doctor().unwrap();
}

/// What both come by in the same way must be the same, every field of it.
#[test]
fn snapshot_and_attach_agree() {
    let (real, ttmem) = or_skip!(both());
    let agree = || -> Result<()> {
        let mut program = start(&real, "shards,operations,submeshes")?;
        for name in ["shards/ND", "operations/cached/reshard", "submeshes/parts"] {
            program.until(name)?;
            let mut once = ttmem.once(program.pid())?;
            let mut snapshot = ttmem.snapshot(program.pid())?;
            ensure!(once["time_ns"].as_u64() < snapshot["time_ns"].as_u64(), "the time");
            once["time_ns"] = Value::Null;
            snapshot["time_ns"] = Value::Null;
            // Only probes count, and see an allocation fail.
            once["witness"] = Value::Null;
            once["failures"] = Value::Null;
            snapshot["failures"] = Value::Null;
            for target in [&mut once, &mut snapshot] {
                // And only they see programs place their buffers.
                target["programs"] = Value::Null;
                for chip in target["devices"].as_array_mut().context("no devices")? {
                    chip["circular"] = Value::Null;
                }
            }
            ensure!(once == snapshot, "{name}: {once}\n{snapshot}");
            let buffers = once["buffers"].as_array().context("no buffers")?;
            println!("checkpoint {name}: both say the same of {} buffers", buffers.len());
            ensure!(!buffers.is_empty(), "nothing was compared");
            program.go_on()?;
        }
        program.expect("submeshes/freed")?;
        ensure!(program.finish()?.success(), "the target failed");
        Ok(())
    };
    agree().unwrap();
}
