//! The shared table: one file per watched process, from which anybody who may read the file gets
//! the totals of its chips without a system call.
//!
//! A file is a row of 64-bit words, little-endian, each written by one atomic store of the agent's
//! one writer: a header, then a block per chip, then in each block five pools by buffer type. What
//! belongs together is guarded by a sequence word: odd while it is being written.
//! `docs/shared-table.md` is made from the descriptions below.
//!
//! MAGIC, AGENT_PID and AGENT_START_TICKS stay where they are in every version: by them an agent of
//! any other version tells whether a file is in use.
//!
//! Offsets are bytes from the start of the file, of the chip's block, of the pool's block. A
//! reader takes the strides and starts from the header: later versions may add fields at the end
//! of each part without a new [`VERSION`].

/// A field of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Name, as in C in capitals.
    pub name: &'static str,
    /// Where it is in its part, bytes.
    pub offset: usize,
    /// Its size, bytes: 8, or that of a text.
    pub bytes: usize,
    /// What it counts.
    pub unit: &'static str,
    /// What it means.
    pub meaning: &'static str,
}

/// `"TTMEMTAB"`.
pub const MAGIC: u64 = u64::from_le_bytes(*b"TTMEMTAB");
/// Version of the layout. A change of meaning or place gets a new one.
pub const VERSION: u64 = 1;
/// What stands for a number that is not known.
pub const UNKNOWN: u64 = u64::MAX;
/// Chips that a file has room for; more are counted in [`header::CHIPS_LEFT_OUT`].
pub const CHIP_SLOTS: usize = 128;
/// Where the chips' blocks begin.
pub const CHIPS_OFFSET: usize = 4096;
/// Bytes of a chip's block.
pub const CHIP_BYTES: usize = 768;
/// Where a chip's pools begin in its block.
pub const POOLS_OFFSET: usize = 128;
/// Bytes of a pool's block.
pub const POOL_BYTES: usize = 128;
/// Pools of a chip: DRAM, L1, SYSTEM_MEMORY, L1_SMALL, TRACE.
pub const POOLS: usize = crate::layout::BUFFER_TYPES;
/// Bytes of the file.
pub const FILE_BYTES: usize = CHIPS_OFFSET + CHIP_SLOTS * CHIP_BYTES;

/// Values of [`header::STATE`].
pub mod state {
    /// The buffers from before the attach are still being read: the totals are not complete.
    pub const STARTING: u64 = 0;
    /// It runs and is watched.
    pub const RUNNING: u64 = 1;
    /// It has ended; the numbers are its last.
    pub const EXITED: u64 = 2;
    /// It runs another program; the numbers are the last of the one that was watched.
    pub const REPLACED: u64 = 3;
    /// It may run on, but is not watched any more: ttmem has ended.
    pub const UNWATCHED: u64 = 4;
}

/// Values of [`chip::HEADROOM_STATE`].
pub mod headroom {
    /// Not known, and the bytes mean nothing.
    pub const UNKNOWN: u64 = 0;
    /// Enough.
    pub const OK: u64 = 1;
    /// Less than a tenth of a core's L1.
    pub const LOW: u64 = 2;
    /// Circular buffers and tensors overlap.
    pub const CLASH: u64 = 3;
}

macro_rules! part {
    ($(#[$doc:meta])* $part:ident {
        $($name:ident @ $offset:literal, $bytes:literal, $unit:literal, $meaning:literal;)*
    }) => {
        $(#[$doc])*
        pub mod $part {
            use super::Field;
            $(#[doc = concat!($meaning, " (", $unit, ")")]
            pub const $name: usize = $offset;)*
            /// Where the last one ends.
            pub const LAST_BYTE: u64 = {
                let last = &FIELDS[FIELDS.len() - 1];
                (last.offset + last.bytes) as u64
            };
            /// All of them, in the order of their offsets.
            pub const FIELDS: &[Field] = &[$(Field {
                name: stringify!($name),
                offset: $offset,
                bytes: $bytes,
                unit: $unit,
                meaning: $meaning,
            }),*];
        }
    };
}

part! {
    /// Offsets in the header.
    header {
        MAGIC @ 0, 8, "", "`TTMEMTAB`";
        VERSION @ 8, 8, "", "1; another version has another layout";
        FILE_BYTES @ 16, 8, "bytes", "size of the file";
        CHIPS_OFFSET @ 24, 8, "bytes", "where the blocks of the chips begin";
        CHIP_BYTES @ 32, 8, "bytes", "from one chip's block to the next";
        CHIP_SLOTS @ 40, 8, "count", "chips that the file has room for";
        POOLS_OFFSET @ 48, 8, "bytes", "where the pools begin in a chip's block";
        POOL_BYTES @ 56, 8, "bytes", "from one pool to the next";
        PID @ 64, 8, "", "the process, as ttmem sees it";
        START_TICKS @ 72, 8, "clock ticks", "when it was started, as field 22 of `/proc/PID/stat`: tells it from another with the same id";
        NAMESPACE_PID @ 80, 8, "", "its process id in its own pid namespace; unknown if that is the same one";
        AGENT_PID @ 88, 8, "", "the ttmem that writes";
        AGENT_START_TICKS @ 96, 8, "clock ticks", "when that was started, likewise";
        ATTACHED_NS @ 104, 8, "ns", "when the file was made";
        STALE_AFTER_NS @ 112, 8, "ns", "a heartbeat older than this means that ttmem was killed or is stopped";
        SEQUENCE @ 128, 8, "", "guards TIME_NS to RESYNCS and INEXACT_BECAUSE: odd while they are written";
        HEARTBEAT_NS @ 136, 8, "ns", "when ttmem last wrote; by itself, not guarded";
        TIME_NS @ 144, 8, "ns", "every event up to this time is in the numbers, or counted as lost";
        STATE @ 152, 8, "", "0 starting, 1 running, 2 exited, 3 replaced, 4 not watched any more";
        EXACT @ 160, 8, "", "1: every total is known to equal the allocator's own; 0: not";
        LOST_RING_FULL @ 168, 8, "count", "records refused because the ring buffer was full";
        LOST_READ_FAULT @ 176, 8, "count", "records not made because the process's memory could not be read";
        ANOMALIES @ 184, 8, "count", "events that disagreed with what was known";
        CHIPS @ 192, 8, "count", "blocks in use; grows, never shrinks";
        CHIPS_LEFT_OUT @ 200, 8, "count", "chips that the file has no room for";
        FAILURES @ 208, 8, "count", "allocations that failed for want of memory; unknown if they cannot be seen";
        RESYNCS @ 216, 8, "count", "readings of the process's memory after the first";
        COMMAND @ 256, 512, "text", "command line of the process";
        LIBRARY @ 768, 512, "text", "its tt-metal library";
        BUILD_ID @ 1280, 64, "text", "build id of the library, hexadecimal";
        INEXACT_BECAUSE @ 1344, 512, "text", "why the numbers are not exact: the reasons, `; ` in between; empty if they are";
    }
}

part! {
    /// Offsets in a chip's block.
    chip {
        SEQUENCE @ 0, 8, "", "guards the rest of the block: odd while it is written";
        CHIP @ 8, 8, "", "tt-metal's id of the chip, signed";
        CIRCULAR_CORE_BYTES @ 16, 8, "bytes", "of all programs, the most that circular buffers take of one core";
        CIRCULAR_PEAK_CORE_BYTES @ 24, 8, "bytes", "highest CIRCULAR_CORE_BYTES";
        CORE_CAPACITY_BYTES @ 32, 8, "bytes", "what a core's L1 has for buffers";
        HEADROOM_STATE @ 40, 8, "", "0 unknown, 1 ok, 2 low, 3 clash";
        HEADROOM_BYTES @ 48, 8, "bytes", "from the highest circular buffer to the lowest tensor in L1, signed; means nothing if HEADROOM_STATE is 0";
        CIRCULAR_PROGRAMS @ 56, 8, "count", "programs seen that keep circular buffers on this chip";
        CIRCULAR_BUFFERS @ 64, 8, "count", "their circular and dataflow buffers with memory of their own";
    }
}

part! {
    /// Offsets in a pool's block.
    pool {
        BUFFERS @ 0, 8, "count", "live buffers";
        LOGICAL_BYTES @ 8, 8, "bytes", "sum of their `Buffer::size()`";
        USED_BYTES @ 16, 8, "bytes", "what they take of the pool: of each bank × banks; unknown if one could not be measured";
        PEAK_USED_BYTES @ 24, 8, "bytes", "highest USED_BYTES since the attach; unknown once it may have been missed";
        CAPACITY_BYTES @ 32, 8, "bytes", "size of the pool: bytes of a bank × banks";
        ALLOCATIONS @ 40, 8, "count", "allocations seen";
        FREES @ 48, 8, "count", "frees seen of buffers whose allocation was seen";
        PRE_ATTACH_FREES @ 56, 8, "count", "frees seen of buffers from before the attach";
        BANK_BYTES @ 64, 8, "bytes", "what the live buffers take of each bank";
        BANKS @ 72, 8, "count", "banks of the pool";
        PRESENT @ 80, 8, "", "1: the chip has this pool; 0: the rest is 0";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(fields: &[Field], end: usize) {
        let mut free = 0;
        for field in fields {
            assert!(field.offset >= free, "{} overlaps", field.name);
            assert_eq!(field.offset % 8, 0, "{} is not aligned", field.name);
            assert_eq!(field.bytes % 8, 0, "{} is not whole words", field.name);
            free = field.offset + field.bytes;
        }
        assert!(free <= end, "the fields end at {free}, the part at {end}");
    }

    #[test]
    fn what_says_that_a_file_is_in_use_never_moves() {
        assert_eq!(MAGIC.to_le_bytes(), *b"TTMEMTAB");
        assert_eq!((header::MAGIC, header::AGENT_PID, header::AGENT_START_TICKS), (0, 88, 96));
    }

    #[test]
    fn fields_do_not_overlap_and_fit() {
        check(header::FIELDS, CHIPS_OFFSET);
        check(chip::FIELDS, POOLS_OFFSET);
        check(pool::FIELDS, POOL_BYTES);
    }

    #[test]
    fn blocks_begin_on_cache_lines() {
        for bytes in [CHIPS_OFFSET, CHIP_BYTES, POOLS_OFFSET, POOL_BYTES] {
            assert_eq!(bytes % 64, 0);
        }
        const { assert!(POOLS_OFFSET + POOLS * POOL_BYTES <= CHIP_BYTES) };
    }
}
