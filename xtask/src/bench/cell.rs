//! One comparison: variants measured in turns, and the lines that come of them.

use anyhow::Result;
use ttmem_bench::Line;
use ttmem_bench::line::Against;
use ttmem_bench::order::Order;
use ttmem_bench::stats::{Spread, differences, ratios};

/// The name of the variant that nobody looks at, and of the same once more.
pub const BARE: &str = "no probe";
pub const BARE_AGAIN: &str = "no probe, again";
/// The floor, and the same once more.
pub const EMPTY: &str = "empty uprobe";
pub const EMPTY_AGAIN: &str = "empty uprobe, again";

/// What a figure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// What is added to the bare variant, in the unit of the samples; compared with what the floor adds.
    Added,
    /// By how many per cent it is slower than the bare one; compared with the floor's slowdown.
    Slower,
    /// The sample itself; compared with the bare one's.
    Itself,
}

/// Samples by variant and round.
#[derive(Debug)]
pub struct Cell {
    group: String,
    unit: &'static str,
    kind: Kind,
    n: u64,
    series: Vec<(String, Vec<f64>)>,
}

impl Cell {
    /// Measures each variant once a round, in an order by chance. `n` is how often a sample does it.
    pub fn measure(
        (group, unit, kind): (&str, &'static str, Kind),
        (names, n, rounds): (&[String], u64, usize),
        mut sample: impl FnMut(usize) -> Result<f64>,
    ) -> Result<Self> {
        let mut series: Vec<(String, Vec<f64>)> =
            names.iter().map(|name| (name.clone(), Vec::new())).collect();
        let mut order = Order::new(1);
        for _ in 0..rounds {
            for index in order.round(names.len()) {
                series[index].1.push(sample(index)?);
            }
        }
        Ok(Self { group: group.to_owned(), unit, kind, n, series })
    }

    fn raw(&self, name: &str) -> Option<&[f64]> {
        let found = self.series.iter().find(|(candidate, _)| candidate == name);
        found.map(|(_, samples)| samples.as_slice())
    }

    /// Samples of what the kind says.
    fn figures(&self, samples: &[f64]) -> Vec<f64> {
        match (self.kind, self.raw(BARE)) {
            (Kind::Added, Some(bare)) => differences(samples, bare),
            (Kind::Slower, Some(bare)) => {
                ratios(samples, bare).iter().map(|ratio| (ratio - 1.0) * 100.0).collect()
            }
            _ => samples.to_vec(),
        }
    }

    /// A line for each variant, the control among them.
    pub fn lines(&self) -> Vec<Line> {
        self.series.iter().filter_map(|(name, samples)| self.line(name, samples)).collect()
    }

    fn line(&self, name: &str, samples: &[f64]) -> Option<Line> {
        let is_bare = name == BARE || name == BARE_AGAIN;
        let (baseline, again) = match (self.kind, is_bare) {
            (Kind::Itself, _) | (_, true) => (BARE, BARE_AGAIN),
            _ => (EMPTY, EMPTY_AGAIN),
        };
        let mut line = if is_bare && self.kind != Kind::Itself {
            Line::of(&self.group, name, "ns a call", self.n, samples)?
        } else {
            Line::of(&self.group, name, self.unit, self.n, &self.figures(samples))?
        };
        if name != baseline {
            let of = |name: &str| {
                self.raw(name).map(|raw| if is_bare { raw.to_vec() } else { self.figures(raw) })
            };
            if let (Some(mine), Some(under)) = (of(name), of(baseline)) {
                line = line.against(baseline, &mine, &under, of(again).as_deref());
            }
        }
        Some(line)
    }

    /// One variant's figure over another's of the same round, as a line of its own.
    pub fn versus(&self, name: &str, other: &str) -> Option<Line> {
        let (mine, under) = (self.figures(self.raw(name)?), self.figures(self.raw(other)?));
        let title = format!("{name} ÷ {other}");
        let mut line = Line::of(&self.group, &title, "×", self.n, &ratios(&mine, &under))?;
        let control =
            self.raw(BARE_AGAIN).zip(self.raw(BARE)).map(|(again, bare)| ratios(again, bare));
        line.against = control.and_then(|control| {
            let control = Some(Spread::of(&control)?);
            Some(Against { baseline: other.to_owned(), ratio: line.spread, control })
        });
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(kind: Kind) -> Cell {
        let names = [BARE, BARE_AGAIN, EMPTY, EMPTY_AGAIN, "ttmem"].map(str::to_owned);
        let samples = [100.0, 100.0, 600.0, 650.0, 850.0];
        let kind = ("g", "ns", kind);
        Cell::measure(kind, (&names, 7, 3), |variant| Ok(samples[variant])).unwrap()
    }

    fn line(cell: &Cell, name: &str) -> Line {
        cell.lines().into_iter().find(|line| line.name == name).unwrap()
    }

    fn near(left: f64, right: f64) {
        assert!((left - right).abs() < 1e-9, "{left} is not {right}");
    }

    #[test]
    fn what_is_added_is_compared_with_what_the_floor_adds() {
        let cell = cell(Kind::Added);
        let ttmem = line(&cell, "ttmem");
        near(ttmem.spread.median, 750.0);
        let against = ttmem.against.unwrap();
        assert_eq!(against.baseline, EMPTY);
        near(against.ratio.median, 1.5);
        near(against.control.unwrap().median, 1.1);
        near(line(&cell, BARE).spread.median, 100.0);
        near(line(&cell, BARE_AGAIN).against.unwrap().ratio.median, 1.0);
        assert!(line(&cell, EMPTY).against.is_none());
    }

    #[test]
    fn a_slowdown_is_in_per_cent_of_the_bare_time() {
        near(line(&cell(Kind::Slower), "ttmem").spread.median, 750.0);
        let versus = cell(Kind::Slower).versus("ttmem", EMPTY).unwrap();
        near(versus.spread.median, 1.5);
    }

    #[test]
    fn a_figure_by_itself_is_compared_with_the_bare_one() {
        let ttmem = line(&cell(Kind::Itself), "ttmem");
        near(ttmem.spread.median, 850.0);
        let against = ttmem.against.unwrap();
        assert_eq!(against.baseline, BARE);
        near(against.ratio.median, 8.5);
    }

    #[test]
    fn an_error_ends_it() {
        let names = ["a".to_owned()];
        let failed =
            Cell::measure(("g", "ns", Kind::Itself), (&names, 1, 1), |_| anyhow::bail!("no"));
        assert!(failed.is_err());
    }
}
