//! What is recorded in Tracy, whoever speaks to the viewer: one operation at a time.
//!
//! An operation says what happened, when, and on which thread; how that is put into bytes is the
//! backend's. Names are interned once and kept for ever: Tracy tells pools by them.

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;

/// A name that has been interned: of a pool or a plot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(pub u32);

/// When something happened, and on which thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct At {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub time_ns: u64,
    /// The target's thread; 0 if it is not known.
    pub tid: u32,
}

/// How a plot's values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As they are.
    Number,
    /// As bytes.
    Memory,
}

/// How much a message matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// As it should be.
    Info,
    /// Something may be missing.
    Warning,
    /// An allocation failed.
    Error,
}

/// One operation. Those on pools come in the order of their times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op<'a> {
    /// A buffer came into a pool, which has nothing at that address.
    Alloc {
        /// The pool.
        pool: Name,
        /// When, and on which thread.
        at: At,
        /// Where; of 55 bits.
        address: u64,
        /// Bytes of each bank; below 2^47.
        size: u64,
        /// When it was allocated, ns, as its record says: `at` may be later, since times do not go
        /// back. 0 if that was not seen.
        allocated_ns: u64,
    },
    /// The buffer that was at that address has gone.
    Free {
        /// The pool.
        pool: Name,
        /// When, and on which thread.
        at: At,
        /// Where.
        address: u64,
    },
    /// How a plot is to be shown; before its first point.
    Plot {
        /// The plot.
        plot: Name,
        /// How its values are written.
        format: Format,
    },
    /// A plot's value from here on.
    Point {
        /// The plot.
        plot: Name,
        /// When.
        at: At,
        /// The value.
        value: i64,
    },
    /// Something to read.
    Message {
        /// When, and on which thread.
        at: At,
        /// How much it matters.
        severity: Severity,
        /// The text.
        text: &'a str,
    },
    /// A line about the whole trace.
    AppInfo {
        /// The line.
        text: &'a str,
    },
}

/// All names so far.
#[derive(Debug, Default)]
pub struct Names {
    texts: Vec<Arc<str>>,
    by_text: HashMap<Arc<str>, Name, RandomState>,
}

impl Names {
    /// The name of a text; the same one for the same text.
    pub fn intern(&mut self, text: &str) -> Name {
        if let Some(name) = self.by_text.get(text) {
            return *name;
        }
        let name = Name(u32::try_from(self.texts.len()).unwrap_or(u32::MAX));
        let text: Arc<str> = text.into();
        self.texts.push(Arc::clone(&text));
        self.by_text.insert(text, name);
        name
    }

    /// The text of a name; `None` if it was never interned.
    pub fn text(&self, name: Name) -> Option<&str> {
        self.texts.get(name.0 as usize).map(|text| &**text)
    }

    /// Every text from the one with that number on, in their order.
    pub fn since(&self, first: usize) -> impl Iterator<Item = (Name, &str)> {
        self.texts
            .iter()
            .enumerate()
            .skip(first)
            .map(|(number, text)| (Name(u32::try_from(number).unwrap_or(u32::MAX)), &**text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_has_one_name_for_ever() {
        let mut names = Names::default();
        let one = names.intern("TT_Dev0_DRAM");
        let other = names.intern("TT_Dev0_L1");
        assert_ne!(one, other);
        assert_eq!(names.intern("TT_Dev0_DRAM"), one);
        assert_eq!((names.text(one), names.text(Name(7))), (Some("TT_Dev0_DRAM"), None));
        assert_eq!(names.since(1).collect::<Vec<_>>(), [(other, "TT_Dev0_L1")]);
    }
}
