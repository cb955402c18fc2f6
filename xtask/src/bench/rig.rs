//! What is built and installed before anything is measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::bpftrace::{self, Bpftrace, Fields};
use crate::privilege::Privilege;
use crate::real_target::RealTarget;
use crate::say::{self, Step};
use crate::{build, paths, run, setup};

/// Everything that the suites use.
#[derive(Debug)]
pub struct Rig {
    /// The release build of ttmem.
    pub ttmem: PathBuf,
    /// What `tests/bench/native` builds.
    pub native: PathBuf,
    /// Where copies and outputs of this run go.
    pub scratch: PathBuf,
    /// bpftrace, the newest first; may be empty.
    pub bpftraces: Vec<Bpftrace>,
    /// The real tt-metal, or what there is instead.
    pub real: RealTarget,
}

/// Where the report goes.
pub fn folder() -> PathBuf {
    paths::prepared().join("bench")
}

impl Rig {
    /// Builds and installs; an error where processes cannot be watched.
    pub fn prepare() -> Result<Self> {
        if Privilege::find() != Privilege::Root {
            bail!("probes need root's rights: run `cargo xtask bench` as root");
        }
        let real = setup::for_everything()?;
        let ttmem = build::ttmem()?;
        let native = folder().join("native");
        let step = Step::begin("building", "loads to measure");
        let mut make = Command::new("make");
        make.args(["-s", "-C"]).arg(paths::root().join("tests/bench/native"));
        // Relative: to make, a path with a space in it is two.
        make.arg("OUT=../../../target/bench/native");
        // Inside a cargo build the jobserver's variables would confuse make.
        make.env_remove("MAKEFLAGS").env_remove("MFLAGS");
        run::run(&mut make)?;
        step.done();
        let scratch = folder().join("run");
        if scratch.exists() {
            fs::remove_dir_all(&scratch)?;
        }
        fs::create_dir_all(&scratch)?;
        let bpftraces = bpftrace::ensure();
        if bpftraces.is_empty() {
            say::warn("no bpftrace here: its rows will be missing");
        }
        Ok(Self { ttmem, native, scratch, bpftraces, real })
    }

    /// Options of ttmem that change nothing of what it costs, but where its tables are.
    pub fn defaults(&self) -> Vec<String> {
        vec!["--table-dir".to_owned(), self.tables().display().to_string()]
    }

    /// Where the shared tables and sockets of this run are.
    pub fn tables(&self) -> PathBuf {
        self.scratch.join("tables")
    }

    /// What ttmem finds in that library.
    pub fn image(&self, library: &Path) -> Result<Image> {
        let mut doctor = Command::new(&self.ttmem);
        doctor.args(["doctor", "--json", "--library"]).arg(library);
        let output = doctor.output().with_context(|| format!("`{}`", run::show(&doctor)))?;
        // Its exit code says whether anything is missing, which is no matter here.
        let said: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("`{}` printed no JSON", run::show(&doctor)))?;
        Image::of(&said)
    }
}

/// Where a library is probed, and what its fields are.
#[derive(Debug, Clone)]
pub struct Image {
    /// Mangled names of the allocation's and the free's function.
    pub symbols: [String; 2],
    /// File offsets at which ttmem probes them.
    pub points: [u64; 2],
    /// What the kernel does at the allocation's, as `doctor` calls it.
    pub cost: String,
    /// Fields of a buffer.
    pub fields: Fields,
}

impl Image {
    fn of(doctor: &Value) -> Result<Self> {
        let probe = |name: &str| {
            let probes = doctor["probes"].as_array().context("no probes")?;
            let found = probes.iter().find(|probe| probe["probe"] == name);
            found.with_context(|| format!("no probe {name}"))
        };
        let text = |name: &str, key: &str| {
            let value = probe(name)?[key].as_str().with_context(|| format!("no {key} of {name}"));
            value.map(str::to_owned)
        };
        let offset = |name: &str| probe(name)?["offset"].as_u64().context("no offset");
        Ok(Self {
            symbols: [text("allocate", "symbol")?, text("free", "symbol")?],
            points: [offset("allocate")?, offset("free")?],
            cost: text("allocate", "cost")?,
            fields: Fields::of(doctor)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_what_doctor_says() {
        let field = |name: &str| serde_json::json!({"name": name, "value": "+0x10"});
        let names = ["device", "size", "page_size", "address", "buffer_type"];
        let fields: Vec<Value> =
            names.iter().map(|name| field(&format!("Buffer::{name}"))).collect();
        let probe = |name: &str, offset: u64| serde_json::json!({"probe": name, "symbol": "_Z", "offset": offset, "cost": "emulated"});
        let doctor = serde_json::json!({
            "probes": [probe("free", 7), probe("allocate", 9)], "fields": fields,
        });
        let image = Image::of(&doctor).unwrap();
        assert_eq!((image.points, image.cost.as_str()), ([9, 7], "emulated"));
        assert!(Image::of(&serde_json::json!({"probes": [probe("free", 7)]})).is_err());
    }
}
