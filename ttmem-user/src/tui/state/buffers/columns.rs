//! The columns of the live buffers, and of groups of them.

use std::sync::Arc;

use super::sites::Sites;
use crate::{
    format::{self, UNKNOWN},
    history::{
        GroupGrowth, OwnedRow, Row, SortKey,
        group::{Group, Key},
    },
    ledger::call::Site,
    tui::{
        field::Field,
        state::circular::chips,
        table::{Column, Heading},
    },
};

/// A buffer on the screen.
#[derive(Clone, Debug)]
pub struct Shown {
    row: OwnedRow,
    /// The mark, ns.
    mark_ns: Option<u64>,
    /// What called for it.
    site: Option<Arc<str>>,
}

impl Shown {
    /// A row, which may have come after a mark, and may have been called for by a known site.
    pub fn new(row: &Row<'_>, mark_ns: Option<u64>, site: Option<&Site>) -> Self {
        let site = site.map(|site| Arc::clone(&site.name));
        Self { row: row.to_owned_row(), mark_ns, site }
    }

    /// The row.
    pub const fn row(&self) -> &OwnedRow {
        &self.row
    }

    fn site(&self) -> Field<'_> {
        Field::text(self.site.as_deref().unwrap_or(UNKNOWN))
    }

    fn since_mark(&self) -> Field<'_> {
        let OwnedRow { pre_attach, allocated_ns, .. } = self.row;
        let Some(mark_ns) = self.mark_ns else { return Field::Blank };
        Field::Flag(since(pre_attach, allocated_ns, mark_ns), "new")
    }
}

/// Whether a buffer came after an instant; `None`: nobody saw when.
pub fn since(pre_attach: bool, allocated_ns: Option<u64>, instant_ns: u64) -> Option<bool> {
    if pre_attach { Some(false) } else { allocated_ns.map(|then| then > instant_ns) }
}

/// The columns, and what each orders by: the first one is there if sites are recorded.
pub const COLUMNS: &[(Column<Shown>, SortKey)] = &[
    (Column { heading: Heading::words("site", "site", 32), field: Shown::site }, SortKey::Site),
    (
        Column {
            heading: Heading::number("size", "size", 9),
            field: |shown| Field::Bytes(Some(shown.row.size)),
        },
        SortKey::Size,
    ),
    (
        Column {
            heading: Heading::number("used", "used_bytes", 9),
            field: |shown| Field::Bytes(shown.row.used_bytes),
        },
        SortKey::Used,
    ),
    (
        Column {
            heading: Heading::words("type", "type", 8),
            field: |shown| Field::text(shown.row.buffer_type.name()),
        },
        SortKey::Type,
    ),
    (
        Column {
            heading: Heading::words("chips", "chips", 8),
            field: |shown| Field::text(chips(&shown.row.chips)),
        },
        SortKey::Chips,
    ),
    (
        Column {
            heading: Heading::number("address", "address", 11),
            field: |shown| Field::Address(Some(shown.row.address)),
        },
        SortKey::Address,
    ),
    (
        Column {
            heading: Heading::number("age", "allocated_ns", 6),
            field: |shown| Field::Since(shown.row.allocated_ns),
        },
        SortKey::Age,
    ),
    (
        Column {
            heading: Heading::number("thread", "tid", 8),
            field: |shown| Field::Id(shown.row.tid.map(|tid| tid.0.into())),
        },
        SortKey::Thread,
    ),
    (
        Column {
            heading: Heading::words("before", "pre_attach", 6),
            field: |shown| Field::Flag(Some(shown.row.pre_attach), "yes"),
        },
        SortKey::PreAttach,
    ),
    (
        Column { heading: Heading::words("mark", "since_mark", 4), field: Shown::since_mark },
        SortKey::Age,
    ),
    (
        Column {
            heading: Heading::number("id", "unique_id", 8),
            field: |shown| Field::Id(shown.row.unique_id),
        },
        SortKey::Id,
    ),
    (
        Column {
            heading: Heading::number("per bank", "bank_bytes", 9),
            field: |shown| Field::Bytes(shown.row.bank_bytes),
        },
        SortKey::PerBank,
    ),
    (
        Column {
            heading: Heading::number("page", "page_size", 9),
            field: |shown| Field::Bytes(Some(shown.row.page_size)),
        },
        SortKey::Page,
    ),
    (
        Column {
            heading: Heading::number("cores", "cores", 6),
            field: |shown| Field::Count(shown.row.cores.map(u64::from)),
        },
        SortKey::Cores,
    ),
];

/// A group of buffers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRow {
    /// What they have in common.
    pub key: Key,
    name: String,
    buffers: u64,
    bytes: u64,
    used_bytes: Option<u64>,
    growth: Option<i64>,
}

impl GroupRow {
    /// A group, and how much all groups have grown, if anything is marked.
    pub fn new(group: &Group, growth: Option<&[GroupGrowth]>, sites: Sites<'_>) -> Self {
        let name = match group.key {
            Key::Type(buffer_type) => buffer_type.name().to_owned(),
            Key::Thread(tid) => {
                tid.map_or_else(|| "thread not seen".to_owned(), |tid| format!("thread {tid}"))
            }
            Key::Size(None) => "0 B".to_owned(),
            Key::Size(Some(log)) => format!("from {}", format::bytes(1_u64 << log.min(63))),
            Key::Age(age) => age.name().to_owned(),
            Key::Site(number) => number
                .and_then(|number| sites.name(number))
                .map_or_else(|| "site not known".to_owned(), ToString::to_string),
        };
        let grown = |all: &[GroupGrowth]| {
            all.iter().find(|grown| grown.key == group.key).map(|grown| grown.bytes)
        };
        Self {
            key: group.key,
            name,
            buffers: group.buffers,
            bytes: group.bytes,
            used_bytes: group.used_bytes,
            growth: growth.and_then(grown),
        }
    }
}

pub const GROUPS: &[Column<GroupRow>] = &[
    Column { heading: Heading::words("group", "group", 22), field: |row| Field::text(&*row.name) },
    Column {
        heading: Heading::number("buffers", "buffers", 8),
        field: |row| Field::Count(Some(row.buffers)),
    },
    Column {
        heading: Heading::number("bytes", "bytes", 9),
        field: |row| Field::Bytes(Some(row.bytes)),
    },
    Column {
        heading: Heading::number("used", "used_bytes", 9),
        field: |row| Field::Bytes(row.used_bytes),
    },
    Column {
        heading: Heading::number("since mark", "growth_bytes", 11),
        field: |row| Field::Growth(row.growth),
    },
];
