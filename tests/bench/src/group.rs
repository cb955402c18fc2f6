//! Variants of the same work, timed in turns.
//!
//! ```no_run
//! let mut bench = ttmem_bench::Bench::from_command_line("counters");
//! let counter = std::sync::atomic::AtomicU64::new(7);
//! bench
//!     .group("read a counter")
//!     .baseline("relaxed", || counter.load(std::sync::atomic::Ordering::Relaxed))
//!     .variant("acquire", || counter.load(std::sync::atomic::Ordering::Acquire))
//!     .run();
//! ```
//!
//! What a closure returns is kept from the optimiser, and dropped within the time that is taken.
//! The baseline is measured twice in each round; how much the two differ is the control.

use std::fmt;
use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::line::Line;
use crate::options::{Effort, Options};
use crate::order::Order;

/// A benchmark program.
#[derive(Debug)]
pub struct Bench {
    program: String,
    options: Options,
}

impl Bench {
    /// With what was typed; `program` comes before each group's name, as `program: group`.
    pub fn from_command_line(program: &str) -> Self {
        let options = Options::parse(std::env::args().skip(1));
        Self { program: program.to_owned(), options }
    }

    /// Whether figures do not matter now: in `cargo test`, and with `--quick`. For sizes that would
    /// take long.
    pub fn is_quick(&self) -> bool {
        self.options.effort != Effort::Full
    }

    /// Whether everything is done once only, and maybe without optimisation, as by `cargo test`.
    pub fn is_a_test(&self) -> bool {
        self.options.effort == Effort::Once
    }

    /// Whether anything of that group may be asked for; to skip a costly preparation.
    pub fn wants(&self, group: &str) -> bool {
        self.options.wants(&self.full(group))
    }

    /// Variants to compare, in nanoseconds each.
    pub fn group<'a>(&'a self, name: &str) -> Group<'a> {
        Group { bench: self, name: name.to_owned(), variants: Vec::new() }
    }

    /// Prints a figure that was measured in some other way, if it was asked for.
    pub fn figure(&self, group: &str, name: &str, unit: &str, samples: &[f64]) {
        let line = Line::of(&self.full(group), name, unit, 1, samples);
        if let Some(line) = line.filter(|_| self.wants(group)) {
            println!("{}", line.json());
        }
    }

    fn full(&self, group: &str) -> String {
        format!("{}: {group}", self.program)
    }
}

/// Does the work so many times, and says how long it took.
type Timed<'a> = Box<dyn FnMut(u64) -> Duration + 'a>;

struct Variant<'a> {
    name: String,
    /// Things done by one call: the time of a call is divided by it.
    items: u64,
    timed: Timed<'a>,
    is_baseline: bool,
}

/// Variants that are measured in turns.
pub struct Group<'a> {
    bench: &'a Bench,
    name: String,
    variants: Vec<Variant<'a>>,
}

impl fmt::Debug for Group<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.variants.iter().map(|variant| variant.name.as_str()).collect();
        out.debug_struct("Group").field("name", &self.name).field("variants", &names).finish()
    }
}

impl<'a> Group<'a> {
    /// What the others are compared with.
    #[must_use]
    pub fn baseline<T>(self, name: &str, work: impl FnMut() -> T + 'a) -> Self {
        self.add(name, 1, true, repeated(work))
    }

    /// One of them.
    #[must_use]
    pub fn variant<T>(self, name: &str, work: impl FnMut() -> T + 'a) -> Self {
        self.add(name, 1, false, repeated(work))
    }

    /// One whose call does `items` things; the figure is that of one thing.
    #[must_use]
    pub fn variant_of<T>(self, name: &str, items: u64, work: impl FnMut() -> T + 'a) -> Self {
        self.add(name, items, false, repeated(work))
    }

    /// One that takes the time itself: it is told how often to do its work, and leaves out of the
    /// time what does not belong to it, such as putting things back.
    #[must_use]
    pub fn timed(self, name: &str, items: u64, work: impl FnMut(u64) -> Duration + 'a) -> Self {
        self.add(name, items, false, Box::new(work))
    }

    fn add(mut self, name: &str, items: u64, is_baseline: bool, timed: Timed<'a>) -> Self {
        let name = name.to_owned();
        self.variants.push(Variant { name, items: items.max(1), timed, is_baseline });
        self
    }

    /// Measures what was asked for, and prints a line of JSON for each variant.
    pub fn run(self) {
        for line in self.measure() {
            println!("{}", line.json());
        }
    }

    fn measure(mut self) -> Vec<Line> {
        if !self.bench.wants(&self.name) {
            return Vec::new();
        }
        let plan = Plan::of(self.bench.options.effort);
        let calls: Vec<u64> =
            self.variants.iter_mut().map(|variant| plan.calls_per_sample(variant)).collect();
        let samples = plan.rounds(&mut self.variants, &calls);
        self.lines(&calls, &samples)
    }

    fn lines(&self, calls: &[u64], samples: &Samples) -> Vec<Line> {
        let group = self.bench.full(&self.name);
        let baseline = self.variants.iter().position(|variant| variant.is_baseline);
        let mut lines = Vec::new();
        for (index, variant) in self.variants.iter().enumerate() {
            let mine = &samples.of[index];
            let n = calls[index] * variant.items;
            let Some(mut line) = Line::of(&group, &variant.name, "ns", n, mine) else { continue };
            if let Some(baseline) = baseline.filter(|&baseline| baseline != index) {
                let (name, under) = (&self.variants[baseline].name, &samples.of[baseline]);
                line = line.against(name, mine, under, Some(&samples.again));
            }
            lines.push(line);
        }
        lines
    }
}

fn repeated<'a, T>(mut work: impl FnMut() -> T + 'a) -> Timed<'a> {
    Box::new(move |times| {
        let start = Instant::now();
        for _ in 0..times {
            black_box(work());
        }
        start.elapsed()
    })
}

/// Nanoseconds of one thing, by variant and round; and the baseline's second time.
struct Samples {
    of: Vec<Vec<f64>>,
    again: Vec<f64>,
}

struct Plan {
    rounds: usize,
    /// How long one sample should take.
    sample: Duration,
}

impl Plan {
    fn of(effort: Effort) -> Self {
        let (rounds, milliseconds) = match effort {
            Effort::Once => (1, 0),
            Effort::Quick => (5, 2),
            Effort::Full => (25, 10),
        };
        Self { rounds, sample: Duration::from_millis(milliseconds) }
    }

    /// Doubled until it takes long enough to be timed, which also warms up.
    fn calls_per_sample(&self, variant: &mut Variant<'_>) -> u64 {
        let mut calls = 1;
        while (variant.timed)(calls) < self.sample && calls < 1 << 40 {
            calls *= 2;
        }
        calls
    }

    fn rounds(&self, variants: &mut [Variant<'_>], calls: &[u64]) -> Samples {
        let mut samples = Samples { of: vec![Vec::new(); variants.len()], again: Vec::new() };
        let baseline = variants.iter().position(|variant| variant.is_baseline);
        let mut order = Order::new(1);
        for _ in 0..self.rounds {
            for turn in order.round(variants.len() + usize::from(baseline.is_some())) {
                // One number more than there are variants: the baseline's second time.
                let again = turn == variants.len();
                let index = if again { baseline.unwrap_or(0) } else { turn };
                let taken = (variants[index].timed)(calls[index]);
                let sample = per_item(taken, calls[index], variants[index].items);
                if again { &mut samples.again } else { &mut samples.of[index] }.push(sample);
            }
        }
        samples
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
fn per_item(taken: Duration, calls: u64, items: u64) -> f64 {
    taken.as_nanos() as f64 / (calls as f64 * items as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bench(words: &[&str]) -> Bench {
        let options = Options::parse(words.iter().map(|word| (*word).to_owned()));
        Bench { program: "p".to_owned(), options }
    }

    /// A variant whose call takes that many nanoseconds, by its own word.
    fn takes(nanoseconds: u64) -> impl FnMut(u64) -> Duration {
        move |times| Duration::from_nanos(nanoseconds * times)
    }

    fn names(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|line| line.name.as_str()).collect()
    }

    #[test]
    fn a_ratio_is_that_of_the_baseline() {
        let bench = bench(&["--bench", "--quick"]);
        let group = bench.group("g").add("one", 1, true, Box::new(takes(100)));
        let lines = group.timed("two", 1, takes(250)).timed("of five", 5, takes(250)).measure();
        assert_eq!(names(&lines), ["one", "two", "of five"]);
        assert_eq!(lines[0].group, "p: g");
        assert_eq!((lines[0].against.is_none(), lines[0].rounds), (true, 5));
        let ratio = |line: &Line| line.against.as_ref().map(|against| against.ratio.median);
        assert!((ratio(&lines[1]).unwrap() - 2.5).abs() < 1e-9);
        assert!((ratio(&lines[2]).unwrap() - 0.5).abs() < 1e-9);
        let control = lines[1].against.as_ref().unwrap().control.unwrap();
        assert!((control.median - 1.0).abs() < 1e-9);
    }

    #[test]
    fn in_a_test_each_runs_but_a_moment() {
        let bench = bench(&[]);
        let (mut first, mut second) = (0, 0);
        bench.group("g").baseline("a", || first += 1).variant("b", || second += 1).run();
        // Once to see how long it takes, once to measure, the baseline once more.
        assert_eq!((first, second), (3, 2));
    }

    #[test]
    fn what_was_not_asked_for_is_not_run() {
        let bench = bench(&["--bench", "--quick", "p: two"]);
        let lines = bench.group("two").timed("a", 1, takes(3_000_000)).measure();
        assert_eq!(names(&lines), ["a"]);
        let none = bench.group("other").timed("a", 1, |_| unreachable!()).measure();
        assert_eq!(names(&none), [""; 0]);
        assert!(bench.wants("two") && !bench.wants("other"));
    }
}
