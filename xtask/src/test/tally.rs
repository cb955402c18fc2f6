//! Counts what cargo test says, line by line.

/// What came of some tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Ran and held.
    pub passed: usize,
    /// Ran and did not hold, or could not be built.
    pub failed: usize,
    /// Did not run.
    pub skipped: usize,
}

impl Counts {
    /// One test.
    pub fn one(passed: bool) -> Self {
        Self { passed: usize::from(passed), failed: usize::from(!passed), skipped: 0 }
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// How cargo says of the program that ran last that it did not end well.
const FAILED: &str = "error: test failed, to rerun pass ";

/// One test program.
#[derive(Debug, PartialEq, Eq)]
pub struct Suite {
    /// As cargo names it.
    pub name: String,
    /// `None` until its closing line is seen: a benchmark has none, nor has what crashes.
    pub counts: Option<Counts>,
}

/// All that is counted.
#[derive(Debug, Default)]
pub struct Tally {
    suites: Vec<Suite>,
    /// What else went wrong or was not run, with a name.
    extra: Counts,
}

impl Tally {
    /// Takes in one line of cargo's output.
    pub fn line(&mut self, line: &str) {
        let line = without_colour(line);
        if let Some(name) = suite_name(&line) {
            self.suites.push(Suite { name, counts: None });
        } else if let Some(counts) = closing_line(&line) {
            match self.suites.last_mut() {
                Some(suite) if suite.counts.is_none() => suite.counts = Some(counts),
                _ => self.suites.push(Suite { name: "?".to_owned(), counts: Some(counts) }),
            }
        } else if line.starts_with(FAILED)
            && let Some(Suite { counts: counts @ None, .. }) = self.suites.last_mut()
        {
            *counts = Some(Counts::one(false));
        }
    }

    /// What a cargo run that has ended adds: a failure that no test accounts for counts as one.
    pub fn ended(&mut self, what: &str, success: bool, failed_before: usize) {
        if !success && self.total().failed == failed_before {
            self.suites.push(Suite {
                name: format!("{what} (did not build or run)"),
                counts: Some(Counts { failed: 1, ..Counts::default() }),
            });
        }
    }

    /// Takes in what another program than cargo says of its tests; without that it has failed.
    pub fn suite(&mut self, name: &str, counts: Option<Counts>) {
        let counts = counts.unwrap_or(Counts::one(false));
        self.suites.push(Suite { name: name.to_owned(), counts: Some(counts) });
    }

    /// A test that cargo counts as passed said that it could not run.
    pub fn not_run(&mut self, as_failure: bool) {
        let failed = usize::from(as_failure);
        self.extra.add(Counts { passed: 0, failed, skipped: 1 - failed });
    }

    /// The test programs seen so far.
    pub fn suites(&self) -> &[Suite] {
        &self.suites
    }

    /// The sum of everything.
    pub fn total(&self) -> Counts {
        let mut total = Counts::default();
        self.suites.iter().filter_map(|suite| suite.counts).for_each(|counts| total.add(counts));
        let not_run = self.extra.failed + self.extra.skipped;
        total.add(self.extra);
        total.passed = total.passed.saturating_sub(not_run);
        total
    }
}

/// `Running unittests src/lib.rs (target/…)` and `Doc-tests ttmem`, as cargo says them.
fn suite_name(line: &str) -> Option<String> {
    let line = line.trim_start();
    if let Some(rest) = line.strip_prefix("Running ") {
        let (name, file) = rest.strip_suffix(')')?.rsplit_once(" (")?;
        // The file's name holds the package's, which the source path lacks, and a hash.
        let program = file.rsplit('/').next()?.rsplit_once('-')?.0;
        return Some(format!("{program}: {}", name.trim_start_matches("unittests ")));
    }
    line.strip_prefix("Doc-tests ").map(|package| format!("{package}: documentation"))
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; …`
fn closing_line(line: &str) -> Option<Counts> {
    let (_, rest) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |what: &str| {
        rest.split("; ").find_map(|part| part.strip_suffix(what)?.trim().parse::<usize>().ok())
    };
    Some(Counts { passed: count("passed")?, failed: count("failed")?, skipped: count("ignored")? })
}

/// `1 failed, 70 passed, 1 skipped in 1.79s`, as pytest says it, with or without `=` around.
pub fn pytest_line(line: &str) -> Option<Counts> {
    let plain = without_colour(line);
    let (outcomes, _) = plain.trim_matches(['=', ' ']).rsplit_once(" in ")?;
    let mut counts = Counts::default();
    for outcome in outcomes.split(", ") {
        let (count, what) = outcome.split_once(' ')?;
        let count: usize = count.parse().ok()?;
        match what {
            "passed" => counts.passed += count,
            "failed" | "error" | "errors" => counts.failed += count,
            "skipped" | "deselected" => counts.skipped += count,
            _ => {}
        }
    }
    Some(counts)
}

/// The line without terminal escapes.
fn without_colour(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut parts = line.split('\u{1b}');
    plain.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let end = part.find(|c: char| c.is_ascii_alphabetic()).map_or(part.len(), |at| at + 1);
        plain.push_str(&part[end..]);
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(text: &str) -> Tally {
        let mut tally = Tally::default();
        text.lines().for_each(|line| tally.line(line));
        tally
    }

    const TWO: &str = "\
     Running unittests src/lib.rs (target/debug/deps/ttmem-00aa)
test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
   Doc-tests ttmem
test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";

    #[test]
    fn sums_the_closing_lines() {
        let tally = tally(TWO);
        assert_eq!(tally.total(), Counts { passed: 4, failed: 2, skipped: 1 });
        let names: Vec<&str> = tally.suites().iter().map(|suite| suite.name.as_str()).collect();
        assert_eq!(names, ["ttmem: src/lib.rs", "ttmem: documentation"]);
    }

    #[test]
    fn a_crash_is_a_failure() {
        let mut tally = tally(
            "     Running tests/a.rs (target/debug/deps/a-00aa)
error: test failed, to rerun pass `-p ttmem --test a`
     Running benches/b.rs (target/debug/deps/b-00aa)",
        );
        tally.ended("unit tests", false, 0);
        assert_eq!(tally.total(), Counts { passed: 0, failed: 1, skipped: 0 });
        assert_eq!(tally.suites().len(), 2, "the benchmark is none");
    }

    #[test]
    fn what_does_not_build_is_a_failure() {
        let mut tally = tally("error: could not compile `ttmem`");
        tally.ended("unit tests", false, 0);
        assert_eq!(tally.total().failed, 1);
    }

    #[test]
    fn failures_are_not_counted_twice() {
        let mut tally = tally(TWO);
        tally.ended("unit tests", false, 0);
        assert_eq!(tally.total().failed, 2);
    }

    #[test]
    fn what_did_not_run_did_not_pass() {
        let mut tally = tally(TWO);
        tally.not_run(false);
        assert_eq!(tally.total(), Counts { passed: 3, failed: 2, skipped: 2 });
        tally.not_run(true);
        assert_eq!(tally.total(), Counts { passed: 2, failed: 3, skipped: 2 });
    }

    #[test]
    fn what_pytest_says_is_counted() {
        let counts = |passed, failed, skipped| Some(Counts { passed, failed, skipped });
        assert_eq!(pytest_line("72 passed in 1.79s"), counts(72, 0, 0));
        let line = "== 1 failed, 70 passed, 2 skipped, 3 warnings, 1 error in 0:01:02 ==";
        assert_eq!(pytest_line(line), counts(70, 2, 2));
        assert_eq!(pytest_line("no tests ran in 0.00s"), None);
        assert_eq!(pytest_line("an error in a line"), None);
        let mut tally = Tally::default();
        tally.suite("python", None);
        assert_eq!(tally.total().failed, 1);
    }

    #[test]
    fn colours_do_not_matter() {
        let line = "test result: \u{1b}[32mok\u{1b}[0m. 2 passed; 0 failed; 0 ignored; 0 measured";
        assert_eq!(tally(line).total().passed, 2);
    }
}
