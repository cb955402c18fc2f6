//! `cargo xtask drift`: does ttmem still understand every published version of tt-metal?
//!
//! Fetches each wheel, one at a time, lets the release build of ttmem resolve the library in it,
//! compares with `tests/drift/versions.toml`, and deletes the wheel. With `--run`, the exactness
//! tests also run on the versions that run on mock devices. What is done is remembered in
//! `target/drift`, so that the next call goes on where this one ended.
//!
//! Left out: what the resolver does (ttmem), and what the exactness tests compare (`tests/`).

pub mod cache;
mod fetch;
mod memory;
mod page;
mod rig;
mod row;
mod table;
mod version;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::{build, paths, real_target, say};
use memory::Memory;
use row::Row;
use table::Table;
use version::Version;

/// What `cargo xtask drift` takes.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Arguments {
    /// Only these versions, separated by commas
    #[arg(long, value_name = "VERSIONS", value_delimiter = ',')]
    versions: Vec<Version>,
    /// Show which versions there are and what is known of them, and do nothing
    #[arg(long)]
    list: bool,
    /// Also run the exactness tests on the versions that run on mock devices
    #[arg(long)]
    run: bool,
    /// Write what was found to tests/drift/versions.toml and docs/versions.md
    #[arg(long)]
    bless: bool,
    /// Forget what earlier calls have found
    #[arg(long)]
    again: bool,
}

/// What the table says of versions on which the exactness tests cannot run.
const NOT_ON_MOCKS: &str = "not run: does not run on mock devices";

/// Where wheels are fetched to and results are remembered.
fn folder() -> PathBuf {
    paths::prepared().join("drift")
}

/// Examines the versions and says what came of it.
pub fn perform(arguments: &Arguments) -> Result<ExitCode> {
    let mut table = Table::read()?;
    let versions = wanted(arguments)?;
    if arguments.list {
        list(&versions, &table);
        return Ok(ExitCode::SUCCESS);
    }
    let memory = Memory::open(build::ttmem()?, arguments.again)?;
    let target = if arguments.run { Some(real_target::ensure()?) } else { None };
    let mut findings = Vec::new();
    for version in &versions {
        say::heading(&format!("ttnn {version}"));
        let found = examine(*version, target.as_ref(), &memory);
        if let Err(error) = &found {
            say::warn(&format!("{error:#}"));
        }
        findings.push((*version, found));
    }
    close(&findings, &mut table, arguments.bless)
}

/// The versions that were asked for, or all that there are, the oldest first.
fn wanted(arguments: &Arguments) -> Result<Vec<Version>> {
    let mut versions = arguments.versions.clone();
    if versions.is_empty() {
        versions = fetch::published()?;
    }
    versions.sort_unstable();
    versions.dedup();
    if let Some(old) = versions.iter().find(|version| **version < version::OLDEST) {
        bail!("{old} is older than {}, the first that ttmem knows", version::OLDEST);
    }
    Ok(versions)
}

fn list(versions: &[Version], table: &Table) {
    for version in versions {
        let known = table.row(*version).map_or("not in the table".to_owned(), Row::summary);
        println!("{version:<8} {known}");
    }
}

/// What one version is like: as remembered, or by fetching it.
fn examine(
    version: Version,
    target: Option<&real_target::RealTarget>,
    memory: &Memory,
) -> Result<Row> {
    let mut row = if let Some(row) = memory.recall(version) {
        say::present(&format!("what an earlier call found in {version}"));
        row
    } else {
        let row = row::resolve(memory.binary(), &fetch::library(version)?)?;
        memory.remember(version, &row)?;
        row
    };
    if version < version::FIRST_ON_MOCKS {
        row.exactness = Some(NOT_ON_MOCKS.to_owned());
    } else if let Some(target) = target
        && row.exactness.is_none()
    {
        row.exactness = Some(rig::exactness(version, target, memory.binary())?);
        memory.remember(version, &row)?;
    }
    say::note(&row.summary());
    Ok(row)
}

/// Compares with the table, or writes it; says what differs, and the closing line.
fn close(findings: &[(Version, Result<Row>)], table: &mut Table, bless: bool) -> Result<ExitCode> {
    say::heading("Results");
    let (mut complete, mut same, mut failed) = (0, 0, 0);
    for (version, found) in findings {
        let Ok(row) = found else {
            failed += 1;
            println!("  ✗ {version}: could not be examined, see above");
            continue;
        };
        complete += usize::from(row.lacks.is_empty());
        let differences = table.differences(*version, row);
        same += usize::from(differences.is_empty());
        for difference in differences {
            println!("  ! {version}: {difference}");
        }
        if bless {
            table.enter(*version, row);
        }
    }
    if bless {
        table.write().context("cannot write the table")?;
        page::write(table)?;
        println!("  ✓ written: {} and {}", table::FILE, page::FILE);
    }
    let all = findings.len();
    println!("\n{all} versions, {complete} resolve completely, {same} as the table says");
    let good = failed == 0 && (bless || same == all);
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
