//! Reads the table of one process.
//!
//! Nothing in it is trusted: offsets are checked against the file before it is mapped, and a set
//! of numbers counts only if no write came between. A table is only opened if it belongs to root
//! or to the reader: another user could cut it short while it is mapped.

use std::{
    hint, io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::atomic::{Ordering, fence},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FileType, Mode, OFlags, fstat, openat},
    io::pread,
    process::geteuid,
};
use ttmem_common::table::{MAGIC, chip, header, state as state_word};

use super::{
    agent::Identity,
    device::{Chip, Device, known},
    directory::{Directory, DirectoryError},
    shape::Shape,
    writer::file_name,
};
use crate::{
    event::BufferType,
    missing::Lost,
    words::{ReadOnlyWord, ReadOnlyWords},
};

/// A chip's block may not be larger: it bounds what a broken header can ask for.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// How long a write may take. The writer may be put to sleep by the scheduler in the midst of it.
const PATIENCE: Duration = Duration::from_secs(1);
/// How far a heartbeat may be ahead of the reader's time, nanoseconds: one that has read its clock
/// first, or has a coarse one. One that is further ahead is from before a reboot.
const AHEAD_NS: u64 = 1_000_000_000;
/// Attempts before the reader lets others run.
const SPINS: u32 = 1000;
/// What stands in a user namespace for every user who has no number in it.
const OVERFLOW_UID: u32 = 65_534;

/// Why a table cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is none.
    #[error(
        "no table of process {pid} in {}: start `ttmem attach --pid {pid}` or `ttmem serve`",
        list(places)
    )]
    NotThere {
        /// The process.
        pid: u32,
        /// Where it was looked for.
        places: Vec<PathBuf>,
    },
    /// It cannot be opened.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is no table, or a broken one.
    #[error("{path} is no table of ttmem: {why}")]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A write was begun and never finished.
    #[error("{path} was left in the midst of a write: ttmem was killed or is stopped")]
    Torn {
        /// The file.
        path: PathBuf,
    },
}

fn list(places: &[PathBuf]) -> String {
    places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>().join(" or ")
}

/// The table of one process.
#[derive(Debug)]
pub struct Table {
    words: ReadOnlyWords,
    path: PathBuf,
    shape: Shape,
}

/// One figure of a table.
#[derive(Clone, Copy, Debug)]
pub struct Counter<'a>(ReadOnlyWord<'a>);

impl Counter<'_> {
    /// The figure now; `None` if it is not known. One load.
    #[inline]
    pub fn read(self) -> Option<u64> {
        known(u64::from_le(self.0.load(Ordering::Relaxed)))
    }
}

/// What the header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The watched process.
    pub process: Identity,
    /// Its process id in its own pid namespace, if that is another.
    pub namespace_pid: Option<u32>,
    /// The ttmem that writes.
    pub agent: Identity,
    /// When the table was made, CLOCK_MONOTONIC nanoseconds.
    pub attached_ns: u64,
    /// When ttmem last wrote, CLOCK_MONOTONIC nanoseconds.
    pub heartbeat_ns: u64,
    /// A heartbeat older than this means that nobody writes any more, nanoseconds.
    pub stale_after_ns: u64,
    /// Every event up to then is in the numbers, CLOCK_MONOTONIC nanoseconds.
    pub time_ns: u64,
    /// What has become of the process.
    pub state: State,
    /// Whether every total is known to equal the allocator's own.
    pub exact: bool,
    /// Why not; empty if it is.
    pub inexact_because: String,
    /// Records that could not be delivered.
    pub lost: Lost,
    /// Events that disagreed with what was known.
    pub anomalies: u64,
    /// Allocations that failed for want of memory, if they can be seen.
    pub failures: Option<u64>,
    /// Chips that the file has no room for.
    pub chips_left_out: u64,
    /// Command line of the process.
    pub command: String,
    /// Its tt-metal library.
    pub library: String,
    /// That library's build id.
    pub build_id: String,
}

/// What has become of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its older buffers are still being read.
    Starting,
    /// It is watched.
    Running,
    /// It has ended.
    Exited,
    /// It runs another program.
    Replaced,
    /// ttmem has ended.
    Unwatched,
}

impl Header {
    /// Why the numbers are old, if they are.
    pub fn stale_because(&self, now_ns: u64) -> Option<String> {
        if self.state > State::Running {
            return None;
        }
        let age = now_ns.saturating_sub(self.heartbeat_ns);
        let ahead = self.heartbeat_ns.saturating_sub(now_ns);
        if ahead <= AHEAD_NS && age <= self.stale_after_ns {
            return None;
        }
        let agent = self.agent.pid;
        Some(if self.agent.is_alive() {
            let seconds = age / 1_000_000_000;
            format!("ttmem (process {agent}) has not written for {seconds} s: it is stopped")
        } else {
            format!("ttmem (process {agent}) was killed: the numbers are what it last wrote")
        })
    }
}

impl Header {
    /// Whether the process itself still runs, under either of its ids.
    pub fn process_is_alive(&self) -> bool {
        let ids = [Some(self.process.pid), self.namespace_pid];
        let mut identities = ids.into_iter().flatten().map(|pid| Identity { pid, ..self.process });
        identities.any(Identity::is_alive)
    }

    /// Whether nobody writes any more, though nobody has said that the process has ended.
    pub fn is_left(&self, now_ns: u64) -> bool {
        self.state == State::Unwatched || self.stale_because(now_ns).is_some()
    }
}

impl PartialOrd for State {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some((*self as u8).cmp(&(*other as u8)))
    }
}

/// Opens the table of a process in the first place that has one.
pub fn open(places: &[PathBuf], pid: u32) -> Result<Table, ReadError> {
    for place in places {
        match Table::open(&place.join(file_name(pid))) {
            Err(ReadError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
    }
    Err(ReadError::NotThere { pid, places: places.to_vec() })
}

/// The processes that have a table in a directory. One that cannot be read has none.
pub fn pids(place: &Path) -> Vec<u32> {
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
    let mut pids: Vec<u32> = entries
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".table")?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids
}

/// Why a table of another user is refused.
fn foreign(owner: u32) -> String {
    let means = if owner == OVERFLOW_UID {
        " (in a user namespace, as in a rootless container: some user of the host, root or any other; \
         have ttmem run as the user of the container, or read outside of it)"
    } else {
        ""
    };
    format!("it belongs to user {owner}{means}, and only those of root and of the caller are read")
}

/// Which living agent writes a table in a directory of ours, if one does.
pub(super) fn living_writer(
    directory: &Directory,
    name: &str,
) -> Result<Option<u32>, DirectoryError> {
    let Some(file) = directory.open_ours(name)? else { return Ok(None) };
    let agent = writer_of(&file).filter(|agent| *agent != Identity::own() && agent.is_alive());
    Ok(agent.map(|agent| agent.pid))
}

/// Who says to write a file, whatever the version of the table in it; `None` if it is no table.
fn writer_of(file: &OwnedFd) -> Option<Identity> {
    let word = |at: usize| {
        let mut bytes = [0; 8];
        let got = pread(file, &mut bytes, at as u64).ok()?;
        (got == bytes.len()).then(|| u64::from_le_bytes(bytes))
    };
    let pid = u32::try_from(word(header::AGENT_PID)?).ok()?;
    let start_ticks = word(header::AGENT_START_TICKS)?;
    (word(header::MAGIC)? == MAGIC).then_some(Identity { pid, start_ticks })
}

impl Table {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(rustix::fs::CWD, path, flags, Mode::empty())
            .map_err(|error| ReadError::Io { path: path.into(), source: error.into() })?;
        Self::of_file(&file, path.into())
    }

    /// A file that is open.
    pub(super) fn of_file(file: &OwnedFd, path: PathBuf) -> Result<Self, ReadError> {
        let io = |source: io::Error| ReadError::Io { path: path.clone(), source };
        let broken = |why: String| ReadError::Broken { path: path.clone(), why };
        let stat = fstat(file).map_err(|error| io(error.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(broken("it is no file".to_owned()));
        }
        if stat.st_uid != 0 && stat.st_uid != geteuid().as_raw() {
            return Err(broken(foreign(stat.st_uid)));
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if !(header::LAST_BYTE..=MAX_FILE_BYTES).contains(&size) {
            return Err(broken(format!("it has {size} bytes")));
        }
        let words = ReadOnlyWords::map(file.as_fd(), usize::try_from(size).unwrap_or(0));
        let words = words.map_err(io)?;
        let shape = Shape::check(|at| load(&words, at), size).map_err(broken)?;
        Ok(Self { words, path, shape })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the header says.
    pub fn header(&self) -> Result<Header, ReadError> {
        let at = |at: usize| load(&self.words, at as u64);
        let pid = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let text = |offset: usize, bytes: usize| self.text(offset, bytes);
        self.consistent(header::SEQUENCE as u64, || Header {
            process: Identity { pid: pid(at(header::PID)), start_ticks: at(header::START_TICKS) },
            namespace_pid: known(at(header::NAMESPACE_PID)).map(pid),
            agent: self.agent(),
            attached_ns: at(header::ATTACHED_NS),
            heartbeat_ns: at(header::HEARTBEAT_NS),
            stale_after_ns: at(header::STALE_AFTER_NS),
            time_ns: at(header::TIME_NS),
            state: State::of(at(header::STATE)),
            exact: at(header::EXACT) == 1,
            inexact_because: text(header::INEXACT_BECAUSE, 512),
            lost: Lost {
                ring_full: at(header::LOST_RING_FULL),
                read_fault: at(header::LOST_READ_FAULT),
            },
            anomalies: at(header::ANOMALIES),
            failures: known(at(header::FAILURES)),
            chips_left_out: at(header::CHIPS_LEFT_OUT),
            command: text(header::COMMAND, 512),
            library: text(header::LIBRARY, 512),
            build_id: text(header::BUILD_ID, 64),
        })
    }

    /// The ttmem that writes it.
    pub(super) fn agent(&self) -> Identity {
        let at = |at: usize| load(&self.words, at as u64);
        let pid = u32::try_from(at(header::AGENT_PID)).unwrap_or(u32::MAX);
        Identity { pid, start_ticks: at(header::AGENT_START_TICKS) }
    }

    /// How many chips have a block.
    pub fn chip_count(&self) -> usize {
        let count = load(&self.words, header::CHIPS as u64).min(self.shape.chip_slots);
        usize::try_from(count).unwrap_or(0)
    }

    /// All chips, in the order of their ids; each at an instant of its own.
    pub fn chips(&self) -> Result<Vec<Chip>, ReadError> {
        let mut chips: Vec<Chip> =
            (0..self.chip_count()).map(|slot| self.chip(slot)).collect::<Result<_, _>>()?;
        chips.sort_by_key(|chip| chip.chip);
        Ok(chips)
    }

    /// One chip, by its place in the file.
    pub fn chip(&self, slot: usize) -> Result<Chip, ReadError> {
        Ok(self.device(slot)?.all())
    }

    /// The figures of one chip, by its place in the file, all of the same instant. Allocates
    /// nothing.
    pub fn device(&self, slot: usize) -> Result<Device, ReadError> {
        let mut device = Device::default();
        self.read_device(slot, &mut device)?;
        Ok(device)
    }

    /// The same, into what was read before: to move it takes as long as to read it.
    pub fn read_device(&self, slot: usize, device: &mut Device) -> Result<(), ReadError> {
        let block = self.block(slot);
        let pools = block + self.shape.pools_offset;
        let step = self.shape.pool_bytes;
        self.consistent(block + chip::SEQUENCE as u64, || {
            self.words.load_all(index(block), &mut device.chip);
            for (pool, at) in device.pools.iter_mut().zip((0..).map(|kind| pools + kind * step)) {
                self.words.load_all(index(at), pool);
            }
        })
    }

    /// Where one figure of one pool is, by the chip's place and the figure's offset in [`pool`]: to
    /// be looked up once, and read as often as one likes.
    pub fn counter(&self, slot: usize, buffer_type: BufferType, figure: usize) -> Counter<'_> {
        let pool = self.pool_block(self.block(slot), buffer_type);
        Counter(self.words.word(index(pool + figure as u64)))
    }

    fn block(&self, slot: usize) -> u64 {
        let slot = (slot as u64).min(self.shape.chip_slots - 1);
        self.shape.chips_offset + slot * self.shape.chip_bytes
    }

    fn pool_block(&self, block: u64, buffer_type: BufferType) -> u64 {
        block + self.shape.pools_offset + buffer_type.index() as u64 * self.shape.pool_bytes
    }

    /// Reads until no write came between.
    fn consistent<T>(&self, sequence: u64, mut read: impl FnMut() -> T) -> Result<T, ReadError> {
        let index = index(sequence);
        let mut since = None;
        for spins in 0_u32.. {
            let before = self.words.load(index, Ordering::Acquire);
            if before.is_multiple_of(2) {
                let found = read();
                fence(Ordering::Acquire);
                if self.words.load(index, Ordering::Relaxed) == before {
                    return Ok(found);
                }
            }
            if spins >= SPINS {
                if since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                    break;
                }
                thread::yield_now();
            }
            hint::spin_loop();
        }
        Err(ReadError::Torn { path: self.path.clone() })
    }

    fn text(&self, offset: usize, bytes: usize) -> String {
        let mut raw = Vec::with_capacity(bytes);
        for word in 0..bytes / 8 {
            raw.extend(load(&self.words, (offset + word * 8) as u64).to_le_bytes());
        }
        let end = raw.iter().position(|byte| *byte == 0).unwrap_or(raw.len());
        String::from_utf8_lossy(&raw[..end]).into_owned()
    }
}

impl State {
    fn of(word: u64) -> Self {
        match word {
            state_word::STARTING => Self::Starting,
            state_word::RUNNING => Self::Running,
            state_word::EXITED => Self::Exited,
            state_word::REPLACED => Self::Replaced,
            _ => Self::Unwatched,
        }
    }
}

fn index(at: u64) -> u32 {
    u32::try_from(at / 8).unwrap_or(u32::MAX)
}

fn load(words: &ReadOnlyWords, at: u64) -> u64 {
    u64::from_le(words.load(index(at), Ordering::Relaxed))
}
