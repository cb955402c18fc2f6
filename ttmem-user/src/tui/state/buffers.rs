//! The live set: which of its rows are on the screen, in which order; or groups of them.
//!
//! Rows are copied from the history only where they are shown, and only when something has changed
//! that they depend on.

use std::cell::RefCell;

use crate::{
    format::{self, UNKNOWN},
    history::{
        LiveSet, Order, OwnedRow, Row, SortKey,
        group::{By, Group, Key},
    },
    tui::{
        Action,
        export::Export,
        field::Field,
        filter::Filter,
        list::List,
        state::circular::chips,
        table::{Column, Heading, Sorting, Table, Tabular, Tone},
    },
};

/// Lines above the headings.
pub const TITLE: u16 = 1;

/// The columns, and what each orders by.
const COLUMNS: &[(Column<OwnedRow>, SortKey)] = &[
    (
        Column {
            heading: Heading::number("size", "size", 9),
            field: |row| Field::Bytes(Some(row.size)),
        },
        SortKey::Size,
    ),
    (
        Column {
            heading: Heading::number("used", "used_bytes", 9),
            field: |row| Field::Bytes(row.used_bytes),
        },
        SortKey::Used,
    ),
    (
        Column {
            heading: Heading::words("type", "type", 8),
            field: |row| Field::text(row.buffer_type.name()),
        },
        SortKey::Type,
    ),
    (
        Column {
            heading: Heading::words("chips", "chips", 8),
            field: |row| Field::text(chips(&row.chips)),
        },
        SortKey::Chips,
    ),
    (
        Column {
            heading: Heading::number("address", "address", 11),
            field: |row| Field::Address(Some(row.address)),
        },
        SortKey::Address,
    ),
    (
        Column {
            heading: Heading::number("age", "allocated_ns", 6),
            field: |row| Field::Since(row.allocated_ns),
        },
        SortKey::Age,
    ),
    (
        Column {
            heading: Heading::number("thread", "tid", 8),
            field: |row| Field::Id(row.tid.map(|tid| tid.0.into())),
        },
        SortKey::Thread,
    ),
    (
        Column {
            heading: Heading::words("before", "pre_attach", 6),
            field: |row| Field::text(if row.pre_attach { "yes" } else { "" }),
        },
        SortKey::Age,
    ),
    (
        Column {
            heading: Heading::number("id", "unique_id", 8),
            field: |row| Field::Id(row.unique_id),
        },
        SortKey::Id,
    ),
    (
        Column {
            heading: Heading::number("per bank", "bank_bytes", 9),
            field: |row| Field::Bytes(row.bank_bytes),
        },
        SortKey::Used,
    ),
    (
        Column {
            heading: Heading::number("page", "page_size", 9),
            field: |row| Field::Bytes(Some(row.page_size)),
        },
        SortKey::Size,
    ),
    (
        Column {
            heading: Heading::number("cores", "cores", 6),
            field: |row| Field::Count(row.cores.map(u64::from)),
        },
        SortKey::Id,
    ),
    (
        // Nothing that is probed says which code allocates.
        Column { heading: Heading::words("site", "site", 6), field: |_| Field::text(UNKNOWN) },
        SortKey::Id,
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

const GROUPS: &[Column<GroupRow>] = &[
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

/// What the rows on the screen were made from.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Made {
    version: Version,
    filter: String,
    sorting: Sorting,
    first: usize,
    height: usize,
    by: Option<By>,
    only: Option<(By, Key)>,
}

/// Tells one state of a live set from another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// The target.
    pub serial: u64,
    /// The history's generation; of a past one its instant.
    pub number: u64,
    /// Whether it is past.
    pub past: bool,
    /// When it is looked at, ns: ages pass.
    pub time_ns: u64,
}

/// The state of the view.
#[derive(Debug)]
pub struct Buffers {
    list: List,
    sorting: Sorting,
    filter: Filter,
    /// The rows on the screen.
    rows: Vec<OwnedRow>,
    first: usize,
    /// Bytes of all rows that pass, each once.
    pub bytes: u64,
    /// How they are added up.
    pub by: Option<By>,
    /// The only group that is shown.
    pub only: Option<(By, Key)>,
    groups: Table<GroupRow>,
    made: Option<Made>,
    /// Why there are no rows.
    pub missing: Option<String>,
}

impl Default for Buffers {
    fn default() -> Self {
        Self {
            list: List::default(),
            sorting: Sorting { column: 0, descending: true },
            filter: Filter::default(),
            rows: Vec::new(),
            first: 0,
            bytes: 0,
            by: None,
            only: None,
            groups: Table::new(GROUPS, 2, true),
            made: None,
            missing: None,
        }
    }
}

/// What a live set is looked at with.
pub struct Look<'a> {
    /// The rows.
    pub live: &'a LiveSet,
    /// Growth of each group since the mark, if there is one.
    pub growth: &'a dyn Fn(By) -> Option<Vec<(Key, i64)>>,
}

impl Buffers {
    /// Makes ready what a view of `height` lines shows. `look` is called only if that must be made
    /// anew, with what is to be done with a live set.
    pub fn observe(
        &mut self,
        height: u16,
        version: Version,
        look: impl FnOnce(&mut dyn FnMut(&Look<'_>)) -> Result<(), String>,
    ) {
        let height = usize::from(height.saturating_sub(TITLE + 1));
        self.list.fit(self.list.rows, height);
        let made = Made {
            version,
            filter: self.filter.text().to_owned(),
            sorting: self.sorting,
            first: self.list.offset,
            height,
            by: self.by,
            only: self.only,
        };
        if self.made.as_ref() != Some(&made) {
            let found = look(&mut |look| self.make(look, version.time_ns));
            self.missing = found.err();
            if self.missing.is_some() {
                self.rows.clear();
                self.list.fit(0, height);
            }
            // The list may have become shorter than the window's place.
            let settled = self.list.offset == made.first;
            self.made = settled.then_some(made);
        }
        self.groups.resize(height);
    }

    fn make(&mut self, look: &Look<'_>, now_ns: u64) {
        if let Some(by) = self.by.filter(|_| self.only.is_none()) {
            self.make_groups(look, by, now_ns);
            return;
        }
        let text = RefCell::new(String::new());
        let (filter, only) = (&self.filter, self.only);
        let wanted = |row: &Row<'_>| {
            only.is_none_or(|(by, key)| Key::of(row, by, now_ns) == key)
                && (filter.is_empty() || {
                    let mut text = text.borrow_mut();
                    describe(row, &mut text);
                    filter.passes(&text)
                })
        };
        let (heading, key) = COLUMNS
            .get(self.sorting.column)
            .map_or(("", SortKey::Size), |it| (it.0.heading.name, it.1));
        // A great age is an early time.
        let turned = heading == "age";
        let order = Order { key, descending: self.sorting.descending != turned };
        let page = look.live.page(wanted, order, self.list.window_of_any());
        self.bytes = page.matched_bytes;
        self.rows = page.rows.iter().map(Row::to_owned_row).collect();
        self.first = self.list.offset;
        self.list.fit(page.matched, self.list.height);
    }

    fn make_groups(&mut self, look: &Look<'_>, by: By, now_ns: u64) {
        let groups = look.live.groups(by, now_ns, |_| true);
        let growth = (look.growth)(by);
        self.bytes = groups.iter().fold(0, |sum, group| sum.saturating_add(group.bytes));
        let rows = groups.iter().map(|group| group_row(group, growth.as_deref())).collect();
        self.groups.take(rows, self.list.height);
    }

    /// Whether groups are shown.
    pub fn shows_groups(&self) -> bool {
        self.by.is_some() && self.only.is_none()
    }

    /// The table on the screen.
    pub fn tabular(&mut self) -> &mut dyn Tabular {
        if self.shows_groups() { &mut self.groups } else { self }
    }

    /// The table on the screen.
    pub fn shown(&self) -> &dyn Tabular {
        if self.shows_groups() { &self.groups } else { self }
    }

    /// Takes in a request; `false`: it is none for this view alone.
    pub fn update_view(&mut self, action: Action) -> bool {
        match action {
            Action::Group => {
                self.only = None;
                self.by = match self.by {
                    None => Some(By::ALL[0]),
                    Some(by) => {
                        let place = By::ALL.iter().position(|other| *other == by).unwrap_or(0);
                        By::ALL.get(place + 1).copied()
                    }
                };
            }
            Action::Enter if self.shows_groups() => {
                self.only = self.by.zip(self.groups.selected().map(|row| row.key));
                self.list = List { height: self.list.height, ..List::default() };
            }
            Action::Close if self.only.is_some() => self.only = None,
            Action::Close if self.by.is_some() => self.by = None,
            _ => return false,
        }
        true
    }

    /// Every row that passes, in no order.
    pub fn export_all(&self, live: &LiveSet, now_ns: u64) -> Export {
        let mut text = String::new();
        let mut rows = Vec::new();
        for row in live.iter() {
            describe(&row, &mut text);
            let in_group = self.only.is_none_or(|(by, key)| Key::of(&row, by, now_ns) == key);
            if in_group && self.filter.passes(&text) {
                let row = row.to_owned_row();
                rows.push(COLUMNS.iter().map(|column| (column.0.field)(&row).json()).collect());
            }
        }
        let columns = COLUMNS.iter().map(|column| column.0.heading.key).collect();
        Export { view: "buffers", columns, rows }
    }
}

fn group_row(group: &Group, growth: Option<&[(Key, i64)]>) -> GroupRow {
    let name = match group.key {
        Key::Type(buffer_type) => buffer_type.name().to_owned(),
        Key::Thread(tid) => {
            tid.map_or_else(|| "thread not seen".to_owned(), |tid| format!("thread {tid}"))
        }
        Key::Size(None) => "0 B".to_owned(),
        Key::Size(Some(log)) => format!("from {}", format::bytes(1_u64 << log.min(63))),
        Key::Age(age) => age.name().to_owned(),
    };
    let grown = |all: &[(Key, i64)]| {
        all.iter().find(|(key, _)| *key == group.key).map_or(0, |(_, bytes)| *bytes)
    };
    GroupRow {
        key: group.key,
        name,
        buffers: group.buffers,
        bytes: group.bytes,
        used_bytes: group.used_bytes,
        growth: growth.map(grown),
    }
}

/// What a filter looks at. It is made for every row, so without the machinery of formatting where
/// there is much of it.
pub fn describe(row: &Row<'_>, text: &mut String) {
    text.clear();
    push_bytes(row.size, text);
    text.push(' ');
    text.push_str(row.buffer_type.name());
    text.push_str(" 0x");
    push(row.address.0, 16, text);
    for chip in row.chips.iter().take(MOST_CHIPS) {
        text.push_str(" chip");
        push(u64::from(chip.0.unsigned_abs()), 10, text);
    }
    if let Some(tid) = row.tid {
        text.push(' ');
        push(tid.0.into(), 10, text);
    }
    if row.pre_attach {
        text.push_str(" before");
    }
    if let Some(id) = row.unique_id {
        text.push_str(" id");
        push(id, 10, text);
    }
}

/// Chips of a buffer that a filter looks at.
const MOST_CHIPS: usize = 64;

/// Appends a byte count as [`format::bytes`] writes it.
fn push_bytes(count: u64, text: &mut String) {
    let Some(unit @ 1..=3) = count.checked_ilog2().map(|log| log / 10) else {
        return text.push_str(&format::bytes(count));
    };
    // Below 1 TiB, ten times as much fits.
    let tenths = (count * 10) >> (10 * unit);
    push(tenths / 10, 10, text);
    if tenths < 10_000 {
        text.push('.');
        push(tenths % 10, 10, text);
    }
    text.push_str([" KiB", " MiB", " GiB"][unit as usize - 1]);
}

/// Appends a number; `base` is at most 16.
fn push(number: u64, base: u64, text: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0; 20];
    let mut first = digits.len();
    let mut rest = number;
    loop {
        first -= 1;
        digits[first] = DIGITS[usize::try_from(rest % base).unwrap_or(0)];
        rest /= base;
        if rest == 0 {
            break;
        }
    }
    text.extend(digits[first..].iter().map(|digit| char::from(*digit)));
}

impl Tabular for Buffers {
    fn headings(&self) -> Vec<Heading> {
        COLUMNS.iter().map(|column| column.0.heading).collect()
    }

    fn sorting(&self) -> Sorting {
        self.sorting
    }

    fn list(&self) -> &List {
        &self.list
    }

    fn row(&self, place: usize) -> Option<Vec<Field<'_>>> {
        let row = self.rows.get(place.checked_sub(self.first)?)?;
        Some(COLUMNS.iter().map(|column| (column.0.field)(row)).collect())
    }

    fn filter(&self) -> &Filter {
        &self.filter
    }

    fn set_filter(&mut self, text: &str) {
        self.filter.set(text);
        self.list.move_by(Action::Top);
    }

    fn update(&mut self, action: Action) -> bool {
        self.sorting.update(action, COLUMNS.len()) || self.list.move_by(action)
    }

    fn export(&self, view: &'static str) -> Export {
        let columns = COLUMNS.iter().map(|column| column.0.heading.key).collect();
        Export { view, columns, rows: Vec::new() }
    }

    fn tone(&self, _: usize) -> Tone {
        Tone::Usual
    }

    fn click(&mut self, column: Option<usize>, line: usize) {
        match column {
            Some(column) => self.sorting.choose(column),
            None => _ = self.list.click(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{push, push_bytes};
    use crate::format;

    proptest! {
        #[test]
        fn numbers_are_written_as_usual(number: u64) {
            let mut text = String::new();
            push(number, 10, &mut text);
            push(number, 16, &mut text);
            prop_assert_eq!(&text, &format!("{number}{number:x}"));
            for shift in 0..64 {
                text.clear();
                push_bytes(number >> shift, &mut text);
                prop_assert_eq!(&text, &format::bytes(number >> shift));
            }
        }
    }
}
