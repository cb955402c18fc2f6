//! One result: a line of JSON on standard output, and a row of the report.

use serde::{Deserialize, Serialize};

use crate::stats::{self, Spread};

/// What one variant came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// What is compared with each other.
    pub group: String,
    /// The variant.
    pub name: String,
    /// Of the figure: `ns`, `us`, `ms`, `GB/s`, `MiB`, `% of a core`, …
    pub unit: String,
    /// Whether more is better, as of a throughput.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more_is_better: bool,
    /// How often it was done for one sample.
    pub n: u64,
    /// Samples.
    pub rounds: usize,
    /// The figure.
    #[serde(flatten)]
    pub spread: Spread,
    /// What it is compared with, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<Against>,
    /// What else is to be said, such as a loss.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A comparison with a baseline, round by round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Against {
    /// The baseline's name in the same group.
    pub baseline: String,
    /// The figure over the baseline's of the same round.
    pub ratio: Spread,
    /// The baseline over itself, measured twice in the same round: what a ratio of 1 looks like.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<Spread>,
}

impl Line {
    /// A figure of its own; `None` without a sample.
    pub fn of(group: &str, name: &str, unit: &str, n: u64, samples: &[f64]) -> Option<Self> {
        Some(Self {
            group: group.to_owned(),
            name: name.to_owned(),
            unit: unit.to_owned(),
            more_is_better: false,
            n,
            rounds: samples.len(),
            spread: Spread::of(samples)?,
            against: None,
            note: None,
        })
    }

    /// The same, compared with a baseline and that one's control of the same rounds.
    #[must_use]
    pub fn against(
        mut self,
        baseline: &str,
        samples: &[f64],
        under: &[f64],
        again: Option<&[f64]>,
    ) -> Self {
        self.against = Spread::of(&stats::ratios(samples, under)).map(|ratio| Against {
            baseline: baseline.to_owned(),
            ratio,
            control: again.and_then(|again| Spread::of(&stats::ratios(again, under))),
        });
        self
    }

    /// With a remark.
    #[must_use]
    pub fn noting(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// As it is printed.
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// A line that was printed; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        text.starts_with('{').then(|| serde_json::from_str(text).ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_comes_back_as_it_went() {
        let line = Line::of("g", "v", "ns", 10, &[2.0, 4.0]).unwrap();
        let line = line.against("b", &[2.0, 4.0], &[1.0, 1.0], Some(&[1.0, 1.1])).noting("lost 0");
        let against = line.against.as_ref().unwrap();
        assert!((against.ratio.median - 3.0).abs() < 1e-9);
        assert!(against.control.is_some());
        assert_eq!(Line::parse(&line.json()), Some(line));
    }

    #[test]
    fn other_text_is_no_line() {
        assert_eq!(Line::parse("running 3 tests"), None);
        assert_eq!(Line::parse("{\"group\":1}"), None);
        assert_eq!(Line::of("g", "v", "ns", 1, &[]), None);
    }
}
