//! `ttmem doctor`: what works, what does not, and what to do about it.

mod consequence;
mod json;

use std::path::Path;

use anyhow::Context as _;
use rustix::thread::{CapabilitySet, capabilities};

use ttmem_common::probe::ProbeId;

use super::{Outcome, output, target::Target};
use crate::{
    cli::args::DoctorArgs,
    image::Image,
    kernel::{Kernel, LoadOptions, NO_THREADS, fs_base, support},
    missing::Unresolved,
    resolve::{
        self,
        plan::{AttachPlan, InstructionCost},
    },
    target::interpreter,
    units::Pid,
};
use consequence::consequence;

/// Runs the command.
pub fn run(args: &DoctorArgs) -> anyhow::Result<Outcome> {
    let mut report = Report::default();
    if let Some(path) = &args.library {
        let image = library(path)?;
        let plan = resolve::resolve(&image);
        if args.json {
            output::print(&json::line(path, image.build_id(), &plan)?)?;
            return Ok(outcome(plan.unresolved.iter().all(is_only_noted)));
        }
        report.section(&format!("Library {}", path.display()));
        report.good("build id", image.build_id().unwrap_or("none"));
        examine_plan(&mut report, &plan);
    } else {
        examine_kernel(&mut report);
        if let Some(pid) = args.pid {
            examine_process(&mut report, Pid(pid));
        }
    }
    output::print(&report.text())?;
    Ok(outcome(report.to_do.is_empty()))
}

/// Whether something is lacking without which all else is watched: what concerns failed allocations.
fn is_only_noted(missing: &Unresolved) -> bool {
    [resolve::FAILED_BUFFER, ProbeId::Failure.name()].contains(&missing.probe.as_str())
}

const fn outcome(is_complete: bool) -> Outcome {
    if is_complete { Outcome::Complete } else { Outcome::Incomplete }
}

#[derive(Default)]
struct Report {
    lines: Vec<String>,
    to_do: Vec<String>,
}

impl Report {
    fn section(&mut self, title: &str) {
        if !self.lines.is_empty() {
            self.lines.push(String::new());
        }
        self.lines.push(title.to_owned());
    }

    fn good(&mut self, what: &str, detail: impl std::fmt::Display) {
        self.lines.push(format!("  ok       {what:<22} {detail}"));
    }

    fn note(&mut self, what: &str, detail: impl std::fmt::Display) {
        self.lines.push(format!("  note     {what:<22} {detail}"));
    }

    fn bad(&mut self, what: &str, detail: impl std::fmt::Display, to_do: impl Into<String>) {
        self.lines.push(format!("  MISSING  {what:<22} {detail}"));
        self.to_do.push(to_do.into());
    }

    fn text(&self) -> String {
        let mut text = self.lines.join("\n");
        text.push_str("\n\n");
        if self.to_do.is_empty() {
            text.push_str("Nothing to do: ttmem can work here.\n");
        } else {
            text.push_str("What to do:\n");
            for item in &self.to_do {
                text.push_str("  - ");
                text.push_str(item);
                text.push('\n');
            }
        }
        text
    }
}

fn examine_kernel(report: &mut Report) {
    report.section("Kernel");
    match support::running() {
        Some(version) if version >= support::OLDEST => {
            report.good("release", format!("{version} (needs {} or newer)", support::OLDEST));
        }
        Some(version) => report.bad(
            "release",
            format!("{version}, needs {} or newer", support::OLDEST),
            format!(
                "boot a kernel of {} or newer: older ones have no attach cookies",
                support::OLDEST
            ),
        ),
        None => report.note("release", "could not be read"),
    }
    if support::has_uprobes() {
        report.good("uprobes", "there");
    } else {
        report.bad("uprobes", "not there", "use a kernel built with CONFIG_UPROBE_EVENTS");
    }
    if support::has_dependable_multi() {
        report.good("uprobe_multi", "one link for all probes");
    } else {
        report.note(
            "uprobe_multi",
            format!(
                "not used before {}: a perf event per probe, detaching takes longer",
                support::MULTI
            ),
        );
    }
    match support::lockdown() {
        None => report.good("lockdown", "off, or not in the way"),
        Some(mode) => report.bad(
            "lockdown",
            mode,
            "boot with lockdown=integrity or none: eBPF may not read a program's memory now",
        ),
    }
    if let Some(offset) = support::clock_offset() {
        report.bad(
            "clock",
            offset,
            "run ttmem outside of this time namespace: records have the kernel's",
        );
    }
    examine_privileges(report);
}

/// Needed for every target.
const FOR_PROBES: [(&str, CapabilitySet); 2] =
    [("CAP_BPF", CapabilitySet::BPF), ("CAP_PERFMON", CapabilitySet::PERFMON)];
/// Needed besides for a process of another user: its memory file is its user's alone.
const FOR_OTHERS: [(&str, CapabilitySet); 2] = [
    ("CAP_SYS_PTRACE", CapabilitySet::SYS_PTRACE),
    ("CAP_DAC_READ_SEARCH", CapabilitySet::DAC_READ_SEARCH),
];

/// The names of those that this process does not hold.
fn lacking(needed: &[(&str, CapabilitySet)]) -> String {
    let held = capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let lacking = needed.iter().filter(|(_, capability)| !held.contains(*capability));
    lacking.map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

fn examine_privileges(report: &mut Report) {
    let missing = lacking(&FOR_PROBES);
    if !missing.is_empty() {
        let to_do = "run ttmem with sudo; `ttmem snapshot` of your own processes works without";
        report.bad("capabilities", format!("without {missing}"), to_do);
        return;
    }
    let others = lacking(&FOR_OTHERS);
    if others.is_empty() {
        report.good("capabilities", "for the processes of every user");
    } else {
        report.note("capabilities", format!("for your own processes only: without {others}"));
    }
    let options = LoadOptions { ring_bytes: 64 << 10, ..LoadOptions::default() };
    match Kernel::load(options) {
        Ok(_) => report.good("eBPF side", "loads: ring buffer, maps and program"),
        Err(error) => report.bad("eBPF side", &error, error.to_string()),
    }
}

fn examine_process(report: &mut Report, pid: Pid) {
    report.section(&format!("Process {pid}"));
    let target = match Target::examine(pid) {
        Ok(target) => target,
        Err(error) => {
            report.bad("tt-metal", &error, super::one_line(&error));
            return;
        }
    };
    report.good("command", target.process.command());
    report.good("library", target.library.path.display());
    report.good("build id", target.library.image.build_id().unwrap_or("none"));
    report.good("load bias", format!("{:#x}", target.library.bias));
    examine_plan(report, &target.plan);
    match target.reader() {
        Ok(Ok(reader)) => match reader.read() {
            Ok(baseline) => report.good(
                "live buffers",
                format!(
                    "{} in {} allocators, read from memory",
                    baseline.buffers.len(),
                    baseline.allocators.len()
                ),
            ),
            Err(reason) => report.note("live buffers", reason),
        },
        Ok(Err(reason)) => report.note("live buffers", reason),
        Err(error) => report.bad("live buffers", &error, error.to_string()),
    }
    match interpreter::find(&target.process) {
        Ok(Some(_)) if fs_base().is_none() => report.note("Python", NO_THREADS),
        Ok(Some(_)) => report.good("Python", "its functions and lines are shown with --stacks"),
        Ok(None) => {}
        Err(why) => report.note("Python", format!("not shown with --stacks: {why}")),
    }
}

/// A library file, if it is one of tt-metal.
fn library(path: &Path) -> anyhow::Result<Image<'static>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let image = Image::parse(bytes).with_context(|| format!("{} is not usable", path.display()))?;
    anyhow::ensure!(
        resolve::is_tt_metal(&image),
        "{} has no tt-metal: it does not define GraphTracker::track_allocate",
        path.display()
    );
    Ok(image)
}

fn examine_plan(report: &mut Report, plan: &AttachPlan) {
    report.section("Probes");
    for point in &plan.points {
        let cost = match point.cost {
            InstructionCost::Emulated => "emulated",
            InstructionCost::SingleStepped => "SINGLE-STEPPED: some 16 times dearer and more",
        };
        let behind = match point.behind_entry {
            0 => String::new(),
            bytes => format!(" ({bytes} bytes behind its entry)"),
        };
        let at = format!("{} at file offset {}{behind}, {cost}", point.symbol, point.offset);
        report.good(point.probe.name(), at);
    }
    report.section("Fields");
    for fact in &plan.facts {
        report.good(&fact.name, format!("{}   [{}]", fact.value, fact.from));
    }
    if let Err(reason) = &plan.memory {
        report.note("older buffers", format!("cannot be read from memory: {reason}"));
    }
    let (noted, others): (Vec<_>, Vec<_>) =
        plan.unresolved.iter().partition(|missing| is_only_noted(missing));
    for missing in noted {
        report.note(&missing.probe, format!("not known: {}", missing.reason));
    }
    for missing in others {
        report.bad(&missing.probe, &missing.reason, consequence(&missing.probe));
    }
}
