//! The real tt-metal without a Python that there are wheels for: the wheel is only unpacked, and
//! a program of our own (`tests/real_target/driver.cpp`) drives its `libtt_metal.so`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, bail};

use super::{TTNN, compiler};
use crate::say::{self, Step};
use crate::setup::apt;
use crate::{paths, run};

/// The unpacked wheel and the program that drives it.
#[derive(Debug)]
pub struct Unpacked {
    /// Our driver.
    pub driver: PathBuf,
    /// The folder that stands for site-packages.
    pub site: PathBuf,
}

/// Fetches and unpacks the wheel and builds the driver, or finds them.
pub fn ensure() -> Result<Unpacked> {
    let dir = paths::real_target().join("wheel");
    let unpacked = Unpacked { driver: dir.join("driver"), site: dir.join("site") };
    let stamp = dir.join("ttmem-packages");
    if fs::read_to_string(&stamp).is_ok_and(|found| found == TTNN) {
        say::present(&format!("{TTNN}, unpacked"));
    } else {
        fs::create_dir_all(&dir)?;
        unpack(&dir, &unpacked.site)?;
        fs::write(&stamp, TTNN)?;
    }
    compiler::install(&unpacked.site.join("ttnn/runtime/sfpi"))?;
    build_driver(&unpacked.driver)?;
    Ok(unpacked)
}

fn unpack(dir: &Path, site: &Path) -> Result<()> {
    let python = python_with_pip()?;
    let step = Step::begin("fetching", &format!("{TTNN} (some 120 MB, 400 MB unpacked)"));
    run::run_retrying(3, || {
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:"]);
        pip.args(["--python-version", "3.12", "--implementation", "cp"]);
        pip.args(["--platform", "manylinux_2_34_x86_64", TTNN, "-d"]).arg(dir);
        pip
    })?;
    let wheel = fs::read_dir(dir)?
        .flatten()
        .map(|entry| entry.path())
        .find(|file| file.extension().is_some_and(|ext| ext == "whl"))
        .with_context(|| format!("pip left no wheel in {}", dir.display()))?;
    let mut unzip = Command::new(&python);
    run::run(unzip.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(site))?;
    fs::remove_file(&wheel)?;
    step.done();
    Ok(())
}

/// Any Python with pip; the package is installed where it can be.
pub fn python_with_pip() -> Result<PathBuf> {
    let find = || {
        let path = env::var_os("PATH").unwrap_or_default();
        let all: Vec<PathBuf> = env::split_paths(&path).map(|dir| dir.join("python3")).collect();
        all.into_iter()
            .find(|python| run::succeeds(Command::new(python).args(["-m", "pip", "--version"])))
    };
    if let Some(python) = find() {
        return Ok(python);
    }
    apt::ensure(&["python3-pip"]).context("no Python with pip to fetch the wheel with")?;
    find().context("python3-pip is installed, but `python3 -m pip` does not run")
}

fn build_driver(driver: &Path) -> Result<()> {
    let source = paths::root().join("tests/real_target/driver.cpp");
    let modified = |file: &Path| fs::metadata(file).and_then(|m| m.modified()).ok();
    if modified(driver).is_some_and(|built| Some(built) >= modified(&source)) {
        say::present("driver");
        return Ok(());
    }
    if paths::on_path("g++").is_none() {
        bail!("no g++ to build {}", source.display());
    }
    let step = Step::begin("building", "driver");
    let mut compile = Command::new("g++");
    compile.args(["-std=c++20", "-O2", "-Wall", "-Wextra", "-o"]).arg(driver).arg(&source);
    run::run(compile.arg("-ldl"))?;
    step.done();
    Ok(())
}
