//! ttmem against what the real tt-metal says of itself, at every checkpoint of a script.

use anyhow::{Context as _, Result, ensure};
use e2e::{
    or_skip,
    real::{
        Program, Real, STAY, attach_early, both,
        compare::{How, Tally},
        truth::Checkpoint,
    },
    ttmem::{Attached, Ttmem, now_ns},
};
use serde_json::Value;

/// ttmem attached from the start at every checkpoint, and late comers at every `late_every`th:
/// each attach and each snapshot costs about a third of a second.
struct Run {
    ttmem: Ttmem,
    tally: Tally,
    late_every: usize,
    seen: usize,
}

impl Run {
    fn new(ttmem: Ttmem, late_every: usize) -> Self {
        Self { ttmem, tally: Tally::default(), late_every, seen: 0 }
    }

    /// Follows a script to its end.
    fn follow(mut self, real: &Real, kind: &str, arguments: &[&str]) -> Result<Tally> {
        let mut program = real.start(kind, arguments)?;
        let mut attached = attach_early(&self.ttmem, &program)?;
        let start = program.expect("start")?;
        // The script waits before any device is open until ttmem is attached.
        let snapshot = attached.settled()?;
        self.tally.compare("from the start", How::FromStart, &start, &snapshot);
        self.late(program.pid(), &start)?;
        program.go_on()?;
        while let Some(checkpoint) = program.checkpoint()? {
            // It waits there: whatever happens until now has happened before.
            let snapshot = attached.at_or_after(now_ns())?;
            self.tally.compare("from the start", How::FromStart, &checkpoint, &snapshot);
            self.late(program.pid(), &checkpoint)?;
            program.go_on()?;
        }
        ensure!(program.wait()?.success(), "the script failed");
        let (_, status) = attached.finish()?;
        let inexact = self.tally.differences.is_empty() && !status.success();
        ensure!(!inexact, "ttmem ended with {status}");
        Ok(self.tally)
    }

    fn late(&mut self, pid: u32, checkpoint: &Checkpoint) -> Result<()> {
        self.seen += 1;
        if !self.seen.is_multiple_of(self.late_every) {
            return Ok(());
        }
        let once = self.ttmem.once(pid)?;
        self.tally.compare("attach --once", How::Late, checkpoint, &once);
        let snapshot = self.ttmem.snapshot(pid)?;
        self.tally.compare("snapshot", How::Late, checkpoint, &snapshot);
        Ok(())
    }
}

/// All phases on a machine.
fn all_phases(kind: &str, mesh: &str, late_every: usize) {
    let (real, ttmem) = or_skip!(both());
    let run = Run::new(ttmem, late_every);
    run.follow(&real, kind, &["--mesh", mesh]).unwrap().close();
}

/// A random mix on a machine of two chips.
fn random_mix(kind: &str, seed: &str) {
    let (real, ttmem) = or_skip!(both());
    let run = Run::new(ttmem, 5);
    let arguments = ["--mesh", "1x2", "--random", seed, "--steps", "400"];
    run.follow(&real, kind, &arguments).unwrap().close();
}

#[test]
fn n150_is_exact() {
    all_phases("n150", "1x1", 3);
}

#[test]
fn n300_is_exact() {
    all_phases("n300", "1x2", 1);
}

#[test]
fn t3k4_is_exact() {
    all_phases("t3k4", "2x2", 3);
}

#[test]
fn t3k_is_exact() {
    all_phases("t3k", "2x4", 8);
}

#[test]
fn p150_is_exact() {
    all_phases("p150", "1x1", 3);
}

#[test]
fn p300_is_exact() {
    all_phases("p300", "1x2", 3);
}

#[test]
fn random_mix_1_on_n300_is_exact() {
    random_mix("n300", "1");
}

#[test]
fn random_mix_2_on_n300_is_exact() {
    random_mix("n300", "2");
}

#[test]
fn random_mix_3_on_p300_is_exact() {
    random_mix("p300", "3");
}

#[test]
fn random_mix_4_on_p300_is_exact() {
    random_mix("p300", "4");
}

/// Rounds of load, with an attach in each.
const ROUNDS: usize = 6;

#[test]
fn an_attach_under_load_is_exact() {
    let (real, ttmem) = or_skip!(both());
    attach_under_load(&real, &ttmem).unwrap().close();
}

/// In each round one more instance attaches while four threads allocate and free, and stays;
/// when they stand still, all of them, and late comers, must be right.
fn attach_under_load(real: &Real, ttmem: &Ttmem) -> Result<Tally> {
    let mut tally = Tally::default();
    let rounds = ROUNDS.to_string();
    let mut program = real.start("n300", &["--mesh", "1x2", "--busy", &rounds])?;
    let mut first = attach_early(ttmem, &program)?;
    program.expect("start")?;
    first.settled()?;
    program.go_on()?;
    program.expect("busy/open")?;
    let mut late = Vec::new();
    for round in 0..ROUNDS {
        program.go_on()?;
        program.expect(&format!("busy/{round}/running"))?;
        late.push(attach_now(ttmem, &program, &mut first)?);
        program.go_on()?;
        let still = program.expect(&format!("busy/{round}/still"))?;
        let now = now_ns();
        tally.compare("from the start", How::FromStart, &still, &first.at_or_after(now)?);
        for (number, attached) in late.iter_mut().enumerate() {
            let who = format!("attached in round {number}");
            tally.compare(&who, How::Late, &still, &attached.at_or_after(now)?);
        }
        tally.compare("attach --once", How::Late, &still, &ttmem.once(program.pid())?);
        tally.compare("snapshot", How::Late, &still, &ttmem.snapshot(program.pid())?);
    }
    program.go_on()?;
    let freed = program.expect("busy/freed")?;
    tally.compare("from the start", How::FromStart, &freed, &first.at_or_after(now_ns())?);
    ensure!(program.finish()?.success(), "the script failed");
    Ok(tally)
}

/// Attaches under load, once for good and once for a moment; `first` tells that there was load.
fn attach_now(ttmem: &Ttmem, program: &Program, first: &mut Attached) -> Result<Attached> {
    let before = allocations(&first.at_or_after(now_ns())?)?;
    // On its own, and not by what the first one shares.
    let mut attached = ttmem.attach(program.pid(), &[&STAY[..], &["--no-table"]].concat())?;
    let settled = attached.settled()?;
    let once = ttmem.once(program.pid())?;
    let after = allocations(&first.at_or_after(now_ns())?)?;
    println!("{} allocations during two attaches", after - before);
    ensure!(after > before + 1000, "that was no load");
    for snapshot in [settled, once] {
        ensure!(snapshot["exact"] == true, "under load: {}", snapshot["inexact_because"]);
    }
    Ok(attached)
}

/// Allocations seen, in all pools.
fn allocations(snapshot: &Value) -> Result<u64> {
    let chips = snapshot["devices"].as_array().context("no devices")?;
    let pools = chips.iter().filter_map(|chip| chip["pools"].as_array()).flatten();
    Ok(pools.filter_map(|pool| pool["allocations"].as_u64()).sum())
}
