//! Where answers come from: the pipeline, asked at a pace that leaves it most of its time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{Mutex, oneshot},
    task::spawn_blocking,
    time::sleep_until,
};

use crate::{
    ledger::snapshot::{Detail, Snapshot, TargetState},
    pipeline::{Command, Control, Query, View, now_ns},
};

/// After a query the pipeline is left alone for so many times as long as it took.
const REST: u32 = 4;

/// A rest that is put off.
const SHORT: Duration = Duration::from_millis(2);

/// Adds to a snapshot what the ledger does not know; may take a moment.
pub type FillIn = Arc<dyn Fn(&mut Snapshot) + Send + Sync>;

/// The target is gone, or the pipeline is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

/// Asks about one target.
#[derive(Clone)]
pub struct Source {
    control: Arc<Control>,
    serial: u64,
    fill_in: Option<FillIn>,
    shared: Arc<Mutex<Shared>>,
    /// How many wait for a snapshot, or are about to get one.
    waiting: Arc<AtomicUsize>,
}

/// Counts one more for as long as it lives: whoever waits may give up.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Shared {
    not_before: Option<Instant>,
    /// The latest snapshots, without and with the live set, each with the last delta in it.
    latest: [Option<(Arc<Snapshot>, u64)>; 2],
}

impl Source {
    /// Of the target with this serial.
    pub fn new(control: Arc<Control>, serial: u64, fill_in: Option<FillIn>) -> Self {
        Self { control, serial, fill_in, shared: Arc::default(), waiting: Arc::default() }
    }

    /// The state with every event up to now in it, and the number of the last delta.
    pub async fn snapshot(&self, buffers: bool) -> Result<(Arc<Snapshot>, u64), Gone> {
        let asked_ns = now_ns();
        let _waiting = Waiting::new(&self.waiting);
        let mut shared = self.shared.lock().await;
        let found = self.newer_than(asked_ns, buffers, &mut shared).await;
        if self.waiting.load(Ordering::Relaxed) == 1 {
            // Nobody else will ask for them: they may be large.
            shared.latest = Default::default();
        }
        found
    }

    async fn newer_than(
        &self,
        asked_ns: u64,
        buffers: bool,
        shared: &mut Shared,
    ) -> Result<(Arc<Snapshot>, u64), Gone> {
        // Somebody may have asked while this one waited for its turn: that answer will do.
        let place = usize::from(buffers);
        if let Some(latest) = &shared.latest[place]
            && latest.0.time_ns >= asked_ns
        {
            return Ok(latest.clone());
        }
        let detail = Detail { buffers, map: false, ..Detail::default() };
        let (mut snapshot, last_delta) = self
            .ask_paced(shared, move |view| {
                let state = TargetState::Running;
                let snapshot = view.ledger.snapshot(view.time_ns, state, detail);
                (snapshot, view.ledger.last_delta())
            })
            .await?;
        if let Some(fill_in) = self.fill_in.clone() {
            let filled = spawn_blocking(move || {
                fill_in(&mut snapshot);
                snapshot
            });
            snapshot = filled.await.map_err(|_| Gone)?;
        }
        let found = (Arc::new(snapshot), last_delta);
        shared.latest[place] = Some(found.clone());
        Ok(found)
    }

    /// Anything else.
    pub async fn ask<T: Send + 'static>(
        &self,
        run: impl FnOnce(&mut View<'_>) -> T + Send + 'static,
    ) -> Result<T, Gone> {
        let mut shared = self.shared.lock().await;
        self.ask_paced(&mut shared, run).await
    }

    /// Does something without waiting for it.
    pub fn tell(&self, run: impl FnOnce(&mut View<'_>) + Send + 'static) {
        let run = Box::new(move |mut view: View<'_>| run(&mut view));
        self.control.send(Command::Query(Query { serial: self.serial, run }));
    }

    async fn ask_paced<T: Send + 'static>(
        &self,
        shared: &mut Shared,
        run: impl FnOnce(&mut View<'_>) -> T + Send + 'static,
    ) -> Result<T, Gone> {
        let now = Instant::now();
        let not_before = shared.not_before.unwrap_or(now);
        // The timer's steps are long: a short rest is added to the next.
        if not_before > now + SHORT {
            sleep_until(not_before.into()).await;
        }
        let (sender, answer) = oneshot::channel();
        self.tell(move |view| {
            let begun = Instant::now();
            let result = run(view);
            // Whoever asked may have gone.
            let _ = sender.send((result, begun.elapsed()));
        });
        let (result, took): (T, Duration) = answer.await.map_err(|_| Gone)?;
        shared.not_before = Some(not_before.max(now) + took * (REST + 1));
        Ok(result)
    }
}
