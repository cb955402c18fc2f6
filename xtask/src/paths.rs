//! Where things are.
//!
//! What setup prepares always lies in `target/` of the workspace, also when cargo's own output goes
//! elsewhere: `ttmem-user/build.rs` looks for it there. Where that output is, `build` knows.

use std::env;
use std::path::{Path, PathBuf};

/// The workspace's root folder.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// `target/`, for what setup prepares.
pub fn prepared() -> PathBuf {
    root().join("target")
}

/// xtask's own notes.
pub fn notes() -> PathBuf {
    prepared().join("xtask")
}

/// Tools that the project builds for itself.
pub fn tools() -> PathBuf {
    prepared().join("tools")
}

/// The rig of the real tt-metal.
pub fn real_target() -> PathBuf {
    prepared().join("real-target")
}

/// The built stand-in library.
pub fn standin() -> PathBuf {
    prepared().join("standin")
}

/// The first file called `name` in the folders of `PATH`.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}
