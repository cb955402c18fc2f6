//! Failed allocations, and of one of them what was live.

use std::sync::{Arc, LazyLock};

use crate::{
    format::UNKNOWN,
    ledger::{
        call::{Call, Calls},
        snapshot::{BufferSnapshot, Failure, Snapshot},
    },
    tui::{
        Action,
        export::Export,
        field::Field,
        state::circular::chips,
        table::{Column, Heading, Table, Tabular},
    },
};

/// The columns of the failures if call stacks are recorded.
const COLUMNS: &[Column<Arc<Failure>>] = &[
    Column { heading: Heading::number("id", "id", 5), field: |row| Field::Id(Some(row.id)) },
    Column {
        heading: Heading::number("ago", "time_ns", 6),
        field: |row| Field::Since(Some(row.time_ns)),
    },
    Column {
        heading: Heading::words("site", "site", 22),
        field: |row| Field::text(site(row.call.as_ref())),
    },
    Column {
        heading: Heading::words("type", "type", 13),
        field: |row| Field::text(row.buffer_type.map_or(UNKNOWN, |kind| kind.name())),
    },
    Column { heading: Heading::number("wanted", "size", 9), field: |row| Field::Bytes(row.size) },
    Column {
        heading: Heading::number("per bank", "bank_bytes", 9),
        field: |row| Field::Bytes(row.bank_bytes),
    },
    Column {
        heading: Heading::number("free", "bank_free_bytes", 9),
        field: |row| Field::Bytes(row.bank_free_bytes),
    },
    Column {
        heading: Heading::number("largest", "bank_largest_free_bytes", 9),
        field: |row| Field::Bytes(row.bank_largest_free_bytes),
    },
    Column {
        heading: Heading::words("chips", "chips", 9),
        field: |row| Field::text(row.chips.as_deref().map_or_else(|| UNKNOWN.to_owned(), chips)),
    },
    Column {
        heading: Heading::number("thread", "tid", 8),
        field: |row| Field::Id(Some(row.tid.0.into())),
    },
    Column {
        heading: Heading::number("live then", "live", 9),
        field: |row| Field::Count(row.buffers().map(|live| live.len() as u64)),
    },
];

/// The columns of buffers if call stacks are recorded.
const BUFFERS: &[Column<BufferSnapshot>] = &[
    Column {
        heading: Heading::words("site", "site", 22),
        field: |row| Field::text(site(row.call.as_ref())),
    },
    Column {
        heading: Heading::number("size", "size", 9),
        field: |row| Field::Bytes(Some(row.size)),
    },
    Column {
        heading: Heading::number("per bank", "bank_bytes", 9),
        field: |row| Field::Bytes(row.bank_bytes),
    },
    Column {
        heading: Heading::words("type", "type", 13),
        field: |row| Field::text(row.buffer_type.name()),
    },
    Column {
        heading: Heading::number("address", "address", 12),
        field: |row| Field::Address(Some(row.address)),
    },
    Column {
        heading: Heading::words("chips", "chips", 9),
        field: |row| Field::text(chips(&row.chips)),
    },
    Column {
        heading: Heading::number("age", "allocated_ns", 6),
        field: |row| Field::Since(row.allocated_ns),
    },
    Column {
        heading: Heading::number("thread", "tid", 8),
        field: |row| Field::Id(row.tid.map(|tid| tid.0.into())),
    },
    Column {
        heading: Heading::words("before", "pre_attach", 6),
        field: |row| Field::Flag(Some(row.pre_attach), "yes"),
    },
    Column {
        heading: Heading::number("id", "unique_id", 8),
        field: |row| Field::Id(row.unique_id),
    },
];

fn site(call: Option<&Call>) -> &str {
    call.and_then(Call::site).map_or(UNKNOWN, |site| site)
}

/// The state of the view.
#[derive(Debug)]
pub struct Failures {
    /// The failures.
    pub table: Table<Arc<Failure>>,
    /// What was live at the one that is open.
    pub live: Table<BufferSnapshot>,
    /// The one that is open.
    pub open: Option<Arc<Failure>>,
}

/// The same without sites.
fn without_site<T>(columns: &[Column<T>]) -> Vec<Column<T>> {
    columns.iter().filter(|column| column.heading.key != "site").copied().collect()
}

impl Default for Failures {
    fn default() -> Self {
        static FAILURES: LazyLock<Vec<Column<Arc<Failure>>>> =
            LazyLock::new(|| without_site(COLUMNS));
        static LIVE: LazyLock<Vec<Column<BufferSnapshot>>> =
            LazyLock::new(|| without_site(BUFFERS));
        let (table, live) = (Table::new(&FAILURES, 0, true), Table::new(&LIVE, 0, true));
        Self { table, live, open: None }
    }
}

/// Lines above the rows of an open failure.
pub const TITLE: u16 = 2;

impl Failures {
    /// The same with what called for them.
    pub fn with_sites() -> Self {
        let (table, live) = (Table::new(COLUMNS, 0, true), Table::new(BUFFERS, 1, true));
        Self { table, live, open: None }
    }

    /// The failure that is open, or else the one at the cursor.
    pub fn chosen(&self) -> Option<&Failure> {
        self.open.as_ref().or_else(|| self.table.selected()).map(|failure| &**failure)
    }

    /// Takes in what is to be shown in a view of `height` lines.
    pub fn observe(&mut self, height: u16, snapshot: &Snapshot, calls: Option<&dyn Calls>) {
        let mut failures = snapshot.failures.last.clone();
        if let Some(calls) = calls {
            calls.look(snapshot.process.serial, &mut |known| {
                let failures = failures.iter_mut().map(Arc::make_mut);
                failures.for_each(|failure| failure.look_up(known));
            });
        }
        self.table.take(failures, height.saturating_sub(1).into());
        if self.open.is_none() {
            return;
        }
        self.live.resize(height.saturating_sub(TITLE + 1).into());
    }

    /// The table that is shown.
    pub fn shown(&self) -> &dyn Tabular {
        if self.open.is_some() { &self.live } else { &self.table }
    }

    /// The rows of the table that is shown.
    pub fn export(&self) -> Export {
        let Some(failure) = &self.open else { return self.table.export("failures") };
        Export { of: vec![("failure", failure.id.into())], ..self.live.export("failure") }
    }

    /// The table that the cursor is in.
    pub fn tabular(&mut self) -> &mut dyn Tabular {
        if self.open.is_some() { &mut self.live } else { &mut self.table }
    }

    /// Takes in a request; `false`: it is none for this view. `look_up` finds what called for buffers.
    pub fn update(&mut self, action: Action, look_up: impl FnOnce(&mut [BufferSnapshot])) -> bool {
        match action {
            Action::Enter if self.open.is_none() => {
                self.open = self.table.selected().cloned();
                let live = self.open.as_ref().and_then(|failure| failure.buffers());
                let mut live = live.map(|live| live.to_vec()).unwrap_or_default();
                look_up(&mut live);
                self.live.take(live, 0);
            }
            Action::Close if self.open.is_some() => self.open = None,
            _ => return false,
        }
        true
    }
}
