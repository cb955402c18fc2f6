//! What a viewer has to be shown, whoever speaks to it: the same for both backends.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    Mirrored, agree, ended_exact,
    expected::{live_in, live_seen},
    receiver::Receiver,
    stopped::Stopped,
};
use crate::{
    real::Real,
    standin::Driver,
    ttmem::{PATIENCE, Ttmem},
};

/// How often it is looked whether a line has been written.
const TICK: Duration = Duration::from_millis(20);
/// Deltas that may wait for the mirror, in ttmem; `MAX_WAITING` in `tracy/feed.rs`.
const DELTAS_THAT_WAIT: u64 = 262_144;

/// Who speaks to viewers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// ttmem.
    Wire,
    /// Tracy's own client.
    Client,
}

impl Backend {
    /// Attaches to a process.
    pub fn attach(self, ttmem: &Ttmem, pid: u32, more: &[&str]) -> Result<Mirrored> {
        let backend: &[&str] = match self {
            Self::Wire => &[],
            Self::Client => &["--tracy-backend", "client"],
        };
        Mirrored::attach(ttmem, pid, &[backend, more].concat())
    }

    /// Connects.
    pub fn connect(self, port: u16) -> Result<Receiver> {
        let receiver = Receiver::connect(port)?;
        Ok(match self {
            Self::Wire => receiver,
            // It may tell of a free that belongs to the connection before.
            Self::Client => receiver.lenient(),
        })
    }

    /// What it says to a viewer that it had to leave things out for.
    const fn too_slow(self) -> &'static str {
        match self {
            Self::Wire => "the viewer was too slow",
            Self::Client => "Tracy's client was too slow",
        }
    }
}

/// Lines of JSON that ttmem writes besides.
pub struct Lines {
    _place: TempDir,
    /// Where they are.
    pub file: PathBuf,
}

impl Lines {
    /// None yet.
    pub fn new() -> Result<Self> {
        let place = tempfile::tempdir()?;
        let file = place.path().join("lines");
        Ok(Self { _place: place, file })
    }

    /// What ttmem has to be told.
    pub fn options(&self) -> Result<[&str; 4]> {
        Ok(["--format", "json", "-o", self.file.to_str().context("a path")?])
    }
}

/// Waits for a line of JSON that says what the allocators say: ttmem goes on.
pub fn lines_are_right(lines: &Path, driver: &mut Driver) -> Result<()> {
    let truth = driver.truth()?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let last = last_line(lines)?.unwrap_or_default();
        let found = truth.compare_pools(&last);
        if found.is_ok() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "ttmem does not go on: {found:?}");
        thread::sleep(TICK);
    }
}

/// Waits for a line of JSON that says that all is exact again after a loss.
pub fn lines_are_exact_again(lines: &Path) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let last = last_line(lines)?.unwrap_or_default();
        if last["exact"] == true && last["lost"]["ring_full"].as_u64() > Some(0) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "it does not get exact: {last}");
        thread::sleep(TICK);
    }
}

/// The last whole line.
fn last_line(file: &Path) -> Result<Option<Value>> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().last().map(serde_json::from_str).transpose().map_err(Into::into)
}

/// A viewer that comes late, and three that come after it, see what the allocators hold.
pub fn whenever_one_connects(backend: Backend, ttmem: &Ttmem, mut driver: Driver) -> Result<()> {
    driver.all_ok(&["open mesh 0 2 name=m", "hold 500", "alloc old m L1 65536 2048"])?;
    let mirrored = backend.attach(ttmem, driver.pid(), &[])?.attached()?;
    driver.ok("churn 2 400 9 keep=5")?;
    for round in 0..4 {
        let mut receiver = backend.connect(mirrored.port)?;
        let expected = agree(&mut receiver, ttmem, driver.pid())?;
        driver.ok(&format!("churn 2 400 {round} keep=5"))?;
        driver.ok(&format!("alloc r{round} m TRACE 8192 2048"))?;
        ensure!(agree(&mut receiver, ttmem, driver.pid())? != expected);
        let seen = receiver.seen();
        ensure!(seen.about.iter().any(|line| line.contains("driver")), "{:?}", seen.about);
        ensure!(seen.plots.contains_key("TT_Dev1_DRAM capacity"), "{:?}", seen.plots);
        if backend == Backend::Wire {
            ensure!(seen.program.1 == u64::from(driver.pid()), "{:?}", seen.program);
            ensure!(seen.threads.values().any(|name| name == "driver"), "{:?}", seen.threads);
        }
        println!("{} events in round {round}", seen.events);
        // Half of them leave without a word.
        if round % 2 == 0 {
            receiver.disconnect()?;
        }
    }
    mirrored.end()
}

/// Allocators of one chip have the same addresses, and each gives them out again.
pub fn addresses_come_again(backend: Backend, ttmem: &Ttmem, mut driver: Driver) -> Result<()> {
    driver.ok("open mesh 0 2 name=m")?;
    let mirrored = backend.attach(ttmem, driver.pid(), &[])?.attached()?;
    let mut receiver = backend.connect(mirrored.port)?;
    driver.all_ok(&[
        "alloc a m L1 65536 2048",
        "submesh m 1 1 name=s",
        "alloc b s L1 65536 2048",
        "alloc p0 m L1 2048 2048 cores=4 shard=32x32 page=32x32 percore=1",
    ])?;
    agree(&mut receiver, ttmem, driver.pid())?;
    let pools = &receiver.seen().pools;
    let of = |name: &str| pools.get(name).map(|pool| pool.live.keys().copied().collect::<Vec<_>>());
    let (mesh, submesh) = (of("TT_Dev1_L1"), of("TT_Dev1_L1#2"));
    ensure!(
        mesh.iter().flatten().any(|address| submesh.iter().flatten().any(|it| it == address)),
        "the submesh has its own pool, and an address of the mesh's in it: {mesh:?} {submesh:?}"
    );
    for _ in 0..20 {
        driver.all_ok(&[
            "free a",
            "free b",
            "alloc a m L1 65536 2048",
            "alloc b s L1 65536 2048",
        ])?;
    }
    agree(&mut receiver, ttmem, driver.pid())?;
    // Closing frees all at once; the next device starts anew at the same addresses.
    driver.all_ok(&["close s", "close m", "open mesh 0 2 name=n", "alloc c n L1 65536 2048"])?;
    agree(&mut receiver, ttmem, driver.pid())?;
    receiver.disconnect()?;
    mirrored.end()
}

/// Five pools on each of 64 chips.
pub fn three_hundred_pools(backend: Backend, ttmem: &Ttmem, mut driver: Driver) -> Result<()> {
    driver.ok("open mesh 0 64 name=m")?;
    let mirrored = backend.attach(ttmem, driver.pid(), &[])?;
    let mut receiver = backend.connect(mirrored.port)?;
    for kind in ["DRAM", "L1", "L1_SMALL", "TRACE", "SYSTEM_MEMORY"] {
        driver.ok(&format!("alloc {kind} m {kind} 4096 2048"))?;
    }
    receiver.until("320 pools", |seen| seen.pools.len() == 320)?;
    agree(&mut receiver, ttmem, driver.pid())?;
    receiver.disconnect()?;
    mirrored.end()
}

/// A viewer that keeps up with a storm is told all of it.
pub fn a_storm(backend: Backend, ttmem: &Ttmem, mut driver: Driver) -> Result<()> {
    driver.all_ok(&["open mesh 0 2 name=m", "hold 100"])?;
    let mirrored = backend.attach(ttmem, driver.pid(), &["--ring-size", "65536"])?.attached()?;
    let mut receiver = backend.connect(mirrored.port)?;
    driver.tell("churn 4 10000 7 keep=50")?;
    receiver.until("most of it", |seen| seen.events > 4 * 10_000)?;
    driver.answer()?;
    agree(&mut receiver, ttmem, driver.pid())?;
    let seen = receiver.disconnect()?;
    for left_out in [backend.too_slow(), "came too fast", "records were lost"] {
        ensure!(!seen.has_message(left_out), "{:?}", seen.messages);
    }
    println!("{} events", seen.events);
    mirrored.end()
}

/// Records are lost, and what is live is read again.
pub fn a_storm_and_a_loss(backend: Backend, ttmem: &Ttmem, mut driver: Driver) -> Result<()> {
    driver.all_ok(&["open mesh 0 4 name=m", "hold 100"])?;
    // A ring that is far too small.
    let mirrored = backend.attach(ttmem, driver.pid(), &["--ring-size", "4"])?.attached()?;
    let mut receiver = backend.connect(mirrored.port)?;
    driver.ok("churn 4 20000 7 keep=50")?;
    agree(&mut receiver, ttmem, driver.pid())?;
    receiver.until("the loss", |seen| seen.has_message("records were lost"))?;
    receiver.until("that it is over", |seen| seen.has_message("exact from here on"))?;
    agree(&mut receiver, ttmem, driver.pid())?;
    let seen = receiver.disconnect()?;
    ensure!(seen.has_message("memory was read again"), "{:?}", seen.messages);
    println!("{} events", seen.events);
    mirrored.end()
}

/// A process fails to allocate and ends: whoever watches is told of both, and nothing is left.
pub fn the_end_is_told(backend: Backend, ttmem: &Ttmem, mut driver: Driver) -> Result<()> {
    driver.all_ok(&["open mesh 0 2 name=m", "hold 20"])?;
    let mirrored = backend.attach(ttmem, driver.pid(), &[])?;
    let mut receiver = backend.connect(mirrored.port)?;
    agree(&mut receiver, ttmem, driver.pid())?;
    driver.caught("oom m L1")?;
    driver.end_with("crash")?;
    let seen = receiver.until_end()?;
    ensure!(seen.has_message("the process has exited; 40 allocations were live"), "{seen:?}");
    ensure!(seen.has_message("failed allocation: "), "{:?}", seen.messages);
    ensure!(seen.pools.values().all(|pool| pool.live.is_empty()), "{:?}", seen.pools);
    mirrored.ended()
}

/// A viewer that is stopped while more happens than waits for anybody holds up nothing; once it
/// listens again it is told what is live.
pub fn a_viewer_that_is_stopped(backend: Backend, ttmem: &Ttmem, mut driver: Driver) -> Result<()> {
    driver.ok("open mesh 0 32 name=m")?;
    let lines = Lines::new()?;
    let more = [&["--ring-size", "65536"], &lines.options()?[..]].concat();
    let mirrored = backend.attach(ttmem, driver.pid(), &more)?.attached()?;
    let mut receiver = backend.connect(mirrored.port)?;
    driver.ok("alloc first m DRAM 4096 2048")?;
    agree(&mut receiver, ttmem, driver.pid())?;
    // It does not read while this goes on.
    driver.ok("churn 4 20000 3 keep=20")?;
    lines_are_right(&lines.file, &mut driver)?;
    receiver.until("what was missed", |seen| seen.has_message(backend.too_slow()))?;
    agree(&mut receiver, ttmem, driver.pid())?;
    // From here on it is told all again.
    driver.ok("churn 2 100 4 keep=10")?;
    agree(&mut receiver, ttmem, driver.pid())?;
    let seen = receiver.disconnect()?;
    mirrored.end()?;
    println!("{} of some {} events", seen.events, 4 * 20_000 * 2 * 32);
    ended_exact(&lines.file)
}

/// The thread with the mirrors is stopped while more happens than may wait for it.
pub fn a_mirror_that_is_stopped(backend: Backend, ttmem: &Ttmem, mut driver: Driver) -> Result<()> {
    driver.ok("open mesh 0 1 name=m")?;
    let lines = Lines::new()?;
    let more = [&["--ring-size", "65536"], &lines.options()?[..]].concat();
    let mirrored = backend.attach(ttmem, driver.pid(), &more)?.attached()?;
    let mut receiver = backend.connect(mirrored.port)?;
    driver.all_ok(&["alloc goes m DRAM 4096 2048", "alloc stays m L1 4096 2048"])?;
    agree(&mut receiver, ttmem, driver.pid())?;
    let stopped = Stopped::thread(mirrored.pid(), "ttmem-tracy")?;
    driver.ok("free goes")?;
    let rounds = DELTAS_THAT_WAIT / 4;
    driver.ok(&format!("churn 4 {rounds} 3 keep=20"))?;
    lines_are_right(&lines.file, &mut driver)?;
    stopped.go_on()?;
    receiver.until("what was missed", |seen| seen.has_message("came too fast"))?;
    agree(&mut receiver, ttmem, driver.pid())?;
    driver.ok("churn 2 100 4 keep=10")?;
    agree(&mut receiver, ttmem, driver.pid())?;
    receiver.disconnect()?;
    mirrored.end()?;
    ended_exact(&lines.file)
}

/// A program on the real ttnn.
pub struct RealRun {
    kind: &'static str,
    arguments: &'static [&'static str],
    chips: usize,
}

/// On an n300.
pub const ON_TWO_CHIPS: RealRun = RealRun {
    kind: "n300",
    arguments: &["--mesh", "1x2", "--random", "7", "--steps", "150"],
    chips: 2,
};

/// On a T3K.
pub const ON_EIGHT_CHIPS: RealRun = RealRun {
    kind: "t3k",
    arguments: &["--mesh", "2x4", "--random", "9", "--steps", "60"],
    chips: 8,
};

/// A whole run on the real ttnn: the viewer has what is live at each checkpoint, and nothing at
/// the end.
pub fn the_real_ttnn(
    backend: Backend,
    (real, ttmem): (&Real, &Ttmem),
    &RealRun { kind, arguments, chips }: &RealRun,
) -> Result<()> {
    let mut program = real.start(kind, arguments)?;
    let mirrored = backend.attach(ttmem, program.pid(), &["--wait"])?;
    program.expect("start")?;
    let mut receiver = backend.connect(mirrored.port)?;
    let (mut compared, mut most) = (0, 0);
    program.go_on()?;
    while let Some(checkpoint) = program.checkpoint()? {
        if checkpoint.still {
            let expected = live_in(ttmem, program.pid())?;
            receiver.until(&checkpoint.name, |seen| live_seen(seen) == expected)?;
            most = most.max(expected.values().map(Vec::len).sum());
            compared += 1;
        }
        program.go_on()?;
    }
    let seen = receiver.until_end()?;
    let drams = seen.pools.keys().filter(|name| name.ends_with("_DRAM")).count();
    ensure!(drams == chips, "{:?}", seen.pools.keys());
    ensure!(seen.pools.values().all(|pool| pool.live.is_empty()), "{:?}", seen.pools);
    ensure!(seen.has_message("the process has exited"), "{:?}", seen.messages);
    ensure!(compared > 3 && most > chips, "{compared} {most}");
    println!("{compared} checkpoints agree, with at most {most} buffers in all pools");
    mirrored.ended()
}
