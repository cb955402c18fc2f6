//! Rows with columns: sorted, filtered, with a cursor.
//!
//! It is arranged anew only when the rows, the order or the filter have changed. The views draw any
//! of them by the trait [`Tabular`].

use serde_json::Value;

use super::{Action, export::Export, field::Field, filter::Filter, list::List};

/// What is said of a column besides its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heading {
    /// Its name on the screen.
    pub name: &'static str,
    /// Its name in exports.
    pub key: &'static str,
    /// Columns of the screen, the gap to the left not included.
    pub width: u16,
    /// Whether it is aligned to the right.
    pub right: bool,
}

impl Heading {
    /// Of numbers.
    pub const fn number(name: &'static str, key: &'static str, width: u16) -> Self {
        Self { name, key, width, right: true }
    }

    /// Of words.
    pub const fn words(name: &'static str, key: &'static str, width: u16) -> Self {
        Self { name, key, width, right: false }
    }
}

/// A column.
pub struct Column<T: 'static> {
    /// What is said of it.
    pub heading: Heading,
    /// Its value in a row.
    pub field: for<'a> fn(&'a T) -> Field<'a>,
}

impl<T> Clone for Column<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Column<T> {}

/// By which column, and which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sorting {
    /// The column's place.
    pub column: usize,
    /// The largest first.
    pub descending: bool,
}

impl Sorting {
    /// Takes in a request; `false`: it is none of these.
    pub fn update(&mut self, action: Action, columns: usize) -> bool {
        match action {
            Action::Sort => self.column = (self.column + 1) % columns.max(1),
            Action::Reverse => self.descending = !self.descending,
            _ => return false,
        }
        true
    }

    /// Chooses a column; the one that is chosen already is turned round.
    pub fn choose(&mut self, column: usize) {
        if column == self.column {
            self.descending = !self.descending;
        } else {
            self.column = column;
        }
    }
}

/// How a row is to be seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// As any other.
    #[default]
    Usual,
    /// All is well.
    Good,
    /// Worth a look.
    Warn,
    /// Bad news.
    Bad,
}

/// The columns that fit into `width`: the place of each, where it begins, and how wide it is. What
/// does not fit is left out, last first, but for the column `needed`: for it, those after the first
/// go. The last one that is of words gets what is left.
pub fn fitting(headings: &[Heading], width: u16, needed: usize) -> Vec<(usize, u16, u16)> {
    let from = |behind_first: usize| {
        let mut x = MARGIN;
        let mut columns = Vec::new();
        for (place, heading) in headings.iter().enumerate() {
            if place > 0 && place < behind_first {
                continue;
            }
            if x.saturating_add(heading.width) > width {
                break;
            }
            columns.push((place, x, heading.width));
            x += heading.width + 1;
        }
        columns
    };
    let has = |columns: &[(usize, u16, u16)]| columns.iter().any(|column| column.0 == needed);
    let mut columns = from(1);
    if needed < headings.len() && !has(&columns) {
        columns = (2..=needed).map(from).find(|them| has(them)).unwrap_or(columns);
    }
    if let Some((place, from, shown)) = columns.last_mut()
        && !headings[*place].right
    {
        *shown = width - *from;
    }
    columns
}

/// Columns at the left for the mark of the cursor.
pub const MARGIN: u16 = 2;

/// What a table looks like to whoever draws it.
pub trait Tabular {
    /// The columns.
    fn headings(&self) -> Vec<Heading>;
    /// In which order the rows are.
    fn sorting(&self) -> Sorting;
    /// The cursor and the window.
    fn list(&self) -> &List;
    /// The values of a row in the window; `None`: there is no such row.
    fn row(&self, place: usize) -> Option<Vec<Field<'_>>>;
    /// The filter.
    fn filter(&self) -> &Filter;
    /// Filters by something else.
    fn set_filter(&mut self, text: &str);
    /// Takes in a request; `false`: it is none for a table.
    fn update(&mut self, action: Action) -> bool;
    /// Everything that passes the filter, in order.
    fn export(&self, view: &'static str) -> Export;
    /// How a row in the window is to be seen.
    fn tone(&self, _place: usize) -> Tone {
        Tone::Usual
    }
    /// The column of a row in the window whose words take the rest of the line: nothing follows.
    fn across(&self, _place: usize) -> Option<usize> {
        None
    }
    /// A click on the heading of a column, or on a line below the headings.
    fn click(&mut self, column: Option<usize>, line: usize);
}

/// A table whose rows are all there.
pub struct Table<T: 'static> {
    columns: &'static [Column<T>],
    rows: Vec<T>,
    /// The places of those that pass the filter, in order.
    order: Vec<usize>,
    list: List,
    sorting: Sorting,
    filter: Filter,
    /// Rows that do not pass are not taken in to begin with.
    filtered: bool,
    tone: fn(&T) -> Tone,
    across: fn(&T) -> Option<usize>,
}

impl<T: PartialEq> Table<T> {
    /// An empty table, ordered by a column.
    pub fn new(columns: &'static [Column<T>], column: usize, descending: bool) -> Self {
        let sorting = Sorting { column, descending };
        let (rows, order) = (Vec::new(), Vec::new());
        let (list, filter) = (List::default(), Filter::default());
        let filtered = false;
        let (tone, across) = (|_: &T| Tone::Usual, |_: &T| None);
        Self { columns, rows, order, list, sorting, filter, filtered, tone, across }
    }

    /// The same; whoever hands in the rows has filtered them.
    #[must_use]
    pub fn filtered_elsewhere(self) -> Self {
        Self { filtered: true, ..self }
    }

    /// The same with rows that are seen differently.
    #[must_use]
    pub fn with_tone(self, tone: fn(&T) -> Tone) -> Self {
        Self { tone, ..self }
    }

    /// The same with rows of which a column's words take the rest of the line.
    #[must_use]
    pub fn with_across(self, across: fn(&T) -> Option<usize>) -> Self {
        Self { across, ..self }
    }

    /// Takes rows in, of which `height` fit on the screen. The cursor stays at its place.
    pub fn take(&mut self, rows: Vec<T>, height: usize) {
        if rows != self.rows {
            self.rows = rows;
            self.arrange();
        }
        self.list.fit(self.order.len(), height);
    }

    /// Takes in how many rows fit on the screen.
    pub fn resize(&mut self, height: usize) {
        self.list.fit(self.order.len(), height);
    }

    /// The row with the cursor.
    pub fn selected(&self) -> Option<&T> {
        Some(&self.rows[*self.order.get(self.list.selected)?])
    }

    /// The rows, in order.
    pub fn rows(&self) -> impl Iterator<Item = &T> {
        self.order.iter().map(|place| &self.rows[*place])
    }

    fn arrange(&mut self) {
        let Self { columns, rows, filter, filtered, sorting, .. } = self;
        let passes = |row: &T| {
            filter.is_empty() || *filtered || {
                // How long ago something was changes by itself.
                let fields = columns.iter().map(|column| (column.field)(row));
                let lasting = fields.filter(|field| !matches!(field, Field::Since(_)));
                let text: Vec<String> = lasting.map(|field| field.shown(0)).collect();
                filter.passes(&text.join(" "))
            }
        };
        let field = columns.get(sorting.column).or(columns.first()).map(|column| column.field);
        let rank = |row: &T| {
            let rank = field.and_then(|field| field(row).rank());
            // What is not known comes last, whichever way.
            match rank {
                None => (true, 0),
                Some(rank) if sorting.descending => (false, u64::MAX - rank),
                Some(rank) => (false, rank),
            }
        };
        let mut ranked: Vec<_> = rows
            .iter()
            .enumerate()
            .filter(|(_, row)| passes(row))
            .map(|(place, row)| (rank(row), place))
            .collect();
        ranked.sort_unstable();
        self.order = ranked.into_iter().map(|(_, place)| place).collect();
        self.list.fit(self.order.len(), self.list.height);
    }
}

impl<T: PartialEq> Tabular for Table<T> {
    fn headings(&self) -> Vec<Heading> {
        self.columns.iter().map(|column| column.heading).collect()
    }

    fn sorting(&self) -> Sorting {
        self.sorting
    }

    fn list(&self) -> &List {
        &self.list
    }

    fn row(&self, place: usize) -> Option<Vec<Field<'_>>> {
        let row = &self.rows[*self.order.get(place)?];
        Some(self.columns.iter().map(|column| (column.field)(row)).collect())
    }

    fn filter(&self) -> &Filter {
        &self.filter
    }

    fn set_filter(&mut self, text: &str) {
        self.filter.set(text);
        self.arrange();
    }

    fn update(&mut self, action: Action) -> bool {
        if self.sorting.update(action, self.columns.len()) {
            self.arrange();
            return true;
        }
        self.list.move_by(action)
    }

    fn export(&self, view: &'static str) -> Export {
        let columns = self.columns.iter().map(|column| column.heading.key).collect();
        let values = |row| self.columns.iter().map(|c| (c.field)(row).json()).collect();
        let rows: Vec<Vec<Value>> = self.rows().map(values).collect();
        Export { view, of: Vec::new(), columns, rows }
    }

    fn tone(&self, place: usize) -> Tone {
        let row = self.order.get(place).and_then(|place| self.rows.get(*place));
        row.map_or(Tone::Usual, self.tone)
    }

    fn across(&self, place: usize) -> Option<usize> {
        let row = self.order.get(place).and_then(|place| self.rows.get(*place));
        row.and_then(self.across)
    }

    fn click(&mut self, column: Option<usize>, line: usize) {
        match column {
            Some(column) => {
                self.sorting.choose(column);
                self.arrange();
            }
            None => _ = self.list.click(line),
        }
    }
}

impl<T> std::fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("list", &self.list).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column<(u64, &'static str)>] = &[
        Column {
            heading: Heading::number("size", "size", 9),
            field: |row| Field::Bytes((row.0 > 0).then_some(row.0)),
        },
        Column { heading: Heading::words("name", "name", 9), field: |row| Field::text(row.1) },
    ];

    fn table() -> Table<(u64, &'static str)> {
        let mut table = Table::new(COLUMNS, 0, true);
        table.take(vec![(1, "one"), (0, "none"), (3, "three"), (2, "two")], 2);
        table
    }

    fn names(table: &Table<(u64, &'static str)>) -> Vec<&'static str> {
        table.rows().map(|row| row.1).collect()
    }

    #[test]
    fn rows_are_ordered_and_the_unknown_comes_last() {
        let mut table = table();
        assert_eq!(names(&table), ["three", "two", "one", "none"]);
        table.update(Action::Reverse);
        assert_eq!(names(&table), ["one", "two", "three", "none"]);
        table.update(Action::Sort);
        assert_eq!(names(&table), ["none", "one", "three", "two"]);
        table.click(Some(1), 0);
        assert_eq!(names(&table), ["two", "three", "one", "none"]);
    }

    #[test]
    fn a_filter_leaves_rows_out_and_the_cursor_in_bounds() {
        let mut table = table();
        table.update(Action::Bottom);
        assert_eq!(table.selected(), Some(&(0, "none")));
        table.set_filter("t !three");
        assert_eq!(names(&table), ["two"]);
        assert_eq!(table.selected(), Some(&(2, "two")));
        table.set_filter("nothing like it");
        assert_eq!(table.selected(), None);
        table.set_filter("");
        assert_eq!(names(&table).len(), 4);
    }

    #[test]
    fn the_column_that_orders_is_on_the_screen() {
        let headings: Vec<Heading> =
            (0..9).map(|at| Heading::number("a", "a", 5 + at % 3)).collect();
        for width in 0..80 {
            for needed in 0..headings.len() {
                let columns = fitting(&headings, width, needed);
                let has = |place: usize| columns.iter().any(|column| column.0 == place);
                let least = MARGIN + headings[0].width + 1 + headings[needed].width;
                assert!(width < least || (has(needed) && has(0)), "{width} {needed}");
                assert!(columns.iter().all(|(_, x, shown)| x + shown <= width));
                assert!(columns.is_sorted_by(|one, next| one.1 + one.2 < next.1));
            }
        }
        let all = fitting(&headings, 80, 8);
        assert_eq!(all, fitting(&headings, 80, 0), "nothing goes that needs not");
    }

    #[test]
    fn an_export_has_numbers_and_all_rows() {
        let export = table().export("test");
        assert_eq!(export.columns, ["size", "name"]);
        assert_eq!(export.rows[0], [Value::from(3), "three".into()]);
        assert_eq!(export.rows[3], [Value::Null, "none".into()]);
    }
}
