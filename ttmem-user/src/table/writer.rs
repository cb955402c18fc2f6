//! Fills the table of one process. One thread writes; each word is one store.

use std::{
    os::fd::AsFd as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{Ordering, fence},
    },
};

use rustix::fs::FileType;
use ttmem_common::table::{
    CHIP_BYTES, CHIP_SLOTS, CHIPS_OFFSET, FILE_BYTES, MAGIC, POOL_BYTES, POOLS, POOLS_OFFSET,
    UNKNOWN, VERSION, chip, header, headroom, pool, state,
};

use super::{
    access::{Purpose, Readers, grant},
    agent::Identity,
    directory::{Directory, DirectoryError, Placed},
    left_behind::disown,
    reader,
};
use crate::{
    event::BufferType,
    ledger::{
        Ledger,
        snapshot::{CircularSnapshot, HeadroomState, PoolSnapshot, ProcessLabel, TargetState},
    },
    words::Words,
};

/// A heartbeat older than this means that the agent was killed or is stopped. It beats every
/// second at least.
const STALE_AFTER_NS: u64 = 5_000_000_000;
const POOL_WORDS: usize = POOL_BYTES / 8;

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The directory will not have it.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Somebody else writes it.
    #[error("process {pid} is watched already, by ttmem with process id {agent}")]
    Taken {
        /// The watched process.
        pid: u32,
        /// The other ttmem.
        agent: u32,
        /// The directory of its table.
        place: PathBuf,
    },
    /// The file cannot be made what it should be.
    #[error("cannot make the table of process {pid}: {source}")]
    Io {
        /// The watched process.
        pid: u32,
        /// Why not.
        source: std::io::Error,
    },
}

/// The table of one process. Dropping it takes it away.
#[derive(Debug)]
pub struct Writer {
    words: Words,
    /// Its file, once it has its name.
    file: Option<Placed>,
    /// What INEXACT_BECAUSE says.
    doubts: String,
}

/// The name of a process's table.
pub fn file_name(pid: u32) -> String {
    format!("{pid}.table")
}

impl Writer {
    /// Makes the table of a process, unless another agent has one. What an agent left behind
    /// that was killed is replaced.
    pub fn create(
        directory: &Arc<Directory>,
        process: Identity,
        label: &ProcessLabel,
        readers: Readers,
        now_ns: u64,
    ) -> Result<Self, TableError> {
        let name = file_name(process.pid);
        let new = format!(".new-{}-{name}", std::process::id());
        let io = |source| TableError::Io { pid: process.pid, source };
        let _lock = directory.lock()?;
        if let Some(agent) = reader::living_writer(directory, &name)? {
            let place = directory.path().into();
            return Err(TableError::Taken { pid: process.pid, agent, place });
        }
        directory.new_file(&new, FILE_BYTES as u64, |file| {
            let words = Words::map(file.as_fd(), FILE_BYTES).map_err(io)?;
            let doubts = "older buffers are still being read".to_owned();
            let mut writer = Self { words, file: None, doubts };
            writer.describe(process, label, now_ns);
            grant(&directory.short_path_of(&new), readers, Purpose::Read).map_err(io)?;
            // Before anybody can ask this ttmem, and read there.
            disown(directory, &name);
            writer.file = Some(directory.place(&new, &name, FileType::RegularFile)?);
            Ok(writer)
        })
    }

    fn describe(&self, process: Identity, label: &ProcessLabel, now_ns: u64) {
        let agent = Identity::own();
        let constants = [
            (header::VERSION, VERSION),
            (header::FILE_BYTES, FILE_BYTES as u64),
            (header::CHIPS_OFFSET, CHIPS_OFFSET as u64),
            (header::CHIP_BYTES, CHIP_BYTES as u64),
            (header::CHIP_SLOTS, CHIP_SLOTS as u64),
            (header::POOLS_OFFSET, POOLS_OFFSET as u64),
            (header::POOL_BYTES, POOL_BYTES as u64),
            (header::PID, process.pid.into()),
            (header::START_TICKS, process.start_ticks),
            (header::NAMESPACE_PID, label.namespace_pid.map_or(UNKNOWN, |pid| pid.0.into())),
            (header::AGENT_PID, agent.pid.into()),
            (header::AGENT_START_TICKS, agent.start_ticks),
            (header::ATTACHED_NS, now_ns),
            (header::STALE_AFTER_NS, STALE_AFTER_NS),
            (header::HEARTBEAT_NS, now_ns),
            (header::TIME_NS, now_ns),
            (header::FAILURES, UNKNOWN),
            (header::MAGIC, MAGIC),
        ];
        for (at, value) in constants {
            self.store(at, value);
        }
        self.text(header::COMMAND, 512, &label.command);
        self.text(header::LIBRARY, 512, label.library.as_deref().unwrap_or_default());
        self.text(header::BUILD_ID, 64, label.build_id.as_deref().unwrap_or_default());
        self.text(header::INEXACT_BECAUSE, 512, &self.doubts);
    }

    /// Says that the agent is there.
    pub fn beat(&self, now_ns: u64) {
        self.store(header::HEARTBEAT_NS, now_ns);
    }

    /// Writes the totals. `up_to_ns`: every event up to then has been applied, if that is known.
    pub fn publish(&mut self, ledger: &Ledger, up_to_ns: Option<u64>) {
        let doubts = ledger.doubts().join("; ");
        if !doubts.is_empty() {
            // Before the numbers that they are about: who reads those finds this, too.
            self.write_doubts(&doubts);
        }
        for (slot, &id) in ledger.chips().iter().enumerate().take(CHIP_SLOTS) {
            let mut pools = [0; POOLS * POOL_WORDS];
            for buffer_type in BufferType::ALL {
                let words = &mut pools[buffer_type.index() * POOL_WORDS..][..POOL_WORDS];
                describe_pool(words, ledger.pool_snapshot(slot, buffer_type).as_ref());
            }
            self.write_pools(slot, id.0, &pools);
        }
        self.write_header(ledger, up_to_ns, &doubts);
        self.doubts = doubts;
    }

    fn write_doubts(&self, doubts: &str) {
        if doubts != self.doubts {
            self.guarded(header::SEQUENCE, || {
                self.store(header::EXACT, u64::from(doubts.is_empty()));
                self.text(header::INEXACT_BECAUSE, 512, doubts);
            });
        }
    }

    fn write_pools(&self, slot: usize, id: i32, pools: &[u64]) {
        let block = CHIPS_OFFSET + slot * CHIP_BYTES;
        let at = |word: usize| block + POOLS_OFFSET + word * 8;
        let used = self.load(header::CHIPS) > slot as u64;
        if used && pools.iter().enumerate().all(|(word, value)| self.load(at(word)) == *value) {
            return;
        }
        self.guarded(block + chip::SEQUENCE, || {
            self.store(block + chip::CHIP, i64::from(id).cast_unsigned());
            if !used {
                self.store(block + chip::CIRCULAR_CORE_BYTES, UNKNOWN);
                self.store(block + chip::CIRCULAR_PEAK_CORE_BYTES, UNKNOWN);
                self.store(block + chip::CORE_CAPACITY_BYTES, UNKNOWN);
            }
            for (word, value) in pools.iter().enumerate() {
                self.store(at(word), *value);
            }
        });
    }

    fn write_header(&self, ledger: &Ledger, up_to_ns: Option<u64>, doubts: &str) {
        let chips = ledger.chips().len();
        let lost = ledger.lost();
        let begun = if ledger.is_reading_baseline() { state::STARTING } else { state::RUNNING };
        let figures = [
            (header::STATE, begun),
            (header::EXACT, u64::from(doubts.is_empty())),
            (header::LOST_RING_FULL, lost.ring_full),
            (header::LOST_READ_FAULT, lost.read_fault),
            (header::ANOMALIES, ledger.anomalies().total()),
            (header::CHIPS, chips.min(CHIP_SLOTS) as u64),
            (header::CHIPS_LEFT_OUT, chips.saturating_sub(CHIP_SLOTS) as u64),
            (header::FAILURES, ledger.failure_count().unwrap_or(UNKNOWN)),
            (header::RESYNCS, ledger.resyncs()),
        ];
        self.guarded(header::SEQUENCE, || {
            if let Some(time) = up_to_ns {
                self.store(header::TIME_NS, time);
            }
            for (at, value) in figures {
                self.store(at, value);
            }
            // Of what there is to doubt it was said before.
            if doubts.is_empty() && !self.doubts.is_empty() {
                self.text(header::INEXACT_BECAUSE, 512, doubts);
            }
        });
    }

    /// Writes what circular buffers take of each chip, by the chip's place.
    pub fn publish_circular(&self, chips: &[CircularSnapshot]) {
        for (slot, circular) in chips.iter().enumerate().take(CHIP_SLOTS) {
            let block = CHIPS_OFFSET + slot * CHIP_BYTES;
            let state = match circular.headroom.state {
                None => headroom::UNKNOWN,
                Some(HeadroomState::Ok) => headroom::OK,
                Some(HeadroomState::Low) => headroom::LOW,
                Some(HeadroomState::Clash) => headroom::CLASH,
            };
            let figures = [
                (chip::CIRCULAR_CORE_BYTES, circular.core_bytes.unwrap_or(UNKNOWN)),
                (chip::CIRCULAR_PEAK_CORE_BYTES, circular.peak_core_bytes.unwrap_or(UNKNOWN)),
                (chip::CORE_CAPACITY_BYTES, circular.core_capacity_bytes.unwrap_or(UNKNOWN)),
                (chip::CIRCULAR_PROGRAMS, circular.programs),
                (chip::CIRCULAR_BUFFERS, circular.buffers),
                (chip::HEADROOM_STATE, state),
                (chip::HEADROOM_BYTES, circular.headroom.bytes.unwrap_or(0).cast_unsigned()),
            ];
            if figures.iter().all(|(at, value)| self.load(block + at) == *value) {
                continue;
            }
            self.guarded(block + chip::SEQUENCE, || {
                for (at, value) in figures {
                    self.store(block + at, value);
                }
            });
        }
    }

    /// Says how it ended, and takes the file away. Who has it open still reads the last numbers.
    pub fn end(self, how: Option<TargetState>) {
        let state = match how {
            Some(TargetState::Exited) => state::EXITED,
            Some(TargetState::Replaced) => state::REPLACED,
            Some(TargetState::Running) | None => state::UNWATCHED,
        };
        self.guarded(header::SEQUENCE, || self.store(header::STATE, state));
    }

    /// Lets `change` store between two steps of a sequence word.
    fn guarded(&self, sequence: usize, change: impl FnOnce()) {
        let odd = self.load(sequence).wrapping_add(1);
        self.store(sequence, odd);
        // What is stored from here on is seen by nobody who does not see the odd number.
        fence(Ordering::Release);
        change();
        self.words.long(index(sequence)).store(odd.wrapping_add(1), Ordering::Release);
    }

    fn text(&self, at: usize, bytes: usize, text: &str) {
        let mut end = text.len().min(bytes - 1);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut padded = vec![0; bytes];
        padded[..end].copy_from_slice(&text.as_bytes()[..end]);
        for (word, bytes) in padded.as_chunks::<8>().0.iter().enumerate() {
            self.store(at + word * 8, u64::from_le_bytes(*bytes));
        }
    }

    fn load(&self, at: usize) -> u64 {
        u64::from_le(self.words.long(index(at)).load(Ordering::Relaxed))
    }

    /// What stays the same is not written: so it stays in the readers' caches.
    fn store(&self, at: usize, value: u64) {
        if self.load(at) != value {
            self.words.long(index(at)).store(value.to_le(), Ordering::Relaxed);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.load(header::STATE) <= state::RUNNING {
            self.guarded(header::SEQUENCE, || self.store(header::STATE, state::UNWATCHED));
        }
    }
}

fn index(at: usize) -> u32 {
    u32::try_from(at / 8).unwrap_or(u32::MAX)
}

fn describe_pool(words: &mut [u64], found: Option<&PoolSnapshot>) {
    let Some(found) = found else { return };
    let unknown = |figure: Option<u64>| figure.unwrap_or(UNKNOWN);
    let figures = [
        (pool::BUFFERS, found.buffers),
        (pool::LOGICAL_BYTES, found.logical_bytes),
        (pool::USED_BYTES, unknown(found.used_bytes)),
        (pool::PEAK_USED_BYTES, unknown(found.peak_used_bytes)),
        (pool::CAPACITY_BYTES, unknown(found.capacity_bytes)),
        (pool::ALLOCATIONS, found.allocations),
        (pool::FREES, found.frees),
        (pool::PRE_ATTACH_FREES, found.pre_attach_frees),
        (pool::BANK_BYTES, unknown(found.bank_bytes)),
        (pool::BANKS, unknown(found.banks.map(u64::from))),
        (pool::PRESENT, 1),
    ];
    for (at, value) in figures {
        words[at / 8] = value;
    }
}
