//! What a view shows, as a file for others to read: JSON or CSV.
//!
//! JSON: one object with `schema` (`ttmem.export.KIND/1`), `time_ns` (CLOCK_MONOTONIC nanoseconds:
//! the instant that is shown), `pid`, `exact`, `inexact_because`, and `rows`, an array of objects.
//! CSV: a line of names, then a line for each of the same rows; what is not known is empty, and
//! chips are in one field with blanks between.

use std::io::{self, Write};

use serde::{Serialize, Serializer, ser::SerializeSeq as _};

use super::{
    group::{Group, Key},
    log::Changed,
    row::Row,
    tally::{Histogram, bin_start},
    timeline::Timeline,
};
use crate::{
    event::BufferType,
    ledger::{
        delta::{Cause, Change},
        snapshot::Snapshot,
    },
    units::{Avma, ChipId, DeviceAddr, MeshId, Pid, Tid},
};

/// How to write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object.
    Json,
    /// Comma-separated values, with a line of names.
    Csv,
}

/// What it is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The instant that is shown, CLOCK_MONOTONIC nanoseconds.
    pub time_ns: u64,
    /// The target.
    pub pid: Pid,
    /// Why it is not exact; empty: it is.
    pub inexact_because: Vec<String>,
}

impl Header {
    /// Of what a snapshot shows.
    pub fn of(snapshot: &Snapshot) -> Self {
        Self {
            time_ns: snapshot.time_ns,
            pid: snapshot.pid,
            inexact_because: snapshot.inexact_because.clone(),
        }
    }
}

/// Writes rows of one kind, which says what is in them: `buffers`, `pools`, `timeline`, `groups`,
/// `histogram`, `threads`, `events`, or a kind of the caller's.
pub fn write<T: Serialize>(
    to: &mut impl Write,
    format: Format,
    kind: &str,
    header: &Header,
    rows: impl IntoIterator<Item = T>,
) -> io::Result<()> {
    match format {
        Format::Json => {
            let whole = Whole {
                schema: format!("ttmem.export.{kind}/1"),
                time_ns: header.time_ns,
                pid: header.pid,
                exact: header.inexact_because.is_empty(),
                inexact_because: &header.inexact_because,
                rows: Rows(std::cell::RefCell::new(Some(rows))),
            };
            serde_json::to_writer(&mut *to, &whole)?;
            to.write_all(b"\n")
        }
        Format::Csv => {
            let mut csv = csv::Writer::from_writer(&mut *to);
            for row in rows {
                csv.serialize(row).map_err(io::Error::other)?;
            }
            csv.flush()
        }
    }
}

#[derive(Serialize)]
struct Whole<'a, R: IntoIterator<Item: Serialize>> {
    schema: String,
    time_ns: u64,
    pid: Pid,
    exact: bool,
    inexact_because: &'a [String],
    #[serde(bound = "")]
    rows: Rows<R>,
}

/// Written one by one: there may be very many.
struct Rows<R>(std::cell::RefCell<Option<R>>);

impl<R: IntoIterator<Item: Serialize>> Serialize for Rows<R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(None)?;
        for row in self.0.borrow_mut().take().into_iter().flatten() {
            sequence.serialize_element(&row)?;
        }
        sequence.end()
    }
}

/// A live buffer; kind `buffers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BufferLine {
    /// `Buffer*` in the target.
    pub buffer: Avma,
    /// `Buffer::unique_id()`.
    pub unique_id: Option<u64>,
    /// Buffer type.
    #[serde(rename = "type")]
    pub buffer_type: BufferType,
    /// Address in each bank.
    pub address: DeviceAddr,
    /// Logical size, bytes.
    pub size: u64,
    /// Page size, bytes.
    pub page_size: u64,
    /// What it takes of each bank, bytes.
    pub bank_bytes: Option<u64>,
    /// What it takes of all banks of one chip, bytes.
    pub used_bytes: Option<u64>,
    /// Cores with an address of their own.
    pub cores: Option<u32>,
    /// The chips, with blanks between.
    pub chips: String,
    /// The mesh.
    pub mesh: Option<MeshId>,
    /// The thread that allocated it.
    pub tid: Option<Tid>,
    /// When, CLOCK_MONOTONIC nanoseconds.
    pub allocated_ns: Option<u64>,
    /// Whether it is older than the attach.
    pub pre_attach: bool,
}

impl From<Row<'_>> for BufferLine {
    fn from(row: Row<'_>) -> Self {
        Self {
            buffer: row.buffer,
            unique_id: row.unique_id,
            buffer_type: row.buffer_type,
            address: row.address,
            size: row.size,
            page_size: row.page_size,
            bank_bytes: row.bank_bytes,
            used_bytes: row.used_bytes,
            cores: row.cores,
            chips: chips(row.chips),
            mesh: row.mesh,
            tid: row.tid,
            allocated_ns: row.allocated_ns,
            pre_attach: row.pre_attach,
        }
    }
}

/// A change; kind `events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EventLine {
    /// Counts the changes of the target from 1.
    pub sequence: u64,
    /// When, CLOCK_MONOTONIC nanoseconds.
    pub time_ns: u64,
    /// Whether the buffer came or went.
    pub change: Change,
    /// What made it known.
    pub cause: Cause,
    /// The thread.
    pub tid: Option<Tid>,
    /// `Buffer*` in the target.
    pub buffer: Avma,
    /// `Buffer::unique_id()`.
    pub unique_id: Option<u64>,
    /// Buffer type.
    #[serde(rename = "type")]
    pub buffer_type: BufferType,
    /// Address in each bank.
    pub address: DeviceAddr,
    /// Logical size, bytes.
    pub size: u64,
    /// What it takes of all banks of one chip, bytes.
    pub used_bytes: Option<u64>,
    /// The chips, with blanks between.
    pub chips: String,
    /// When it was allocated, ns.
    pub allocated_ns: Option<u64>,
}

impl From<Changed<'_>> for EventLine {
    fn from(changed: Changed<'_>) -> Self {
        let row = changed.row;
        Self {
            sequence: changed.sequence,
            time_ns: changed.time_ns,
            change: changed.change,
            cause: changed.cause,
            tid: changed.tid,
            buffer: row.buffer,
            unique_id: row.unique_id,
            buffer_type: row.buffer_type,
            address: row.address,
            size: row.size,
            used_bytes: row.used_bytes,
            chips: chips(row.chips),
            allocated_ns: row.allocated_ns,
        }
    }
}

/// A pool over a stretch of time; kind `timeline`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TimelineLine {
    /// The chips that have always changed alike, with blanks between.
    pub chips: String,
    /// Buffer type.
    #[serde(rename = "type")]
    pub buffer_type: BufferType,
    /// The first change, CLOCK_MONOTONIC nanoseconds.
    pub first_ns: u64,
    /// The last change, ns.
    pub last_ns: u64,
    /// Least use after a change, bytes.
    pub min_used: u64,
    /// Highest use after a change, bytes.
    pub max_used: u64,
    /// When that was first reached, ns.
    pub max_ns: u64,
    /// Use after the last change, bytes.
    pub last_used: u64,
    /// Live buffers after the last change.
    pub last_buffers: u64,
    /// Allocations.
    pub allocations: u64,
    /// Frees.
    pub frees: u64,
    /// Not all of it is known.
    pub inexact: bool,
}

/// All buckets of all pools; kind `timeline`.
pub fn timeline_lines(timeline: &Timeline) -> Vec<TimelineLine> {
    let of_line = |(buffer_type, of, line): (BufferType, Vec<ChipId>, &super::Line)| {
        let of = chips(&of);
        let line_of = |bucket: &super::Bucket| TimelineLine {
            chips: of.clone(),
            buffer_type,
            first_ns: bucket.first_ns,
            last_ns: bucket.last_ns,
            min_used: bucket.min_used,
            max_used: bucket.max_used,
            max_ns: bucket.max_ns,
            last_used: bucket.last_used,
            last_buffers: bucket.last_buffers,
            allocations: bucket.allocations,
            frees: bucket.frees,
            inexact: bucket.inexact,
        };
        line.buckets().map(line_of).collect::<Vec<_>>()
    };
    timeline.lines().into_iter().flat_map(of_line).collect()
}

/// One power of two; kind `histogram`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HistogramLine {
    /// Buffer type.
    #[serde(rename = "type")]
    pub buffer_type: BufferType,
    /// `live_size`, `allocated_size` (both in bytes) or `lifetime` (in ns).
    pub of: &'static str,
    /// The least number that counts here; it ends below twice that.
    pub from: u64,
    /// How many buffers.
    pub buffers: u64,
    /// Their logical bytes.
    pub bytes: u64,
}

/// The bins of a histogram in which there is something; kind `histogram`.
pub fn histogram_lines(buffer_type: BufferType, histogram: &Histogram) -> Vec<HistogramLine> {
    let kinds = [
        ("live_size", &histogram.live),
        ("allocated_size", &histogram.allocated),
        ("lifetime", &histogram.lifetimes),
    ];
    let of_kind = |(of, bins): (&'static str, &[super::Bin; super::BINS])| {
        let filled = bins.iter().enumerate().filter(|(_, bin)| bin.buffers > 0);
        let line = |(at, bin): (usize, &super::Bin)| HistogramLine {
            buffer_type,
            of,
            from: bin_start(at),
            buffers: bin.buffers,
            bytes: bin.bytes,
        };
        filled.map(line).collect::<Vec<_>>()
    };
    kinds.into_iter().flat_map(of_kind).collect()
}

/// A group of buffers; kind `groups`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupLine {
    /// What they have in common: `type`, `tid`, `size`, `age`.
    pub by: &'static str,
    /// The type's name, the thread, the least size in bytes, or how old; `None`: not known.
    pub key: Option<String>,
    /// How many.
    pub buffers: u64,
    /// Their logical bytes.
    pub bytes: u64,
    /// What they take of the banks of all their chips, bytes.
    pub used_bytes: Option<u64>,
}

impl From<&Group> for GroupLine {
    fn from(group: &Group) -> Self {
        let (by, key) = match group.key {
            Key::Type(buffer_type) => ("type", Some(buffer_type.name().to_owned())),
            Key::Thread(tid) => ("tid", tid.map(|tid| tid.to_string())),
            Key::Size(log) => ("size", Some(log.map_or(0, |log| 1_u64 << log).to_string())),
            Key::Age(age) => ("age", Some(age.name().to_owned())),
        };
        let Group { buffers, bytes, used_bytes, .. } = *group;
        Self { by, key, buffers, bytes, used_bytes }
    }
}

fn chips(chips: &[ChipId]) -> String {
    let chips: Vec<String> = chips.iter().map(ToString::to_string).collect();
    chips.join(" ")
}

#[cfg(test)]
mod tests;
