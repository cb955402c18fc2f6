//! Licences, bans and sources of the dependencies, as `deny.toml` states them.
//!
//! By cargo-deny where it is installed; else the licences, bans and sources (not the duplicates)
//! are checked here, from what cargo knows offline.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::licence;
use crate::{paths, run, say};

/// How cargo names the registry that crates come from unless something else is asked for.
const REGISTRY: &str = "registry+";

/// The part of `deny.toml` that is checked here.
#[derive(Debug, Deserialize)]
struct Rules {
    licenses: Licences,
    bans: Bans,
}

#[derive(Debug, Deserialize)]
struct Licences {
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Bans {
    #[serde(default)]
    deny: Vec<Banned>,
}

#[derive(Debug, Deserialize)]
struct Banned {
    #[serde(rename = "crate")]
    name: String,
}

/// The part of `cargo metadata` that is checked here.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

/// Checks all dependencies.
pub fn check() -> Result<()> {
    if let Some(deny) = cargo_deny() {
        let mut command = Command::new(deny);
        command.args(["--offline", "check", "licenses", "bans", "sources"]);
        return run::run(command.current_dir(paths::root()));
    }
    say::note("no cargo-deny here: licences, bans and sources by xtask's own check of deny.toml");
    let file = paths::root().join("deny.toml");
    let text =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let rules: Rules = toml::from_str(&text).context("cannot read deny.toml")?;
    let metadata: Metadata = serde_json::from_str(&metadata()?).context("cargo metadata")?;
    let complaints = complaints(&rules, &metadata);
    if complaints.is_empty() {
        say::note(&format!("{} packages", metadata.packages.len()));
        return Ok(());
    }
    bail!("{}", complaints.join("\n    "))
}

fn cargo_deny() -> Option<PathBuf> {
    let own = paths::tools().join("bin/cargo-deny");
    paths::on_path("cargo-deny").or_else(|| own.is_file().then_some(own))
}

/// Offline if what is needed was fetched before.
fn metadata() -> Result<String> {
    let command = |more: &[&str]| {
        let mut command = run::cargo();
        command.args(["metadata", "--format-version", "1", "--locked"]).args(more);
        command
    };
    run::capture(&mut command(&["--offline"])).or_else(|_| run::capture(&mut command(&[])))
}

fn complaints(rules: &Rules, metadata: &Metadata) -> Vec<String> {
    let mut list = Vec::new();
    for Package { name, version, license, source } in &metadata.packages {
        if source.as_ref().is_some_and(|source| !source.starts_with(REGISTRY)) {
            list.push(format!("{name} {version} comes from elsewhere than the registry"));
        }
        if rules.bans.deny.iter().any(|banned| banned.name == *name) {
            list.push(format!("{name} {version} is banned"));
        }
        let expression = license.as_deref().unwrap_or_default();
        if !licence::satisfied(expression, &rules.licenses.allow) {
            list.push(format!("{name} {version}: the licence `{expression}` is not allowed"));
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complains_of_each_kind() {
        let rules = "[licenses]\nallow = [\"MIT\"]\n[bans]\ndeny = [{ crate = \"bad\" }]";
        let package = |name: &str, license: &str, source: &str| Package {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            license: Some(license.to_owned()),
            source: Some(source.to_owned()),
        };
        let packages = vec![
            package("good", "MIT", "registry+index"),
            package("bad", "MIT", "registry+index"),
            package("closed", "Proprietary", "registry+index"),
            package("elsewhere", "MIT", "git+somewhere"),
        ];
        let list = complaints(&toml::from_str(rules).unwrap(), &Metadata { packages });
        assert_eq!(list.len(), 3, "{list:?}");
    }

    #[test]
    fn the_rules_can_be_read() {
        let text = fs::read_to_string(paths::root().join("deny.toml")).unwrap();
        let rules: Rules = toml::from_str(&text).unwrap();
        assert!(rules.licenses.allow.contains(&"MIT".to_owned()));
    }
}
