//! Deltas on their way from the pipeline to a mirror, in a queue of bounded length.
//!
//! What does not fit is counted and left out, and so is all that comes after it, until the whole
//! live set has been asked for: then the mirror has missed what came and went, and nothing else.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use tokio::sync::mpsc;

use crate::{
    ledger::{delta::Delta, snapshot::ProgramSnapshot},
    pipeline::{Command, Control, Query},
    sink::DeltaSink,
};

/// Deltas that may wait; one batch may be longer, if it is the only one.
pub const MAX_WAITING: usize = 262_144;

/// What a mirror gets.
#[derive(Debug)]
pub enum Item {
    /// What has happened.
    Deltas(Arc<[Delta]>),
    /// Something did not fit: the live set is to be asked for.
    Behind,
    /// All that is live, each as an allocation, instead of what did not fit.
    Live {
        /// What is live.
        live: Vec<Delta>,
        /// CLOCK_MONOTONIC, nanoseconds.
        time_ns: u64,
        /// Deltas that were left out.
        left_out: u64,
    },
    /// The programs with circular buffers.
    Programs {
        /// The programs.
        programs: Vec<ProgramSnapshot>,
        /// CLOCK_MONOTONIC, nanoseconds.
        time_ns: u64,
    },
}

#[derive(Debug)]
struct Shared {
    waiting: AtomicUsize,
    behind: AtomicBool,
    left_out: AtomicU64,
}

/// The pipeline's end.
#[derive(Debug)]
pub struct Feed {
    to: mpsc::UnboundedSender<Item>,
    shared: Arc<Shared>,
}

/// The mirror's end. It closes when there is no more to come.
#[derive(Debug)]
pub struct Queue {
    from: mpsc::UnboundedReceiver<Item>,
    /// Weak: the queue must close with its feed.
    to: mpsc::WeakUnboundedSender<Item>,
    shared: Arc<Shared>,
}

/// Both ends.
pub fn queue() -> (Feed, Queue) {
    let (to, from) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared {
        waiting: AtomicUsize::new(0),
        behind: AtomicBool::new(false),
        left_out: AtomicU64::new(0),
    });
    let weak = to.downgrade();
    (Feed { to, shared: Arc::clone(&shared) }, Queue { from, to: weak, shared })
}

impl DeltaSink for Feed {
    fn take(&mut self, deltas: &Arc<[Delta]>) -> bool {
        let shared = &self.shared;
        let len = deltas.len();
        let waiting = shared.waiting.load(Ordering::Relaxed);
        let is_behind = shared.behind.load(Ordering::Relaxed);
        if is_behind || (waiting > 0 && waiting + len > MAX_WAITING) {
            shared.left_out.fetch_add(len as u64, Ordering::Relaxed);
            if !is_behind {
                shared.behind.store(true, Ordering::Relaxed);
                return self.to.send(Item::Behind).is_ok();
            }
            return !self.to.is_closed();
        }
        shared.waiting.fetch_add(len, Ordering::Relaxed);
        self.to.send(Item::Deltas(Arc::clone(deltas))).is_ok()
    }
}

impl Queue {
    /// The next one; `None` after the last.
    pub async fn next(&mut self) -> Option<Item> {
        let item = self.from.recv().await?;
        if let Item::Deltas(deltas) = &item {
            self.shared.waiting.fetch_sub(deltas.len(), Ordering::Relaxed);
        }
        Some(item)
    }

    /// Asks for all that is live, to go on from there.
    pub fn ask_for_live(&self, control: &Control, serial: u64) {
        let (Some(to), shared) = (self.to.upgrade(), Arc::clone(&self.shared)) else { return };
        let run = Box::new(move |view: crate::pipeline::View<'_>| {
            // On the pipeline's thread: nothing comes in between this and the next deltas.
            shared.behind.store(false, Ordering::Relaxed);
            let left_out = shared.left_out.swap(0, Ordering::Relaxed);
            let live = view.ledger.live_deltas(view.time_ns);
            // Without a receiver nobody wants it.
            let _ = to.send(Item::Live { live, time_ns: view.time_ns, left_out });
        });
        control.send(Command::Query(Query { serial, run }));
    }

    /// Asks for the programs.
    pub fn ask_for_programs(&self, control: &Control, serial: u64) {
        let Some(to) = self.to.upgrade() else { return };
        let run = Box::new(move |view: crate::pipeline::View<'_>| {
            let programs = view.ledger.programs();
            let _ = to.send(Item::Programs { programs, time_ns: view.time_ns });
        });
        control.send(Command::Query(Query { serial, run }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracy::mirror::tests::came;

    fn batch(len: usize) -> Arc<[Delta]> {
        vec![came(1, 1, 1); len].into()
    }

    #[tokio::test]
    async fn what_does_not_fit_is_counted_and_asked_for_once() {
        let (mut feed, mut queue) = queue();
        assert!(feed.take(&batch(MAX_WAITING + 5)), "the only one may be longer");
        assert!(feed.take(&batch(2)) && feed.take(&batch(3)));
        assert!(matches!(queue.next().await, Some(Item::Deltas(_))));
        assert!(feed.take(&batch(4)), "left out too: the mirror would not know what came before");
        assert_eq!(feed.shared.left_out.load(Ordering::Relaxed), 9);
        assert!(matches!(queue.next().await, Some(Item::Behind)));
        drop(feed);
        assert!(queue.next().await.is_none());
    }

    #[tokio::test]
    async fn a_mirror_that_is_gone_wants_no_more() {
        let (mut feed, queue) = queue();
        drop(queue);
        assert!(!feed.take(&batch(1)));
    }
}
