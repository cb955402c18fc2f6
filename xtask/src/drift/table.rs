//! `tests/drift/versions.toml`: what ttmem is known to find in each version.
//!
//! Written here in one fixed form, one line per probe and field, so that a change reads well.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::row::Row;
use super::version::Version;
use crate::paths;

/// Its path in the workspace.
pub const FILE: &str = "tests/drift/versions.toml";

const HEAD: &str = "\
# What ttmem finds in the library of each published version of ttnn.
# Written by `cargo xtask drift --bless`; see CONTRIBUTING.md. Review a change of it like code.
";

/// The rows, in the order of their versions.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Table {
    rows: BTreeMap<Version, Row>,
}

fn file() -> PathBuf {
    paths::root().join(FILE)
}

impl Table {
    /// Reads the file; without one, the table is empty.
    pub fn read() -> Result<Self> {
        let file = file();
        if !file.exists() {
            return Ok(Self::default());
        }
        let text = fs::read_to_string(&file);
        let text = text.with_context(|| format!("cannot read {}", file.display()))?;
        Self::parse(&text).with_context(|| format!("{} is not understood", file.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let rows: BTreeMap<String, Row> = toml::from_str(text)?;
        let rows = rows.into_iter().map(|(version, row)| {
            version.parse().map(|version| (version, row)).map_err(anyhow::Error::msg)
        });
        Ok(Self { rows: rows.collect::<Result<_>>()? })
    }

    /// Writes the file.
    pub fn write(&self) -> Result<()> {
        let file = file();
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&file, self.text()).with_context(|| format!("cannot write {}", file.display()))
    }

    fn text(&self) -> String {
        let mut text = HEAD.to_owned();
        for (version, row) in &self.rows {
            let version = version.to_string();
            text.extend(["\n[\"", &version, "\"]\n"]);
            text += &entry("library", &row.library);
            text += &entry("build_id", &row.build_id);
            if let Some(exactness) = &row.exactness {
                text += &entry("exactness", exactness);
            }
            let parts = [("probes", &row.probes), ("fields", &row.fields), ("lacks", &row.lacks)];
            for (name, part) in parts.into_iter().filter(|(_, part)| !part.is_empty()) {
                text.extend(["[\"", &version, "\".", name, "]\n"]);
                for (key, value) in part {
                    text += &entry(key, value);
                }
            }
        }
        text
    }

    /// All rows, the oldest version first.
    pub fn rows(&self) -> impl DoubleEndedIterator<Item = (Version, &Row)> {
        self.rows.iter().map(|(version, row)| (*version, row))
    }

    /// What is known of a version.
    pub fn row(&self, version: Version) -> Option<&Row> {
        self.rows.get(&version)
    }

    /// Takes over what was found; the result of exactness tests stays if they were not run.
    pub fn enter(&mut self, version: Version, found: &Row) {
        let mut row = found.clone();
        let known = self.rows.get(&version).and_then(|row| row.exactness.clone());
        row.exactness = row.exactness.or(known);
        self.rows.insert(version, row);
    }

    /// What was found otherwise than the table says.
    pub fn differences(&self, version: Version, found: &Row) -> Vec<String> {
        let Some(known) = self.row(version) else { return vec!["not in the table".to_owned()] };
        let mut differences = Vec::new();
        let mut compare = |what: &str, known: Option<&String>, found: Option<&String>| {
            if known != found {
                let show = |value: Option<&String>| value.map_or("nothing".into(), String::clone);
                differences.push(format!(
                    "{what}: {}, the table says {}",
                    show(found),
                    show(known)
                ));
            }
        };
        compare("library", Some(&known.library), Some(&found.library));
        compare("build id", Some(&known.build_id), Some(&found.build_id));
        if found.exactness.is_some() {
            compare("exactness", known.exactness.as_ref(), found.exactness.as_ref());
        }
        for (part, known, found) in [
            ("probe", &known.probes, &found.probes),
            ("field", &known.fields, &found.fields),
            ("lacks", &known.lacks, &found.lacks),
        ] {
            let mut keys: Vec<&String> = known.keys().chain(found.keys()).collect();
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                compare(&format!("{part} {key}"), known.get(key), found.get(key));
            }
        }
        differences
    }
}

/// One line `key = "value"`. JSON's strings are TOML's basic strings.
fn entry(key: &str, value: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let key = if key.chars().all(bare) { key.to_owned() } else { quoted(key) };
    format!("{key} = {}\n", quoted(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        let map = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        Row {
            library: "libtt_metal.so".into(),
            build_id: "ab".into(),
            exactness: None,
            probes: map("free", "_Zf"),
            fields: map("Buffer::size", "+0x8"),
            lacks: map("older buffers", "no \"set\" \\ at all"),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut table = Table::default();
        table.enter("0.62.2".parse().unwrap(), &row());
        table.enter("0.60.1".parse().unwrap(), &Row::default());
        let text = table.text();
        assert!(text.find("0.60.1").unwrap() < text.find("0.62.2").unwrap());
        assert_eq!(Table::parse(&text).unwrap(), table);
        assert!(Table::parse("[\"0.60.1\"]\nlibrary = 1\n").is_err());
        assert!(Table::parse("[\"x\"]\nlibrary = \"\"\nbuild_id = \"\"\n").is_err());
    }

    #[test]
    fn every_difference_is_named() {
        let version = "0.62.2".parse().unwrap();
        let mut table = Table::default();
        assert_eq!(table.differences(version, &row()), ["not in the table"]);
        let known = Row { exactness: Some("pass".into()), ..row() };
        table.enter(version, &known);
        // Not run is no difference, and blessing it forgets nothing.
        assert!(table.differences(version, &row()).is_empty());
        table.enter(version, &row());
        assert_eq!(table.row(version), Some(&known));
        let mut other = Row { build_id: "cd".into(), exactness: Some("fail".into()), ..row() };
        other.fields.insert("Buffer::size".into(), "+0x18".into());
        other.lacks.clear();
        other.probes.insert("allocate".into(), "_Za".into());
        let differences = table.differences(version, &other);
        let expected = [
            "build id: cd, the table says ab",
            "exactness: fail, the table says pass",
            "probe allocate: _Za, the table says nothing",
            "field Buffer::size: +0x18, the table says +0x8",
            "lacks older buffers: nothing, the table says no \"set\" \\ at all",
        ];
        assert_eq!(differences, expected);
    }

    #[test]
    fn every_version_is_watched() {
        let table = Table::read().unwrap();
        assert!(table.rows().count() > 20);
        for (version, row) in table.rows() {
            for probe in ["allocate", "bulk_free", "free"] {
                assert!(row.probes.contains_key(probe), "{version} lacks {probe}");
            }
            for field in ["Device::id", "MeshDevice::id", "MeshDevice devices begin"] {
                assert!(row.fields.contains_key(field), "{version} lacks {field}");
            }
        }
    }

    #[test]
    fn the_file_is_as_it_would_be_written() {
        let table = Table::read().unwrap();
        assert_eq!(fs::read_to_string(file()).unwrap(), table.text(), "cargo xtask drift --bless");
    }
}
