//! Packages of Debian and Ubuntu: only what is missing is installed.

use std::cell::Cell;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::privilege::Privilege;
use crate::say::{self, Step};
use crate::{paths, run};

thread_local! {
    /// Whether the package lists were brought up to date by this run.
    static UPDATED: Cell<bool> = const { Cell::new(false) };
}

/// Whether the package is installed.
fn installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["-W", "-f=${Status}", package]);
    run::capture(&mut query).is_ok_and(|status| status.trim() == "install ok installed")
}

/// Sees to it that the packages are installed; a second call does nothing.
pub fn ensure(packages: &[&str]) -> Result<()> {
    let (there, missing): (Vec<&str>, Vec<&str>) =
        packages.iter().partition(|package| installed(package));
    for package in there {
        say::present(package);
    }
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if paths::on_path("apt-get").is_none() {
        bail!("no apt-get here: install by hand what Debian calls {names}");
    }
    let step = Step::begin("installing", &names);
    // A list that cannot be had may be one of somebody else's, from which nothing is wanted.
    if !UPDATED.replace(true)
        && let Err(error) = run::run_retrying(3, || apt(&["update"]))
    {
        say::warn(&format!("the package lists stay as they are: {error:#}"));
    }
    let install = ["install", "-y", "--no-install-recommends"];
    let arguments: Vec<&str> = install.iter().chain(&missing).copied().collect();
    run::run_retrying(2, || apt(&arguments)).with_context(|| {
        format!(
            "cannot install {names}; as root: apt-get install -y --no-install-recommends {names}"
        )
    })?;
    step.done();
    Ok(())
}

/// On a new machine, its first upgrade by itself may hold the lock for minutes.
const WAIT_FOR_LOCK: &str = "DPkg::Lock::Timeout=300";

/// `apt-get` as root; without a way to root, `sudo -n` is left to say so.
fn apt(arguments: &[&str]) -> Command {
    let program = Path::new("/usr/bin/env");
    let privilege = Privilege::find();
    let command = privilege.command(program).or_else(|| Privilege::Sudo.command(program));
    let mut command = command.unwrap_or_else(|| Command::new(program));
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-o", WAIT_FOR_LOCK]);
    command.args(arguments);
    command
}

/// Installs the packages of those programs that are not on `PATH`; what cannot be is only said.
pub fn ensure_programs(table: &[(&str, &str)]) {
    for (program, package) in table {
        if paths::on_path(program).is_some() {
            say::present(program);
        } else if let Err(error) = ensure(&[package]) {
            say::warn(&format!("{program} is missing: {error:#}"));
        }
    }
}
