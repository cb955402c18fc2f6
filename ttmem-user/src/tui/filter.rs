//! What is typed after `/`, and whether a row is meant by it.
//!
//! The patterns are those of fzf: words that must all be found, letters with gaps allowed; `'word`
//! without gaps, `^word` at the start, `word$` at the end, `!word` not at all.

use std::cell::RefCell;

use nucleo_matcher::{
    Config, Matcher, Utf32Str,
    pattern::{CaseMatching, Normalization, Pattern},
};

/// A filter; empty, everything passes.
#[derive(Debug, Default)]
pub struct Filter {
    text: String,
    pattern: Pattern,
    /// Its buffers are large: they are made when they are first needed.
    matcher: RefCell<Option<Matcher>>,
}

impl Filter {
    /// What was typed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether everything passes.
    pub fn is_empty(&self) -> bool {
        self.pattern.atoms.is_empty()
    }

    /// Takes in what was typed.
    pub fn set(&mut self, text: &str) {
        text.clone_into(&mut self.text);
        self.pattern.reparse(text, CaseMatching::Ignore, Normalization::Never);
    }

    /// Whether a row with this text is meant.
    pub fn passes(&self, row: &str) -> bool {
        if self.is_empty() {
            return true;
        }
        let mut matcher = self.matcher.borrow_mut();
        let matcher = matcher.get_or_insert_with(|| Matcher::new(Config::DEFAULT));
        let mut characters = Vec::new();
        self.pattern.score(Utf32Str::new(row, &mut characters), matcher).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(filter: &str, row: &str) -> bool {
        let mut all = Filter::default();
        all.set(filter);
        all.passes(row)
    }

    #[test]
    fn words_are_found_with_gaps_and_in_any_order() {
        let row = "1.5 MiB DRAM 0x200000 4250";
        for filter in ["", " ", "dram", "drm", "4250 DRAM", "'0x2", "4250$", "!l1"] {
            assert!(passes(filter, row), "{filter:?}");
        }
        for filter in ["l1", "!dram", "'drm", "dram l1", "^dram"] {
            assert!(!passes(filter, row), "{filter:?}");
        }
        assert!(passes("größe", "die Größe"));
    }
}
