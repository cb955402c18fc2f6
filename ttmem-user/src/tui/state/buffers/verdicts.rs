//! Which rows pass a filter: each is looked at once, and so many for one frame.
//!
//! Invariant: what is remembered of a row is what the filter says of it. With [`Verdicts::waiting`]
//! at 0 the rows that pass are all that do.

use crate::history::{LiveSet, Slot};

/// Rows that are looked at for one frame. All that a frame may take is 5 ms.
pub const AT_ONCE: usize = 10_000;

/// What is remembered.
#[derive(Debug, Default)]
pub struct Verdicts {
    of: Basis,
    filter: String,
    /// Rows that had ever come to the live set.
    came: u64,
    /// By place.
    known: Vec<Verdict>,
    room: usize,
    waiting: usize,
}

/// What a verdict depends on besides the row and the filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Basis {
    /// The target.
    pub serial: u64,
    /// Which copy of a live set, if it is past: its rows have stamps of their own.
    pub copy: Option<u64>,
    /// The mark, ns.
    pub mark_ns: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Verdict {
    stamp: u32,
    passes: Option<bool>,
}

impl Verdicts {
    /// Rows that have not been looked at yet.
    pub const fn waiting(&self) -> usize {
        self.waiting
    }

    /// Begins with the rows of a live set.
    pub fn begin(&mut self, live: &LiveSet, of: Basis, filter: &str) {
        // Beyond that, another row may have the stamp of one that is gone.
        let may_repeat = |since: u64| live.came().wrapping_sub(since) >= u64::from(u32::MAX);
        if self.of != of || may_repeat(self.came) {
            self.known.clear();
        } else if self.filter != filter {
            let kept = match () {
                () if narrows(&self.filter, filter) => Some(false),
                () if narrows(filter, &self.filter) => Some(true),
                () => None,
            };
            for verdict in &mut self.known {
                verdict.passes = verdict.passes.filter(|passes| Some(*passes) == kept);
            }
        }
        self.of = of;
        filter.clone_into(&mut self.filter);
        self.came = live.came();
        self.known.resize(live.places(), Verdict::default());
        (self.room, self.waiting) = (AT_ONCE, 0);
    }

    /// Whether a row passes. `look` is asked if that is not known; it is `false` until then.
    pub fn passes(&mut self, slot: Slot, look: impl FnOnce() -> bool) -> bool {
        let Some(verdict) = self.known.get_mut(slot.place) else { return look() };
        if verdict.stamp == slot.stamp
            && let Some(passes) = verdict.passes
        {
            return passes;
        }
        let Some(room) = self.room.checked_sub(1) else {
            self.waiting += 1;
            return false;
        };
        self.room = room;
        let passes = look();
        *verdict = Verdict { stamp: slot.stamp, passes: Some(passes) };
        passes
    }
}

/// Whether all that pass the filter `new` pass `old` as well, as far as that is plain.
fn narrows(old: &str, new: &str) -> bool {
    let is_plain = |text: &str| {
        text.split(' ').all(|word| {
            let word = word.strip_prefix(['\'', '^']).unwrap_or(word);
            !word.contains(['!', '$', '\\', '^', '\''])
        })
    };
    new.starts_with(old) && is_plain(new)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        history::{
            History, Order, SortKey,
            sample::{deltas, steps},
        },
        tui::filter::Filter,
    };

    fn passes(filter: &str, text: &str) -> bool {
        let mut all = Filter::default();
        all.set(filter);
        all.passes(text)
    }

    #[test]
    fn some_filters_narrow_others() {
        for (old, new) in [("", "a"), ("a", "ab"), ("a", "a b"), ("'a", "'ab"), ("x ^a", "x ^ab")] {
            assert!(narrows(old, new) && !narrows(new, old), "{old:?} {new:?}");
        }
        for (old, new) in [("!a", "!ab"), ("a", "b"), ("a", "a$"), ("", "!a"), ("a\\", "a\\ b")] {
            assert!(!narrows(old, new), "{old:?} {new:?}");
        }
    }

    proptest! {
        #[test]
        fn what_narrows_lets_nothing_new_pass(
            old in "['^!$ab\\\\ 1]{0,4}", more in "['^!$ab\\\\ 1]{0,3}", text in "[ab1 ]{0,8}",
        ) {
            let new = format!("{old}{more}");
            if narrows(&old, &new) {
                prop_assert!(!passes(&new, &text) || passes(&old, &text), "{:?} {:?}", old, new);
            }
        }

        /// Whatever came, went and was typed meanwhile, in the end it is what a look at each says.
        #[test]
        fn in_the_end_it_is_what_the_filter_says(
            steps in steps(120),
            typed in proptest::collection::vec("[0-9!]{0,3}", 1..6),
        ) {
            let mut history = History::with_log(1000);
            let (mut verdicts, deltas) = (Verdicts::default(), deltas(&steps));
            let part = deltas.len() / typed.len() + 1;
            let mut parts = deltas.chunks(part);
            for filter in &typed {
                for delta in parts.next().unwrap_or_default() {
                    history.apply(delta);
                }
                let live = history.live();
                let order = Order { key: SortKey::Size, descending: true };
                let shown = |size: u64| passes(filter, &size.to_string());
                let mut frames = 0;
                let matched = loop {
                    verdicts.begin(live, Basis::default(), filter);
                    verdicts.room = 5;
                    let page = live.page(
                        |slot, row| verdicts.passes(slot, || shown(row.size)), order, 0..0,
                    );
                    frames += 1;
                    if verdicts.waiting() == 0 {
                        break page.matched;
                    }
                };
                prop_assert!(frames <= 1 + live.len() / 5);
                prop_assert_eq!(matched, live.iter().filter(|row| shown(row.size)).count());
            }
        }
    }
}
