//! A file that no longer fits in a head is refused.

use std::fs;

use anyhow::{Result, bail};

use crate::paths;

const LIMIT: usize = 1000;
const ENDINGS: [&str; 8] = [".rs", ".py", ".c", ".cc", ".cpp", ".h", ".hpp", ".sh"];

/// Refuses source files of `LIMIT` lines and more.
pub fn check() -> Result<()> {
    let root = paths::root();
    let mut long = Vec::new();
    for file in super::files(&root, &ENDINGS)? {
        let lines = fs::read_to_string(&file)?.lines().count();
        if lines >= LIMIT {
            let name = file.strip_prefix(&root).unwrap_or(&file).display().to_string();
            long.push(format!("{name} has {lines} lines"));
        }
    }
    if long.is_empty() {
        return Ok(());
    }
    bail!("{}: split what has {LIMIT} lines or more", long.join(", "))
}
