//! The real tt-metal by way of Python: an interpreter that there are wheels for, in a venv of
//! its own with the packages that `import ttnn` needs (no torch).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, bail};

use super::{TTNN, compiler};
use crate::say::{self, Step};
use crate::{paths, run};

/// The versions that there are wheels for, the one tried most first.
const VERSIONS: [&str; 2] = ["3.10", "3.12"];
const PACKAGES: [&str; 3] = ["loguru", "graphviz", "numpy<2"];

/// A venv that can import ttnn.
#[derive(Debug)]
pub struct Venv {
    /// Its interpreter.
    pub python: PathBuf,
    /// Its packages.
    pub site: PathBuf,
}

/// Makes the venv, or finds it made.
pub fn ensure() -> Result<Venv> {
    let mut failed = Vec::new();
    for version in VERSIONS {
        let Some(interpreter) = find(version) else { continue };
        match ensure_for(version, &interpreter) {
            Ok(venv) => return Ok(venv),
            Err(error) => {
                say::warn(&format!("{}: {error:#}", interpreter.display()));
                failed.push(version);
            }
        }
    }
    if failed.is_empty() {
        bail!("no Python {} here", VERSIONS.join(" or "));
    }
    bail!("Python {} is here, but no venv with ttnn could be made", failed.join(" and "))
}

/// The first interpreter of that version that runs.
fn find(version: &str) -> Option<PathBuf> {
    let name = format!("python{version}");
    let path = env::var_os("PATH").unwrap_or_default();
    let mut candidates: Vec<PathBuf> = env::split_paths(&path).map(|dir| dir.join(&name)).collect();
    for prefix in ["/usr/bin", "/usr/local/bin", "/opt/python/bin"] {
        candidates.push(Path::new(prefix).join(&name));
    }
    candidates.extend(pyenv_versions(version).map(|dir| dir.join("bin").join(&name)));
    candidates.into_iter().find(|file| file.is_file() && says(file).as_deref() == Some(version))
}

fn pyenv_versions(version: &str) -> impl Iterator<Item = PathBuf> {
    let home = env::var_os("HOME").map(|home| Path::new(&home).join(".pyenv"));
    let roots = env::var_os("PYENV_ROOT").map(PathBuf::from).into_iter().chain(home);
    let prefix = format!("{version}.");
    let entries = roots.filter_map(|root| fs::read_dir(root.join("versions")).ok()).flatten();
    entries.flatten().map(|entry| entry.path()).filter(move |dir| {
        dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
    })
}

/// The version that the interpreter says it has; a shim of pyenv may be there and not run.
fn says(interpreter: &Path) -> Option<String> {
    let mut command = Command::new(interpreter);
    command.args(["-c", "import sys; print('%d.%d' % sys.version_info[:2])"]);
    run::capture(&mut command).ok().map(|version| version.trim().to_owned())
}

fn ensure_for(version: &str, interpreter: &Path) -> Result<Venv> {
    let dir = paths::real_target().join(format!("venv-{version}"));
    let venv = Venv {
        python: dir.join("bin/python"),
        site: dir.join(format!("lib/python{version}/site-packages")),
    };
    let stamp = dir.join("ttmem-packages");
    let wanted = format!("{TTNN} {}\n", PACKAGES.join(" "));
    let made = fs::read_to_string(&stamp).is_ok_and(|found| found == wanted);
    if made && says(&venv.python).is_some() {
        say::present(&format!("Python {version} with {TTNN}"));
        compiler::install(&venv.sfpi())?;
        return Ok(venv);
    }
    make(&dir, interpreter)?;
    let step = Step::begin("installing", &format!("{TTNN} for Python {version} (some 450 MB)"));
    run::run_retrying(3, || {
        let mut pip = Command::new(&venv.python);
        pip.args(["-m", "pip", "install", "--no-deps", "--only-binary=:all:", TTNN]);
        pip.args(PACKAGES);
        pip
    })?;
    compiler::install(&venv.sfpi())?;
    let mut import = Command::new(&venv.python);
    import.args(["-c", "import ttnn"]).envs(super::quiet_environment());
    run::capture(&mut import).context("ttnn is installed, but cannot be imported")?;
    fs::write(&stamp, wanted)?;
    step.done();
    Ok(venv)
}

fn make(dir: &Path, interpreter: &Path) -> Result<()> {
    let step = Step::begin("making", &format!("{} by {}", dir.display(), interpreter.display()));
    let venv = |more: &[&str]| {
        let mut command = Command::new(interpreter);
        command.args(["-m", "venv", "--clear"]).args(more).arg(dir);
        command
    };
    if run::capture(&mut venv(&[])).is_err() {
        run::capture(&mut venv(&["--without-pip"]))?;
        let mut pip = Command::new(dir.join("bin/python"));
        run::capture(pip.args(["-m", "ensurepip"])).context("this Python has no pip of its own")?;
    }
    step.done();
    Ok(())
}

impl Venv {
    /// Its Python's version, as `3.10`.
    pub fn version(&self) -> Option<String> {
        says(&self.python)
    }

    fn sfpi(&self) -> PathBuf {
        self.site.join("ttnn/runtime/sfpi")
    }
}
