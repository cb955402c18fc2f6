//! What the user sees of it all right now: which view is open, where its cursor is, the rates.
//!
//! Each view has a state of its own, which makes ready what the view of the same name draws.
//! Invariant: cursors and offsets are in bounds after every update and every snapshot, whatever
//! came before.

pub mod buffers;
pub mod circular;
pub mod events;
pub mod failures;
pub mod health;
mod held;
pub mod histograms;
mod input;
pub mod map;
pub mod overview;
pub mod past;
mod ready;
mod stack;
pub mod timeline;

use std::{collections::HashMap, sync::Arc};

use ratatui::layout::{Rect, Size};

use super::{
    Request, Tab, Theme, areas::Areas, filter::Filter, output::output_height, prompt::Prompt,
    rates::Rates, table::Tabular as _,
};
use crate::{
    event::BufferType,
    history::recorder::{Handle, Histories},
    ledger::{
        call::Calls,
        report::Report,
        snapshot::{Detail, Snapshot},
    },
    units::ChipId,
};

/// What lies over the view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlay {
    /// Nothing.
    #[default]
    None,
    /// The list of keys.
    Help,
    /// What keeps the numbers from being exact.
    Notes,
    /// What called for a buffer.
    Stack,
}

impl Overlay {
    /// Size of the inner area on a terminal of `size`: borders and a margin are the rest.
    pub const fn inner(size: Size) -> Size {
        let width = if size.width < 76 { size.width } else { 76 };
        Size { width: width.saturating_sub(4), height: size.height.saturating_sub(2) }
    }
}

/// The state of the live view.
#[derive(Debug, Default)]
pub struct State {
    /// The view that is open.
    pub tab: Tab,
    /// What lies over it.
    pub overlay: Overlay,
    /// Lines that the overlay is scrolled.
    pub overlay_offset: usize,
    /// What is being typed.
    pub prompt: Option<Prompt>,
    /// What the footer has to say until the next key.
    pub notice: Option<String>,
    /// How things look.
    pub theme: Theme,
    /// Whether the user wants to leave.
    pub quit: bool,
    /// What is asked for of whoever runs this.
    pub requests: Vec<Request>,
    /// Whether there is a command, whose output can be shown.
    pub has_command: bool,
    /// Whether its output is hidden.
    pub output_hidden: bool,
    /// Size of the terminal.
    pub size: Size,
    /// The newest report.
    newest: Option<Arc<Report>>,
    /// Whether all views are held, and what they show then.
    hold: held::Hold,
    /// The target that is shown.
    pub shown: Option<Arc<Snapshot>>,
    /// The view of this name.
    pub overview: overview::Overview,
    /// The view of this name.
    pub buffers: buffers::Buffers,
    /// The view of this name.
    pub timeline: timeline::Timeline,
    /// The view of this name.
    pub histograms: histograms::Histograms,
    /// The view of this name.
    pub events: events::Events,
    /// The view of this name.
    pub map: map::Map,
    /// The view of this name.
    pub circular: circular::Circular,
    /// The view of this name.
    pub failures: failures::Failures,
    /// The view of this name.
    pub health: health::Health,
    /// What the targets have done, if that is recorded.
    pub histories: Option<Histories>,
    /// Where it is looked up what called for buffers, if that is recorded.
    pub calls: Option<Arc<dyn Calls>>,
    /// What called for the buffer that was opened, as lines.
    pub stack: Vec<String>,
    /// The shown target at the instant that is looked at, if that is not now.
    pub then: Option<past::Then>,
    /// Copies of what was live that were begun, for their names.
    copies: u64,
    /// The targets that there are, by serial.
    serials: Vec<u64>,
    /// The one that is shown, by serial.
    chosen: u64,
    /// By target, as it was when this moment was marked.
    marks: HashMap<u64, Arc<Snapshot>>,
    /// Allocation rates, by target.
    rates: HashMap<u64, Rates>,
    overlay_lines: usize,
    processes: u16,
    detail: Detail,
}

impl State {
    /// With nothing open.
    pub fn new(theme: Theme, has_command: bool) -> Self {
        Self { theme, has_command, ..Self::default() }
    }

    /// Takes in the size of the terminal and the newest report, and makes ready what is about to be
    /// shown: of the report that is held, if there is one.
    pub fn observe(&mut self, size: Size, newest: &Arc<Report>) -> Arc<Report> {
        self.size = size;
        if !self.is_held() {
            self.health.note(newest);
        }
        let is_new = self.note(newest);
        self.hold.take(newest, is_new, self.histories.as_ref());
        let report = Arc::clone(self.hold.report().unwrap_or(newest));
        self.serials = report.targets.iter().map(|target| target.process.serial).collect();
        let Self { serials, rates, marks, .. } = self;
        rates.retain(|serial, _| serials.contains(serial));
        marks.retain(|serial, _| serials.contains(serial));
        for target in &report.targets {
            rates.entry(target.process.serial).or_default().observe(target);
        }
        let chosen = report.targets.iter().find(|target| target.process.serial == self.chosen);
        self.shown = chosen.or(report.targets.first()).cloned();
        self.processes = processes(&report, self.areas().body.height);
        if let Some(target) = self.shown.clone() {
            if self.chosen != target.process.serial {
                self.chosen = target.process.serial;
                self.timeline.leave();
                self.failures.open = None;
            }
            self.observe_target(&target);
        }
        report
    }

    /// Takes in what the newest report says of what is recorded; `false`: it is not new.
    fn note(&mut self, newest: &Arc<Report>) -> bool {
        if self.newest.as_ref().is_some_and(|last| Arc::ptr_eq(last, newest)) {
            return false;
        }
        self.newest = Some(Arc::clone(newest));
        if let Some(histories) = &self.histories {
            histories.observe(newest);
        }
        true
    }

    /// Whether all views are held as they were.
    pub const fn is_held(&self) -> bool {
        self.hold.report().is_some()
    }

    /// When what is shown was so, if it is held, ns.
    fn held_ns(&self) -> Option<u64> {
        self.hold.report().map(|report| report.time_ns)
    }

    /// What the shown target has done, if that is recorded: up to now, or to what is held.
    pub fn history(&self) -> Option<Handle> {
        let held = self.hold.history(self.chosen).cloned();
        held.or_else(|| self.histories.as_ref()?.get(self.chosen))
    }

    /// The instant that is looked at, ns; `None`: now.
    fn instant(&self) -> Option<u64> {
        self.timeline.instant.or_else(|| self.held_ns())
    }

    /// The target at an earlier instant, where the open view shows that. What is held is no such:
    /// all of it is there.
    pub fn shown_then(&self) -> Option<&past::Then> {
        let shows = matches!(self.tab, Tab::Overview | Tab::Buffers);
        self.then.as_ref().filter(|_| shows && self.timeline.instant.is_some())
    }

    /// The instant that the open view shows, ns; `None`: it shows now, or what is held.
    pub fn past_instant(&self) -> Option<u64> {
        let tabs = [Tab::Overview, Tab::Buffers, Tab::Timeline, Tab::Events];
        self.timeline.instant.filter(|_| tabs.contains(&self.tab))
    }

    /// What the open view is filtered by.
    pub fn filter(&self) -> &Filter {
        match self.tab {
            Tab::Overview => &self.overview.filter,
            Tab::Map => &self.map.filter,
            Tab::Timeline => &self.timeline.filter,
            Tab::Buffers => self.buffers.shown().filter(),
            Tab::Circular => self.circular.table.filter(),
            Tab::Histograms => self.histograms.table.filter(),
            Tab::Failures => self.failures.shown().filter(),
            Tab::Events => self.events.table.filter(),
            Tab::Health => self.health.table.filter(),
        }
    }

    /// Filters the open view by something else.
    fn set_filter(&mut self, text: &str) {
        match self.tab {
            Tab::Overview => self.overview.filter.set(text),
            Tab::Map => self.map.filter.set(text),
            Tab::Timeline => self.timeline.filter.set(text),
            _ => {
                if let Some(table) = self.table() {
                    table.set_filter(text);
                }
            }
        }
    }

    /// Whether there is more to be done for what is shown: it is to be drawn again at once.
    pub fn is_unfinished(&self) -> bool {
        let is_on_its_way = self.then.as_ref().is_some_and(|then| then.left() > 0);
        match self.tab {
            _ if self.hold.lags() => true,
            Tab::Overview => is_on_its_way,
            Tab::Buffers => is_on_its_way || self.buffers.filtering.is_some(),
            _ => false,
        }
    }

    /// Which part of the terminal is for what.
    pub fn areas(&self) -> Areas {
        Areas::new(self.size, self.output_height())
    }

    /// Where the chips of the overview are.
    pub fn chips_area(&self) -> Rect {
        let body = self.areas().body;
        Rect { height: body.height.saturating_sub(self.processes), ..body }
    }

    /// Place of the shown target among all, from 1 on, and how many there are.
    pub fn place(&self) -> (usize, usize) {
        let place = self.serials.iter().position(|serial| *serial == self.chosen);
        (place.map_or(0, |place| place + 1), self.serials.len())
    }

    /// Allocations per second in a pool of the shown target; `None` while unknown.
    pub fn rate(&self, chip: ChipId, buffer_type: BufferType) -> Option<f64> {
        self.rates.get(&self.chosen)?.get(chip, buffer_type)
    }

    /// Used bytes of a pool of the shown target in the last snapshots, the oldest first.
    pub fn trend(&self, chip: ChipId, buffer_type: BufferType) -> Vec<u64> {
        let rates = self.rates.get(&self.chosen);
        rates.map_or_else(Vec::new, |rates| rates.trend(chip, buffer_type).collect())
    }

    /// The shown target as it was when it was marked.
    pub fn mark(&self) -> Option<&Snapshot> {
        self.marks.get(&self.chosen).map(AsRef::as_ref)
    }

    /// Whether characters are being typed.
    pub const fn is_typing(&self) -> bool {
        self.prompt.is_some()
    }

    /// Chooses the target `steps` further on.
    fn choose(&mut self, steps: usize) {
        let place = self.serials.iter().position(|serial| *serial == self.chosen).unwrap_or(0);
        let count = self.serials.len().max(1);
        if let Some(serial) = self.serials.get((place + steps) % count) {
            self.chosen = *serial;
            self.timeline.leave();
            self.failures.open = None;
        }
    }

    /// Lines that the pane of the command's output takes, its title included; 0 without it.
    pub fn output_height(&self) -> u16 {
        let shown = self.has_command && !self.output_hidden;
        if shown { output_height(self.size) } else { 0 }
    }
}

/// Lines of the overview for the list of processes, where there are several.
fn processes(report: &Report, height: u16) -> u16 {
    let all = report.targets.len() + report.unwatched.len();
    if all < 2 {
        return 0;
    }
    u16::try_from(all + 1).unwrap_or(u16::MAX).min(height / 3)
}

#[cfg(test)]
mod tests;
