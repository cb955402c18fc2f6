//! Builds the eBPF object and puts it at `$OUT_DIR/ttmem-ebpf`.
//!
//! The toolchain for it, in this order:
//! - `TTMEM_EBPF_OBJECT`: an object built elsewhere, used as it is (for packagers);
//! - `TTMEM_EBPF_TOOLCHAIN` and `RUSTC_BOOTSTRAP` from the environment;
//! - what `cargo xtask setup` found and wrote to `target/xtask/ebpf-toolchain.json`;
//! - nightly with rust-src, and bpf-linker on the PATH.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use aya_build::{Package, Toolchain};

fn main() -> anyhow::Result<()> {
    for name in ["TTMEM_EBPF_OBJECT", "TTMEM_EBPF_TOOLCHAIN", "RUSTC_BOOTSTRAP"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace root")?;
    println!("cargo::rerun-if-changed={}", root.join("ttmem-common/src").display());
    if let Some(object) = env::var_os("TTMEM_EBPF_OBJECT") {
        return copy_object(Path::new(&object));
    }
    let toolchain = match env::var("TTMEM_EBPF_TOOLCHAIN") {
        Ok(toolchain) => Some(toolchain),
        Err(_) => prepared_toolchain(root)?,
    };
    // Each line that the inner cargo prints would be a warning of the outer one.
    set_env("CARGO_TERM_QUIET", "true");
    aya_build::build_ebpf(
        [Package {
            name: "ttmem-ebpf",
            root_dir: concat!(env!("CARGO_MANIFEST_DIR"), "/../ttmem-ebpf"),
            ..Package::default()
        }],
        toolchain.as_deref().map_or_else(Toolchain::default, Toolchain::Custom),
    )
    .context("failed to build the eBPF side; `cargo xtask setup` installs what it needs")
}

fn copy_object(object: &Path) -> anyhow::Result<()> {
    println!("cargo::rerun-if-changed={}", object.display());
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    fs::copy(object, out.join("ttmem-ebpf"))
        .with_context(|| format!("TTMEM_EBPF_OBJECT: cannot copy {}", object.display()))?;
    Ok(())
}

/// Takes over what `cargo xtask setup` wrote; `None` if it has not run.
fn prepared_toolchain(root: &Path) -> anyhow::Result<Option<String>> {
    let path = root.join("target/xtask/ebpf-toolchain.json");
    println!("cargo::rerun-if-changed={}", path.display());
    let Ok(text) = fs::read_to_string(&path) else { return Ok(None) };
    let choice: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("cannot read {}", path.display()))?;
    let field = |name: &str| choice.get(name).and_then(serde_json::Value::as_str);
    if let Some(directory) = field("path_prepend") {
        let old = env::var_os("PATH").unwrap_or_default();
        let paths = std::iter::once(PathBuf::from(directory)).chain(env::split_paths(&old));
        set_env("PATH", env::join_paths(paths)?);
    }
    if let Some(value) = field("rustc_bootstrap") {
        set_env("RUSTC_BOOTSTRAP", value);
    }
    Ok(field("toolchain").map(ToOwned::to_owned))
}

#[expect(unsafe_code, reason = "aya-build takes its settings from this process's environment")]
fn set_env(name: &str, value: impl AsRef<std::ffi::OsStr>) {
    // SAFETY: a build script has one thread.
    unsafe { env::set_var(name, value) };
}
