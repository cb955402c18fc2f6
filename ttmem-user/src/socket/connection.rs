//! One client: its requests, its subscriptions, its end.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncWriteExt as _, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{SemaphorePermit, watch},
    task::spawn_blocking,
    time::{Interval, MissedTickBehavior, interval, timeout},
};

use super::{
    answer::{
        self, Bare, Buffers, Deltas, Ended, Failed, Failures, Head, Marked, Since, Subscribed,
    },
    line::{LINE_TIME, Line, Lines, MAX_LINE},
    places::Place,
    request::{BadRequest, Request, Stream, What, parse},
    server::End,
    source::{Found, Gone, Source},
    subscription::{MAX_WAITING, Queue, queue},
};
use crate::{
    ledger::{delta::Delta, marks::MarkKey},
    pipeline::now_ns,
    units::Pid,
};

/// How long a client may take to take a line.
const PATIENCE: Duration = Duration::from_secs(5);
/// Deltas in one line, so that no line becomes too long to be taken in time.
const MAX_IN_LINE: usize = 512;
/// How long the end of a target may take to become known.
const END_IS_NEAR: Duration = Duration::from_secs(1);

/// What a connection is about.
pub struct About {
    /// Where answers come from.
    pub source: Source,
    /// The target.
    pub pid: Pid,
    /// Names the connection among all.
    pub owner: u64,
    /// The client's place, as its user's.
    pub place: Place,
    /// What has become of the target, once it has.
    pub end: watch::Receiver<Option<End>>,
    /// To be raised whenever the client takes something.
    pub taken: Arc<AtomicU64>,
}

/// Why a connection ends.
enum Over {
    /// The client has gone, or does not take what it asked for.
    Client,
    /// The target has.
    Target,
}

impl From<io::Error> for Over {
    fn from(_: io::Error) -> Self {
        Self::Client
    }
}

impl From<Gone> for Over {
    fn from(_: Gone) -> Self {
        Self::Target
    }
}

/// Says one thing to a client that is not served.
pub async fn refuse(mut stream: UnixStream, code: &'static str, message: &str) {
    let line = answer::line(None, &Failed::new(code, message, now_ns()));
    // It may have gone already.
    let _ = timeout(PATIENCE, stream.write_all(&line)).await;
}

/// Serves a client until it goes, or the target does.
pub async fn serve(stream: UnixStream, about: About) {
    let (from, to) = stream.into_split();
    let mut connection = Connection { to, about, deltas: None, snapshots: None, marked: false };
    let mut lines = Lines::new(BufReader::new(from));
    let over = connection.run(&mut lines).await;
    if connection.marked {
        let owner = connection.about.owner;
        connection.about.source.tell(move |view| view.ledger.forget_marks_of(owner));
    }
    if let Over::Target = over {
        connection.say_end().await;
    }
}

struct Connection {
    to: OwnedWriteHalf,
    about: About,
    deltas: Option<Queue>,
    snapshots: Option<Snapshots>,
    /// Whether it has set a mark.
    marked: bool,
}

struct Snapshots {
    ticks: Interval,
    buffers: bool,
    id: Option<Value>,
}

impl Connection {
    async fn run(&mut self, lines: &mut Lines<BufReader<OwnedReadHalf>>) -> Over {
        let mut end = self.about.end.clone();
        loop {
            // In this order: what is under way arrives before the end is said, and a client that
            // asks without a pause cannot hold back what it has subscribed to.
            let done = tokio::select! {
                biased;
                deltas = next(self.deltas.as_mut()) => self.pass_on(deltas).await,
                () = is_over(&mut end) => Err(Over::Target),
                () = tick(self.snapshots.as_mut()) => self.send_next_snapshot().await,
                line = lines.next() => match line {
                    Ok(Some(line)) => self.answer(line).await,
                    Ok(None) | Err(_) => Err(Over::Client),
                },
            };
            if let Err(over) = done {
                return over;
            }
        }
    }

    async fn answer(&mut self, line: Line) -> Result<(), Over> {
        let line = match line {
            Line::Whole(line) => line,
            Line::TooLong => {
                let message = format!("a line has at most {MAX_LINE} bytes");
                return self.fail(None, "too_long", &message).await;
            }
            Line::TooSlow => {
                let message = format!("a line has to end within {} s", LINE_TIME.as_secs());
                self.fail(None, "too_slow", &message).await?;
                return Err(Over::Client);
            }
        };
        match parse(&line) {
            Err(BadRequest { id, why }) => self.fail(id.as_ref(), "bad_request", &why).await,
            Ok(Request { id, what }) => self.answer_request(id.as_ref(), what).await,
        }
    }

    async fn answer_request(&mut self, id: Option<&Value>, what: What) -> Result<(), Over> {
        match what {
            What::Snapshot { buffers } => self.send_snapshot(id, buffers).await,
            What::Buffers(filter) => {
                let make = move |found: &Found| {
                    let Found { snapshot, last_delta, .. } = found;
                    let selected = filter.select(snapshot.buffers.as_deref().unwrap_or_default());
                    answer::open(&Buffers::new(snapshot, *last_delta, selected))
                };
                self.send_of_snapshot(id, true, make).await
            }
            What::Failures => {
                let make = |found: &Found| answer::open(&Failures::new(&found.snapshot));
                self.send_of_snapshot(id, false, make).await
            }
            What::Sync => {
                let time_ns = self.about.source.sync().await?;
                self.send(id, &Bare { head: self.head("ttmem.sync/1", time_ns) }).await
            }
            What::Mark(name) => self.mark(id, name).await,
            What::Since(name) => self.since(id, name).await,
            What::SubscribeSnapshots { buffers, interval_ms } => {
                let mut ticks = interval(Duration::from_millis(interval_ms));
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                self.snapshots = Some(Snapshots { ticks, buffers, id: id.cloned() });
                Ok(())
            }
            What::SubscribeDeltas => self.subscribe(id).await,
            What::Unsubscribe(stream) => {
                match stream {
                    Stream::Deltas => self.deltas = None,
                    Stream::Snapshots => self.snapshots = None,
                }
                self.send(id, &Bare { head: self.head("ttmem.unsubscribed/1", now_ns()) }).await
            }
        }
    }

    async fn mark(&mut self, id: Option<&Value>, name: String) -> Result<(), Over> {
        let key = self.mark_key(&name);
        let marked = self.about.source.ask(move |view| {
            let previous = view.ledger.since_mark(&key);
            (view.time_ns, view.ledger.mark(key, view.time_ns).map(|()| previous))
        });
        match marked.await? {
            (time_ns, Ok(previous)) => {
                self.marked = true;
                let head = self.head("ttmem.mark/1", time_ns);
                self.send(id, &Marked { head, name: &name, previous }).await
            }
            (_, Err(error)) => self.fail(id, "too_many_marks", &error.to_string()).await,
        }
    }

    fn mark_key(&self, name: &str) -> MarkKey {
        MarkKey { owner: self.about.owner, user: self.about.place.user(), name: name.to_owned() }
    }

    async fn since(&mut self, id: Option<&Value>, name: String) -> Result<(), Over> {
        let key = self.mark_key(&name);
        let found = self.about.source.ask(move |view| (view.time_ns, view.ledger.since_mark(&key)));
        let (time_ns, since) = found.await?;
        let Some(since) = since else {
            let message = format!("this connection has set no mark `{name}`");
            return self.fail(id, "no_mark", &message).await;
        };
        let head = self.head("ttmem.since/1", time_ns);
        self.send(id, &Since { head, name: &name, since }).await
    }

    async fn subscribe(&mut self, id: Option<&Value>) -> Result<(), Over> {
        let (feed, queue) = queue();
        // An earlier subscription ends here: what still waits for it is older than the answer.
        self.deltas = None;
        let begun = self.about.source.ask(move |view| {
            view.sinks.push(Box::new(feed));
            (view.time_ns, view.ledger.last_delta())
        });
        let (time_ns, sequence) = begun.await?;
        self.deltas = Some(queue);
        let head = self.head("ttmem.subscribed/1", time_ns);
        self.send(id, &Subscribed { head, sequence }).await
    }

    async fn pass_on(&mut self, deltas: Option<Arc<[Delta]>>) -> Result<(), Over> {
        let Some(deltas) = deltas else {
            if self.deltas.as_ref().is_some_and(|queue| !queue.fell_behind()) {
                return Err(Over::Target);
            }
            let message = format!("more than {MAX_WAITING} deltas behind");
            self.fail(None, "too_slow", &message).await?;
            return Err(Over::Client);
        };
        // Others are served between the lines, and each may take its time.
        for deltas in deltas.chunks(MAX_IN_LINE) {
            let time_ns = deltas.last().map_or_else(now_ns, |delta| delta.time_ns);
            let head = self.head("ttmem.deltas/1", time_ns);
            self.send(None, &Deltas { head, deltas }).await?;
        }
        Ok(())
    }

    async fn send_next_snapshot(&mut self) -> Result<(), Over> {
        let Some(Snapshots { buffers, id, .. }) = &self.snapshots else { return Ok(()) };
        let (buffers, id) = (*buffers, id.clone());
        self.send_snapshot(id.as_ref(), buffers).await
    }

    /// Sends a snapshot. All who wait for one get the same bytes.
    async fn send_snapshot(&mut self, id: Option<&Value>, buffers: bool) -> Result<(), Over> {
        let Self { to, about, .. } = self;
        let _turn = turn(about).await?;
        let found = about.source.snapshot(buffers).await?;
        let found = in_background(move || {
            found.line();
            found
        });
        let found = found.await?;
        write(to, &about.taken, [found.line(), &answer::end(id)]).await
    }

    /// Sends what is made of a snapshot, elsewhere: it may be large.
    async fn send_of_snapshot(
        &mut self,
        id: Option<&Value>,
        buffers: bool,
        make: impl FnOnce(&Found) -> Vec<u8> + Send + 'static,
    ) -> Result<(), Over> {
        let Self { to, about, .. } = self;
        let _turn = turn(about).await?;
        let found = about.source.snapshot(buffers).await?;
        let line = in_background(move || make(&found)).await?;
        write(to, &about.taken, [&line, &answer::end(id)]).await
    }

    async fn say_end(&mut self) {
        let mut end = self.about.end.clone();
        // The pipeline may be gone a moment before it is said why.
        let _ = timeout(END_IS_NEAR, is_over(&mut end)).await;
        let state = end.borrow().unwrap_or(End::Unwatched);
        let head = self.head("ttmem.end/1", now_ns());
        // It is the last line in any case.
        let _ = self.send(None, &Ended { head, state }).await;
    }

    async fn fail(
        &mut self,
        id: Option<&Value>,
        code: &'static str,
        message: &str,
    ) -> Result<(), Over> {
        self.send(id, &Failed::new(code, message, now_ns())).await
    }

    async fn send(&mut self, id: Option<&Value>, body: &impl serde::Serialize) -> Result<(), Over> {
        let line = answer::line(id, body);
        write(&mut self.to, &self.about.taken, [&line, &[]]).await
    }

    fn head(&self, schema: &'static str, time_ns: u64) -> Head {
        Head { schema, time_ns, pid: self.about.pid }
    }
}

/// Waits until the client may have a large answer. Others of its user may take their time over theirs.
async fn turn(about: &About) -> Result<SemaphorePermit<'_>, Over> {
    let mut end = about.end.clone();
    tokio::select! {
        turn = about.place.turn() => turn.map_err(|_| Over::Target),
        () = is_over(&mut end) => Err(Over::Target),
    }
}

/// Does what takes long elsewhere: others are served meanwhile.
async fn in_background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Over> {
    // It ends without a result by a panic only, which has been printed.
    spawn_blocking(work).await.map_err(|_| Over::Client)
}

/// Writes a line, in two pieces, within the time that a client has for it.
async fn write(to: &mut OwnedWriteHalf, taken: &AtomicU64, line: [&[u8]; 2]) -> Result<(), Over> {
    let all = async {
        for mut left in line {
            while !left.is_empty() {
                let written = to.write(left).await?;
                taken.fetch_add(1, Ordering::Relaxed);
                left = &left[written..];
            }
        }
        Ok(())
    };
    match timeout(PATIENCE, all).await {
        Ok(written) => written,
        Err(_) => Err(Over::Client),
    }
}

/// Completes when the target has ended, or nobody could say so any more.
pub async fn is_over(end: &mut watch::Receiver<Option<End>>) {
    // What it hands out must not be kept while others run.
    drop(end.wait_for(Option::is_some).await);
}

async fn next(queue: Option<&mut Queue>) -> Option<Arc<[Delta]>> {
    match queue {
        Some(queue) => queue.next().await,
        None => std::future::pending().await,
    }
}

async fn tick(snapshots: Option<&mut Snapshots>) {
    match snapshots {
        Some(snapshots) => _ = snapshots.ticks.tick().await,
        None => std::future::pending().await,
    }
}
