//! When the numbers were exact, as snapshots say it.
//!
//! A snapshot speaks of its own instant. What lies between two of them is taken as exact only if both
//! are, and nothing was lost or odd in between; what lies before the first one is not.

use std::collections::VecDeque;

use super::note::short;
use crate::ledger::snapshot::{Anomalies, Lost, Snapshot};

/// Changes that are kept; then the oldest goes.
const MAX_CHANGES: usize = 512;
/// Of an instant of which no snapshot says anything.
const NOT_SAID: &str = "it is not known whether everything was counted then";
/// Of what was set right before a snapshot could say so.
const SET_RIGHT: &str = "something was lost or odd about then, and set right later";

/// When the numbers were exact.
#[derive(Clone, Debug, Default)]
pub(super) struct Trust {
    /// From which instant on they were not, and why; or, with `None`, that they were. The oldest
    /// first.
    changes: VecDeque<(u64, Option<String>)>,
    last: Option<Last>,
}

/// What the last snapshot said.
#[derive(Clone, Debug)]
struct Last {
    time_ns: u64,
    /// Why it was not exact.
    doubt: Option<String>,
    lost: Lost,
    anomalies: Anomalies,
}

impl Last {
    fn of(snapshot: &Snapshot) -> Self {
        let reason = snapshot.inexact_because.first();
        let reason = reason.map_or_else(|| "no reason given".to_owned(), |why| short(why));
        Self {
            time_ns: snapshot.time_ns,
            doubt: (!snapshot.exact).then_some(reason),
            lost: snapshot.lost,
            anomalies: snapshot.anomalies,
        }
    }
}

impl Trust {
    /// Takes in what a snapshot says that is later than the one before.
    pub fn observe(&mut self, snapshot: &Snapshot) {
        if self.is_settled(snapshot.time_ns) {
            return;
        }
        let now = Last::of(snapshot);
        let (from_ns, was_exact, odd) = match &self.last {
            None => (0, false, false),
            Some(last) => {
                let odd = (last.lost, last.anomalies) != (now.lost, now.anomalies);
                (last.time_ns + 1, last.doubt.is_none(), odd)
            }
        };
        match &now.doubt {
            None if was_exact && !odd => {}
            None => {
                if was_exact {
                    self.push(from_ns, Some(SET_RIGHT.to_owned()));
                }
                self.push(now.time_ns, None);
            }
            Some(why) => {
                let said = self.changes.back().and_then(|(_, why)| why.as_deref());
                // How much was lost is no other reason.
                if said.is_none_or(|said| kind(said) != kind(why)) {
                    self.push(from_ns, Some(why.clone()));
                }
            }
        }
        self.last = Some(now);
    }

    fn push(&mut self, from_ns: u64, doubt: Option<String>) {
        if self.changes.len() >= MAX_CHANGES {
            self.changes.pop_front();
        }
        self.changes.push_back((from_ns, doubt));
    }

    /// Why the numbers of an instant are not known to be exact; `None`: they are.
    pub fn doubt(&self, time_ns: u64) -> Option<&str> {
        let said = self.changes.iter().rev().find(|(from_ns, _)| *from_ns <= time_ns);
        said.map_or(Some(NOT_SAID), |(_, doubt)| doubt.as_deref())
    }

    /// Whether anything was in doubt between two instants, both included, once all had been known to be
    /// exact.
    pub fn was_in_doubt(&self, from_ns: u64, to_ns: u64) -> bool {
        let mut ends = self.changes.iter().skip(1).map(|(at_ns, _)| *at_ns);
        let known = self
            .changes
            .iter()
            .map(|(at_ns, doubt)| (*at_ns, ends.next().unwrap_or(u64::MAX), doubt.is_some()));
        known
            .skip_while(|(_, _, in_doubt)| *in_doubt)
            .any(|(from, until, in_doubt)| in_doubt && from <= to_ns && until > from_ns)
    }

    /// Whether no later snapshot says anything else of an instant.
    pub fn is_settled(&self, time_ns: u64) -> bool {
        self.last.as_ref().is_some_and(|last| time_ns <= last.time_ns)
    }

    pub fn bytes(&self) -> usize {
        let texts = self.changes.iter().filter_map(|(_, doubt)| doubt.as_ref());
        let texts: usize = texts.map(String::capacity).sum();
        self.changes.capacity() * size_of::<(u64, Option<String>)>() + texts
    }
}

/// A reason without its numbers.
fn kind(reason: &str) -> &str {
    reason.split(':').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn snapshot(time_ns: u64, doubt: Option<&str>, lost: u64) -> Snapshot {
        Snapshot {
            time_ns,
            exact: doubt.is_none(),
            inexact_because: doubt.map(str::to_owned).into_iter().collect(),
            lost: Lost { ring_full: lost, ..Lost::default() },
            ..fixture::normal()
        }
    }

    fn trust(snapshots: &[(u64, Option<&str>, u64)]) -> Trust {
        let mut trust = Trust::default();
        for (time_ns, doubt, lost) in snapshots {
            trust.observe(&snapshot(*time_ns, *doubt, *lost));
        }
        trust
    }

    /// A program is attached to at 100, its older buffers are read by 200; between 300 and 400
    /// something is lost, and set right by 500.
    #[test]
    fn exact_is_what_two_snapshots_enclose() {
        let (older, lost) = (Some("older buffers are still being read"), Some("records lost: 3"));
        let trust = trust(&[
            (100, older, 0),
            (200, None, 0),
            (300, None, 0),
            (400, lost, 3),
            (450, Some("records lost: 9"), 9),
            (500, None, 9),
        ]);
        let expected = [
            (0, older),
            (199, older),
            (200, None),
            (300, None),
            (301, lost),
            (499, lost),
            (500, None),
            (600, None),
        ];
        for (time_ns, doubt) in expected {
            assert_eq!(trust.doubt(time_ns), doubt, "at {time_ns}");
        }
        assert!(trust.is_settled(500) && !trust.is_settled(501));
        let spans = [(0, 300), (0, 301), (499, 500), (500, 600), (250, 260)];
        let in_doubt = spans.map(|(from_ns, to_ns)| trust.was_in_doubt(from_ns, to_ns));
        assert_eq!(in_doubt, [false, true, true, false, false]);
    }

    #[test]
    fn before_the_first_snapshot_nothing_is_exact() {
        let trust = trust(&[(200, None, 0)]);
        assert_eq!((trust.doubt(199), trust.doubt(200)), (Some(NOT_SAID), None));
        assert_eq!(Trust::default().doubt(7), Some(NOT_SAID));
    }

    /// No snapshot ever said that it was inexact.
    #[test]
    fn a_loss_that_is_set_right_at_once_leaves_a_doubt() {
        let trust = trust(&[(200, None, 0), (300, None, 5), (400, None, 5)]);
        let doubts = [200, 201, 299, 300, 400].map(|at| trust.doubt(at));
        assert_eq!(doubts, [None, Some(SET_RIGHT), Some(SET_RIGHT), None, None]);
    }

    #[test]
    fn what_had_to_go_is_not_called_exact() {
        let mut trust = trust(&[(1, None, 0)]);
        for time in 1..=MAX_CHANGES as u64 {
            let doubt = (time % 2 == 1).then_some("lost");
            trust.observe(&snapshot(10 * time, doubt, 0));
        }
        assert_eq!(trust.doubt(1), Some(NOT_SAID));
        assert_eq!(trust.doubt(20), None);
    }
}
