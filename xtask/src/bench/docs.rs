//! Puts the report between two markers of `docs/benchmarks.md`.

use std::fs;

use anyhow::{Context, Result};

use super::report::Report;
use crate::paths;

const BEGIN: &str = "<!-- report: begin -->";
const END: &str = "<!-- report: end -->";

/// Writes the page anew, all but what is outside the markers.
pub fn write(report: &Report) -> Result<()> {
    let file = paths::root().join("docs/benchmarks.md");
    let page = fs::read_to_string(&file).with_context(|| format!("no {}", file.display()))?;
    let page =
        between(&page, &report.markdown()).context("docs/benchmarks.md lacks its markers")?;
    fs::write(&file, page).with_context(|| format!("cannot write {}", file.display()))
}

fn between(page: &str, text: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{text}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_outside_the_markers_stays() {
        let page = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        assert_eq!(between(&page, "new").unwrap(), format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
        assert_eq!(between("no markers", "new"), None);
    }
}
