//! Who may import whom in `ttmem-user/src`: the table, and a small reader of paths that checks it.
//!
//! The reader knows `crate::…`, `super::…` and `ttmem::…` paths, also in braces; comments,
//! strings and the tests at the end of a file do not count. What it cannot see is a name that
//! another module re-exports: re-export nothing from below.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

use crate::paths;

/// Each module, and what it may import besides itself, `FREE` and `ttmem_common`.
const TABLE: &[(&str, &[&str])] = &[
    ("units", &[]),
    ("missing", &[]),
    ("witness", &[]),
    ("words", &[]),
    ("fetch", &[]),
    ("stderr", &[]),
    ("image", &[]),
    ("event", &[]),
    ("resolve", &["image", "event"]),
    ("target", &["image", "resolve", "event"]),
    ("source", &[]),
    ("kernel", &["resolve", "source"]),
    ("stacks", &["target", "source", "ledger"]),
    ("ledger", &["event"]),
    ("table", &["event", "ledger"]),
    ("pipeline", &["event", "source", "ledger", "sink", "table"]),
    ("socket", &["event", "ledger", "table", "sink", "pipeline", "fixture"]),
    ("format", &["event", "ledger"]),
    ("sink", &["event", "ledger", "format"]),
    ("tracy", &["event", "ledger", "format", "sink", "pipeline", "fixture"]),
    ("history", &["event", "ledger", "sink", "fixture"]),
    ("tui", &["event", "ledger", "format", "history", "fixture"]),
    // Snapshots for the tests of what shows them; no part of the program.
    ("fixture", &["event", "ledger", "source", "table"]),
];
/// May be imported by all.
const FREE: [&str; 6] = ["units", "missing", "witness", "words", "fetch", "stderr"];
/// May import all: the composition root and what is only about it.
const UNBOUND: [&str; 4] = ["app", "cli", "main", "lib"];

/// Checks every file of the library.
pub fn check() -> Result<()> {
    let source = paths::root().join("ttmem-user/src");
    let mut complaints = Vec::new();
    for file in super::files(&source, &[".rs"])? {
        let text = fs::read_to_string(&file)?;
        let name = file.strip_prefix(&source).unwrap_or(&file);
        complaints.extend(complaints_of(name, &text));
    }
    if complaints.is_empty() { Ok(()) } else { bail!("{}", complaints.join("\n    ")) }
}

fn complaints_of(file: &Path, text: &str) -> Vec<String> {
    let parts: Vec<String> =
        file.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
    let Some(module) = parts.first() else { return Vec::new() };
    if UNBOUND.contains(&module.as_str()) {
        return Vec::new();
    }
    let shown = file.display();
    let Some((_, allowed)) = TABLE.iter().find(|(name, _)| name == module) else {
        return vec![format!("{shown}: {module} is not in the table of xtask/src/lint/imports.rs")];
    };
    // `mod.rs` stands for its folder.
    let depth = parts.iter().filter(|part| *part != "mod").count();
    let may = |other: &String| {
        other == module || FREE.contains(&other.as_str()) || allowed.contains(&other.as_str())
    };
    let imported = imported_modules(text, depth);
    let known = imported.iter().filter(|other| is_module(other));
    known
        .filter(|other| !may(other))
        .map(|other| format!("{shown}: {module} must not import {other}"))
        .collect()
}

/// Items of the crate's root, such as macros, are no modules.
fn is_module(name: &str) -> bool {
    TABLE.iter().any(|(module, _)| *module == name) || UNBOUND.contains(&name)
}

/// The top-level modules that the text names; `depth` is how many `super` lead to the root.
fn imported_modules(text: &str, depth: usize) -> BTreeSet<String> {
    let code = without_comments_and_strings(text);
    let code = code.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let roots = ["crate::".to_owned(), "ttmem::".to_owned(), "super::".repeat(depth)];
    let mut found = BTreeSet::new();
    for root in roots.iter().filter(|root| !root.is_empty()) {
        for (at, _) in code.match_indices(root.as_str()) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            first_names(&code[at + root.len()..], &mut found);
        }
    }
    found
}

/// The name at the start of the text, or the first names of all paths in the braces there.
fn first_names(text: &str, found: &mut BTreeSet<String>) {
    let text = text.trim_start();
    let Some(group) = text.strip_prefix('{') else {
        let name: String = text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if !name.is_empty() && name != "super" {
            found.insert(name);
        }
        return;
    };
    let mut nesting = 0_usize;
    let mut start = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => nesting += 1,
            '}' if nesting > 0 => nesting -= 1,
            '}' => {
                first_names(&group[start..at], found);
                return;
            }
            ',' if nesting == 0 => {
                first_names(&group[start..at], found);
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// Line and block comments and the insides of string literals are left out; line ends stay.
fn without_comments_and_strings(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |at| at + 2)
        } else if c == '"' {
            string_length(rest)
        } else if rest.starts_with("'\"'") {
            3
        } else {
            code.push(c);
            c.len_utf8()
        };
        rest = &rest[skip..];
    }
    code
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(file: &str, text: &str) -> Vec<String> {
        complaints_of(Path::new(file), text)
    }

    #[test]
    fn what_the_table_allows_is_fine() {
        assert!(complaints("ledger/apply.rs", "use crate::event::types::Event;").is_empty());
        assert!(complaints("ledger/apply.rs", "use crate::ledger::live;").is_empty());
        assert!(complaints("tui/view/map.rs", "use crate::{units::Bytes, ledger};").is_empty());
        assert!(complaints("app.rs", "use crate::{kernel, tui};").is_empty());
    }

    #[test]
    fn what_it_does_not_is_named() {
        assert_eq!(
            complaints("ledger/apply.rs", "use crate::kernel::ring;"),
            ["ledger/apply.rs: ledger must not import kernel"]
        );
        assert_eq!(complaints("event/mod.rs", "fn f(_: crate::ledger::Snapshot) {}").len(), 1);
        assert_eq!(complaints("tui/mod.rs", "use ttmem::kernel::Ring;").len(), 1);
    }

    #[test]
    fn braces_are_opened() {
        let text = "use crate::{\n    event::{self, types::{A, B}},\n    source, sink::Sink,\n};";
        let names = imported_modules(text, 1);
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["event", "sink", "source"]);
    }

    #[test]
    fn super_leads_out_at_the_right_depth() {
        assert_eq!(complaints("event/mod.rs", "use super::ledger::A;").len(), 1);
        assert!(complaints("event/types.rs", "use super::ledger::A;").is_empty());
        assert_eq!(complaints("event/types.rs", "use super::super::ledger::A;").len(), 1);
    }

    #[test]
    fn comments_strings_and_tests_do_not_count() {
        let text = "/// see crate::kernel\n/* crate::kernel */ const A: &str = \"\\\"crate::kernel\";\n\
                    const Q: char = '\"';\n#[cfg(test)]\nmod tests { use crate::kernel; }\n";
        assert!(complaints("event/mod.rs", text).is_empty());
    }

    #[test]
    fn a_module_outside_the_table_is_named() {
        assert_eq!(complaints("misc.rs", "").len(), 1);
    }

    #[test]
    fn the_table_has_no_circles_but_the_one_excused() {
        for (module, allowed) in TABLE {
            for other in *allowed {
                let back = TABLE.iter().find(|(name, _)| name == other);
                assert!(back.is_some_and(|(_, list)| !list.contains(module)), "{module} {other}");
            }
        }
    }
}
