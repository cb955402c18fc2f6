//! What came and went last, and what else happened, as rows.

use crate::{
    event::BufferType,
    format::UNKNOWN,
    history::{Changed, History, Note},
    ledger::delta::{Cause, Change},
    tui::{
        field::Field,
        filter::Filter,
        state::{buffers::describe, circular::chips, timeline},
        table::{Column, Heading, Table, Tabular as _, Tone},
    },
    units::{DeviceAddr, Tid},
};

/// Lines above the headings.
pub const TITLE: u16 = 1;
/// Rows that are kept ready.
const MOST: usize = 1_000;
/// Changes that a filter looks at.
const SEARCHED: usize = 20_000;

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    time_ns: u64,
    what: String,
    tone: Tone,
    buffer_type: Option<BufferType>,
    size: Option<u64>,
    address: Option<DeviceAddr>,
    chips: String,
    tid: Option<Tid>,
    lived_ns: Option<u64>,
    sequence: Option<u64>,
}

/// The column of what happened; of a note it takes the rest of the line.
const WHAT: usize = 1;

const COLUMNS: &[Column<EventRow>] = &[
    Column {
        heading: Heading::number("ago", "time_ns", 6),
        field: |row| Field::Since(Some(row.time_ns)),
    },
    Column { heading: Heading::words("what", "what", 10), field: |row| Field::text(&*row.what) },
    Column {
        heading: Heading::words("type", "type", 8),
        field: |row| row.buffer_type.map_or(Field::Blank, |kind| Field::text(kind.name())),
    },
    Column { heading: Heading::number("size", "size", 9), field: |row| Field::Bytes(row.size) },
    Column {
        heading: Heading::number("address", "address", 11),
        field: |row| Field::Address(row.address),
    },
    Column { heading: Heading::words("chips", "chips", 8), field: |row| Field::text(&*row.chips) },
    Column {
        heading: Heading::number("thread", "tid", 8),
        field: |row| Field::Id(row.tid.map(|tid| tid.0.into())),
    },
    Column {
        heading: Heading::number("lived", "lived_ns", 6),
        field: |row| Field::Lasted(row.lived_ns),
    },
    Column {
        heading: Heading::number("number", "sequence", 9),
        field: |row| Field::Id(row.sequence),
    },
];

/// The state of the view.
#[derive(Debug)]
pub struct Events {
    /// The rows.
    pub table: Table<EventRow>,
    made: Option<(u64, u64, u64, String)>,
    /// How much there is, and how much of it is shown.
    pub title: String,
    /// Why there is nothing.
    pub missing: Option<String>,
}

impl Default for Events {
    fn default() -> Self {
        let table = Table::new(COLUMNS, 0, false).with_tone(|row: &EventRow| row.tone);
        let table = table.with_across(|row| row.sequence.is_none().then_some(WHAT));
        // Of rows a filter looks at, more is known than they show.
        let table = table.filtered_elsewhere();
        Self { table, made: None, title: String::new(), missing: None }
    }
}

impl Events {
    /// Whether [`Self::observe`] has something to do.
    pub fn is_old(&self, version: (u64, u64, u64)) -> bool {
        let (serial, generation, time_ns) = version;
        let filter = self.table.filter().text().to_owned();
        self.made != Some((serial, generation, time_ns, filter))
    }

    /// Takes in what is to be shown.
    pub fn observe(&mut self, version: (u64, u64, u64), history: &History, until_ns: u64) {
        let filter = self.table.filter();
        let mut rows: Vec<EventRow> = Vec::new();
        let mut text = String::new();
        let changes = history.changes().skip_while(|change| change.time_ns > until_ns);
        let (mut searched, mut oldest) = (0, None);
        for change in changes.take(SEARCHED) {
            if rows.len() >= MOST {
                break;
            }
            (searched, oldest) = (searched + 1, Some(change.time_ns));
            if passes(filter, &change, &mut text) {
                rows.push(change_row(&change));
            }
        }
        let changes = rows.len();
        // As far back as changes were looked at; without any, all there are.
        let oldest = oldest.filter(|_| searched < history.kept()).unwrap_or(0);
        let notes = history.notes().rev().filter(|note| note.time_ns <= until_ns);
        let notes = notes.take_while(|note| note.time_ns >= oldest).take(MOST).map(note_row);
        rows.extend(notes.filter(|row| filter.is_empty() || filter.passes(&row.what)));
        let notes = rows.len() - changes;
        self.title = format!(
            "{changes} of the last {searched} changes and {notes} notes; {} changes are kept",
            history.kept()
        );
        let (serial, generation, time_ns) = version;
        self.made = Some((serial, generation, time_ns, filter.text().to_owned()));
        let height = self.table.list().height;
        self.table.take(rows, height);
        self.missing = None;
    }

    /// Shows nothing, and why.
    pub fn forget(&mut self, why: String) {
        (self.missing, self.made) = (Some(why), None);
        self.table.take(Vec::new(), 0);
    }
}

fn passes(filter: &Filter, change: &Changed<'_>, text: &mut String) -> bool {
    if filter.is_empty() {
        return true;
    }
    describe(&change.row, false, None, text);
    text.push(' ');
    text.push_str(what(change));
    filter.passes(text)
}

const fn what(change: &Changed<'_>) -> &'static str {
    match (change.change, change.cause) {
        (Change::Allocated, Cause::Event) => "alloc",
        (Change::Allocated, Cause::Baseline) => "older",
        (Change::Allocated, Cause::Resync) => "found",
        (Change::Freed, Cause::Event | Cause::Baseline) => "free",
        (Change::Freed, Cause::Resync) => "was gone",
    }
}

fn change_row(change: &Changed<'_>) -> EventRow {
    let row = &change.row;
    let freed = change.change == Change::Freed;
    let lived = row.allocated_ns.filter(|_| freed);
    EventRow {
        time_ns: change.time_ns,
        what: what(change).to_owned(),
        tone: if change.cause == Cause::Resync { Tone::Warn } else { Tone::Usual },
        buffer_type: Some(row.buffer_type),
        size: Some(row.size),
        address: Some(row.address),
        chips: chips(row.chips),
        tid: change.tid,
        lived_ns: lived.map(|then| change.time_ns.saturating_sub(then)),
        sequence: Some(change.sequence),
    }
}

fn note_row(note: &Note) -> EventRow {
    EventRow {
        time_ns: note.time_ns,
        what: timeline::text(&note.what),
        tone: Tone::Warn,
        buffer_type: None,
        size: None,
        address: None,
        chips: UNKNOWN.to_owned(),
        tid: None,
        lived_ns: None,
        sequence: None,
    }
}
