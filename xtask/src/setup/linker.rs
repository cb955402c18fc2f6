//! `bpf-linker` for a compiler that has none, built into `target/tools`.
//!
//! It must link the very LLVM that the compiler was built with, and the compiler ships that library
//! without its development files. The feature `no-llvm-linking` wants none of them: the library is
//! named to the linker directly. A stamp beside it says which it is, since a compiler that comes
//! later may have another.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::say::{self, Step};
use crate::{paths, run};

const VERSION: &str = "0.13.0";

/// Major and minor version of LLVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Llvm(u32, u32);

impl Display for Llvm {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// Sees to it that `target/tools/bin/bpf-linker` is there, runs, and is for that toolchain.
pub fn ensure(toolchain: &str) -> Result<()> {
    let (llvm, library) = llvm_of(toolchain)?;
    if is_there(llvm, &library) {
        say::present(&format!("bpf-linker {VERSION} with LLVM {llvm}"));
        return Ok(());
    }
    say::note(&format!("LLVM {llvm} of {toolchain}: {}", library.display()));
    let step = Step::begin("building", &format!("bpf-linker {VERSION} (about two minutes)"));
    run::run_retrying(2, || install(llvm, &library))?;
    if version().is_none() {
        bail!("{} was built but does not run: try it by hand", linker().display());
    }
    fs::write(stamp_file(), stamp(llvm, &library))
        .with_context(|| format!("cannot write {}", stamp_file().display()))?;
    step.done();
    Ok(())
}

/// Whether it is there already, for that toolchain.
pub fn is_ready(toolchain: &str) -> bool {
    llvm_of(toolchain).is_ok_and(|(llvm, library)| is_there(llvm, &library))
}

fn linker() -> PathBuf {
    paths::tools().join("bin/bpf-linker")
}

fn stamp_file() -> PathBuf {
    paths::tools().join("bpf-linker.stamp")
}

fn is_there(llvm: Llvm, library: &Path) -> bool {
    let stamped = fs::read_to_string(stamp_file()).ok();
    is_current(version().as_deref(), stamped.as_deref(), &stamp(llvm, library))
}

/// Whether a linker that says this of its version, and beside which this is stamped, is the wanted one.
fn is_current(version: Option<&str>, stamped: Option<&str>, wanted: &str) -> bool {
    version.is_some_and(|version| version.contains(VERSION)) && stamped == Some(wanted)
}

/// What is stamped.
fn stamp(llvm: Llvm, library: &Path) -> String {
    format!("bpf-linker {VERSION}\nLLVM {llvm}\n{}\n", library.display())
}

fn version() -> Option<String> {
    run::capture(Command::new(linker()).arg("--version")).ok()
}

fn install(llvm: Llvm, library: &Path) -> Command {
    let mut command = run::cargo();
    command.args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force"]);
    command.args(["--no-default-features", "--features"]);
    command.arg(format!("llvm-{},no-llvm-linking", llvm.0));
    command.arg("--root").arg(paths::tools());
    // A compiler of rustup's has its library in a folder where nobody looks for one.
    let folder = library.parent().unwrap_or(Path::new("/"));
    let flags = [
        format!("-Clink-arg={}", library.display()),
        format!("-Clink-arg=-Wl,-rpath,{}", folder.display()),
    ];
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    command.env("CARGO_PROFILE_RELEASE_DEBUG", "0");
    // In a folder of its own, so that an interrupted build goes on where it stopped.
    command.env("CARGO_TARGET_DIR", paths::tools().join("build"));
    command.env_remove("RUSTFLAGS").env_remove("RUSTC_BOOTSTRAP");
    command
}

/// The LLVM in the toolchain's rustc, and its library.
fn llvm_of(toolchain: &str) -> Result<(Llvm, PathBuf)> {
    let rustc = |arguments: &[&str]| {
        run::capture(Command::new("rustup").args(["run", toolchain, "rustc"]).args(arguments))
    };
    let llvm = parse_llvm_version(&rustc(&["-vV"])?)
        .with_context(|| format!("rustc of {toolchain} names no LLVM version"))?;
    let folder = Path::new(rustc(&["--print", "sysroot"])?.trim()).join("lib");
    let names = fs::read_dir(&folder).into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let library = match own_library(names, llvm) {
        Some(name) => folder.join(name),
        None => systems_library(llvm)?,
    };
    Ok((llvm, library))
}

fn parse_llvm_version(said: &str) -> Option<Llvm> {
    let version = said.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    let mut parts = version.trim().split('.');
    Some(Llvm(parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The library that a compiler of rustup's brings along, by the names in its folder.
fn own_library(mut names: impl Iterator<Item = String>, llvm: Llvm) -> Option<String> {
    names.find(|name| name.starts_with(&format!("libLLVM.so.{llvm}-rust-")))
}

/// The one that the system's loader knows, of a distribution's compiler.
fn systems_library(llvm: Llvm) -> Result<PathBuf> {
    // It is not on the PATH of every user.
    let ldconfig = ["/sbin/ldconfig", "/usr/sbin/ldconfig"].map(Path::new);
    let ldconfig = ldconfig.into_iter().find(|path| path.is_file());
    let list = run::capture(Command::new(ldconfig.unwrap_or(Path::new("ldconfig"))).arg("-p"))?;
    parse_library(&list, llvm)
        .with_context(|| format!("neither the compiler nor ldconfig -p has a libLLVM {llvm}"))
}

fn parse_library(list: &str, llvm: Llvm) -> Option<PathBuf> {
    let names = [format!("libLLVM.so.{llvm}"), format!("libLLVM-{}.so.1", llvm.0)];
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
        assert_eq!(parse_llvm_version(said), Some(Llvm(22, 1)));
        assert_eq!(parse_llvm_version("rustc 1.96.0"), None);
    }

    #[test]
    fn finds_the_library_of_that_version_only() {
        let list = "\tlibLLVM.so.22.1 (libc6,x86-64) => /lib/a/libLLVM.so.22.1\n\
                    \tlibLLVM-15.so.1 (libc6,x86-64) => /lib/a/libLLVM-15.so.1\n";
        assert_eq!(parse_library(list, Llvm(22, 1)), Some("/lib/a/libLLVM.so.22.1".into()));
        assert_eq!(parse_library(list, Llvm(15, 0)), Some("/lib/a/libLLVM-15.so.1".into()));
        assert_eq!(parse_library(list, Llvm(21, 1)), None);
    }

    #[test]
    fn finds_the_library_that_the_compiler_brings_along() {
        let names = ["libLLVM-22-rust-1.97.0-nightly.so", "libLLVM.so.22.1-rust-1.97.0-nightly"];
        let of = |llvm| own_library(names.iter().map(|name| (*name).to_owned()), llvm);
        assert_eq!(of(Llvm(22, 1)).as_deref(), Some(names[1]));
        assert_eq!(of(Llvm(22, 10)), None);
    }

    #[test]
    fn a_linker_for_another_llvm_is_not_taken() {
        let library = Path::new("/lib/libLLVM.so.22.1");
        let wanted = stamp(Llvm(22, 1), library);
        let says = format!("bpf-linker {VERSION}");
        assert!(is_current(Some(&says), Some(&wanted), &wanted));
        assert!(!is_current(Some(&says), Some(&stamp(Llvm(21, 1), library)), &wanted));
        let elsewhere = stamp(Llvm(22, 1), Path::new("/usr/lib/libLLVM.so.22.1"));
        assert!(!is_current(Some(&says), Some(&elsewhere), &wanted));
        assert!(!is_current(Some("bpf-linker 0.9.0"), Some(&wanted), &wanted));
        assert!(!is_current(Some(&says), None, &wanted), "one of which nothing is known");
        assert!(!is_current(None, Some(&wanted), &wanted), "its library is gone");
    }
}
