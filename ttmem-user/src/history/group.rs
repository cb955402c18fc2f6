//! Buffers that are alike, added up.

use serde::Serialize;

use super::row::Row;
use crate::{event::BufferType, units::Tid};

/// What makes buffers alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum By {
    /// Their buffer type.
    Type,
    /// The thread that allocated them.
    Thread,
    /// The power of two that their logical size reaches.
    Size,
    /// The power of ten seconds that their age reaches.
    Age,
    /// What called for them, which the rows do not say: whoever groups by it has to.
    Site,
}

impl By {
    /// Every way that takes nothing but the rows.
    pub const ALL: [Self; 4] = [Self::Size, Self::Type, Self::Thread, Self::Age];
}

/// What all of a group have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Key {
    /// The buffer type.
    Type(BufferType),
    /// The thread; `None`: not seen.
    Thread(Option<Tid>),
    /// At least 2^n bytes, and less than twice that; `None`: 0 bytes.
    Size(Option<u32>),
    /// How old.
    Age(Age),
    /// The number of the site; `None`: not known.
    Site(Option<u32>),
}

/// How old a buffer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Age {
    /// Less than a second.
    Instant,
    /// 1 s to 10 s.
    Seconds,
    /// 10 s to 100 s.
    Minute,
    /// 100 s to 1,000 s.
    Minutes,
    /// 1,000 s and more.
    Long,
    /// Older than the attach.
    PreAttach,
    /// Its allocation was missed.
    Unknown,
}

/// The sums of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Group {
    /// What they have in common.
    pub key: Key,
    /// How many.
    pub buffers: u64,
    /// Their logical bytes, each once.
    pub bytes: u64,
    /// What they take of the banks of all their chips, bytes; `None` if that is not known of one.
    pub used_bytes: Option<u64>,
}

impl Key {
    /// Where a buffer belongs.
    pub fn of(row: &Row<'_>, by: By, now_ns: u64) -> Self {
        match by {
            By::Type => Self::Type(row.buffer_type),
            By::Thread => Self::Thread(row.tid),
            By::Size => Self::Size(row.size.checked_ilog2()),
            By::Age => Self::Age(Age::of(row, now_ns)),
            By::Site => Self::Site(None),
        }
    }
}

impl Age {
    /// As people say it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Instant => "under 1 s",
            Self::Seconds => "1 s to 10 s",
            Self::Minute => "10 s to 100 s",
            Self::Minutes => "100 s to 1,000 s",
            Self::Long => "1,000 s and more",
            Self::PreAttach => "before the attach",
            Self::Unknown => "unknown",
        }
    }

    fn of(row: &Row<'_>, now_ns: u64) -> Self {
        let Some(allocated_ns) = row.allocated_ns else {
            return if row.pre_attach { Self::PreAttach } else { Self::Unknown };
        };
        match now_ns.saturating_sub(allocated_ns) / 1_000_000_000 {
            0 => Self::Instant,
            1..10 => Self::Seconds,
            10..100 => Self::Minute,
            100..1000 => Self::Minutes,
            _ => Self::Long,
        }
    }
}

impl Group {
    /// An empty group.
    pub const fn new(key: Key) -> Self {
        Self { key, buffers: 0, bytes: 0, used_bytes: Some(0) }
    }

    /// Adds a buffer.
    pub fn add(&mut self, row: &Row<'_>) {
        self.buffers += 1;
        self.bytes = self.bytes.saturating_add(row.size);
        let chips = row.chips.len() as u64;
        let of_all = row.used_bytes.map(|used| used.saturating_mul(chips));
        self.used_bytes = self.used_bytes.zip(of_all).map(|(sum, more)| sum.saturating_add(more));
    }
}
