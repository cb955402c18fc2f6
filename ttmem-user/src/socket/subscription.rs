//! Deltas on their way from the pipeline to one client, in a queue of bounded length.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::sync::mpsc;

use crate::{ledger::delta::Delta, sink::DeltaSink};

/// Deltas that may wait for a client.
pub const MAX_WAITING: usize = 65_536;
/// What those that come at once count at most, however many they are: the promptest client has all
/// of them waiting for a moment, and must not be cut off for that.
const MAX_WEIGHT: usize = MAX_WAITING / 2;

/// The pipeline's end.
pub struct Feed {
    to: mpsc::UnboundedSender<Arc<[Delta]>>,
    waiting: Arc<AtomicUsize>,
    behind: Arc<AtomicBool>,
}

/// The client's end. It closes when the client has fallen behind, or there is no more to come.
pub struct Queue {
    from: mpsc::UnboundedReceiver<Arc<[Delta]>>,
    waiting: Arc<AtomicUsize>,
    behind: Arc<AtomicBool>,
}

/// Both ends of a queue.
pub fn queue() -> (Feed, Queue) {
    let (to, from) = mpsc::unbounded_channel();
    let waiting = Arc::<AtomicUsize>::default();
    let behind = Arc::<AtomicBool>::default();
    let feed = Feed { to, waiting: Arc::clone(&waiting), behind: Arc::clone(&behind) };
    (feed, Queue { from, waiting, behind })
}

fn weight(deltas: &[Delta]) -> usize {
    deltas.len().min(MAX_WEIGHT)
}

impl DeltaSink for Feed {
    fn take(&mut self, deltas: &Arc<[Delta]>) -> bool {
        // Bounded by this count: a channel bounds messages, and those are of any length.
        let weight = weight(deltas);
        let waiting = self.waiting.fetch_add(weight, Ordering::Relaxed);
        if waiting + weight > MAX_WAITING {
            self.behind.store(true, Ordering::Release);
            return false;
        }
        self.to.send(Arc::clone(deltas)).is_ok()
    }

    fn is_closed(&self) -> bool {
        self.to.is_closed()
    }
}

impl Queue {
    /// Whether it has closed because the client fell behind, and not because the target ended.
    pub fn fell_behind(&self) -> bool {
        self.behind.load(Ordering::Acquire)
    }

    /// The next ones; `None` after the last.
    pub async fn next(&mut self) -> Option<Arc<[Delta]>> {
        let deltas = self.from.recv().await?;
        self.waiting.fetch_sub(weight(&deltas), Ordering::Relaxed);
        Some(deltas)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{
        event::BufferType,
        ledger::delta::{Cause, Change},
        units::{Avma, DeviceAddr},
    };

    pub fn deltas(count: usize) -> Arc<[Delta]> {
        let delta = Delta {
            sequence: 1,
            time_ns: 1,
            tid: None,
            change: Change::Freed,
            cause: Cause::Event,
            buffer: Avma(1),
            allocator: Avma(2),
            unique_id: None,
            buffer_type: BufferType::L1,
            address: DeviceAddr(0),
            size: 1,
            page_size: 1,
            bank_bytes: None,
            used_bytes: None,
            cores: None,
            chips: [].into(),
            mesh: None,
            allocated_tid: None,
            allocated_ns: None,
            pre_attach: false,
        };
        vec![delta; count].into()
    }

    #[tokio::test]
    async fn who_falls_behind_is_cut_off_after_what_was_taken() {
        let (mut feed, mut queue) = queue();
        for taken in [MAX_WEIGHT, MAX_WEIGHT - 1, 1] {
            assert!(feed.take(&deltas(taken)));
        }
        assert!(!feed.take(&deltas(1)));
        assert!(queue.fell_behind());
        drop(feed);
        for taken in [MAX_WEIGHT, MAX_WEIGHT - 1, 1] {
            assert_eq!(queue.next().await.unwrap().len(), taken);
        }
        assert!(queue.next().await.is_none());
    }

    #[tokio::test]
    async fn many_at_once_cut_off_only_who_leaves_them_waiting() {
        let (mut feed, mut queue) = queue();
        let many = deltas(100_000);
        for _ in 0..3 {
            assert!(feed.take(&many), "nothing else waits");
            assert!(feed.take(&deltas(1000)), "nobody can have begun with them yet");
            for taken in [100_000, 1000] {
                assert_eq!(queue.next().await.unwrap().len(), taken);
            }
        }
        assert!(feed.take(&many) && feed.take(&many));
        assert!(!feed.take(&many) && queue.fell_behind());
    }

    #[tokio::test]
    async fn the_end_is_not_taken_for_falling_behind() {
        let (mut feed, mut queue) = queue();
        assert!(feed.take(&deltas(1)));
        drop(feed);
        assert_eq!(queue.next().await.unwrap().len(), 1);
        assert!(queue.next().await.is_none() && !queue.fell_behind());
    }

    #[tokio::test]
    async fn who_keeps_up_is_not() {
        let (mut feed, mut queue) = queue();
        for _ in 0..10 {
            assert!(feed.take(&deltas(MAX_WAITING / 2)));
            queue.next().await.unwrap();
        }
        drop(queue);
        assert!(!feed.take(&deltas(1)), "nobody is there any more");
    }
}
