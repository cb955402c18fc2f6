//! The libraries that `cargo xtask test` looks at without a network: one of each family of
//! layouts, fetched by `cargo xtask setup`. The newest is the real target's own.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::fetch;
use super::version::Version;
use crate::say;

/// The fields in `Buffer`, the allocator of before 0.66; the fields in `Buffer`, the last of them.
pub const KEPT: [&str; 2] = ["0.62.2", "0.78.0"];

/// Where the library of a kept version lies.
pub fn library(version: &str) -> PathBuf {
    super::folder().join("cache").join(version).join("libtt_metal.so")
}

/// Fetches what is not there yet; without a network, the tests are skipped.
pub fn ensure() {
    say::heading("Libraries of older versions");
    for version in KEPT {
        if library(version).is_file() {
            say::present(&format!("the library of ttnn {version}"));
        } else if let Err(error) = fetch(version) {
            say::warn(&format!("no library of ttnn {version}: {error:#}"));
        }
    }
}

fn fetch(version: &str) -> Result<()> {
    let fetched = fetch::library(version.parse::<Version>().map_err(anyhow::Error::msg)?)?;
    let kept = library(version);
    let folder = kept.parent().context("a library without a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    // In one step: what is there is whole.
    fs::rename(&fetched, &kept).with_context(|| format!("cannot move to {}", kept.display()))
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::fs::OpenOptions;
    use std::io::Write;
    use std::path::Path;

    use super::*;
    use crate::drift::{row, table::Table};
    use crate::real_target;

    /// The file that an environment variable of `cargo xtask test` names.
    fn named(variable: &str) -> Result<PathBuf, String> {
        let path = env::var_os(variable).map(PathBuf::from).filter(|path| path.is_file());
        path.ok_or_else(|| format!("{variable} names no file; `cargo xtask test` sets it"))
    }

    fn kept(version: &str) -> Result<PathBuf, String> {
        let file = library(version);
        let hint = || format!("{} was not fetched: `cargo xtask setup`", file.display());
        if file.is_file() { Ok(file) } else { Err(hint()) }
    }

    /// What there is to compare, or the reason why nothing is, for the closing line.
    fn check(version: &str, library: Result<PathBuf, String>) {
        match named("TTMEM_BIN").and_then(|ttmem| Ok((ttmem, library?))) {
            Ok((ttmem, library)) => compare(version, &ttmem, &library),
            Err(reason) => skip(version, &reason),
        }
    }

    fn compare(version: &str, ttmem: &Path, library: &Path) {
        let found = row::resolve(ttmem, library).unwrap();
        let differences = Table::read().unwrap().differences(version.parse().unwrap(), &found);
        assert!(differences.is_empty(), "ttnn {version}:\n{}", differences.join("\n"));
    }

    fn skip(version: &str, reason: &str) {
        let line = format!("SKIPPED drift of ttnn {version}: {reason}\n");
        print!("{line}");
        if let Some(path) = env::var_os("TTMEM_SKIP_FILE")
            && let Ok(mut file) = OpenOptions::new().append(true).create(true).open(path)
        {
            let _ = file.write_all(line.as_bytes());
        }
    }

    #[test]
    fn the_old_allocator_is_as_the_table_says() {
        check(KEPT[0], kept(KEPT[0]));
    }

    #[test]
    fn fields_in_the_buffer_are_as_the_table_says() {
        check(KEPT[1], kept(KEPT[1]));
    }

    #[test]
    fn the_real_target_is_as_the_table_says() {
        let version = real_target::TTNN.trim_start_matches("ttnn==");
        check(version, named("TTMEM_REAL_LIBRARY"));
    }
}
