//! What was promised, and whether this run shows it.
//!
//! A goal is met if even the unfavourable end of the median's interval is within it, not met if even
//! the favourable end is outside. What lies between is inconclusive, and so is what a baseline that
//! differs from itself by more than a fifth could have brought about.

use serde::{Deserialize, Serialize};
use ttmem_bench::Line;
use ttmem_bench::stats::Spread;

use super::report::Report;
use super::table::number;

#[path = "goals/list.rs"]
mod list;

use list::GOALS;

/// A baseline that differs from itself by more makes a comparison doubtful.
const WIDE: f64 = 1.2;

/// How a goal stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    Met,
    NotMet,
    Inconclusive,
    NotMeasured,
}

impl Standing {
    fn shown(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::NotMet => "NOT MET",
            Self::Inconclusive => "inconclusive",
            Self::NotMeasured => "not measured",
        }
    }
}

/// A goal, and what this run says of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The figure.
    pub figure: String,
    /// What it should be.
    pub goal: String,
    /// What it is, with the interval of its median; `None` if it was not measured.
    pub measured: Option<String>,
    /// Whether it is.
    pub standing: Standing,
}

impl Verdict {
    /// As cells of a table.
    pub fn cells(&self) -> Vec<String> {
        let measured = self.measured.clone().unwrap_or_default();
        vec![self.figure.clone(), self.goal.clone(), measured, self.standing.shown().to_owned()]
    }
}

/// Which number of a line is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    Figure,
    Ratio,
}

/// In which direction.
#[derive(Debug, Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// One goal: a line by its group and name, in which `*` stands for any version.
#[derive(Debug)]
struct Goal {
    figure: &'static str,
    group: &'static str,
    name: &'static str,
    number: Number,
    bound: Bound,
    unit: &'static str,
}

impl Goal {
    fn judge(&self, report: &Report) -> Verdict {
        let (unit, factor) = self.shown_in();
        let number = |figure: f64| number(figure * factor);
        let wording = match self.bound {
            Bound::AtMost(most) => format!("≤ {}", number(most)),
            Bound::AtLeast(least) => format!("≥ {}", number(least)),
        };
        let found = self.find(report).and_then(|line| self.number(line));
        let standing = match found {
            Some((spread, control)) => stands(&spread, control.as_ref(), self.bound),
            None => Standing::NotMeasured,
        };
        let measured = found.map(|(spread, _)| {
            let [median, low, high] = [spread.median, spread.low, spread.high].map(number);
            format!("{median} ({low}–{high})")
        });
        let goal = format!("{wording} {unit}");
        Verdict { figure: self.figure.to_owned(), goal, measured, standing }
    }

    /// The unit that a goal is best read in, and how much of it one of its own is.
    fn shown_in(&self) -> (&'static str, f64) {
        match (self.unit, self.bound) {
            ("ns", Bound::AtMost(most)) if most >= 1e6 => ("ms", 1e-6),
            (unit, _) => (unit, 1.0),
        }
    }

    fn find<'a>(&self, report: &'a Report) -> Option<&'a Line> {
        let (start, end) = self.name.split_once('*').unwrap_or((self.name, ""));
        report.results.iter().find(|line| {
            let whole = !self.name.contains('*') && line.name == self.name;
            let parts = self.name.contains('*')
                && line.name.len() >= start.len() + end.len()
                && line.name.starts_with(start)
                && line.name.ends_with(end);
            line.group == self.group && (whole || parts)
        })
    }

    fn number(&self, line: &Line) -> Option<(Spread, Option<Spread>)> {
        let control = line.against.as_ref().and_then(|against| against.control);
        match self.number {
            Number::Figure => Some((line.spread, control)),
            Number::Ratio => Some((line.against.as_ref()?.ratio, control)),
        }
    }
}

fn stands(spread: &Spread, control: Option<&Spread>, bound: Bound) -> Standing {
    let own = control.map_or(1.0, |control| control.high.max(1.0 / control.low));
    // Below a fifth the control is already part of the samples' own spread.
    let slack = if own > WIDE || !own.is_finite() { own } else { 1.0 };
    let (low, high) = (spread.low.min(spread.low / slack), spread.high.max(spread.high * slack));
    let (met, missed) = match bound {
        Bound::AtMost(most) => (high <= most, low > most),
        Bound::AtLeast(least) => (low >= least, high < least),
    };
    match (met, missed) {
        (true, _) => Standing::Met,
        (_, true) => Standing::NotMet,
        _ => Standing::Inconclusive,
    }
}

/// How each goal stands.
pub fn judge(report: &Report) -> Vec<Verdict> {
    GOALS.iter().map(|goal| goal.judge(report)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(low: f64, median: f64, high: f64) -> Spread {
        Spread { median, p10: low, p90: high, low, high }
    }

    #[test]
    fn a_goal_is_met_or_not_by_the_whole_interval() {
        let stands = |low, high| stands(&spread(low, low, high), None, Bound::AtMost(1.4));
        assert_eq!(stands(1.0, 1.3), Standing::Met);
        assert_eq!(stands(1.5, 1.6), Standing::NotMet);
        assert_eq!(stands(1.3, 1.5), Standing::Inconclusive);
    }

    #[test]
    fn at_least_is_the_other_way_round() {
        let stands = |low, high| stands(&spread(low, low, high), None, Bound::AtLeast(1.5));
        assert_eq!(stands(1.6, 2.0), Standing::Met);
        assert_eq!(stands(1.0, 1.4), Standing::NotMet);
        assert_eq!(stands(1.4, 1.6), Standing::Inconclusive);
    }

    #[test]
    fn a_wide_control_makes_it_inconclusive_unless_it_is_clear() {
        let control = spread(0.7, 1.0, 1.5);
        let stands = |low, high| {
            let figure = spread(low, low, high);
            super::stands(&figure, Some(&control), Bound::AtMost(1.4))
        };
        assert_eq!(stands(1.2, 1.3), Standing::Inconclusive);
        assert_eq!(stands(0.2, 0.3), Standing::Met);
        assert_eq!(stands(9.0, 9.5), Standing::NotMet);
        let broken = spread(0.0, 1.0, 1.0);
        let figure = spread(1.0, 1.0, 1.0);
        assert_eq!(
            super::stands(&figure, Some(&broken), Bound::AtMost(1.4)),
            Standing::Inconclusive
        );
    }

    #[test]
    fn a_line_is_found_whatever_the_version() {
        let goal = Goal {
            figure: "f",
            group: "g",
            name: "ttmem ÷ bpftrace * print",
            number: Number::Figure,
            bound: Bound::AtMost(0.1),
            unit: "",
        };
        let mut report = Report::new(false, None);
        assert_eq!(goal.judge(&report).standing, Standing::NotMeasured);
        let line = |name: &str, value| Line::of("g", name, "×", 1, &[value]);
        report.add(line("ttmem ÷ bpftrace 0.23 sums", 9.0));
        report.add(line("ttmem ÷ bpftrace 0.23 print", 0.05));
        assert_eq!(goal.judge(&report).standing, Standing::Met);
    }

    #[test]
    fn long_times_are_shown_in_milliseconds() {
        let verdicts = judge(&Report::new(false, None));
        let goal = |figure| {
            let of_it = |verdict: &&Verdict| verdict.figure == figure;
            verdicts.iter().find(of_it).map(|verdict| verdict.goal.clone())
        };
        assert_eq!(goal("frame, held").as_deref(), Some("≤ 5.00 ms"));
        assert_eq!(goal("decode + apply, 1,000 live").as_deref(), Some("≤ 30.0 ns a record"));
    }

    #[test]
    fn every_goal_has_a_name_of_its_own() {
        for (index, goal) in GOALS.iter().enumerate() {
            assert!(GOALS[..index].iter().all(|other| other.figure != goal.figure), "{goal:?}");
        }
    }
}
