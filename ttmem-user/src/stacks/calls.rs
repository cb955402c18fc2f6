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
/// Below this many nothing is forgotten.
const FEW: usize = 1 << 14;

/// Names an allocation: its time, ns, and its thread.
pub type Key = (u64, Tid);

/// What is known of one target.
#[derive(Debug, Default)]
pub struct Calls {
    by_allocation: HashMap<Key, Arc<CallStack>, foldhash::fast::RandomState>,
    /// Kept when it was last found out what is live.
    live: usize,
    /// What was counted of this target.
    pub counts: StackCounts,
}

impl Calls {
    /// Takes in the stack of an allocation; `None`: there is no room for it.
    pub fn add(&mut self, key: Key, stack: Option<Arc<CallStack>>) {
        self.counts.seen += 1;
        let Some(stack) = stack.filter(|_| self.by_allocation.len() < MOST_BUFFERS) else {
            self.counts.not_kept += 1;
            return;
        };
        if let Some(cut) = &stack.cut {
            *self.counts.cut.entry(cut.kind()).or_default() += 1;
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
            None if lost > 0 => Call::Unknown(Unknown::Lost),
            None if self.counts.not_kept > 0 => Call::Unknown(Unknown::NotKept),
            None => Call::Unknown(Unknown::NotArrived),
        }
    }
}
