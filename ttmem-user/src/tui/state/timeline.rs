//! Use over time: of which pool, and at which instant the cursor is.

use ratatui::layout::Size;

use crate::{
    event::BufferType,
    history::{History, Note, Remark, Span},
    ledger::snapshot::Snapshot,
    tui::{Action, export::Export, state::overview},
    units::ChipId,
};

/// Lines that are not the graph: title, notes, axis, cursor, note at the cursor.
pub const AROUND: u16 = 5;
/// Columns at the left for the scale.
pub const SCALE: u16 = 10;

/// The state of the view.
#[derive(Debug, Default)]
pub struct Timeline {
    /// The place of the pool among those that were used.
    pool: usize,
    /// What it is: type, and the chips that share it all the time.
    pub title: Option<(BufferType, Vec<ChipId>)>,
    /// What the pool has, if that is known.
    pub capacity: Option<u64>,
    /// The highest use, bytes.
    pub peak: u64,
    /// Each column of the graph; `None`: before the first change.
    pub columns: Vec<Option<Span>>,
    /// The marks below the graph, by column.
    pub marks: Vec<Option<char>>,
    /// What is noted where the cursor is.
    pub notes: Vec<Note>,
    /// The instant with the cursor, ns; `None`: now.
    pub instant: Option<u64>,
    /// The first and the last instant that are shown, ns.
    pub range: (u64, u64),
    /// Why there is nothing.
    pub missing: Option<String>,
}

impl Timeline {
    /// Takes in what is to be shown in a view of `size`.
    pub fn observe(&mut self, size: Size, history: &History, snapshot: &Snapshot) {
        let width = usize::from(size.width.saturating_sub(SCALE + 1)).max(1);
        let lines = history.timeline().lines();
        self.pool = self.pool.min(lines.len().saturating_sub(1));
        let Some((buffer_type, chips, line)) = lines.get(self.pool) else {
            *self =
                Self { missing: Some("nothing was allocated yet".to_owned()), ..Self::default() };
            return;
        };
        self.missing = None;
        let last = snapshot.time_ns.max(history.time_ns());
        let first = history.started_ns().unwrap_or(last);
        self.range = (first, last.max(first + 1));
        if let Some(instant) = &mut self.instant {
            *instant = (*instant).clamp(first, last);
        }
        self.columns = line.columns(self.range.0, self.range.1, width);
        self.peak = line.peak_used();
        let chip = chips.first();
        let device = snapshot.devices.iter().find(|device| Some(&device.chip) == chip);
        let pool = device.and_then(|device| overview::pool(device, *buffer_type));
        self.capacity = pool.and_then(|pool| pool.capacity_bytes);
        self.title = Some((*buffer_type, chips.clone()));
        self.observe_notes(history, width);
    }

    fn observe_notes(&mut self, history: &History, width: usize) {
        self.marks = vec![None; width];
        self.notes.clear();
        let cursor = self.cursor(width);
        for note in history.notes() {
            let column = self.column_of(note.time_ns, width);
            self.marks[column] = Some(letter(&note.what));
            if column == cursor {
                self.notes.push(note.clone());
            }
        }
    }

    /// The column of an instant.
    fn column_of(&self, time_ns: u64, width: usize) -> usize {
        let (first, last) = self.range;
        let length = u128::from(last - first) + 1;
        let offset = u128::from(time_ns.clamp(first, last) - first);
        let column = offset * width as u128 / length;
        usize::try_from(column).unwrap_or(0).min(width.saturating_sub(1))
    }

    /// The column with the cursor.
    pub fn cursor(&self, width: usize) -> usize {
        self.instant.map_or(width.saturating_sub(1), |instant| self.column_of(instant, width))
    }

    /// The last instant of a column.
    fn end_of(&self, column: usize) -> u64 {
        let (first, last) = self.range;
        let length = u128::from(last - first) + 1;
        let end = length * (column as u128 + 1) / self.columns.len().max(1) as u128;
        first + u64::try_from(end).unwrap_or(u64::MAX).saturating_sub(1)
    }

    /// Takes in a request; `false`: it is none for this view.
    pub fn update(&mut self, action: Action) -> bool {
        let width = self.columns.len();
        let cursor = self.cursor(width);
        let to = match action {
            Action::NextPool => return self.choose(self.pool + 1),
            Action::PreviousPool => return self.choose(self.pool.saturating_sub(1)),
            Action::Close => {
                self.instant = None;
                return true;
            }
            Action::Left | Action::Down => cursor.saturating_sub(1),
            Action::Right | Action::Up => cursor + 1,
            Action::PageUp => cursor.saturating_sub(10),
            Action::PageDown => cursor + 10,
            Action::Top => 0,
            Action::Bottom => usize::MAX,
            _ => return false,
        };
        self.go_to(to);
        true
    }

    /// A click on a column of the terminal.
    pub fn click(&mut self, column: u16) {
        if let Some(column) = column.checked_sub(SCALE) {
            self.go_to(column.into());
        }
    }

    fn go_to(&mut self, column: usize) {
        if self.columns.is_empty() {
            return;
        }
        let at_the_end = column.saturating_add(1) >= self.columns.len();
        self.instant = if at_the_end { None } else { Some(self.end_of(column)) };
    }

    fn choose(&mut self, pool: usize) -> bool {
        self.pool = pool;
        true
    }

    /// The columns of the graph.
    pub fn export(&self) -> Export {
        let columns = ["until_ns", "min_used", "max_used", "last_used", "buffers", "allocations"];
        let row = |(column, span): (usize, &Option<Span>)| {
            let span = span.as_ref()?;
            Some(vec![
                self.end_of(column).into(),
                span.min_used.into(),
                span.max_used.into(),
                span.last_used.into(),
                span.last_buffers.into(),
                span.allocations.into(),
            ])
        };
        let rows = self.columns.iter().enumerate().filter_map(row).collect();
        Export { view: "timeline", columns: columns.to_vec(), rows }
    }
}

/// What stands for a note below the graph.
pub const fn letter(what: &Remark) -> char {
    match what {
        Remark::Mark(_) => 'm',
        Remark::Failure { .. } => 'F',
        Remark::Lost(_) => 'L',
        Remark::Anomalies(_) => '?',
        Remark::Resync(_) | Remark::ResyncFailed => 'r',
        Remark::Exact => '=',
        Remark::Inexact(_) => '!',
        Remark::Ended(_) => 'E',
        Remark::Gap { .. } => 'G',
    }
}

/// What a note says.
pub fn text(what: &Remark) -> String {
    let bytes = crate::format::bytes_or_unknown;
    match what {
        Remark::Mark(name) => format!("mark {name}"),
        Remark::Failure { id, buffer_type, size } => {
            let kind = buffer_type.map_or(crate::format::UNKNOWN, BufferType::name);
            format!("failure {id}: no room for {} of {kind}", bytes(*size))
        }
        Remark::Lost(lost) => format!("{} records lost", lost.total()),
        Remark::Anomalies(odd) => format!("{} anomalies", odd.total()),
        Remark::Resync(found) => format!("memory read again, {} differences", found.total()),
        Remark::ResyncFailed => "memory could not be read again".to_owned(),
        Remark::Exact => "exact from here on".to_owned(),
        Remark::Inexact(why) => format!("inexact: {why}"),
        Remark::Ended(_) => "the target ended".to_owned(),
        Remark::Gap { changes, .. } => format!("the recording missed {changes} changes"),
    }
}
