//! `cargo xtask lint`: what a reviewer should not have to look for.
//!
//! Every check runs, also after one has failed; all complaints are listed at the end.

mod deny;
mod imports;
mod licence;
mod links;
mod sizes;

use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::setup::choice::{Choice, Kind};
use crate::{paths, run, say, setup};

/// The target of the eBPF side on this machine.
const BPF_TARGET: &str =
    if cfg!(target_endian = "little") { "bpfel-unknown-none" } else { "bpfeb-unknown-none" };

/// A check by its name.
type Check = (&'static str, fn() -> Result<()>);

/// Runs all checks.
pub fn perform() -> Result<()> {
    let checks: [Check; 7] = [
        ("formatting", formatting),
        ("import rules", imports::check),
        ("file sizes", sizes::check),
        ("links", links::check),
        ("dependencies", deny::check),
        ("clippy", clippy),
        ("eBPF side", ebpf),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        say::heading(name);
        match check() {
            Ok(()) => println!("  ✓ {name}"),
            Err(error) => {
                println!("  ✗ {error:#}");
                failed.push(name);
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("lint: {}", failed.join(", ")) }
}

fn formatting() -> Result<()> {
    component("fmt", "rustfmt")?;
    run::run(run::cargo().args(["fmt", "--all", "--check"]))
}

/// Sees to it that cargo has a command: a minimal toolchain of rustup's lacks some.
fn component(command: &str, name: &str) -> Result<()> {
    if run::succeeds(run::cargo().args([command, "--version"])) {
        return Ok(());
    }
    run::run(Command::new("rustup").args(["component", "add", name]))
}

fn clippy() -> Result<()> {
    component("clippy", "clippy")?;
    setup::for_building()?;
    let mut command = run::cargo();
    command.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    run::run(command.envs(setup::ebpf_env()))
}

/// Checks the eBPF package for its own target, by clippy if its toolchain has one.
fn ebpf() -> Result<()> {
    let Some(choice) = Choice::load() else {
        say::warn("not checked: no eBPF toolchain chosen by setup");
        return Ok(());
    };
    let of_toolchain = || {
        let mut command = Command::new("rustup");
        command.args(["run", &choice.toolchain, "cargo"]).current_dir(paths::root());
        command.envs(setup::ebpf_env());
        // Those of the toolchain that runs xtask.
        for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN", "RUSTFLAGS"] {
            command.env_remove(name);
        }
        command
    };
    let clippy = run::succeeds(of_toolchain().args(["clippy", "--version"]));
    if !clippy {
        say::note(&format!("{} has no clippy: rustc's warnings only", choice.toolchain));
    }
    let mut command = of_toolchain();
    command.arg(if clippy { "clippy" } else { "check" });
    command.args(["--package", "ttmem-ebpf", "--target", BPF_TARGET]);
    if choice.kind == Kind::Nightly {
        command.args(["-Z", "build-std=core"]);
    }
    let flags =
        [format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH), "-Dwarnings".to_owned()];
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    command.env("CARGO_TARGET_DIR", paths::notes().join("ebpf-lint"));
    run::run(&mut command)
}

/// All files below `dir` with one of the endings, but for build output and hidden folders.
fn files(dir: &Path, endings: &[&str]) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') || name == "target" || path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path, endings)?);
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
