//! The live set: which of its rows are on the screen, in which order; or groups of them.
//!
//! Rows are copied from the history only where they are shown, and only when something has changed
//! that they depend on.

mod columns;
mod sites;
mod text;
mod verdicts;

use crate::{
    history::{
        GroupGrowth, LiveSet, Order, OwnedRow, Row, SortKey,
        group::{By, Key},
    },
    tui::{
        Action,
        export::Export,
        field::Field,
        filter::Filter,
        list::List,
        table::{Column, Heading, Sorting, Table, Tabular, Tone},
    },
};
use columns::{COLUMNS, GROUPS, GroupRow, Shown, since};
pub use sites::Sites;
pub use text::describe;
use verdicts::{Basis, Verdicts};

/// Lines above the headings.
pub const TITLE: u16 = 1;

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
    /// Which copy, if it is past, and how many changes it is away from what it is to be.
    pub past: Option<(u64, u64)>,
    /// When it is looked at, ns: ages pass.
    pub time_ns: u64,
    /// The mark, ns.
    pub mark_ns: Option<u64>,
}

/// The state of the view.
#[derive(Debug)]
pub struct Buffers {
    list: List,
    sorting: Sorting,
    filter: Filter,
    /// The rows on the screen.
    rows: Vec<Shown>,
    first: usize,
    verdicts: Verdicts,
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
    /// What is to be known of the rows that are there.
    pub note: Option<String>,
    /// Buffers and bytes that have come since the mark, less those that have gone.
    pub growth: Option<(i64, i64)>,
    /// How many rows were looked at for the filter, and of how many, until that is done.
    pub filtering: Option<(usize, usize)>,
    /// Whether it is recorded what called for them.
    has_sites: bool,
}

impl Default for Buffers {
    fn default() -> Self {
        Self {
            list: List::default(),
            sorting: Sorting { column: 0, descending: true },
            filter: Filter::default(),
            rows: Vec::new(),
            first: 0,
            verdicts: Verdicts::default(),
            bytes: 0,
            by: None,
            only: None,
            groups: Table::new(GROUPS, 2, true),
            made: None,
            missing: None,
            note: None,
            growth: None,
            filtering: None,
            has_sites: false,
        }
    }
}

/// What a live set is looked at with.
pub struct Look<'a> {
    /// The rows.
    pub live: &'a LiveSet,
    /// Growth of each group since the mark, if there is one and that is known.
    pub growth: &'a dyn Fn(By) -> Option<Vec<GroupGrowth>>,
    /// What called for them.
    pub sites: Sites<'a>,
}

impl Buffers {
    /// Makes ready what a view of `height` lines shows. `look` is called only if that must be made
    /// anew, with what is to be done with a live set; it says what is to be known of that, or why
    /// there is none.
    pub fn observe(
        &mut self,
        height: u16,
        version: Version,
        look: impl FnOnce(&mut dyn FnMut(&Look<'_>)) -> Result<Option<String>, String>,
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
            self.filtering = None;
            match look(&mut |look| self.make(look, version)) {
                Ok(note) => (self.note, self.missing) = (note, None),
                Err(why) => {
                    (self.note, self.missing) = (None, Some(why));
                    self.rows.clear();
                    self.list.fit(0, height);
                    self.groups.take(Vec::new(), height);
                }
            }
            // The list may have become shorter than the window's place.
            let settled = self.list.offset == made.first && self.filtering.is_none();
            self.made = settled.then_some(made);
        }
        self.groups.resize(height);
    }

    fn make(&mut self, look: &Look<'_>, version: Version) {
        let now_ns = version.time_ns;
        let total = |growth: Vec<GroupGrowth>| {
            growth.iter().fold((0_i64, 0_i64), |(buffers, bytes), group| {
                (buffers.saturating_add(group.buffers), bytes.saturating_add(group.bytes))
            })
        };
        self.growth = (look.growth)(By::Type).map(total);
        if let Some(by) = self.by.filter(|_| self.only.is_none()) {
            self.make_groups(look, by, now_ns);
            return;
        }
        let Self { filter, only, verdicts, .. } = self;
        let sites = look.sites;
        let has_sites = self.has_sites;
        let copy = version.past.map(|(copy, _)| copy);
        let (serial, mark_ns) = (version.serial, version.mark_ns);
        if !filter.is_empty() {
            verdicts.begin(look.live, Basis { serial, copy, mark_ns }, filter.text());
        }
        let mut text = String::new();
        let wanted = |slot, row: &Row<'_>| {
            if only.is_some_and(|(by, key)| sites.key(row, by, now_ns) != key) {
                return false;
            }
            let mut look = || {
                describe(row, is_new(row, mark_ns), sites.of(row), &mut text);
                filter.passes(&text)
            };
            // What is not final is not remembered.
            filter.is_empty()
                || if sites.awaits(row, now_ns) { look() } else { verdicts.passes(slot, look) }
        };
        let (heading, key) = columns(has_sites)
            .get(self.sorting.column)
            .map_or(("", SortKey::Size), |it| (it.0.heading.name, it.1));
        // A great age is an early time.
        let turned = heading == "age";
        let order = Order { key, descending: self.sorting.descending != turned };
        let window = self.list.window_of_any();
        let page = if key == SortKey::Site {
            let places = sites.places();
            let place = |row: &Row<'_>| places.get(sites.of(row)?.number as usize).copied();
            look.live.page_by(wanted, order, place, window)
        } else {
            look.live.page(wanted, order, window)
        };
        let waiting = if filter.is_empty() { 0 } else { verdicts.waiting() };
        self.filtering = (waiting > 0).then(|| (look.live.len() - waiting, look.live.len()));
        self.bytes = page.matched_bytes;
        let shown = |row: &Row<'_>| Shown::new(row, mark_ns, sites.of(row));
        self.rows = page.rows.iter().map(shown).collect();
        self.first = self.list.offset;
        self.list.fit(page.matched, self.list.height);
    }

    fn make_groups(&mut self, look: &Look<'_>, by: By, now_ns: u64) {
        let sites = look.sites;
        let groups = look.live.groups_by(|row| sites.key(row, by, now_ns));
        let growth = (look.growth)(by);
        self.bytes = groups.iter().fold(0, |sum, group| sum.saturating_add(group.bytes));
        let row = |group| GroupRow::new(group, growth.as_deref(), sites);
        let rows = groups.iter().map(row).collect();
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
                let mut ways = By::ALL.into_iter().chain(self.has_sites.then_some(By::Site));
                self.by = match self.by {
                    None => ways.next(),
                    Some(by) => ways.skip_while(|other| *other != by).nth(1),
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
    pub fn export_all(
        &self,
        live: &LiveSet,
        now_ns: u64,
        mark_ns: Option<u64>,
        sites: Sites<'_>,
    ) -> Export {
        let mut text = String::new();
        let mut rows = Vec::new();
        for row in live.iter() {
            describe(&row, is_new(&row, mark_ns), sites.of(&row), &mut text);
            let in_group = self.only.is_none_or(|(by, key)| sites.key(&row, by, now_ns) == key);
            if in_group && self.filter.passes(&text) {
                let row = Shown::new(&row, mark_ns, sites.of(&row));
                rows.push(
                    self.columns().iter().map(|column| (column.0.field)(&row).json()).collect(),
                );
            }
        }
        let columns = self.columns().iter().map(|column| column.0.heading.key).collect();
        Export { view: "buffers", of: Vec::new(), columns, rows }
    }

    /// Takes in whether it is recorded what called for the buffers.
    pub fn set_sites(&mut self, has_sites: bool) {
        if has_sites && !self.has_sites {
            // The new column is the first one.
            self.sorting.column += 1;
            self.has_sites = true;
        }
    }

    fn columns(&self) -> &'static [(Column<Shown>, SortKey)] {
        columns(self.has_sites)
    }

    /// The buffer at the cursor, if buffers are shown.
    pub fn selected(&self) -> Option<&OwnedRow> {
        let place = self.list.selected.checked_sub(self.first)?;
        self.rows.get(place).filter(|_| !self.shows_groups()).map(Shown::row)
    }
}

/// The columns that there are.
fn columns(has_sites: bool) -> &'static [(Column<Shown>, SortKey)] {
    if has_sites { COLUMNS } else { &COLUMNS[1..] }
}

/// Whether it is known to have come after the mark.
fn is_new(row: &Row<'_>, mark_ns: Option<u64>) -> bool {
    mark_ns.and_then(|mark_ns| since(row.pre_attach, row.allocated_ns, mark_ns)) == Some(true)
}

impl Tabular for Buffers {
    fn headings(&self) -> Vec<Heading> {
        self.columns().iter().map(|column| column.0.heading).collect()
    }

    fn sorting(&self) -> Sorting {
        self.sorting
    }

    fn list(&self) -> &List {
        &self.list
    }

    fn row(&self, place: usize) -> Option<Vec<Field<'_>>> {
        let row = self.rows.get(place.checked_sub(self.first)?)?;
        Some(self.columns().iter().map(|column| (column.0.field)(row)).collect())
    }

    fn filter(&self) -> &Filter {
        &self.filter
    }

    fn set_filter(&mut self, text: &str) {
        self.filter.set(text);
        self.list.move_by(Action::Top);
    }

    fn update(&mut self, action: Action) -> bool {
        self.sorting.update(action, self.columns().len()) || self.list.move_by(action)
    }

    fn export(&self, view: &'static str) -> Export {
        let columns = self.columns().iter().map(|column| column.0.heading.key).collect();
        Export { view, of: Vec::new(), columns, rows: Vec::new() }
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
