//! The toolchain for the eBPF side: the first way that this machine allows.
//!
//! 1. `TTMEM_EBPF_OBJECT` names a prebuilt object, or `TTMEM_EBPF_TOOLCHAIN` a toolchain.
//! 2. A nightly of rustup's with `rust-src`, and `bpf-linker` on `PATH`.
//! 3. Debian's `rustc-web` with its prebuilt `core` for BPF, and a `bpf-linker` built for its LLVM.
//! 4. As 2., with a `bpf-linker` built for nightly's LLVM. Once that is there, it goes before 3.

use std::path::Path;
use std::process::Command;
use std::time::Duration;
use std::{env, thread};

use anyhow::{Context, Result, bail};

use super::choice::{Choice, NIGHTLY, OBJECT_VARIABLE, TOOLCHAIN_VARIABLE};
use super::{apt, linker};
use crate::say::{self, Step};
use crate::{paths, run};

/// The rustup name of the distribution's compiler.
const DEBIAN_TOOLCHAIN: &str = "ttmem-debian";
const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];
/// A refusal comes at once; more than this is a download worth waiting for only by hand.
const NIGHTLY_LIMIT: Duration = Duration::from_secs(120);

/// Sees to it that the eBPF side can be built, and writes down how.
pub fn ensure() -> Result<()> {
    say::heading("Toolchain for the eBPF side");
    if let Some(object) = env::var_os(OBJECT_VARIABLE) {
        if !Path::new(&object).is_file() {
            bail!("{OBJECT_VARIABLE} names {}, which is no file", object.display());
        }
        say::note(&format!("prebuilt object {} (by {OBJECT_VARIABLE})", object.display()));
        return Ok(());
    }
    if let Some(toolchain) = env::var_os(TOOLCHAIN_VARIABLE) {
        say::note(&format!("{} (by {TOOLCHAIN_VARIABLE})", toolchain.display()));
        return Ok(());
    }
    let choice = choose()?;
    say::note(&format!("chosen: {} ({})", choice.toolchain, super::choice::file().display()));
    choice.save()
}

fn choose() -> Result<Choice> {
    if paths::on_path("bpf-linker").is_some() {
        match nightly() {
            Ok(()) => return Ok(Choice::nightly()),
            Err(why) => say::note(&format!("not rustup's nightly: {why:#}")),
        }
    } else if has_rust_src() && linker::is_ready(NIGHTLY) {
        say::present(&format!("{NIGHTLY} with rust-src, and a bpf-linker for it"));
        return Ok(Choice::nightly_with_own_linker());
    }
    let no_debian = match debian() {
        Ok(choice) => return Ok(choice),
        Err(why) => format!("{why:#}"),
    };
    say::note(&format!("not Debian's rustc-web: {no_debian}"));
    nightly().and_then(|()| linker::ensure(NIGHTLY)).with_context(|| {
        format!(
            "no way to build the eBPF side: neither rustup's nightly with rust-src and a \
             bpf-linker for it, nor Debian's rustc-web ({no_debian})"
        )
    })?;
    Ok(Choice::nightly_with_own_linker())
}

/// Sees to it that there is a nightly with `rust-src`.
fn nightly() -> Result<()> {
    if has_rust_src() {
        say::present(&format!("{NIGHTLY} with rust-src"));
        return Ok(());
    }
    let step = Step::begin("installing", &format!("{NIGHTLY} with rust-src"));
    let mut install = Command::new("rustup");
    install.args(["toolchain", "install", NIGHTLY, "--profile", "minimal"]);
    install.args(["--component", "rust-src", "--no-self-update"]);
    if !run::succeeds_within(&mut install, NIGHTLY_LIMIT) || !has_rust_src() {
        bail!("rustup could not install rust-src (`{}`)", run::show(&install));
    }
    step.done();
    Ok(())
}

fn has_rust_src() -> bool {
    let mut list = Command::new("rustup");
    list.args(["component", "list", "--toolchain", NIGHTLY, "--installed"]);
    list.env("RUSTUP_AUTO_INSTALL", "0");
    run::capture(&mut list).is_ok_and(|text| text.lines().any(|line| line.starts_with("rust-src")))
}

fn debian() -> Result<Choice> {
    apt::ensure(&DEBIAN_PACKAGES)?;
    link()?;
    linker::ensure(DEBIAN_TOOLCHAIN)?;
    Ok(Choice::debian(DEBIAN_TOOLCHAIN))
}

fn link() -> Result<()> {
    let probe = || {
        let mut command = Command::new("rustup");
        command.args(["run", DEBIAN_TOOLCHAIN, "rustc", "-vV"]);
        run::succeeds(&mut command)
    };
    if probe() {
        say::present(&format!("rustup toolchain {DEBIAN_TOOLCHAIN}"));
        return Ok(());
    }
    let step = Step::begin("linking", &format!("rustup toolchain {DEBIAN_TOOLCHAIN}"));
    run::run(Command::new("rustup").args(["toolchain", "link", DEBIAN_TOOLCHAIN, "/usr"]))?;
    // rustup's settings file may be in another rustup's hands for a moment.
    if !probe() {
        thread::sleep(Duration::from_secs(1));
        if !probe() {
            bail!(
                "rustup toolchain {DEBIAN_TOOLCHAIN} does not run: see `rustup run {DEBIAN_TOOLCHAIN} rustc -vV`"
            );
        }
    }
    step.done();
    Ok(())
}
