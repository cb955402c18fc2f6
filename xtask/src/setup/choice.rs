//! Which toolchain builds the eBPF side: what setup chose, as a file that others can read.
//!
//! The file is `target/xtask/ebpf-toolchain.json`, one JSON object:
//!
//! ```json
//! {"kind": "debian", "toolchain": "ttmem-debian", "rustc_bootstrap": "aya_ebpf,ttmem_ebpf",
//!  "path_prepend": "…/target/tools/bin"}
//! ```
//!
//! `kind` is `nightly` or `debian`. `toolchain` is what `rustup run` takes. `rustc_bootstrap` and
//! `path_prepend` are left out where the build needs neither: if present, the first is the value
//! of `RUSTC_BOOTSTRAP`, the second a folder to put first in `PATH`. `ttmem-user/build.rs` reads
//! the file when `TTMEM_EBPF_TOOLCHAIN` is unset, so that a plain `cargo build` works after
//! `cargo xtask setup`.
//!
//! A prebuilt object (`TTMEM_EBPF_OBJECT`) is the environment's choice for one build and is not
//! written down.

use std::path::PathBuf;
use std::{env, fs};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::paths;

/// Names a prebuilt object; no eBPF toolchain is needed then.
pub const OBJECT_VARIABLE: &str = "TTMEM_EBPF_OBJECT";
/// Names the rustup toolchain for the eBPF side.
pub const TOOLCHAIN_VARIABLE: &str = "TTMEM_EBPF_TOOLCHAIN";

/// rustup's name of a nightly that builds the eBPF side: one of a certain day, since what others make of
/// it may need more of the kernel's stack for BPF than there is (1.101 of October does).
pub const NIGHTLY: &str = "nightly-2026-08-01";

/// Where the toolchain comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// rustup's nightly with `rust-src`, and `bpf-linker` of the user's `PATH` or of our own.
    Nightly,
    /// The distribution's compiler with its prebuilt `core` for BPF, and a `bpf-linker` of our own.
    Debian,
}

/// The content of `ebpf-toolchain.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Choice {
    /// Where the toolchain comes from.
    pub kind: Kind,
    /// Its name for rustup.
    pub toolchain: String,
    /// The value of `RUSTC_BOOTSTRAP`, if the build needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rustc_bootstrap: Option<String>,
    /// A folder to put first in `PATH`, if the build needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_prepend: Option<PathBuf>,
}

impl Choice {
    /// rustup's nightly, and a linker on the `PATH`.
    pub fn nightly() -> Self {
        Self {
            kind: Kind::Nightly,
            toolchain: NIGHTLY.to_owned(),
            rustc_bootstrap: None,
            path_prepend: None,
        }
    }

    /// rustup's nightly, and a linker that was built for it.
    pub fn nightly_with_own_linker() -> Self {
        Self { path_prepend: Some(paths::tools().join("bin")), ..Self::nightly() }
    }

    /// The distribution's compiler under the given rustup name.
    pub fn debian(toolchain: &str) -> Self {
        Self {
            kind: Kind::Debian,
            toolchain: toolchain.to_owned(),
            // Unlocks unstable features for the crate aya_ebpf, and for no other.
            rustc_bootstrap: Some("aya_ebpf,ttmem_ebpf".to_owned()),
            path_prepend: Some(paths::tools().join("bin")),
        }
    }

    /// What setup chose last, if it ran.
    pub fn load() -> Option<Self> {
        serde_json::from_str(&fs::read_to_string(file()).ok()?).ok()
    }

    /// Writes the choice down, unless the file says so already.
    pub fn save(&self) -> Result<()> {
        if Self::load().as_ref() == Some(self) {
            return Ok(());
        }
        let file = file();
        fs::create_dir_all(paths::notes())?;
        let text = serde_json::to_string_pretty(self)? + "\n";
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    fn environment(&self) -> Vec<(String, String)> {
        let mut list = vec![(TOOLCHAIN_VARIABLE.to_owned(), self.toolchain.clone())];
        if let Some(value) = &self.rustc_bootstrap {
            list.push(("RUSTC_BOOTSTRAP".to_owned(), value.clone()));
        }
        if let Some(dir) = &self.path_prepend {
            let old = env::var("PATH").unwrap_or_default();
            list.push(("PATH".to_owned(), format!("{}:{old}", dir.display())));
        }
        list
    }
}

/// Where the choice is written.
pub fn file() -> PathBuf {
    paths::notes().join("ebpf-toolchain.json")
}

/// The environment for cargo builds of the workspace, so that users need not type it.
pub fn ebpf_env() -> Vec<(String, String)> {
    let chosen_outside = [OBJECT_VARIABLE, TOOLCHAIN_VARIABLE];
    if chosen_outside.iter().any(|name| env::var_os(name).is_some()) {
        return Vec::new();
    }
    Choice::load().map(|choice| choice.environment()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_reads_back() {
        let own_linker = Choice::nightly_with_own_linker();
        for choice in [Choice::nightly(), own_linker, Choice::debian("ttmem-debian")] {
            let text = serde_json::to_string(&choice).unwrap();
            assert_eq!(serde_json::from_str::<Choice>(&text).unwrap(), choice);
        }
    }

    #[test]
    fn the_file_is_as_documented() {
        let text = r#"{"kind":"debian","toolchain":"ttmem-debian","rustc_bootstrap":"aya_ebpf,ttmem_ebpf","path_prepend":"/x/bin"}"#;
        let choice: Choice = serde_json::from_str(text).unwrap();
        assert_eq!(choice.kind, Kind::Debian);
        let environment = choice.environment();
        assert_eq!(environment[0], ("TTMEM_EBPF_TOOLCHAIN".into(), "ttmem-debian".into()));
        assert_eq!(environment[1], ("RUSTC_BOOTSTRAP".into(), "aya_ebpf,ttmem_ebpf".into()));
        assert!(environment[2].1.starts_with("/x/bin:"));
    }

    #[test]
    fn nightly_needs_only_its_name() {
        assert_eq!(
            serde_json::to_string(&Choice::nightly()).unwrap(),
            format!(r#"{{"kind":"nightly","toolchain":"{NIGHTLY}"}}"#)
        );
    }
}
