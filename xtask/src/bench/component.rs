//! The benches of `ttmem-user/benches`: each prints its lines, and all are taken.

use anyhow::{Result, bail};
use ttmem_bench::Line;

use super::plan::Plan;
use super::report::Report;
use crate::{run, setup};

/// Runs every `[[bench]]` of ttmem.
pub fn measure(plan: &Plan, report: &mut Report) -> Result<()> {
    setup::for_building()?;
    let mut command = run::cargo();
    command.args(["bench", "--package", "ttmem", "--benches", "--"]).envs(setup::ebpf_env());
    if plan.quick {
        command.arg("--quick");
    }
    command.args(report.filter());
    // Only the harness's lines are for the report; what cargo says is on the other output.
    let mut lines = Vec::new();
    let status = run::tee(&mut command, |text| lines.extend(Line::parse(text)))?;
    report.add(lines);
    if !status.success() {
        bail!("`{}` ended with {status}", run::show(&command));
    }
    Ok(())
}
