//! A real Tracy server for the tests: the `iree-tracy-capture` that PyPI's `iree-base-runtime`
//! carries, of each version of the protocol that there is one for. Only that program and the
//! libraries it needs are kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::say::{self, Step};
use crate::{paths, real_target, run};

/// Versions of the package, and the protocol that the program in them speaks.
const VERSIONS: [(&str, u32); 2] = [("3.0.0", 66), ("3.13.0", 72)];
/// The program in the package.
const PROGRAM: &str = "iree/_runtime_libs_tracy/iree-tracy-capture";
/// Keeps the program and its libraries, at their places: they are found relative to it.
const UNPACK: &str = "
import os, sys, zipfile
wheel, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as files:
    for name in files.namelist():
        if name.endswith('/iree-tracy-capture') or '.libs/' in name or 'LICENSE' in name:
            files.extract(name, target)
os.chmod(os.path.join(target, 'iree/_runtime_libs_tracy/iree-tracy-capture'), 0o755)
";

/// Where the programs are, in a folder for each protocol.
pub fn folder() -> PathBuf {
    paths::prepared().join("tracy")
}

/// Fetches the programs, or finds them; a test that lacks one says so.
pub fn ensure() {
    for (version, protocol) in VERSIONS {
        if let Err(error) = ensure_version(version, protocol) {
            say::warn(&format!("no Tracy server of protocol {protocol} for the tests: {error:#}"));
        }
    }
}

/// The program that speaks a protocol, if it has been fetched.
pub fn program(protocol: u32) -> Option<PathBuf> {
    let program = folder().join(protocol.to_string()).join(PROGRAM);
    program.is_file().then_some(program)
}

fn ensure_version(version: &str, protocol: u32) -> Result<()> {
    let dir = folder().join(protocol.to_string());
    let name = format!("iree-tracy-capture {version} (Tracy protocol {protocol})");
    if program(protocol).is_some() {
        say::present(&name);
        return Ok(());
    }
    let step = Step::begin("fetching", &format!("{name}, some 15 MB"));
    let python = real_target::any_python_with_pip()?;
    let wheels = folder().join("wheels");
    fs::create_dir_all(&wheels)?;
    run::run_retrying(3, || {
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "--disable-pip-version-check", "--quiet", "download"]);
        // The program is the same whatever Python the wheel is for.
        pip.args(["--no-deps", "--only-binary=:all:", "--python-version", "3.11"]);
        pip.args(["--implementation", "cp", "--platform", "manylinux_2_28_x86_64", "-d"]);
        pip.arg(&wheels).arg(format!("iree-base-runtime=={version}"));
        pip
    })?;
    let wheel = wheel_of(&wheels, version)?;
    // Under another name until it is whole.
    let half = folder().join(format!("{protocol}.part"));
    let _ = fs::remove_dir_all(&half);
    run::capture(Command::new(&python).args(["-c", UNPACK]).arg(&wheel).arg(&half))?;
    fs::rename(&half, &dir)?;
    fs::remove_dir_all(&wheels)?;
    step.done();
    Ok(())
}

fn wheel_of(wheels: &Path, version: &str) -> Result<PathBuf> {
    let wanted = format!("-{version}-");
    let files = fs::read_dir(wheels)?.flatten().map(|entry| entry.path());
    let is_it = |file: &PathBuf| file.to_string_lossy().contains(&wanted);
    files.into_iter().find(is_it).context("pip left no wheel")
}
