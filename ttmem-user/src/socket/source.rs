//! Where answers come from: the pipeline, which answers at a pace of its own.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    sync::{Mutex, oneshot},
    task::spawn_blocking,
};

use super::answer;
use crate::{
    ledger::snapshot::{Detail, Snapshot, TargetState},
    pipeline::{Command, Control, Query, QueryKind, View, now_ns},
};

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
    latest: Arc<Mutex<Latest>>,
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

/// The latest snapshots, without and with the live set.
type Latest = [Option<Arc<Found>>; 2];

/// A snapshot, shared by all who wait for one.
pub struct Found {
    pub snapshot: Snapshot,
    /// The number of the last delta in it.
    pub last_delta: u64,
    line: OnceLock<Vec<u8>>,
}

impl Found {
    /// The answer that it is, without its end. Made once, which may take a while.
    pub fn line(&self) -> &[u8] {
        self.line.get_or_init(|| answer::open(&self.snapshot))
    }
}

impl Source {
    /// Of the target with this serial.
    pub fn new(control: Arc<Control>, serial: u64, fill_in: Option<FillIn>) -> Self {
        Self { control, serial, fill_in, latest: Arc::default(), waiting: Arc::default() }
    }

    /// The state with every event up to now in it.
    pub async fn snapshot(&self, buffers: bool) -> Result<Arc<Found>, Gone> {
        let asked_ns = now_ns();
        let _waiting = Waiting::new(&self.waiting);
        let mut latest = self.latest.lock().await;
        let found = self.newer_than(asked_ns, buffers, &mut latest).await;
        if self.waiting.load(Ordering::Relaxed) == 1 {
            // Nobody else will ask for them: they may be large.
            *latest = Default::default();
        }
        found
    }

    async fn newer_than(
        &self,
        asked_ns: u64,
        buffers: bool,
        latest: &mut Latest,
    ) -> Result<Arc<Found>, Gone> {
        // Somebody may have asked while this one waited for its turn: that answer will do.
        let place = usize::from(buffers);
        if let Some(found) = &latest[place]
            && found.snapshot.time_ns >= asked_ns
        {
            return Ok(Arc::clone(found));
        }
        let detail = Detail { buffers, map: false, ..Detail::default() };
        let (mut snapshot, last_delta) = self
            .ask_for(QueryKind::Long, move |view| {
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
        let found = Arc::new(Found { snapshot, last_delta, line: OnceLock::new() });
        latest[place] = Some(Arc::clone(&found));
        Ok(found)
    }

    /// Has the shared table hold every event up to now; when that is.
    pub async fn sync(&self) -> Result<u64, Gone> {
        self.ask_for(QueryKind::Sync, |view| view.time_ns).await
    }

    /// Anything else, which must be quick.
    pub async fn ask<T: Send + 'static>(
        &self,
        run: impl FnOnce(&mut View<'_>) -> T + Send + 'static,
    ) -> Result<T, Gone> {
        self.ask_for(QueryKind::Quick, run).await
    }

    /// Does something without waiting for it.
    pub fn tell(&self, run: impl FnOnce(&mut View<'_>) + Send + 'static) {
        self.send(QueryKind::Quick, run);
    }

    async fn ask_for<T: Send + 'static>(
        &self,
        kind: QueryKind,
        run: impl FnOnce(&mut View<'_>) -> T + Send + 'static,
    ) -> Result<T, Gone> {
        let (sender, answer) = oneshot::channel();
        self.send(kind, move |view| {
            // Whoever asked may have gone.
            let _ = sender.send(run(view));
        });
        answer.await.map_err(|_| Gone)
    }

    fn send(&self, kind: QueryKind, run: impl FnOnce(&mut View<'_>) + Send + 'static) {
        let run = Box::new(move |mut view: View<'_>| run(&mut view));
        self.control.send(Command::Query(Query { serial: self.serial, kind, run }));
    }
}
