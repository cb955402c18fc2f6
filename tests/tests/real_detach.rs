//! ttmem leaves the real target as it found it, however it ends.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::{
    alone, or_skip,
    real::{
        Program, Real, STAY, both,
        compare::{How, Tally},
        text,
    },
    ttmem::{Attached, Ttmem},
};
use rustix::process::Signal;

/// How long it may take until the last breakpoint is gone.
const DEADLINE: Duration = Duration::from_secs(5);

/// Nobody else's probes may be in the code.
fn undisturbed() -> Result<(Real, Ttmem), String> {
    alone::no_other_ttmem()?;
    both()
}

/// A script that waits with tensors alive.
fn waiting(real: &Real) -> Result<Program> {
    let mut program = real.start("n300", &["--mesh", "1x2", "--phases", "shards,operations"])?;
    program.until("shards/ND")?;
    ensure!(text::differences(program.pid(), &real.library)?.is_empty(), "it is not as its file");
    Ok(program)
}

/// Attaches for good, and checks that breakpoints can be seen at all.
fn attach(real: &Real, ttmem: &Ttmem, program: &Program, options: &[&str]) -> Result<Attached> {
    let mut attached = ttmem.attach(program.pid(), options)?;
    attached.settled()?;
    let differences = text::differences(program.pid(), &real.library)?;
    println!("attached: {} bytes of code differ, at {differences:x?}", differences.len());
    ensure!(!differences.is_empty(), "attached, and no byte differs: what is compared?");
    Ok(attached)
}

fn clean(real: &Real, program: &Program, what: &str) -> Result<()> {
    let took = text::wait_until_clean(program.pid(), &real.library, DEADLINE)?;
    println!("{what}: the code is the file's again {} ms after its end", took.as_millis());
    Ok(())
}

/// Ends ttmem by a signal that it can answer to.
fn end_by(real: &Real, ttmem: &Ttmem, name: &str, signal: Signal) -> Result<()> {
    let program = waiting(real)?;
    let attached = attach(real, ttmem, &program, &STAY)?;
    attached.signal(signal)?;
    let (last, status) = attached.finish()?;
    ensure!(status.success(), "ttmem ended with {status}");
    let last = last.last().context("no last snapshot")?;
    ensure!(last["state"] == "running" && last["exact"] == true, "the last snapshot: {last}");
    clean(real, &program, name)?;
    ensure!(program.finish()?.success(), "the target failed");
    Ok(())
}

#[test]
fn a_normal_end_leaves_no_trace() {
    let (real, ttmem) = or_skip!(undisturbed());
    let normal_end = || -> Result<()> {
        let program = waiting(&real)?;
        let options = [&STAY[..], &["--duration", "1"]].concat();
        let attached = attach(&real, &ttmem, &program, &options)?;
        let (_, status) = attached.finish()?;
        ensure!(status.success(), "ttmem ended with {status}");
        clean(&real, &program, "--duration")?;
        ttmem.once(program.pid())?;
        clean(&real, &program, "--once")?;
        ensure!(program.finish()?.success(), "the target failed");
        Ok(())
    };
    normal_end().unwrap();
}

#[test]
fn sigterm_leaves_no_trace() {
    let (real, ttmem) = or_skip!(undisturbed());
    end_by(&real, &ttmem, "SIGTERM", Signal::TERM).unwrap();
}

#[test]
fn sigint_leaves_no_trace() {
    let (real, ttmem) = or_skip!(undisturbed());
    end_by(&real, &ttmem, "SIGINT", Signal::INT).unwrap();
}

#[test]
fn sighup_leaves_no_trace() {
    let (real, ttmem) = or_skip!(undisturbed());
    end_by(&real, &ttmem, "SIGHUP", Signal::HUP).unwrap();
}

#[test]
fn sigkill_leaves_no_trace() {
    let (real, ttmem) = or_skip!(undisturbed());
    let killed = || -> Result<()> {
        let program = waiting(&real)?;
        let attached = attach(&real, &ttmem, &program, &STAY)?;
        // Dropping it is kill -9, and waiting for its end.
        drop(attached);
        clean(&real, &program, "SIGKILL")?;
        ensure!(program.finish()?.success(), "the target failed");
        Ok(())
    };
    killed().unwrap();
}

/// Rounds of killing.
const ROUNDS: usize = 5;

#[test]
fn sigkill_under_load_does_no_harm() {
    let (real, ttmem) = or_skip!(undisturbed());
    kill_under_load(&real, &ttmem).unwrap().close();
}

/// ttmem is killed while four threads allocate and free; a fresh one must be right.
fn kill_under_load(real: &Real, ttmem: &Ttmem) -> Result<Tally> {
    let mut tally = Tally::default();
    let rounds = ROUNDS.to_string();
    let mut program = real.start("n300", &["--mesh", "1x2", "--busy", &rounds])?;
    for name in ["start", "busy/open"] {
        program.expect(name)?;
        program.go_on()?;
    }
    for round in 0..ROUNDS {
        program.expect(&format!("busy/{round}/running"))?;
        let attached = attach(real, ttmem, &program, &STAY)?;
        drop(attached);
        clean(real, &program, &format!("round {round}, SIGKILL"))?;
        program.go_on()?;
        let still = program.expect(&format!("busy/{round}/still"))?;
        tally.compare("a fresh attach", How::Late, &still, &ttmem.once(program.pid())?);
        program.go_on()?;
    }
    program.expect("busy/freed")?;
    ensure!(program.finish()?.success(), "the target failed");
    Ok(tally)
}
