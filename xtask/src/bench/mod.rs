//! `cargo xtask bench`: what ttmem costs, beside what one would use instead, in one run.
//!
//! Whole programs are measured by [`fleet`] and the modules that use it, code by the benches of
//! `ttmem-user/benches`; both take turns and form ratios inside a round, by the crate `ttmem-bench`.
//! Nothing fails because a figure is bad: [`goals`] says how it stands, and people decide.

mod agent;
mod bpftrace;
mod cell;
mod compare;
mod component;
mod docs;
mod environment;
mod fleet;
mod goals;
mod latency;
mod life;
mod plan;
mod readers;
mod real;
mod report;
mod rig;
mod standin;
mod table;
mod target;
mod throughput;
mod tracy;
mod watcher;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::say;
use plan::Plan;
use report::Report;
use rig::Rig;

/// What was typed.
#[derive(Debug, Default, clap::Args)]
pub struct Arguments {
    /// As little as shows that everything works, in two minutes; the figures are indications only
    #[arg(long)]
    pub quick: bool,
    /// Say what got worse since that report.json, beyond noise
    #[arg(long, value_name = "BASE.json")]
    pub compare: Option<PathBuf>,
    /// Put the report into docs/benchmarks.md too
    #[arg(long)]
    pub write_docs: bool,
    /// Only groups whose name contains this
    pub filter: Option<String>,
}

/// Measures, and writes the report.
pub fn perform(arguments: &Arguments) -> Result<ExitCode> {
    // A base that cannot be read is noticed before ten minutes have passed.
    let base = arguments.compare.as_deref().map(Report::read).transpose()?;
    let plan = Plan::new(arguments.quick);
    let mut report = Report::new(plan.quick, arguments.filter.clone());
    match Rig::prepare() {
        Ok(rig) => {
            environment::note(Some(&rig), &mut report);
            whole_programs(&rig, &plan, &mut report);
        }
        Err(error) => {
            say::warn(&format!("{error:#}"));
            environment::note(None, &mut report);
            report.missing.push(format!("whole programs: {error:#}"));
        }
    }
    report.part("components", |report| component::measure(&plan, report));
    report.verdicts = goals::judge(&report);
    report.write(&rig::folder())?;
    if arguments.write_docs {
        docs::write(&report)?;
    }
    println!("\n{}", report.markdown());
    say::note(&format!("written to {}", rig::folder().join("report.{json,md}").display()));
    if let Some(base) = base {
        say::heading("Since the other report");
        for line in compare::lines(&base, &report) {
            say::note(&line);
        }
    }
    Ok(if report.missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What measures a part.
type Part = fn(&Rig, &Plan, &mut Report) -> Result<()>;

/// Measures whole programs as little as can be, only to see that all of it works: the benches of
/// single functions are run by `cargo test`. What did not work.
pub fn try_out() -> Result<Vec<String>> {
    let mut report = Report::new(true, None);
    whole_programs(&Rig::prepare()?, &Plan::new(true), &mut report);
    Ok(report.missing)
}

fn whole_programs(rig: &Rig, plan: &Plan, report: &mut Report) {
    report.part("stand-in", |report| standin::measure(rig, plan, report));
    report.part("throughput", |report| throughput::measure(rig, plan, report));
    let parts: [(&str, Part); 6] = [
        ("life", life::coming_and_going),
        ("rest", life::at_rest),
        ("socket", life::socket),
        ("readers", readers::measure),
        ("latency", latency::measure),
        ("tracy", tracy::measure),
    ];
    for (title, measure) in parts {
        if report.wants(title) {
            report.part(title, |report| measure(rig, plan, report));
        }
    }
    report.part("ttnn", |report| real::measure(rig, plan, report));
}
