//! Deltas on their way from the pipeline to a mirror, in a queue of bounded length.
//!
//! What does not fit is counted and left out, and so is all that comes after it, until the whole
//! live set has been asked for: then the mirror has missed what came and went, and nothing else.
//!
//! While deltas keep coming, the mirror takes them in on a tick: to wake it costs the pipeline and
//! itself more than what a batch holds. The times of events travel with them, so nobody sees it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::{
    ledger::{delta::Delta, snapshot::ProgramSnapshot},
    pipeline::{Command, Control, Query, QueryKind},
    sink::DeltaSink,
};

/// Deltas that may wait; one batch may be longer, if it is the only one.
pub const MAX_WAITING: usize = 262_144;
/// How long what arrives may gather before it is taken: 20 times a second is live to the eye.
const TICK: Duration = Duration::from_millis(50);

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
    /// Until when nothing is taken.
    gathers: Instant,
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
    let feed = Feed { to, shared: Arc::clone(&shared) };
    (feed, Queue { from, to: weak, shared, gathers: Instant::now() })
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
    /// What has gathered when its time is over, in order; `None` after the last. Nothing is lost if
    /// this is not waited for to its end.
    pub async fn next(&mut self) -> Option<Vec<Item>> {
        // A sender wakes only who waits for it, and meanwhile nobody does.
        if Instant::now() < self.gathers {
            sleep_until(self.gathers).await;
        }
        let first = self.from.recv().await?;
        Some(self.take(vec![first]))
    }

    /// What has gathered so far, in order.
    pub fn gathered(&mut self) -> Vec<Item> {
        self.take(Vec::new())
    }

    fn take(&mut self, mut items: Vec<Item>) -> Vec<Item> {
        items.extend(std::iter::from_fn(|| self.from.try_recv().ok()));
        let deltas = |item: &Item| if let Item::Deltas(deltas) = item { deltas.len() } else { 0 };
        self.shared.waiting.fetch_sub(items.iter().map(deltas).sum(), Ordering::Relaxed);
        self.gathers = Instant::now() + TICK;
        items
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
        control.send(Command::Query(Query { serial, kind: QueryKind::Long, run }));
    }

    /// Asks for the programs.
    pub fn ask_for_programs(&self, control: &Control, serial: u64) {
        let Some(to) = self.to.upgrade() else { return };
        let run = Box::new(move |view: crate::pipeline::View<'_>| {
            let programs = view.ledger.programs();
            let _ = to.send(Item::Programs { programs, time_ns: view.time_ns });
        });
        control.send(Command::Query(Query { serial, kind: QueryKind::Long, run }));
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Wake},
    };

    use super::*;
    use crate::tracy::mirror::tests::came;

    fn batch(len: usize) -> Arc<[Delta]> {
        vec![came(1, 1, 1); len].into()
    }

    /// Everything is taken at once, as if the time were over.
    async fn taken(queue: &mut Queue) -> Option<Vec<Item>> {
        queue.gathers = Instant::now();
        queue.next().await
    }

    #[tokio::test]
    async fn what_does_not_fit_is_counted_and_asked_for_once() {
        let (mut feed, mut queue) = queue();
        assert!(feed.take(&batch(MAX_WAITING + 5)), "the only one may be longer");
        assert!(feed.take(&batch(2)) && feed.take(&batch(3)));
        let items = taken(&mut queue).await;
        assert!(matches!(items.as_deref(), Some([Item::Deltas(_), Item::Behind])));
        assert!(feed.take(&batch(4)), "left out too: the mirror would not know what came before");
        assert_eq!(feed.shared.left_out.load(Ordering::Relaxed), 9);
        assert_eq!(feed.shared.waiting.load(Ordering::Relaxed), 0);
        drop(feed);
        assert!(taken(&mut queue).await.is_none());
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn only_the_first_after_a_quiet_spell_wakes_the_mirror() {
        let (mut feed, mut queue) = queue();
        let woken = Arc::new(Woken::default());
        let (waker, count) = (woken.clone().into(), || woken.0.load(Ordering::Relaxed));
        let mut context = Context::from_waker(&waker);
        assert!(pin!(queue.next()).poll(&mut context).is_pending());
        assert!(feed.take(&batch(1)) && feed.take(&batch(1)));
        assert_eq!(count(), 1);
        let before = Instant::now();
        assert_eq!(queue.next().await.map(|items| items.len()), Some(2));
        assert!(queue.gathers >= before + TICK);
        // However slow this test is.
        queue.gathers = before + Duration::from_secs(3600);
        assert!(pin!(queue.next()).poll(&mut context).is_pending());
        assert!(feed.take(&batch(1)) && feed.take(&batch(1)) && feed.take(&batch(1)));
        assert_eq!(count(), 1);
        assert_eq!(taken(&mut queue).await.map(|items| items.len()), Some(3));
    }

    #[tokio::test]
    async fn a_mirror_that_is_gone_wants_no_more() {
        let (mut feed, queue) = queue();
        drop(queue);
        assert!(!feed.take(&batch(1)));
    }
}
