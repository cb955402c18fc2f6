//! The figures of one chip, as they were read at one instant.

use ttmem_common::table::{POOLS, UNKNOWN, chip, headroom, pool};

use crate::{
    event::BufferType,
    ledger::snapshot::{HeadroomState, PoolSnapshot},
    units::ChipId,
};

/// Words of a chip's own figures.
pub(super) const CHIP_WORDS: usize = words(chip::LAST_BYTE);
/// Words of a pool's figures.
pub(super) const POOL_WORDS: usize = words(pool::LAST_BYTE);

/// The words of one chip at one instant.
#[derive(Clone, Copy, Debug, Default)]
pub struct Device {
    pub(super) chip: [u64; CHIP_WORDS],
    pub(super) pools: [[u64; POOL_WORDS]; POOLS],
}

impl Device {
    /// The chip's id.
    pub fn chip(&self) -> ChipId {
        ChipId(i32::try_from(self.word(chip::CHIP).cast_signed()).unwrap_or(i32::MIN))
    }

    /// One figure of one pool, by its offset in [`pool`]; `None` if it is not known.
    pub fn figure(&self, buffer_type: BufferType, figure: usize) -> Option<u64> {
        let pool = &self.pools[buffer_type.index()];
        pool.get(figure / 8).copied().and_then(|word| known(u64::from_le(word)))
    }

    /// One pool; `None` if the chip has no such pool.
    pub fn pool(&self, buffer_type: BufferType) -> Option<PoolSnapshot> {
        let known = |figure| self.figure(buffer_type, figure);
        let count = |figure| known(figure).unwrap_or(0);
        (known(pool::PRESENT) == Some(1)).then(|| PoolSnapshot {
            buffer_type,
            buffers: count(pool::BUFFERS),
            logical_bytes: count(pool::LOGICAL_BYTES),
            bank_bytes: known(pool::BANK_BYTES),
            banks: known(pool::BANKS).and_then(|banks| u32::try_from(banks).ok()),
            used_bytes: known(pool::USED_BYTES),
            capacity_bytes: known(pool::CAPACITY_BYTES),
            peak_used_bytes: known(pool::PEAK_USED_BYTES),
            peak_at_least_bytes: known(pool::PEAK_USED_BYTES),
            allocations: count(pool::ALLOCATIONS),
            frees: count(pool::FREES),
            pre_attach_frees: count(pool::PRE_ATTACH_FREES),
        })
    }

    /// All that is known of the chip.
    pub fn all(&self) -> Chip {
        Chip {
            chip: self.chip(),
            pools: BufferType::ALL.iter().filter_map(|kind| self.pool(*kind)).collect(),
            circular_programs: self.word(chip::CIRCULAR_PROGRAMS),
            circular_buffers: self.word(chip::CIRCULAR_BUFFERS),
            circular_core_bytes: known(self.word(chip::CIRCULAR_CORE_BYTES)),
            circular_peak_core_bytes: known(self.word(chip::CIRCULAR_PEAK_CORE_BYTES)),
            core_capacity_bytes: known(self.word(chip::CORE_CAPACITY_BYTES)),
            headroom: self.headroom(),
        }
    }

    fn headroom(&self) -> Option<(HeadroomState, i64)> {
        let state = match self.word(chip::HEADROOM_STATE) {
            headroom::OK => HeadroomState::Ok,
            headroom::LOW => HeadroomState::Low,
            headroom::CLASH => HeadroomState::Clash,
            _ => return None,
        };
        Some((state, self.word(chip::HEADROOM_BYTES).cast_signed()))
    }

    fn word(&self, at: usize) -> u64 {
        self.chip.get(at / 8).copied().map_or(UNKNOWN, u64::from_le)
    }
}

/// The pools of one chip at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chip {
    /// Its id.
    pub chip: ChipId,
    /// Its pools, by type.
    pub pools: Vec<PoolSnapshot>,
    /// Programs seen that keep circular buffers.
    pub circular_programs: u64,
    /// Their buffers with memory of their own.
    pub circular_buffers: u64,
    /// The most that circular buffers take of one core, bytes.
    pub circular_core_bytes: Option<u64>,
    /// The highest that has been, bytes.
    pub circular_peak_core_bytes: Option<u64>,
    /// How near circular buffers and tensors are to each other, and the room between them, bytes.
    pub headroom: Option<(HeadroomState, i64)>,
    /// What a core's L1 has for buffers, bytes.
    pub core_capacity_bytes: Option<u64>,
}

/// A word that may stand for "unknown".
#[inline]
pub(super) fn known(word: u64) -> Option<u64> {
    (word != UNKNOWN).then_some(word)
}

#[expect(clippy::cast_possible_truncation, reason = "a constant below 4096")]
const fn words(bytes: u64) -> usize {
    bytes as usize / 8
}
