//! What the tests of the Python package run by: a venv with pytest, pytest-xdist, mypy and the package
//! itself.
//!
//! It sees the real target's packages, and leaves that venv as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::apt;
use crate::real_target::{self, RealTarget};
use crate::say::{self, Step};
use crate::{paths, run};

/// Pinned: a new version of one of these is a change like any other.
const PACKAGES: [&str; 4] =
    ["pytest==8.3.5", "pytest-xdist==3.6.1", "mypy==1.15.0", "setuptools==75.8.0"];

/// Makes the venv, or finds it made; its interpreter.
pub fn ensure(target: &RealTarget) -> Result<PathBuf> {
    let dir = paths::prepared().join("readers-venv");
    let python = dir.join("bin/python");
    let base = match target.python() {
        Some(python) => python.to_owned(),
        None => real_target::any_python_with_pip()?,
    };
    let stamp = dir.join("ttmem-packages");
    let wanted = wanted(&base)?;
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted)
        && run::succeeds(Command::new(&python).args(["-c", "import pytest, ttmem"]))
    {
        say::present("Python with pytest and ttmem");
        return Ok(python);
    }
    let step = Step::begin("making", &format!("{} by {}", dir.display(), base.display()));
    let mut venv = Command::new(&base);
    venv.args(["-m", "venv", "--clear"]).arg(&dir);
    if run::capture(&mut venv).is_err() {
        // Debian has what gives a venv its pip in a package of its own.
        apt::ensure(&["python3-venv"])?;
        run::capture(&mut venv)?;
    }
    run::run_retrying(3, || {
        let mut pip = pip(&python);
        pip.args(["install", "--only-binary=:all:"]).args(PACKAGES);
        pip
    })?;
    // In place, so that a change of the package needs no second run.
    let mut install = pip(&python);
    install.args(["install", "--no-build-isolation", "--no-deps", "--editable"]);
    run::capture(install.arg(paths::root().join("python")))?;
    see_packages_of(&python, target)?;
    fs::write(&stamp, wanted)?;
    step.done();
    Ok(python)
}

/// What the venv is made from.
fn wanted(base: &Path) -> Result<String> {
    let project = paths::root().join("python/pyproject.toml");
    let text = fs::read_to_string(&project)
        .with_context(|| format!("cannot read {}", project.display()))?;
    Ok(format!("{}\n{}\n{text}", base.display(), PACKAGES.join(" ")))
}

fn pip(python: &Path) -> Command {
    let mut command = Command::new(python);
    command.args(["-m", "pip", "--disable-pip-version-check", "--quiet"]);
    command
}

fn see_packages_of(python: &Path, target: &RealTarget) -> Result<()> {
    let RealTarget::Python(venv) = target else { return Ok(()) };
    let mut ask = Command::new(python);
    ask.args(["-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]);
    let site = PathBuf::from(run::capture(&mut ask)?.trim());
    let file = site.join("ttmem-real-target.pth");
    fs::write(&file, format!("{}\n", venv.site.display()))
        .with_context(|| format!("cannot write {}", file.display()))
}

/// A command of that interpreter in the package's folder, which leaves nothing there.
pub fn command(python: &Path) -> Command {
    let mut command = Command::new(python);
    command.current_dir(paths::root().join("python")).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("MYPY_CACHE_DIR", paths::notes().join("mypy"));
    command.env_remove("PYTHONPATH");
    command
}
