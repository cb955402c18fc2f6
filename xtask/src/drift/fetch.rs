//! Which versions are published, and their wheels: by pip, the ordinary client.
//!
//! Invariant: at most one wheel is there at a time; whoever fetches the next deletes the last.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::version::{OLDEST, Version};
use crate::real_target::any_python_with_pip;
use crate::run;
use crate::say::Step;

/// Files that may hold the allocator, the likelier one first: it was in `_ttnncpp.so` at first.
const LIBRARIES: [&str; 2] = ["libtt_metal.so", "_ttnncpp.so"];

/// Unpacks one file of a wheel: `python -c … WHEEL ENDING TO`; exit code 3 if it is not there.
const UNPACK_ONE: &str = "\
import shutil, sys, zipfile
wheel, ending, to = sys.argv[1:]
with zipfile.ZipFile(wheel) as files:
    names = [name for name in files.namelist() if name.endswith('/build/lib/' + ending)]
    if not names:
        sys.exit(3)
    with files.open(names[0]) as source, open(to, 'wb') as target:
        shutil.copyfileobj(source, target)
";

/// The options that make pip look for wheels of that Python, whatever Python it runs on itself.
fn options(python: &str) -> [String; 7] {
    [
        "--only-binary=:all:".to_owned(),
        "--python-version".to_owned(),
        python.to_owned(),
        "--implementation".to_owned(),
        "cp".to_owned(),
        "--platform".to_owned(),
        "manylinux_2_34_x86_64".to_owned(),
    ]
}

/// The Python whose wheels are fetched if nothing runs on it; the libraries are the same.
const ANY_PYTHON: &str = "3.10";

/// All published versions that are not too old.
pub fn published() -> Result<Vec<Version>> {
    let mut pip = Command::new(any_python_with_pip()?);
    pip.args(["-m", "pip", "index", "versions", "ttnn"]).args(options(ANY_PYTHON));
    let text = run::capture(&mut pip).context("which versions are published is not known")?;
    let versions = parse(&text);
    if versions.is_empty() {
        bail!("`{}` names no version", run::show(&pip));
    }
    Ok(versions)
}

fn parse(text: &str) -> Vec<Version> {
    let line = text.lines().find_map(|line| line.strip_prefix("Available versions:"));
    let words = line.unwrap_or_default().split(',');
    words.filter_map(|word| word.trim().parse().ok()).filter(|version| *version >= OLDEST).collect()
}

/// Fetches the wheel of a version for that Python.
pub fn wheel(version: Version, python: &str) -> Result<PathBuf> {
    let folder = empty("wheel")?;
    let step = Step::begin("fetching", &format!("the wheel of ttnn {version}"));
    let interpreter = any_python_with_pip()?;
    run::run_retrying(3, || {
        let mut pip = Command::new(&interpreter);
        pip.args(["-m", "pip", "download", "--quiet", "--no-deps"]).args(options(python));
        pip.arg(format!("ttnn=={version}")).arg("-d").arg(&folder);
        pip
    })?;
    let files = fs::read_dir(&folder)?.flatten().map(|entry| entry.path());
    let mut wheels = files.filter(|file| file.extension().is_some_and(|ending| ending == "whl"));
    let wheel = wheels.next();
    let wheel = wheel.with_context(|| format!("pip left no wheel in {}", folder.display()))?;
    step.done();
    Ok(wheel)
}

/// The library of a version: fetches the wheel, takes the one file out, and deletes the wheel.
pub fn library(version: Version) -> Result<PathBuf> {
    let wheel = wheel(version, ANY_PYTHON)?;
    let library = unpack_library(&wheel, &empty("library")?)?;
    discard(&wheel)?;
    Ok(library)
}

/// Deletes a wheel.
pub fn discard(wheel: &Path) -> Result<()> {
    fs::remove_file(wheel).with_context(|| format!("cannot delete {}", wheel.display()))
}

fn unpack_library(wheel: &Path, folder: &Path) -> Result<PathBuf> {
    let python = any_python_with_pip()?;
    for name in LIBRARIES {
        let library = folder.join(name);
        let mut unpack = Command::new(&python);
        unpack.args(["-c", UNPACK_ONE]).arg(wheel).arg(name).arg(&library);
        let status =
            unpack.status().with_context(|| format!("cannot start {}", python.display()))?;
        match status.code() {
            Some(0) => return Ok(library),
            Some(3) => {}
            _ => bail!("cannot unpack {name} of {}: {status}", wheel.display()),
        }
    }
    bail!("{} has neither {}", wheel.display(), LIBRARIES.join(" nor "))
}

/// A folder of ours, made empty.
pub fn empty(name: &str) -> Result<PathBuf> {
    let folder = super::folder().join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot delete {}", folder.display()))?;
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_pip_says() {
        let text =
            "ttnn (0.81.1)\nAvailable versions: 0.81.1, 0.80.0, 0.60.1, 0.59.0\n  LATEST: 1\n";
        let versions: Vec<String> = parse(text).iter().map(Version::to_string).collect();
        assert_eq!(versions, ["0.81.1", "0.80.0", "0.60.1"]);
        assert!(parse("ERROR: no network").is_empty());
    }
}
