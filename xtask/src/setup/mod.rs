//! `cargo xtask setup`: everything that building and testing need; a second run changes nothing.

pub mod apt;
pub mod choice;
mod ebpf;
mod linker;
pub mod readers;
pub mod tracy;

use anyhow::Result;

use crate::real_target::{self, RealTarget};
use crate::{drift, say};

pub use choice::ebpf_env;

/// Programs that the tests call, and the packages that hold them.
const PROGRAMS: [(&str, &str); 5] = [
    ("g++", "g++"),
    ("make", "make"),
    ("tmux", "tmux"),
    ("readelf", "binutils"),
    ("python3", "python3"),
];

/// What only building needs.
pub fn for_building() -> Result<()> {
    ebpf::ensure()
}

/// What building, the tests and the demo need.
pub fn for_everything() -> Result<RealTarget> {
    say::heading("Programs for the tests");
    apt::ensure_programs(&PROGRAMS);
    ebpf::ensure()?;
    drift::cache::ensure();
    let target = real_target::ensure()?;
    if let Err(error) = readers::ensure(&target) {
        say::warn(&format!("no Python for the tests of the Python package: {error:#}"));
    }
    tracy::ensure();
    Ok(target)
}
