//! The memory of a target, live or saved.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use ttmem_common::layout::Chain;

use super::process::{Process, ProcessError};
use crate::units::Avma;

/// Memory could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no memory at {0}")]
pub struct Unreadable(pub Avma);

/// Bytes read in one go where the amount comes from the target.
const PIECE: usize = 1 << 15;

/// A target's memory. Read, never written.
pub trait TargetMemory {
    /// Fills `to` from `from` on, or fails as a whole.
    fn read(&self, from: Avma, to: &mut [u8]) -> Result<(), Unreadable>;

    /// A byte.
    fn byte(&self, at: Avma) -> Result<u8, Unreadable> {
        let mut bytes = [0];
        self.read(at, &mut bytes)?;
        Ok(bytes[0])
    }

    /// A little-endian 32-bit number.
    fn half(&self, at: Avma) -> Result<u32, Unreadable> {
        let mut bytes = [0; 4];
        self.read(at, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// A little-endian 64-bit number.
    fn word(&self, at: Avma) -> Result<u64, Unreadable> {
        let mut bytes = [0; 8];
        self.read(at, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// A pointer.
    fn pointer(&self, at: Avma) -> Result<Avma, Unreadable> {
        self.word(at).map(Avma)
    }

    /// `count` little-endian 64-bit numbers.
    ///
    /// Piece by piece: the count may be nonsense, and must not ask for more memory than the target
    /// has.
    fn words(&self, at: Avma, count: usize) -> Result<Vec<u64>, Unreadable> {
        let mut bytes = vec![0; count.saturating_mul(8).min(PIECE)];
        let mut words = Vec::with_capacity(bytes.len() / 8);
        while words.len() < count {
            let len = (count - words.len()).saturating_mul(8).min(PIECE);
            let piece = &mut bytes[..len];
            self.read(at.plus(words.len() as u64 * 8), piece)?;
            let read = piece.chunks_exact(8);
            words.extend(read.map(|word| u64::from_le_bytes(word.try_into().unwrap_or([0; 8]))));
        }
        Ok(words)
    }

    /// The value at the end of a chain that starts at `object`.
    fn chain(&self, object: Avma, chain: &Chain) -> Result<u64, Unreadable> {
        let (last, path) = chain.steps().split_last().ok_or(Unreadable(object))?;
        let mut at = object;
        for &offset in path {
            at = self.pointer(at.plus(u64::from(offset)))?;
        }
        let field = at.plus(u64::from(*last));
        if chain.width == 4 { self.half(field).map(u64::from) } else { self.word(field) }
    }
}

/// The memory of a running process.
///
/// The right to read is checked when it is opened, so it goes on working when the capabilities
/// are gone; and it goes on naming the same process.
#[derive(Debug)]
pub struct LiveMemory(File);

impl LiveMemory {
    /// Opens the memory of a process.
    pub fn open(process: &Process) -> Result<Self, ProcessError> {
        process.open_proc("mem").map(Self)
    }
}

impl TargetMemory for LiveMemory {
    fn read(&self, from: Avma, to: &mut [u8]) -> Result<(), Unreadable> {
        // Offsets beyond i64 would be refused by the kernel one by one; user space has none.
        if from.0 > i64::MAX as u64 {
            return Err(Unreadable(from));
        }
        self.0.read_exact_at(to, from.0).map_err(|_: io::Error| Unreadable(from))
    }
}

/// Saved pieces of memory, for tests and for dumps.
#[derive(Clone, Debug, Default)]
pub struct SavedMemory {
    pieces: Vec<(u64, Vec<u8>)>,
}

impl SavedMemory {
    /// Adds a piece.
    pub fn add(&mut self, at: Avma, bytes: Vec<u8>) {
        self.pieces.push((at.0, bytes));
    }

    /// Adds a word.
    pub fn add_word(&mut self, at: Avma, word: u64) {
        self.add(at, word.to_le_bytes().to_vec());
    }
}

impl TargetMemory for SavedMemory {
    fn read(&self, from: Avma, to: &mut [u8]) -> Result<(), Unreadable> {
        // The latest piece wins, as a later write would.
        for (start, bytes) in self.pieces.iter().rev() {
            let Some(offset) = from.0.checked_sub(*start) else { continue };
            let Ok(offset) = usize::try_from(offset) else { continue };
            if let Some(source) = bytes.get(offset..).and_then(|rest| rest.get(..to.len())) {
                to.copy_from_slice(source);
                return Ok(());
            }
        }
        Err(Unreadable(from))
    }
}

/// Counts how often it is read.
#[cfg(test)]
pub struct CountingMemory {
    /// What there is.
    pub inner: SavedMemory,
    /// How often it was read.
    pub reads: std::cell::Cell<u64>,
}

#[cfg(test)]
impl TargetMemory for CountingMemory {
    fn read(&self, from: Avma, to: &mut [u8]) -> Result<(), Unreadable> {
        self.reads.set(self.reads.get() + 1);
        self.inner.read(from, to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_follows_all_but_its_last_offset() {
        let mut memory = SavedMemory::default();
        memory.add_word(Avma(0x130), 0x200);
        memory.add_word(Avma(0x208), 0xdead_beef_0000_0007);
        let chain = |offsets: &[u32], width| Chain::new(offsets, width).unwrap();
        assert_eq!(memory.chain(Avma(0x100), &chain(&[0x30, 8], 4)), Ok(7));
        assert_eq!(memory.chain(Avma(0x100), &chain(&[0x30, 8], 8)), Ok(0xdead_beef_0000_0007));
        assert_eq!(memory.chain(Avma(0x100), &chain(&[0x38, 8], 8)), Err(Unreadable(Avma(0x138))));
        assert!(memory.chain(Avma(0x100), &Chain::ABSENT).is_err());
    }

    #[test]
    fn own_memory_can_be_read_and_bad_addresses_fail() {
        let process = Process::open(crate::units::Pid(std::process::id())).unwrap();
        let memory = LiveMemory::open(&process).unwrap();
        let value = 0x0123_4567_89ab_cdef_u64;
        assert_eq!(memory.word(Avma((&raw const value) as u64)), Ok(value));
        for bad in [0, 8, u64::MAX, i64::MAX as u64] {
            assert_eq!(memory.byte(Avma(bad)), Err(Unreadable(Avma(bad))));
        }
    }
}
