//! `docs/versions.md`: the table, for users. A test fails when the two disagree.

use std::fs;

use anyhow::{Context, Result};

use super::row::{OLDER_BUFFERS, Row};
use super::table::{self, Table};
use super::version::{FIRST_ON_MOCKS, Version};
use crate::paths;

/// Its path in the workspace.
pub const FILE: &str = "docs/versions.md";

/// The probes without which ttmem refuses to watch.
const ESSENTIAL: [&str; 3] = ["allocate", "bulk_free", "free"];

/// Writes the page.
pub fn write(table: &Table) -> Result<()> {
    let file = paths::root().join(FILE);
    fs::write(&file, text(table)).with_context(|| format!("cannot write {}", file.display()))
}

fn text(table: &Table) -> String {
    let mut text = format!(
        "\
# Versions of tt-metal

ttmem decodes what it needs from the machine code of the very library that the target has mapped; there is no list of
supported versions in it. This page says what it finds in the library of each published version of ttnn (x86-64). It is
made from `{}`, which `cargo xtask drift` checks against the wheels; do not edit it.

- **watched**: allocations, frees and bulk frees are seen, with chip, type, address and size.
- **older buffers**: buffers from before the attach can be read. Where they cannot, attach before the devices open
  (`--wait`); else the numbers are marked inexact.
- **exact**: ttmem agreed with tt-metal's own figures at every checkpoint of the exactness tests: attached from the
  start, attached late, and as a snapshot. Versions before {FIRST_ON_MOCKS} do not run on mock devices, so there this
  could not be tried.

Another build, or a newer version: `ttmem doctor --library path/to/libtt_metal.so`.

| ttnn | library | watched | older buffers | exact | lacks |
|---|---|---|---|---|---|
",
        table::FILE
    );
    for (version, row) in table.rows().rev() {
        text += &line(version, row);
    }
    text += &reasons(table);
    text
}

fn line(version: Version, row: &Row) -> String {
    let is_watched = ESSENTIAL.iter().all(|probe| row.probes.contains_key(*probe));
    let word = |good: bool| if good { "yes" } else { "no" };
    let exact = match row.exactness.as_deref() {
        Some("passes") => "yes",
        Some(other) if other.starts_with("not run") => "not tried",
        Some(other) => other,
        None => "not tried",
    };
    let lacks: Vec<&str> = lacking(row).map(|(what, _)| what).collect();
    let lacks = if lacks.is_empty() { "–".to_owned() } else { lacks.join(", ") };
    let older = word(!row.lacks.contains_key(OLDER_BUFFERS));
    let library = &row.library;
    format!("| {version} | `{library}` | {} | {older} | {exact} | {lacks} |\n", word(is_watched))
}

/// What a row lacks besides the older buffers, which have a column of their own.
fn lacking(row: &Row) -> impl Iterator<Item = (&str, &str)> {
    let all = row.lacks.iter().map(|(what, why)| (what.as_str(), why.as_str()));
    all.filter(|(what, _)| *what != OLDER_BUFFERS)
}

/// Every reason, with the versions that it holds for.
fn reasons(table: &Table) -> String {
    let mut reasons: Vec<(&str, &str, Vec<String>)> = Vec::new();
    for (version, row) in table.rows() {
        for (what, why) in &row.lacks {
            match reasons.iter_mut().find(|known| (known.0, known.1) == (what, why)) {
                Some(known) => known.2.push(version.to_string()),
                None => reasons.push((what, why, vec![version.to_string()])),
            }
        }
    }
    let mut text = "\n## What is lacking, and why\n\n".to_owned();
    if reasons.is_empty() {
        text += "Nothing.\n";
    }
    for (what, why, versions) in reasons {
        let why = code(why);
        text.extend(["- ", what, ": ", &why, "\n  (", &versions.join(", "), ")\n"]);
    }
    text
}

/// A reason may hold mangled names, whose underscores would be taken for emphasis.
fn code(reason: &str) -> String {
    let words = reason
        .split(' ')
        .map(|word| if word.starts_with("_Z") { format!("`{word}`") } else { word.to_owned() });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_as_the_table_says() {
        let page = fs::read_to_string(paths::root().join(FILE)).unwrap();
        let table = Table::read().unwrap();
        assert_eq!(page, text(&table), "cargo xtask drift --bless");
    }

    #[test]
    fn what_is_lacking_is_said_with_the_reason() {
        let mut row = Row { library: "l.so".into(), ..Row::default() };
        for probe in ESSENTIAL {
            row.probes.insert(probe.into(), "_Zf".into());
        }
        let version = "0.62.2".parse().unwrap();
        let whole = "| 0.62.2 | `l.so` | yes | yes | not tried | – |\n";
        assert_eq!(line(version, &row), whole);
        row.lacks.insert(OLDER_BUFFERS.into(), "there is no _Zf".into());
        row.lacks.insert("X".into(), "a loop".into());
        row.probes.remove("free");
        row.exactness = Some("passes".into());
        assert_eq!(line(version, &row), "| 0.62.2 | `l.so` | no | no | yes | X |\n");
        let mut table = Table::default();
        table.enter(version, &row);
        let text = text(&table);
        assert!(text.contains("- older buffers: there is no `_Zf`\n  (0.62.2)\n"), "{text}");
    }
}
