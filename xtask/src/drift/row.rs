//! What ttmem finds in one version's library: a row of the table.
//!
//! Invariant: nothing in it depends on the machine, so that it can be compared on another one.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::run;

/// How ttmem says that a type of buffers cannot exist in a version: nothing is lacking then.
const NO_SUCH_TYPE: &str = "the allocator throws for this type";
/// The key of `lacks` for the buffers from before an attach.
pub const OLDER_BUFFERS: &str = "older buffers";

/// What is known of one version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// The file with the allocator.
    pub library: String,
    /// Its build id.
    pub build_id: String,
    /// What came of the exactness tests; `None`: they were not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exactness: Option<String>,
    /// Probe → symbol, and what its instruction costs where that is dear.
    #[serde(default)]
    pub probes: BTreeMap<String, String>,
    /// Field → where it is.
    #[serde(default)]
    pub fields: BTreeMap<String, String>,
    /// Probe or field → why it is not there.
    #[serde(default)]
    pub lacks: BTreeMap<String, String>,
}

impl Row {
    /// One line.
    pub fn summary(&self) -> String {
        let counts = format!("{} probes, {} fields", self.probes.len(), self.fields.len());
        let lacks = self.lacks.iter().map(|(what, why)| format!("lacks {what}: {why}"));
        let complete = self.lacks.is_empty().then(|| "complete".to_owned());
        let exactness = self.exactness.iter().map(|outcome| format!("exactness: {outcome}"));
        let parts = [counts].into_iter().chain(complete).chain(lacks).chain(exactness);
        parts.collect::<Vec<_>>().join("; ")
    }
}

/// `ttmem.doctor/1`, as far as it is used.
#[derive(Deserialize)]
struct Report {
    schema: String,
    build_id: Option<String>,
    probes: Vec<Probe>,
    fields: Vec<Field>,
    older_buffers: OlderBuffers,
    unresolved: Vec<Unresolved>,
}

#[derive(Deserialize)]
struct Probe {
    #[serde(rename = "probe")]
    name: String,
    symbol: String,
    cost: String,
}

#[derive(Deserialize)]
struct Field {
    name: String,
    value: Option<String>,
    absent_because: Option<String>,
}

#[derive(Deserialize)]
struct OlderBuffers {
    reason: Option<String>,
}

#[derive(Deserialize)]
struct Unresolved {
    probe: String,
    reason: String,
}

/// Lets a build of ttmem resolve a library.
pub fn resolve(ttmem: &Path, library: &Path) -> Result<Row> {
    let mut doctor = Command::new(ttmem);
    doctor.args(["doctor", "--json", "--library"]).arg(library);
    let output = doctor.output();
    let output = output.with_context(|| format!("cannot start `{}`", run::show(&doctor)))?;
    // 2: something is missing, and the report says what.
    if !matches!(output.status.code(), Some(0 | 2)) {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` ended with {}: {}", run::show(&doctor), output.status, said.trim());
    }
    let name = library.file_name().unwrap_or_default().to_string_lossy();
    row(&name, &String::from_utf8_lossy(&output.stdout))
        .with_context(|| format!("not understood: the output of `{}`", run::show(&doctor)))
}

fn row(library: &str, json: &str) -> Result<Row> {
    let report: Report = serde_json::from_str(json)?;
    if report.schema != "ttmem.doctor/1" {
        bail!("its schema is {}", report.schema);
    }
    let build_id = report.build_id.unwrap_or_else(|| "none".to_owned());
    let mut row = Row { library: library.to_owned(), build_id, ..Row::default() };
    for Probe { name, symbol, cost } in report.probes {
        let dear = if cost == "emulated" { String::new() } else { format!(", {cost}") };
        row.probes.insert(name, symbol + &dear);
    }
    for Field { name, value, absent_because } in report.fields {
        match (value, absent_because) {
            (Some(value), _) => {
                // There may be several classes of allocators, and so several vtables.
                let values = row.fields.entry(name).or_default();
                let comma = if values.is_empty() { "" } else { ", " };
                values.extend([comma, &value]);
            }
            (None, Some(why)) if why == NO_SUCH_TYPE => drop(row.fields.insert(name, why)),
            (None, why) => drop(row.lacks.insert(name, why.unwrap_or_default())),
        }
    }
    if let Some(reason) = report.older_buffers.reason {
        row.lacks.insert(OLDER_BUFFERS.to_owned(), reason);
    }
    row.lacks.extend(report.unresolved.into_iter().map(|it| (it.probe, it.reason)));
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = r#"{"schema":"ttmem.doctor/1","library":"/x/l.so","build_id":"ab",
        "probes":[{"probe":"free","symbol":"_Zf","offset":1,"cost":"emulated"},
                  {"probe":"allocate","symbol":"_Za","offset":2,"cost":"single-stepped"}],
        "fields":[{"name":"A","value":"+0x8","absent_because":null,"from":"f"},
                  {"name":"vtable","value":"0x1","absent_because":null,"from":"f"},
                  {"name":"vtable","value":"0x2","absent_because":null,"from":"f"},
                  {"name":"B","value":null,"absent_because":"the allocator throws for this type","from":"f"},
                  {"name":"C","value":null,"absent_because":"too old","from":"f"}],
        "older_buffers":{"readable":false,"reason":"no set"},
        "unresolved":[{"probe":"D","reason":"a loop"}]}"#;

    fn pairs(map: &BTreeMap<String, String>) -> Vec<(&str, &str)> {
        map.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
    }

    #[test]
    fn a_report_becomes_a_row() {
        let row = row("l.so", JSON).unwrap();
        assert_eq!((&*row.library, &*row.build_id, &row.exactness), ("l.so", "ab", &None));
        assert_eq!(pairs(&row.probes), [("allocate", "_Za, single-stepped"), ("free", "_Zf")]);
        let none = "the allocator throws for this type";
        assert_eq!(pairs(&row.fields), [("A", "+0x8"), ("B", none), ("vtable", "0x1, 0x2")]);
        let lacks = [("C", "too old"), ("D", "a loop"), ("older buffers", "no set")];
        assert_eq!(pairs(&row.lacks), lacks);
    }

    #[test]
    fn another_schema_is_refused() {
        let other = JSON.replace("doctor/1", "doctor/2");
        assert!(row("l.so", &other).unwrap_err().to_string().contains("doctor/2"));
    }
}
