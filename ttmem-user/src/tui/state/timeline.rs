//! Use over time: of which pool, and at which instant the cursor is.

use ratatui::layout::Size;

use crate::{
    event::BufferType,
    history::{History, Line, Note, Remark, Span},
    ledger::snapshot::Snapshot,
    tui::{Action, export::Export, filter::Filter, pools, state::circular::chips},
    units::ChipId,
};

/// Lines that are not the graph: title, notes, axis, cursor, note at the cursor.
pub const AROUND: u16 = 5;
/// Columns at the left for the scale.
pub const SCALE: u16 = 10;

/// Tells a line from others, whichever come or split: its type, and a chip that it has, at first the
/// lowest.
type Key = (BufferType, ChipId);

/// The state of the view.
#[derive(Debug, Default)]
pub struct Timeline {
    /// The line that was chosen. A filter may hide it for a while.
    chosen: Option<Key>,
    /// The line that is shown.
    shown: Option<Key>,
    /// The lines to choose from.
    lines: Vec<Key>,
    /// What it is: type, and the chips that share it all the time.
    pub title: Option<(BufferType, Vec<ChipId>)>,
    /// What the pool has, if that is known.
    pub capacity: Option<u64>,
    /// The highest use that was seen, bytes.
    pub peak: u64,
    /// Something was lost or odd meanwhile: it may have been another.
    pub peak_in_doubt: bool,
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
    /// The first and the last instant that there are, ns.
    whole: (u64, u64),
    /// So many times is the whole halved.
    pub zoom: u32,
    /// Which pools there are to choose from.
    pub filter: Filter,
    /// Why there is nothing.
    pub missing: Option<String>,
}

/// So many times can the whole be halved.
const MAX_ZOOM: u32 = 40;
/// The least time that a column stands for, ns.
const LEAST: u64 = 1_000;

impl Timeline {
    /// Takes in what is to be shown in a view of `size`; nothing that came after `until_ns`.
    pub fn observe(
        &mut self,
        size: Size,
        history: &History,
        snapshot: &Snapshot,
        until_ns: Option<u64>,
    ) {
        let width = usize::from(size.width.saturating_sub(SCALE + 1)).max(1);
        let mut lines = history.timeline().lines();
        let is_empty = lines.is_empty();
        lines.retain(|(buffer_type, chips, _)| self.passes(*buffer_type, chips));
        let key = |(kind, chips, _): &(BufferType, Vec<ChipId>, &Line)| {
            chips.first().map(|chip| (*kind, *chip))
        };
        self.lines = lines.iter().filter_map(key).collect();
        let place = |key: Key| {
            lines.iter().position(|(kind, chips, _)| *kind == key.0 && chips.contains(&key.1))
        };
        let found = [self.chosen, self.shown].into_iter().flatten().find_map(place).unwrap_or(0);
        self.shown = self.lines.get(found).copied();
        if self.filter.is_empty() {
            self.chosen = self.chosen.or(self.shown);
        }
        let Some((buffer_type, chips, line)) = lines.get(found) else {
            let why = ["no pool passes the filter: Esc shows all", "nothing was allocated yet"];
            return self.forget(why[usize::from(is_empty)].to_owned());
        };
        self.missing = None;
        let last = until_ns.unwrap_or_else(|| snapshot.time_ns.max(history.time_ns()));
        let first = history.started_ns().unwrap_or(last).min(last);
        self.whole = (first, last.max(first + 1));
        if let Some(instant) = &mut self.instant {
            *instant = (*instant).clamp(first, last);
        }
        self.range = self.part(width as u64);
        self.columns = line.columns(self.range.0, self.range.1, width);
        let highest = self.columns.iter().flatten().map(|span| span.max_used).max();
        let is_all = self.zoom == 0 && until_ns.is_none();
        self.peak = if is_all { line.peak_used() } else { highest.unwrap_or(0) };
        self.peak_in_doubt = history.was_in_doubt(self.range.0, self.range.1);
        let chip = chips.first();
        let device = snapshot.devices.iter().find(|device| Some(&device.chip) == chip);
        let pool = device.and_then(|device| pools::of_chip(device, *buffer_type));
        self.capacity = pool.and_then(|pool| pool.capacity_bytes);
        self.title = Some((*buffer_type, chips.clone()));
        self.observe_notes(history, width);
    }

    /// Shows nothing, and why.
    pub fn forget(&mut self, why: String) {
        self.missing = Some(why);
        (self.title, self.instant) = (None, None);
        self.columns.clear();
        self.lines.clear();
    }

    fn passes(&self, buffer_type: BufferType, chips: &[ChipId]) -> bool {
        self.filter.is_empty() || {
            let chips: Vec<String> = chips.iter().map(|chip| format!("chip{chip}")).collect();
            self.filter.passes(&format!("{} {}", buffer_type.name(), chips.join(" ")))
        }
    }

    /// The part of the whole that is shown on so many columns: it has the cursor in it, and moves
    /// only if it must.
    fn part(&self, width: u64) -> (u64, u64) {
        let (first, last) = self.whole;
        let whole = last - first;
        let length = (whole >> self.zoom.min(MAX_ZOOM)).max(width * LEAST).min(whole);
        let latest = last - length;
        let start = match self.instant {
            None => latest,
            Some(instant) => {
                let start = self.range.0.clamp(first, latest);
                let shown = self.range.1.saturating_sub(self.range.0);
                // A step to the side moves it by a quarter; another length is around the cursor.
                if shown.abs_diff(length) > length / 8 {
                    instant.saturating_sub(length / 2)
                } else if instant < start {
                    instant.saturating_sub(length / 4)
                } else if instant > start + length {
                    instant.saturating_sub(length - length / 4)
                } else {
                    start
                }
            }
        };
        let start = start.clamp(first, latest);
        (start, start + length)
    }

    fn observe_notes(&mut self, history: &History, width: usize) {
        self.marks = vec![None; width];
        self.notes.clear();
        let cursor = self.cursor(width);
        let (first, last) = self.range;
        for note in history.notes() {
            // What is outside of the whole is at its edge.
            let time_ns = note.time_ns.max(self.whole.0);
            if !(first..=last).contains(&time_ns) {
                continue;
            }
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
        let cursor = i64::try_from(self.cursor(width)).unwrap_or(0);
        let to = match action {
            Action::NextPool => return self.step(1),
            Action::PreviousPool => return self.step(-1),
            Action::ZoomIn => return self.zoom_to(self.zoom + 1),
            Action::ZoomOut => return self.zoom_to(self.zoom.saturating_sub(1)),
            Action::Close if self.instant.is_some() => {
                self.instant = None;
                return true;
            }
            Action::Close if !self.filter.is_empty() => {
                self.filter.set("");
                return true;
            }
            Action::Close => return self.zoom_to(0),
            Action::Left | Action::Down => cursor - 1,
            Action::Right | Action::Up => cursor + 1,
            Action::PageUp => cursor - 10,
            Action::PageDown => cursor + 10,
            Action::Top => i64::MIN,
            Action::Bottom => i64::MAX,
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

    /// Puts the cursor at the end of a column, which may be outside of what is shown.
    fn go_to(&mut self, column: i64) {
        if self.columns.is_empty() {
            return;
        }
        let (first, last) = self.range;
        let length = i128::from(last - first) + 1;
        let columns = self.columns.len() as i128;
        let end = i128::from(first) + length * (i128::from(column) + 1) / columns - 1;
        let at_the_end = end >= i128::from(self.whole.1);
        let instant = u64::try_from(end.max(i128::from(self.whole.0))).unwrap_or(u64::MAX);
        self.instant = if at_the_end { None } else { Some(instant) };
    }

    fn zoom_to(&mut self, zoom: u32) -> bool {
        let (first, last) = self.whole;
        // What can get no shorter gets no shorter.
        let most = (last - first).checked_ilog2().map_or(0, |log| log.min(MAX_ZOOM));
        self.zoom = zoom.min(most);
        true
    }

    /// Chooses a line so many places further on.
    fn step(&mut self, places: isize) -> bool {
        let here = self.lines.iter().position(|line| Some(*line) == self.shown).unwrap_or(0);
        let last = self.lines.len().saturating_sub(1);
        let to = here.saturating_add_signed(places).min(last);
        if let Some(line) = self.lines.get(to) {
            (self.chosen, self.shown) = (Some(*line), Some(*line));
        }
        true
    }

    /// Another target is to be shown: back to now, and to its first line.
    pub fn leave(&mut self) {
        (self.instant, self.chosen, self.shown) = (None, None, None);
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
        let of = |(buffer_type, of): &(BufferType, Vec<ChipId>)| {
            vec![("type", buffer_type.name().into()), ("chips", chips(of).into())]
        };
        let of = self.title.as_ref().map_or_else(Vec::new, of);
        Export { view: "timeline", of, columns: columns.to_vec(), rows }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixture, history::sample::allocated, ledger::delta::Delta};

    const SIZE: Size = Size { width: 80, height: 24 };

    /// What is shown once another buffer has come on these chips.
    fn after(
        timeline: &mut Timeline,
        history: &mut History,
        kind: BufferType,
        on: &[i32],
    ) -> String {
        let chips = on.iter().copied().map(ChipId).collect();
        let next = history.sequence() + 1;
        let delta = allocated(next, next, next, 100);
        history.apply(&Delta { chips, buffer_type: kind, ..delta });
        shown(timeline, history)
    }

    fn shown(timeline: &mut Timeline, history: &History) -> String {
        timeline.observe(SIZE, history, &fixture::normal(), None);
        let (kind, of) = timeline.title.as_ref().unwrap();
        format!("{} {}", kind.name(), chips(of))
    }

    #[test]
    fn another_line_is_shown_only_on_request() {
        let (mut timeline, mut history) = (Timeline::default(), History::default());
        let (timeline, history) = (&mut timeline, &mut history);
        assert_eq!(after(timeline, history, BufferType::L1, &[0, 1, 2, 3]), "L1 0-3");
        assert_eq!(after(timeline, history, BufferType::Dram, &[0]), "L1 0-3", "one comes before");
        timeline.update(Action::PreviousPool);
        assert_eq!(shown(timeline, history), "DRAM 0");
        timeline.update(Action::PreviousPool);
        timeline.update(Action::NextPool);
        assert_eq!(after(timeline, history, BufferType::L1, &[1]), "L1 0,2-3", "it splits");
        timeline.update(Action::NextPool);
        timeline.update(Action::NextPool);
        assert_eq!(after(timeline, history, BufferType::L1, &[0]), "L1 1");
        // A filter shows another one for as long as it is there, and that one stays, too.
        timeline.filter.set("'chip3");
        assert_eq!(shown(timeline, history), "L1 2-3");
        assert_eq!(after(timeline, history, BufferType::Dram, &[3]), "L1 2-3");
        timeline.filter.set("");
        assert_eq!(shown(timeline, history), "L1 1");
        timeline.leave();
        assert_eq!(shown(timeline, history), "DRAM 0");
    }
}
