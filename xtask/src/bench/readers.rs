//! What a question about a process costs whoever asks it: from C by `include/ttmem.h`, and from Python.

use std::process::Command;

use anyhow::{Context, Result};
use ttmem_bench::Line;

use super::life;
use super::plan::Plan;
use super::report::Report;
use super::rig::Rig;
use super::target::Target;
use crate::{paths, setup};

/// Live buffers of the process that is asked about.
const LIVE: u64 = 100;

/// A question, and how often it is asked for a sample.
type Questions = [(&'static str, &'static str, u64)];

const C: &Questions = &[
    ("ttmem_load", "counter", 1_000_000),
    ("ttmem_query_device", "device", 100_000),
    ("ttmem_freshness", "freshness", 100_000),
    ("ttmem_query_process", "process", 100_000),
    ("ttmem_sync", "sync", 200),
];
const PYTHON: &Questions = &[
    ("query_device(sync=False)", "device", 2_000),
    ("query_device()", "device_now", 200),
    ("process()", "process", 2_000),
    ("check()", "check", 2_000),
];

/// Measures both.
pub fn measure(rig: &Rig, plan: &Plan, report: &mut Report) -> Result<()> {
    let target = life::target(rig, "readers", LIVE)?;
    let agent = life::attach(rig, &target)?;
    let mut c = Command::new(rig.native.join("reader"));
    report.add(asked(rig, plan, &target, ("readers: C", "ns", &mut c, C))?);
    let python = setup::readers::ensure(&rig.real)?;
    let mut python = setup::readers::command(&python);
    python.arg(paths::root().join("tests/bench/reader.py"));
    report.add(asked(rig, plan, &target, ("readers: Python", "µs", &mut python, PYTHON))?);
    agent.finish().map(drop)
}

fn asked(
    rig: &Rig,
    plan: &Plan,
    target: &Target,
    (group, unit, reader, questions): (&str, &str, &mut Command, &Questions),
) -> Result<Vec<Line>> {
    reader.arg(target.pid().to_string()).arg(rig.tables());
    let mut reader = Target::start(reader, target.library.clone())?;
    let mut samples = vec![Vec::new(); questions.len()];
    let nanoseconds = if unit == "µs" { 1e3 } else { 1.0 };
    for _ in 0..plan.rounds {
        for (samples, (_, command, times)) in samples.iter_mut().zip(questions) {
            let taken = reader.per_event(&format!("{command} {}", plan.some(*times)))?;
            samples.push(taken / nanoseconds);
        }
    }
    let lines = samples.iter().zip(questions).map(|(samples, (name, _, times))| {
        Line::of(group, name, unit, plan.some(*times), samples).context("no samples")
    });
    lines.collect()
}
