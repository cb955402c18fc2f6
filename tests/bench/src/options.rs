//! What a benchmark was called with: `[--bench] [--quick] [FILTER…]`.

/// How thoroughly to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    /// Once, only to see that it works: what `cargo test` asks for.
    Once,
    /// A few short rounds.
    Quick,
    /// As it should be.
    Full,
}

/// What was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub effort: Effort,
    pub filters: Vec<String>,
}

impl Options {
    /// From the words of the command line; `cargo bench` adds `--bench`, `cargo test` does not.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Self {
        let (flags, filters): (Vec<_>, Vec<_>) =
            words.into_iter().partition(|word| word.starts_with('-'));
        let given = |flag: &str| flags.iter().any(|word| word == flag);
        let effort = match (given("--bench"), given("--quick")) {
            (false, _) => Effort::Once,
            (true, true) => Effort::Quick,
            (true, false) => Effort::Full,
        };
        Self { effort, filters }
    }

    /// Whether a group was asked for, by a part of its name.
    pub fn wants(&self, group: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| group.contains(filter.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(words: &[&str]) -> Options {
        Options::parse(words.iter().map(|word| (*word).to_owned()))
    }

    #[test]
    fn cargo_test_measures_nothing() {
        assert_eq!(options(&[]).effort, Effort::Once);
        assert_eq!(options(&["--bench"]).effort, Effort::Full);
        assert_eq!(options(&["--bench", "--quick", "table"]).effort, Effort::Quick);
    }

    #[test]
    fn a_filter_is_a_part_of_a_group() {
        let options = options(&["--bench", "table: one", "scan"]);
        assert!(options.wants("shared table: one counter"));
        assert!(options.wants("agent: scan of memory"));
        assert!(!options.wants("shared table: all"));
    }
}
