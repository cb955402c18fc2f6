//! Which stack each live buffer comes from, for whoever shows buffers.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{
    ledger::call::{Call, CallStack, StackCounts, Unknown},
    units::Tid,
};

/// Buffers of one target whose stack is kept.
pub const MOST_BUFFERS: usize = 1 << 20;
/// Threads of which more is known than their stacks.
const MOST_THREADS: usize = 1 << 14;
/// Below this many nothing is forgotten.
const FEW: usize = 1 << 14;

/// Names an allocation: its time, ns, and its thread.
pub type Key = (u64, Tid);

/// What is known of one target.
#[derive(Debug, Default)]
pub struct Calls {
    by_allocation: HashMap<Key, Arc<CallStack>, foldhash::fast::RandomState>,
    /// When each thread allocated that of which the latest stack has arrived, ns.
    latest: HashMap<Tid, u64, foldhash::fast::RandomState>,
    /// Kept when it was last found out what is live.
    live: usize,
    /// What was counted of this target.
    pub counts: StackCounts,
}

impl Calls {
    /// Takes in the stack of an allocation; `None`: there is no room for it.
    pub fn add(&mut self, key: Key, stack: Option<Arc<CallStack>>) {
        self.counts.seen += 1;
        if self.latest.len() >= MOST_THREADS {
            self.latest.clear();
        }
        self.latest.insert(key.1, key.0);
        let Some(stack) = stack.filter(|_| self.by_allocation.len() < MOST_BUFFERS) else {
            self.counts.not_kept += 1;
            return;
        };
        if let Some(cut) = &stack.cut {
            *self.counts.cut.entry(cut.kind()).or_default() += 1;
        }
        if let Some(unknown) = &stack.python_unknown {
            *self.counts.python_unknown.entry(unknown.kind()).or_default() += 1;
        }
        self.by_allocation.insert(key, stack);
    }

    /// Whether it is time to find out what is live.
    pub fn is_due(&self) -> bool {
        self.by_allocation.len() >= (self.live * 2).clamp(FEW, MOST_BUFFERS)
    }

    /// Forgets what is not live. `live` is what is, with every event up to `time_ns` applied.
    pub fn retain(&mut self, time_ns: u64, live: &HashSet<Key>) {
        self.by_allocation.retain(|key, _| key.0 > time_ns || live.contains(key));
        self.live = self.by_allocation.len();
        self.by_allocation.shrink_to(self.live * 2);
    }

    /// How many stacks are kept.
    pub fn kept(&self) -> u64 {
        self.by_allocation.len() as u64
    }

    /// The stack of an allocation.
    pub fn get(&self, key: Key) -> Option<&Arc<CallStack>> {
        self.by_allocation.get(&key)
    }

    /// What is known of the call that a buffer comes from; `lost`: stacks that were lost.
    pub fn call(
        &self,
        tid: Option<Tid>,
        allocated_ns: Option<u64>,
        pre_attach: bool,
        lost: u64,
    ) -> Call {
        let Some(key) = allocated_ns.zip(tid) else {
            let why = if pre_attach { Unknown::BeforeAttach } else { Unknown::NotSeen };
            return Call::Unknown(why);
        };
        match self.get(key) {
            Some(stack) => Call::Known(Arc::clone(stack)),
            None => Call::Unknown(self.why_unknown(key, lost)),
        }
    }

    /// Why there is no stack of an allocation. Those of a thread arrive in their order.
    fn why_unknown(&self, (time_ns, tid): Key, lost: u64) -> Unknown {
        let is_overdue = self.latest.get(&tid).is_some_and(|latest| *latest >= time_ns);
        match (lost, self.counts.not_kept) {
            (0, 0) => Unknown::NotArrived,
            (0, _) => Unknown::NotKept,
            (_, 0) if is_overdue => Unknown::Lost,
            _ => Unknown::MaybeLost,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ledger::call::Cut;

    fn stack(cut: Option<Cut>) -> Arc<CallStack> {
        Arc::new(CallStack {
            frames: Box::default(),
            site: None,
            cut,
            beyond_cut: 0,
            python_unknown: None,
        })
    }

    fn why(calls: &Calls, key: Key, lost: u64) -> Option<Unknown> {
        match calls.call(Some(key.1), Some(key.0), false, lost) {
            Call::Known(_) => None,
            Call::Unknown(why) => Some(why),
        }
    }

    #[test]
    fn stacks_are_counted_and_found_by_time_and_thread() {
        let mut calls = Calls::default();
        calls.add((5, Tid(1)), Some(stack(None)));
        calls.add((5, Tid(2)), Some(stack(Some(Cut::Copied))));
        calls.add((6, Tid(2)), Some(stack(Some(Cut::Copied))));
        let cut = BTreeMap::from([("copied_bytes_end", 2)]);
        assert_eq!(calls.counts, StackCounts { seen: 3, cut, ..StackCounts::default() });
        assert_eq!(why(&calls, (5, Tid(2)), 0), None);
        assert_eq!(why(&calls, (6, Tid(1)), 0), Some(Unknown::NotArrived));
        assert_eq!(why(&calls, (6, Tid(1)), 1), Some(Unknown::MaybeLost), "nothing later is here");
        assert_eq!(why(&calls, (5, Tid(3)), 1), Some(Unknown::MaybeLost), "nor of this thread");
        assert_eq!(why(&calls, (4, Tid(1)), 1), Some(Unknown::Lost));
        assert_eq!(why(&calls, (4, Tid(1)), 0), Some(Unknown::NotArrived));
        let older = calls.call(None, None, true, 0);
        assert_eq!(older, Call::Unknown(Unknown::BeforeAttach));
        assert_eq!(calls.call(None, None, false, 0), Call::Unknown(Unknown::NotSeen));
    }

    #[test]
    fn what_is_not_live_is_forgotten_but_for_what_came_since() {
        let mut calls = Calls::default();
        for time in 0..FEW as u64 {
            assert!(!calls.is_due());
            calls.add((time, Tid(1)), Some(stack(None)));
        }
        assert!(calls.is_due());
        let last = FEW as u64 - 1;
        calls.retain(last - 1, &HashSet::from([(3, Tid(1)), (4, Tid(2))]));
        assert_eq!(calls.kept(), 2);
        let known: Vec<u64> =
            (0..=last).filter(|time| calls.get((*time, Tid(1))).is_some()).collect();
        assert_eq!(known, [3, last]);
        assert!(!calls.is_due());
    }

    #[test]
    fn only_so_many_are_kept() {
        let mut calls = Calls::default();
        let one = Some(stack(None));
        for time in 0..MOST_BUFFERS as u64 {
            calls.add((time, Tid(1)), one.clone());
        }
        assert_eq!(calls.counts.not_kept, 0);
        let more = (MOST_BUFFERS as u64, Tid(1));
        calls.add(more, one);
        calls.add((7, Tid(2)), None);
        assert_eq!((calls.counts.seen, calls.counts.not_kept), (MOST_BUFFERS as u64 + 2, 2));
        assert_eq!(why(&calls, more, 0), Some(Unknown::NotKept));
    }
}
