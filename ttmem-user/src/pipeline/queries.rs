//! Queries that wait, and the pace at which they are answered: records come first, whoever asks for
//! however much.
//!
//! One pace holds for all targets, and what counts is all that an answer takes of the thread, the
//! drain before it included. Those that take long have a pace of their own, so that nobody who asks
//! for a live set makes others wait for a word.

use std::{collections::VecDeque, time::Duration};

use super::{Query, QueryKind, wait::nanos};

/// After answers the thread is left alone for so many times as long as they took.
const REST: u64 = 4;
/// A rest that is put off: a sleep takes a little longer than it is told to.
const SHORT: Duration = Duration::from_millis(2);
/// How long answers go on in one turn of the loop; the last one begins before.
const TURN: Duration = Duration::from_millis(2);

/// The queries of all targets.
#[derive(Default)]
pub(super) struct Queries {
    quick: Lane,
    long: Lane,
}

/// Those with one pace.
#[derive(Default)]
pub(super) struct Lane {
    waiting: VecDeque<Query>,
    /// When the rest after the last ones is over, ns.
    rested: u64,
}

impl Queries {
    /// Puts one behind the others.
    pub(super) fn push(&mut self, query: Query) {
        let lane = match query.kind {
            QueryKind::Quick | QueryKind::Sync => &mut self.quick,
            QueryKind::Long => &mut self.long,
        };
        lane.waiting.push_back(query);
    }

    /// Those that take little.
    pub(super) const fn quick(&mut self) -> &mut Lane {
        &mut self.quick
    }

    /// Those that take long.
    pub(super) const fn long(&mut self) -> &mut Lane {
        &mut self.long
    }

    /// When to look again; `None`: none waits.
    pub(super) fn due_ns(&self) -> Option<u64> {
        self.quick.due_ns().into_iter().chain(self.long.due_ns()).min()
    }
}

impl Lane {
    fn due_ns(&self) -> Option<u64> {
        (!self.waiting.is_empty()).then(|| self.rested.saturating_sub(nanos(SHORT)))
    }

    /// Takes out what waits, if it is to be answered now.
    pub(super) fn take_due(&mut self, now_ns: u64) -> VecDeque<Query> {
        if self.due_ns().is_some_and(|due| now_ns >= due) {
            std::mem::take(&mut self.waiting)
        } else {
            VecDeque::new()
        }
    }

    /// Whether there is time for another answer in a turn.
    pub(super) fn has_time(begun_ns: u64, now_ns: u64) -> bool {
        now_ns.saturating_sub(begun_ns) < nanos(TURN)
    }

    /// Answers have taken from `begun_ns` to `now_ns`; `left` are those that there was no time for.
    pub(super) fn rest(&mut self, begun_ns: u64, now_ns: u64, mut left: VecDeque<Query>) {
        let took = now_ns.saturating_sub(begun_ns);
        let from = self.rested.max(begun_ns);
        self.rested = from.saturating_add(took.saturating_mul(REST + 1));
        left.append(&mut self.waiting);
        self.waiting = left;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: u64 = 1_000_000;

    fn query(kind: QueryKind) -> Query {
        Query { serial: 1, kind, run: Box::new(|_| ()) }
    }

    #[test]
    fn what_takes_long_is_followed_by_a_rest_whichever_target_is_asked_about() {
        let mut queries = Queries::default();
        assert_eq!(queries.due_ns(), None);
        queries.push(query(QueryKind::Long));
        assert_eq!(queries.long.take_due(100 * MILLI).len(), 1);
        queries.long.rest(100 * MILLI, 110 * MILLI, VecDeque::new());
        queries.push(Query { serial: 2, ..query(QueryKind::Long) });
        assert_eq!(queries.due_ns(), Some(148 * MILLI), "50 ms, but for the end of it");
        assert!(
            queries.long.take_due(147 * MILLI).is_empty()
                && queries.quick.take_due(147 * MILLI).is_empty()
        );
        queries.push(query(QueryKind::Sync));
        assert_eq!(queries.quick.take_due(147 * MILLI).len(), 1, "it does not wait for that");
        assert_eq!(queries.long.take_due(148 * MILLI).len(), 1);
    }

    #[test]
    fn short_rests_add_up() {
        let mut queries = Queries::default();
        let mut now = 1000 * MILLI;
        let mut answered = 0;
        while now < 2000 * MILLI {
            queries.push(query(QueryKind::Quick));
            let quick = queries.quick();
            if !quick.take_due(now).is_empty() {
                answered += 1;
                quick.rest(now, now + MILLI / 10, VecDeque::new());
            }
            now += MILLI / 10;
        }
        assert!((2000..2100).contains(&answered), "a fifth of the time, but {answered} of 10000");
    }

    #[test]
    fn what_there_was_no_time_for_comes_first() {
        let mut queries = Queries::default();
        for serial in [1, 2] {
            queries.push(Query { serial, ..query(QueryKind::Quick) });
        }
        let quick = queries.quick();
        let mut due = quick.take_due(0);
        due.pop_front();
        quick.waiting.push_back(Query { serial: 3, ..query(QueryKind::Quick) });
        quick.rest(0, 1, due);
        let order: Vec<u64> = quick.waiting.iter().map(|query| query.serial).collect();
        assert_eq!(order, [2, 3]);
    }
}
