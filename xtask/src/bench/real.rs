//! The real tt-metal on mock devices: allocations and frees from C++, and steps of cached programs.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::cell::{BARE, BARE_AGAIN, EMPTY, EMPTY_AGAIN, Kind};
use super::fleet::Fleet;
use super::plan::Plan;
use super::report::Report;
use super::rig::Rig;
use super::target::Target;
use super::watcher::Watch;
use crate::paths;
use crate::real_target::Kind as Machine;

/// tt-metal's switch for the totals that it keeps in shared memory by itself.
const NO_TOTALS: (&str, &str) = ("TT_METAL_SHM_TRACKING_DISABLED", "1");
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

fn watches(rig: &Rig, floor: bool) -> Vec<(String, Watch)> {
    let mut dispatches = rig.defaults();
    dispatches.push("--dispatches".to_owned());
    let mut watches = vec![(BARE, Watch::Nobody), (BARE_AGAIN, Watch::Nobody)];
    if floor {
        watches.extend([(EMPTY, Watch::Empty), (EMPTY_AGAIN, Watch::Empty)]);
    }
    watches.push(("ttmem", Watch::Ttmem(rig.defaults())));
    watches.push(("ttmem --dispatches", Watch::Ttmem(dispatches)));
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
    let variants = watches(rig, true);
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
    report.add(fleet.measure("pair", Kind::Added, &command, 2 * pairs, plan.rounds)?.lines());
    report.add(fleet.end()?);
    Ok(())
}

fn steps(
    rig: &Rig,
    plan: &Plan,
    report: &mut Report,
    (machine, title, chips): (Machine, &str, usize),
    library: &Path,
) -> Result<()> {
    let python = rig.real.python().context("no Python that can import ttnn")?;
    let variants = watches(rig, false);
    let start = |index: usize| {
        let mut command = Command::new(python);
        command.arg(paths::root().join("tests/bench/steps.py")).arg(chips.to_string());
        command.envs(rig.real.environment(machine)).current_dir(paths::real_target());
        command.env_remove("PYTHONPATH").env_remove("PYTHONHOME");
        if variants[index].0 == WITHOUT_TOTALS {
            command.env(NO_TOTALS.0, NO_TOTALS.1);
        }
        Target::start(&mut command, library.to_path_buf())
    };
    let mut fleet = Fleet::start(rig, title, &variants, &start)?;
    let steps = plan.some(50);
    let command = format!("tight 1 {steps}");
    report.add(fleet.measure("step", Kind::Itself, &command, steps, plan.rounds)?.lines());
    Ok(())
}
