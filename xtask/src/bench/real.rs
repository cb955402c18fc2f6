//! The real tt-metal on mock devices: allocations and frees from C++, and steps of cached programs.

use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail};
use ttmem_bench::stats::Spread;

use super::cell::{BARE, BARE_AGAIN, Cell, EMPTY, EMPTY_AGAIN, Kind};
use super::fleet::Fleet;
use super::plan::Plan;
use super::report::Report;
use super::rig::Rig;
use super::standin::{self, STACK_OPTIONS};
use super::target::Target;
use super::watcher::{Watch, Watcher};
use crate::real_target::Kind as Machine;
use crate::{paths, say};

/// tt-metal's switch for the totals that it keeps in shared memory by itself.
const NO_TOTALS: (&str, &str) = ("TT_METAL_SHM_TRACKING_DISABLED", "1");
/// Runs of which a sample is the median.
const RUNS: usize = 7;
/// Rounds of steps: each attaches anew.
const STEP_ROUNDS: usize = 5;
/// After an attach ttmem reads the target's memory, and a second later once more.
const SETTLED: Duration = Duration::from_secs(2);
const WITHOUT_TOTALS: &str = "no probe, tt-metal's own totals off";

/// Measures on both machines.
pub fn measure(rig: &Rig, plan: &Plan, report: &mut Report) -> Result<()> {
    let Some(library) = rig.real.library() else { bail!("{}", rig.real.describe()) };
    for (machine, name, chips) in [(Machine::N300, "n300", 2), (Machine::T3k, "t3k", 8)] {
        let title = format!("ttnn, {name}, C++");
        if report.wants(&title) {
            loop_of_pairs(rig, plan, report, (machine, &title, chips), &library)?;
        }
        let title = format!("ttnn, {name}, cached programs");
        if report.wants(&title) {
            steps(rig, plan, report, (machine, &title, chips), &library)?;
        }
    }
    Ok(())
}

fn watches(rig: &Rig) -> Vec<(String, Watch)> {
    let mut dispatches = rig.defaults();
    dispatches.push("--dispatches".to_owned());
    let mut watches = vec![(BARE, Watch::Nobody), (BARE_AGAIN, Watch::Nobody)];
    watches.extend([(EMPTY, Watch::Empty), (EMPTY_AGAIN, Watch::Empty)]);
    watches.push(("ttmem", Watch::Ttmem(rig.defaults())));
    watches.push(("ttmem --dispatches", Watch::Ttmem(dispatches)));
    let mut stacks = rig.defaults();
    stacks.extend(STACK_OPTIONS.map(str::to_owned));
    watches.push(("ttmem --stacks", Watch::Ttmem(stacks)));
    watches.push((WITHOUT_TOTALS, Watch::Nobody));
    watches.into_iter().map(|(name, watch)| (name.to_owned(), watch)).collect()
}

/// A target on the real library; the probes of one variant are in its process alone, but each
/// process pays a little for what another one's file has: so it is measured with all attached.
fn loop_of_pairs(
    rig: &Rig,
    plan: &Plan,
    report: &mut Report,
    (machine, title, chips): (Machine, &str, usize),
    library: &Path,
) -> Result<()> {
    let mut variants = watches(rig);
    variants.extend(standin::sums(rig));
    let start = |index: usize| {
        let mut command = Command::new(rig.native.join("real"));
        command.arg(library).arg(chips.to_string()).envs(rig.real.environment(machine));
        command.current_dir(paths::real_target());
        if variants[index].0 == WITHOUT_TOTALS {
            command.env(NO_TOTALS.0, NO_TOTALS.1);
        }
        Target::start(&mut command, library.to_path_buf())
    };
    let mut fleet = Fleet::start(rig, title, &variants, &start)?;
    let pairs = plan.some(3_000);
    let command = format!("tight 1 {pairs}");
    let cell = fleet.measure("pair", Kind::Added, &command, 2 * pairs, plan.rounds)?;
    report.add(cell.lines());
    report.add(standin::versus(&cell, fleet.names()));
    report.add(fleet.end()?);
    Ok(())
}

/// Two processes differ by more than ttmem costs, since their memory lies elsewhere: so it is one
/// that is watched, and left alone, in turns.
fn steps(
    rig: &Rig,
    plan: &Plan,
    report: &mut Report,
    (machine, title, chips): (Machine, &str, usize),
    library: &Path,
) -> Result<()> {
    let python = rig.real.python().context("no Python that can import ttnn")?;
    let start = |name: &str| {
        let mut command = Command::new(python);
        command.arg(paths::root().join("tests/bench/steps.py")).arg(chips.to_string());
        command.envs(rig.real.environment(machine)).current_dir(paths::real_target());
        command.env_remove("PYTHONPATH").env_remove("PYTHONHOME");
        if name == WITHOUT_TOTALS {
            command.env(NO_TOTALS.0, NO_TOTALS.1);
        }
        let mut target = Target::start(&mut command, library.to_path_buf())?;
        target.ask("tight 1 200")?;
        Ok::<_, Error>(target)
    };
    let group = format!("{title}: step");
    say::note(&group);
    let (mut target, mut without) = (start(BARE)?, start(WITHOUT_TOTALS)?);
    let image = rig.image(library)?;
    let (names, ways): (Vec<String>, Vec<Watch>) =
        watches(rig).into_iter().filter(|(name, _)| name != EMPTY_AGAIN).unzip();
    let steps = plan.some(200);
    let command = format!("tight 1 {steps}");
    let rounds = plan.rounds.min(STEP_ROUNDS);
    let cell = Cell::measure((&group, "ns", Kind::Itself), (&names, steps, rounds), |index| {
        if names[index] == WITHOUT_TOTALS {
            return median_of(&mut without, &command);
        }
        let watcher = Watcher::start(rig, &ways[index], &image, &mut target, &rig.scratch)?;
        if matches!(ways[index], Watch::Ttmem(_)) {
            thread::sleep(SETTLED);
        }
        let sample = median_of(&mut target, &command)?;
        watcher.stop()?;
        Ok(sample)
    });
    report.add(cell?.lines());
    Ok(())
}

/// Several runs of a command, since one can be disturbed.
fn median_of(target: &mut Target, command: &str) -> Result<f64> {
    let runs: Vec<f64> = (0..RUNS).map(|_| target.per_event(command)).collect::<Result<_>>()?;
    Ok(Spread::of(&runs).context("no runs")?.median)
}
