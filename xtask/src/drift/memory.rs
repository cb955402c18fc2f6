//! What earlier calls have found: one file per version, of use only to the very build of ttmem
//! that found it.

use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::row::Row;
use super::version::Version;

/// The folder with the files.
#[derive(Debug)]
pub struct Memory {
    folder: PathBuf,
    binary: PathBuf,
    ttmem: u64,
}

#[derive(Serialize, Deserialize)]
struct Finding {
    /// The hash of the binary.
    ttmem: u64,
    row: Row,
}

impl Memory {
    /// Opens what a binary has found; `again` forgets everything.
    pub fn open(binary: PathBuf, again: bool) -> Result<Self> {
        let folder = super::folder().join("found");
        if again && folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot delete {}", folder.display()))?;
        }
        let bytes = fs::read(&binary);
        let bytes = bytes.with_context(|| format!("cannot read {}", binary.display()))?;
        Self::at(folder, binary, &bytes)
    }

    fn at(folder: PathBuf, binary: PathBuf, bytes: &[u8]) -> Result<Self> {
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut hasher = DefaultHasher::new();
        hasher.write(bytes);
        Ok(Self { folder, binary, ttmem: hasher.finish() })
    }

    /// Whose findings these are.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    fn file(&self, version: Version) -> PathBuf {
        self.folder.join(format!("{version}.json"))
    }

    /// What this build of ttmem has found in a version.
    pub fn recall(&self, version: Version) -> Option<Row> {
        let text = fs::read_to_string(self.file(version)).ok()?;
        let finding: Finding = serde_json::from_str(&text).ok()?;
        (finding.ttmem == self.ttmem).then_some(finding.row)
    }

    /// Keeps it for the next call.
    pub fn remember(&self, version: Version, row: &Row) -> Result<()> {
        let finding = Finding { ttmem: self.ttmem, row: row.clone() };
        let file = self.file(version);
        fs::write(&file, serde_json::to_string_pretty(&finding)?)
            .with_context(|| format!("cannot write {}", file.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_build_has_found_nothing() {
        let folder = std::env::temp_dir().join(format!("ttmem-memory-{}", std::process::id()));
        let version = "0.62.2".parse().unwrap();
        let row = Row { library: "l".into(), ..Row::default() };
        let at = |bytes: &[u8]| Memory::at(folder.clone(), PathBuf::new(), bytes).unwrap();
        let memory = at(b"one");
        assert_eq!(memory.recall(version), None);
        memory.remember(version, &row).unwrap();
        assert_eq!(memory.recall(version), Some(row));
        assert_eq!(at(b"two").recall(version), None);
        fs::remove_dir_all(folder).unwrap();
    }
}
