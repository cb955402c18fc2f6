//! The exactness tests on one version: a venv of its own, with that version's wheel and, for the
//! rest, the packages of the real target's venv. Deleted afterwards.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::json;

use super::fetch;
use super::version::Version;
use crate::real_target::{self, RealTarget, compiler};
use crate::say::{self, Step};
use crate::test::{Tally, cargo_test, give_back, with_rights};
use crate::{paths, run};

/// The test program.
const TESTS: &str = "real_exactness";
/// What the table says of a version on which every test held.
const PASSES: &str = "passes";

/// What comes of the exactness tests on a version.
pub fn exactness(version: Version, target: &RealTarget, ttmem: &Path) -> Result<String> {
    let RealTarget::Python(venv) = target else {
        bail!("the exactness tests need ttnn in a venv: {}", target.describe());
    };
    let rig = Rig::prepare(version, venv)?;
    let outcome = rig.test(ttmem);
    fetch::empty("rig")?;
    outcome
}

/// A version that can be run.
struct Rig {
    folder: PathBuf,
    python: PathBuf,
}

impl Rig {
    fn prepare(version: Version, real: &real_target::Venv) -> Result<Self> {
        let number = real.version().context("the real target's venv does not run")?;
        let folder = fetch::empty("rig")?;
        let wheel = fetch::wheel(version, &number)?;
        let step = Step::begin("unpacking", &format!("ttnn {version} for Python {number}"));
        let venv = folder.join("venv");
        let mut make = Command::new(&real.python);
        run::capture(make.args(["-m", "venv", "--without-pip"]).arg(&venv))?;
        let site = venv.join(format!("lib/python{number}/site-packages"));
        let mut unpack = Command::new(&real.python);
        run::capture(unpack.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&site))?;
        fetch::discard(&wheel)?;
        // What comes after the venv's own packages: loguru, graphviz, numpy.
        fs::write(site.join("ttmem.pth"), format!("{}\n", real.site.display()))?;
        compiler::install(&site.join("ttnn/runtime/sfpi"))?;
        let rig = Self { folder, python: venv.join("bin/python") };
        rig.describe(&site.join("ttnn"))?;
        step.done();
        Ok(rig)
    }

    /// Writes what the tests read: the machines to pretend, and `real-target.json`.
    fn describe(&self, package: &Path) -> Result<()> {
        let clusters = self.folder.join("clusters");
        fs::create_dir_all(&clusters)?;
        for entry in fs::read_dir(paths::real_target().join("clusters"))?.flatten() {
            fs::copy(entry.path(), clusters.join(entry.file_name()))?;
        }
        let mut environment: BTreeMap<String, String> =
            real_target::quiet_environment().into_iter().collect();
        let mut set = |name: &str, path: &Path| {
            environment.insert(name.to_owned(), path.display().to_string());
        };
        set("TT_METAL_CACHE", &self.folder.join("cache"));
        set("TT_METAL_LOGS_PATH", &self.folder.join("logs"));
        // Older versions ask for the second name.
        set("TT_METAL_RUNTIME_ROOT", package);
        set("TT_METAL_HOME", package);
        let library = package.join("build/lib/libtt_metal.so");
        let found = json!({ "library": library, "environment": environment });
        fs::write(self.folder.join("real-target.json"), found.to_string())?;
        Ok(())
    }

    fn test(&self, ttmem: &Path) -> Result<String> {
        let skips = self.folder.join("skipped");
        fs::write(&skips, "")?;
        let variables = [
            ("TTMEM_PRIVILEGED", PathBuf::from("1")),
            ("TTMEM_BIN", ttmem.to_path_buf()),
            ("TTMEM_REAL_DIR", self.folder.clone()),
            ("TTMEM_REAL_PYTHON", self.python.clone()),
            ("TTMEM_SKIP_FILE", skips.clone()),
        ];
        let mut tests = cargo_test(&["--package", "ttmem-e2e", "--test", TESTS], &[]);
        with_rights(&mut tests, &variables)?;
        tests.args(["--", "--test-threads=1"]);
        let mut tally = Tally::default();
        let status = run::tee(&mut tests, |line| tally.line(line))?;
        give_back()?;
        tally.ended(TESTS, status.success(), 0);
        if let Some(line) = fs::read_to_string(&skips)?.lines().next() {
            bail!("an exactness test could not run: {line}");
        }
        let counts = tally.total();
        say::note(&format!("{} passed, {} failed", counts.passed, counts.failed));
        match (counts.passed, counts.failed) {
            (0, 0) => bail!("no exactness test was run"),
            (_, 0) => Ok(PASSES.to_owned()),
            (passed, failed) => Ok(format!("{failed} of {} tests fail", passed + failed)),
        }
    }
}
