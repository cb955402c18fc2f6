//! What a run has found: the lines, the machine, and the files that hold them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use ttmem_bench::Line;

use super::goals::Verdict;
use super::table;
use crate::say;

/// The report, as `report.json` has it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// `ttmem.bench/1`.
    pub schema: String,
    /// Whether the figures are indications only.
    pub quick: bool,
    /// The machine and the tools, as name and value.
    pub environment: Vec<(String, String)>,
    /// All results, in the order in which they were found.
    pub results: Vec<Line>,
    /// How each goal stands.
    pub verdicts: Vec<Verdict>,
    /// What could not be measured, and why.
    pub missing: Vec<String>,
    #[serde(skip)]
    filter: Option<String>,
}

impl Report {
    /// An empty one, for what the filter lets through.
    pub fn new(quick: bool, filter: Option<String>) -> Self {
        Self {
            schema: "ttmem.bench/1".to_owned(),
            quick,
            environment: Vec::new(),
            results: Vec::new(),
            verdicts: Vec::new(),
            missing: Vec::new(),
            filter,
        }
    }

    /// Whether anything is asked for of the groups whose names begin like that.
    pub fn wants(&self, title: &str) -> bool {
        self.filter
            .as_ref()
            .is_none_or(|filter| title.contains(filter.as_str()) || filter.starts_with(title))
    }

    /// What was typed to select groups.
    pub fn filter(&self) -> Option<&str> {
        self.filter.as_deref()
    }

    /// Takes in results.
    pub fn add(&mut self, lines: impl IntoIterator<Item = Line>) {
        self.results.extend(lines);
    }

    /// Takes in a fact of the machine.
    pub fn fact(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Runs a part; that it failed is reported, and the others go on.
    pub fn part(&mut self, title: &str, measure: impl FnOnce(&mut Self) -> Result<()>) {
        say::heading(title);
        if let Err(error) = measure(self) {
            say::warn(&format!("{title}: {error:#}"));
            self.missing.push(format!("{title}: {error:#}"));
        }
    }

    /// A result by its key.
    pub fn find(&self, group: &str, name: &str) -> Option<&Line> {
        self.results.iter().find(|line| line.group == group && line.name == name)
    }

    /// Reads one that was written.
    pub fn read(file: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no report", file.display()))
    }

    /// Writes `report.json` and `report.md` into the folder.
    pub fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        let json = serde_json::to_string_pretty(self)? + "\n";
        for (name, text) in [("report.json", json), ("report.md", self.markdown())] {
            let file = folder.join(name);
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(())
    }

    /// The report for people.
    pub fn markdown(&self) -> String {
        let mut out = String::new();
        if self.quick {
            out += "A quick run: the figures are indications only.\n\n";
        }
        out +=
            &table::of(&["", ""], self.environment.iter().map(|(a, b)| vec![a.clone(), b.clone()]));
        if !self.verdicts.is_empty() {
            out += "\n### Goals\n\n";
            out += &table::of(
                &["figure", "goal", "measured", ""],
                self.verdicts.iter().map(Verdict::cells),
            );
        }
        let mut groups: Vec<&str> = self.results.iter().map(|line| line.group.as_str()).collect();
        groups.dedup();
        for (index, group) in groups.iter().enumerate() {
            if groups[..index].contains(group) {
                continue;
            }
            out.extend(["\n### ", *group, "\n\n"]);
            let lines = self.results.iter().filter(|line| line.group == *group);
            out += &table::of(
                &["", "median", "p10–p90", "unit", "ratio", "p10–p90", "control", ""],
                lines.map(table::cells),
            );
        }
        for missing in &self.missing {
            out.extend(["\nNot measured: ", missing, "\n"]);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(group: &str, name: &str) -> Line {
        Line::of(group, name, "ns", 1, &[1.0, 2.0, 3.0]).unwrap()
    }

    #[test]
    fn a_report_comes_back_as_it_was_written() {
        let mut report = Report::new(true, None);
        report.add([line("g", "a"), line("g", "b").against("a", &[2.0], &[1.0], None)]);
        report.fact("kernel", "6.18");
        let folder = std::env::temp_dir().join(format!("ttmem-bench-{}", std::process::id()));
        report.write(&folder).unwrap();
        let read = Report::read(&folder.join("report.json")).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(read.results, report.results);
        assert_eq!(read.environment, report.environment);
        assert!(read.find("g", "b").is_some() && read.find("g", "c").is_none());
    }

    #[test]
    fn a_filter_is_a_part_of_a_name_or_begins_with_it() {
        let wants = |filter: &str, title| Report::new(true, Some(filter.to_owned())).wants(title);
        assert!(
            wants("push", "stand-in, push") && wants("stand-in, push: tight", "stand-in, push")
        );
        assert!(!wants("overload", "stand-in, push"));
        assert!(Report::new(true, None).wants("anything"));
    }

    #[test]
    fn a_failed_part_is_said_and_the_rest_goes_on() {
        let mut report = Report::new(true, None);
        report.part("one", |_| anyhow::bail!("no"));
        report.part("two", |report| {
            report.add([line("g", "a")]);
            Ok(())
        });
        assert_eq!(report.missing, ["one: no"]);
        assert!(report.markdown().contains("### g\n") && report.markdown().contains("one: no"));
    }

    #[test]
    fn a_group_that_comes_twice_is_shown_once() {
        let mut report = Report::new(false, None);
        report.add([line("g", "a"), line("h", "b"), line("g", "c")]);
        assert_eq!(report.markdown().matches("### g\n").count(), 1);
    }
}
