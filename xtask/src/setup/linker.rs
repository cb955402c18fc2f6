//! `bpf-linker` for the distribution's compiler, built into `target/tools`.
//!
//! It must link the very LLVM that the compiler was built with. The distribution ships that
//! library without its development files, which the feature `no-llvm-linking` does not want: the
//! library is named to the linker directly.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::say::{self, Step};
use crate::{paths, run};

const VERSION: &str = "0.13.0";

/// Sees to it that `target/tools/bin/bpf-linker` is there and runs.
pub fn ensure(toolchain: &str) -> Result<()> {
    let linker = paths::tools().join("bin/bpf-linker");
    if version(&linker).is_some_and(|found| found.contains(VERSION)) {
        say::present(&format!("bpf-linker {VERSION}"));
        return Ok(());
    }
    let llvm = llvm_version(toolchain)?;
    let library = llvm_library(llvm)?;
    say::note(&format!("LLVM {}.{} of {toolchain}: {}", llvm.0, llvm.1, library.display()));
    let step = Step::begin("building", &format!("bpf-linker {VERSION} (about two minutes)"));
    run::run_retrying(2, || install(llvm, &library))?;
    if version(&linker).is_none() {
        bail!("{} was built but does not run: try it by hand", linker.display());
    }
    step.done();
    Ok(())
}

fn version(linker: &Path) -> Option<String> {
    run::capture(Command::new(linker).arg("--version")).ok()
}

fn install(llvm: (u32, u32), library: &Path) -> Command {
    let mut command = run::cargo();
    command.args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force"]);
    command.args(["--no-default-features", "--features"]);
    command.arg(format!("llvm-{},no-llvm-linking", llvm.0));
    command.arg("--root").arg(paths::tools());
    command.env("RUSTFLAGS", format!("-C link-arg={}", library.display()));
    command.env("CARGO_PROFILE_RELEASE_DEBUG", "0");
    // In a folder of its own, so that an interrupted build goes on where it stopped.
    command.env("CARGO_TARGET_DIR", paths::tools().join("build"));
    command.env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("RUSTC_BOOTSTRAP");
    command
}

/// Major and minor version of the LLVM in the toolchain's rustc.
fn llvm_version(toolchain: &str) -> Result<(u32, u32)> {
    let said = run::capture(Command::new("rustup").args(["run", toolchain, "rustc", "-vV"]))?;
    parse_llvm_version(&said).with_context(|| format!("rustc of {toolchain} names no LLVM version"))
}

fn parse_llvm_version(said: &str) -> Option<(u32, u32)> {
    let version = said.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    let mut parts = version.trim().split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn llvm_library(llvm: (u32, u32)) -> Result<PathBuf> {
    // It is not on the PATH of every user.
    let ldconfig = ["/sbin/ldconfig", "/usr/sbin/ldconfig"].map(Path::new);
    let ldconfig = ldconfig.into_iter().find(|path| path.is_file());
    let list = run::capture(Command::new(ldconfig.unwrap_or(Path::new("ldconfig"))).arg("-p"))?;
    parse_library(&list, llvm).with_context(|| {
        format!(
            "ldconfig -p lists no libLLVM of version {}.{}: is rustc-web installed?",
            llvm.0, llvm.1
        )
    })
}

fn parse_library(list: &str, llvm: (u32, u32)) -> Option<PathBuf> {
    let (major, minor) = llvm;
    let names = [format!("libLLVM.so.{major}.{minor}"), format!("libLLVM-{major}.so.1")];
    let path_of = |name: &String| {
        list.lines().find_map(|line| {
            let (left, path) = line.split_once(" => ")?;
            (left.split_whitespace().next()? == name).then(|| PathBuf::from(path.trim()))
        })
    };
    names.iter().find_map(path_of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_llvm_version() {
        let said = "rustc 1.96.0\nhost: x86_64-unknown-linux-gnu\nLLVM version: 22.1.2\n";
        assert_eq!(parse_llvm_version(said), Some((22, 1)));
        assert_eq!(parse_llvm_version("rustc 1.96.0"), None);
    }

    #[test]
    fn finds_the_library_of_that_version_only() {
        let list = "\tlibLLVM.so.22.1 (libc6,x86-64) => /lib/a/libLLVM.so.22.1\n\
                    \tlibLLVM-15.so.1 (libc6,x86-64) => /lib/a/libLLVM-15.so.1\n";
        assert_eq!(parse_library(list, (22, 1)), Some("/lib/a/libLLVM.so.22.1".into()));
        assert_eq!(parse_library(list, (15, 0)), Some("/lib/a/libLLVM-15.so.1".into()));
        assert_eq!(parse_library(list, (21, 1)), None);
    }
}
