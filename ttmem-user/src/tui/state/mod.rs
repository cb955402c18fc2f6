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
pub mod histograms;
pub mod map;
pub mod overview;
pub mod past;
pub mod timeline;

use std::{collections::HashMap, sync::Arc};

use ratatui::layout::{Rect, Size};

use super::{
    Action, Request, Tab, Theme,
    areas::Areas,
    export::{Export, Kind},
    keymap::BINDINGS,
    notes,
    output::output_height,
    prompt::{Prompt, Purpose},
    rates::Rates,
    table::{Tabular, fitting},
};
use crate::{
    event::BufferType,
    history::recorder::{Handle, Histories},
    ledger::{
        report::Report,
        snapshot::{Detail, Snapshot},
    },
    units::ChipId,
};

/// The name of the mark that the view sets.
const MARK: &str = "view";

/// Why there is nothing to show of what is recorded.
const NOT_RECORDED: &str = "not available here: only the ttmem that attached keeps every change";

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
    /// The report that is held.
    pub frozen: Option<Arc<Report>>,
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
    /// The shown target at the instant that is looked at, if that is not now.
    pub then: Option<past::Then>,
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
        self.health.note(newest);
        self.note(newest);
        let report = Arc::clone(self.frozen.as_ref().unwrap_or(newest));
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
                self.timeline.instant = None;
                self.failures.open = None;
            }
            self.observe_target(&target);
        }
        report
    }

    /// Takes in what the newest report says of what is recorded.
    fn note(&mut self, newest: &Arc<Report>) {
        if self.newest.as_ref().is_some_and(|last| Arc::ptr_eq(last, newest)) {
            return;
        }
        self.newest = Some(Arc::clone(newest));
        if let Some(histories) = &self.histories {
            histories.observe(newest);
        }
    }

    /// What the shown target has done, if that is recorded.
    pub fn history(&self) -> Option<Handle> {
        self.histories.as_ref()?.get(self.chosen)
    }

    /// The instant that is looked at, ns; `None`: now.
    fn instant(&self) -> Option<u64> {
        let frozen = || self.frozen.as_ref().map(|report| report.time_ns);
        self.timeline.instant.or_else(frozen)
    }

    /// Whether the open view shows what was at the instant that is looked at.
    pub const fn shows_then(&self) -> bool {
        matches!(self.tab, Tab::Overview | Tab::Buffers)
    }

    /// Makes ready what was at the instant that is looked at.
    fn look_back(&mut self, now: &Snapshot) {
        let (Some(time_ns), Some(history)) = (self.instant(), self.history()) else {
            self.then = None;
            return;
        };
        let serial = now.process.serial;
        let is_there = |then: &past::Then| then.serial == serial && then.time_ns == time_ns;
        if !self.then.as_ref().is_some_and(is_there) {
            self.then = Some(past::Then::new(&history.lock(), time_ns, now));
        }
    }

    /// Makes ready a view that shows what is recorded.
    fn observe_history(&mut self, size: Size, snapshot: &Snapshot) {
        self.look_back(snapshot);
        let Some(history) = self.history() else {
            let why = Some(NOT_RECORDED.to_owned());
            self.buffers.missing.clone_from(&why);
            self.timeline.missing.clone_from(&why);
            self.histograms.missing.clone_from(&why);
            self.events.missing = why;
            return;
        };
        let until_ns = self.instant().unwrap_or(u64::MAX);
        match self.tab {
            Tab::Buffers => self.observe_buffers(size, &history, snapshot),
            Tab::Timeline => self.timeline.observe(size, &history.lock(), snapshot),
            Tab::Histograms => {
                self.histograms.observe(size.height, &history.lock(), snapshot.time_ns);
            }
            Tab::Events => {
                let newest = self.newest.as_ref().map_or(0, |report| report.time_ns);
                let number = self.instant().unwrap_or(newest);
                let version = (self.chosen, number, until_ns);
                if self.events.is_old(version) {
                    self.events.observe(version, &history.lock(), until_ns);
                }
                self.events.table.resize(size.height.saturating_sub(1).into());
            }
            _ => {}
        }
    }

    fn observe_buffers(&mut self, size: Size, history: &Handle, snapshot: &Snapshot) {
        let Self { buffers, then, chosen, newest, .. } = self;
        let serial = *chosen;
        let Some(then) = then else {
            let number = newest.as_ref().map_or(0, |report| report.time_ns);
            let time_ns = snapshot.time_ns;
            let version = buffers::Version { serial, number, past: false, time_ns };
            return buffers.observe(size.height, version, |make| {
                let history = history.lock();
                let mark = history.marks().last();
                let growth = |by| {
                    let groups = history.group_growth(mark?, by);
                    Some(groups.into_iter().map(|group| (group.key, group.bytes)).collect())
                };
                make(&buffers::Look { live: history.live(), growth: &growth });
                match history.gap() {
                    Some(gap) if !gap.healing => Err("changes were missed".to_owned()),
                    _ => Ok(()),
                }
            });
        };
        let time_ns = then.time_ns;
        let version = buffers::Version { serial, number: time_ns, past: true, time_ns };
        buffers.observe(size.height, version, |make| {
            let past = then.past.as_ref().map_err(Clone::clone)?;
            make(&buffers::Look { live: &past.live, growth: &|_| None });
            Ok(())
        });
    }

    fn observe_target(&mut self, snapshot: &Arc<Snapshot>) {
        let body = self.areas().body;
        let size = body.as_size();
        match self.tab {
            Tab::Overview => {
                self.look_back(snapshot);
                let then = self.then.as_ref().map(|then| Arc::clone(&then.snapshot));
                let area = self.chips_area().as_size();
                self.overview.observe(area, then.as_deref().unwrap_or(snapshot));
            }
            Tab::Map => self.map.observe(size, snapshot),
            Tab::Circular => self.circular.observe(size.height, snapshot),
            Tab::Failures => self.failures.observe(size.height, snapshot),
            Tab::Health => self.health.observe(size.height, snapshot),
            Tab::Buffers | Tab::Timeline | Tab::Histograms | Tab::Events => {
                self.observe_history(size, snapshot);
            }
        }
        self.overlay_lines = match self.overlay {
            Overlay::None => 0,
            Overlay::Help => BINDINGS.len(),
            Overlay::Notes => notes::lines(snapshot, Overlay::inner(self.size).width.into()).len(),
        };
        self.clamp();
        let detail = Detail {
            map: self.tab == Tab::Map,
            programs: self.tab == Tab::Circular,
            ..Detail::default()
        };
        if detail != self.detail {
            self.detail = detail;
            self.requests.push(Request::Detail(detail));
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
            self.timeline.instant = None;
            self.failures.open = None;
        }
    }

    /// Lines that the pane of the command's output takes, its title included; 0 without it.
    pub fn output_height(&self) -> u16 {
        let shown = self.has_command && !self.output_hidden;
        if shown { output_height(self.size) } else { 0 }
    }

    /// Does what the user asked for.
    pub fn update(&mut self, action: Action) {
        self.notice = None;
        if self.type_into_prompt(action) {
            return;
        }
        match action {
            Action::Interrupt if self.has_command => self.requests.push(Request::Interrupt),
            Action::Quit | Action::Interrupt => self.quit = true,
            Action::ToggleOutput => self.output_hidden = !self.output_hidden,
            Action::ToggleHelp => self.toggle(Overlay::Help),
            Action::ToggleNotes => self.toggle(Overlay::Notes),
            Action::NextTheme => self.theme = self.theme.next(),
            Action::NextTarget => self.choose(1),
            Action::PreviousTarget => self.choose(self.serials.len().saturating_sub(1)),
            Action::Resync => self.requests.push(Request::Resync),
            Action::Close if self.overlay != Overlay::None => self.overlay = Overlay::None,
            _ if self.overlay != Overlay::None && self.scroll_overlay(action) => {}
            Action::Show(tab) => self.open(tab),
            Action::NextTab => self.open(self.tab.after(1)),
            Action::PreviousTab => self.open(self.tab.after(Tab::ALL.len() - 1)),
            Action::ExportJson => self.export(Kind::Json),
            Action::ExportCsv => self.export(Kind::Csv),
            Action::Unmark => self.unmark(),
            Action::Mark => self.set_mark(),
            Action::Freeze => self.freeze(),
            Action::Filter => self.begin_filter(),
            Action::Fit if self.tab == Tab::Map => {
                self.prompt = Some(Prompt { purpose: Purpose::Fit, text: String::new() });
            }
            Action::Click(column, line) => self.click(column, line),
            _ => self.update_view(action),
        }
        self.clamp();
    }

    fn open(&mut self, tab: Tab) {
        self.tab = tab;
        self.overlay = Overlay::None;
    }

    fn set_mark(&mut self) {
        let Some(shown) = self.shown.clone() else { return };
        if let Some(history) = self.history() {
            history.lock().forget_mark(MARK);
            history.mark(MARK, shown.time_ns);
        }
        self.marks.insert(self.chosen, shown);
        self.notice = Some("marked: overview and groups of buffers show growth since".to_owned());
    }

    fn unmark(&mut self) {
        self.marks.remove(&self.chosen);
        if let Some(history) = self.history() {
            history.lock().forget_mark(MARK);
        }
    }

    fn freeze(&mut self) {
        self.frozen = match self.frozen.take() {
            Some(_) => None,
            None => self.newest.clone(),
        };
    }

    fn update_view(&mut self, action: Action) {
        let own = match self.tab {
            Tab::Overview => self.overview.update(action),
            Tab::Map => self.map.update(action),
            Tab::Buffers => self.buffers.update_view(action),
            Tab::Timeline => self.timeline.update(action),
            Tab::Histograms => self.histograms.update(action),
            Tab::Failures => self.failures.update(action),
            _ => false,
        };
        if own {
            return;
        }
        if let Some(table) = self.table() {
            let changed = table.update(action);
            // Esc shows all rows again.
            if !changed && action == Action::Close {
                table.set_filter("");
            }
        }
        // Wherever it is, Esc leads back to now.
        if action == Action::Close {
            self.timeline.instant = None;
        }
    }

    /// The table of the open view.
    pub fn table(&mut self) -> Option<&mut dyn Tabular> {
        match self.tab {
            Tab::Circular => Some(&mut self.circular.table),
            Tab::Failures => Some(self.failures.tabular()),
            Tab::Health => Some(&mut self.health.table),
            Tab::Buffers => Some(self.buffers.tabular()),
            Tab::Histograms => Some(&mut self.histograms.table),
            Tab::Events => Some(&mut self.events.table),
            Tab::Overview | Tab::Map | Tab::Timeline => None,
        }
    }

    /// Where the headings of the open view's table are.
    fn table_top(&self) -> u16 {
        let body = self.areas().body;
        let above = match (self.tab, &self.shown) {
            (Tab::Circular, Some(shown)) => circular::Circular::chip_lines(body.height, shown),
            (Tab::Buffers, _) => buffers::TITLE,
            (Tab::Histograms, _) => histograms::Histograms::bars(body.height),
            (Tab::Failures, _) if self.failures.open.is_some() => failures::TITLE,
            _ => 0,
        };
        body.y + above
    }

    fn begin_filter(&mut self) {
        if let Some(table) = self.table() {
            let text = table.filter().text().to_owned();
            self.prompt = Some(Prompt { purpose: Purpose::Filter, text });
        } else {
            self.notice = Some("there are no rows to filter in this view".to_owned());
        }
    }

    /// Takes in a request while something is being typed; `false`: nothing is, or it is none that
    /// types, and does what it always does.
    fn type_into_prompt(&mut self, action: Action) -> bool {
        let Some(mut prompt) = self.prompt.take() else { return false };
        let filter = prompt.purpose == Purpose::Filter;
        match action {
            Action::Close => {
                prompt.text.clear();
                self.take_typed(&prompt);
            }
            Action::Enter if filter => {}
            Action::Enter => self.take_typed(&prompt),
            Action::Interrupt | Action::Click(..) => return false,
            _ => {
                if prompt.update(action) && filter {
                    self.take_typed(&prompt);
                }
                self.prompt = Some(prompt);
            }
        }
        true
    }

    fn take_typed(&mut self, prompt: &Prompt) {
        match prompt.purpose {
            Purpose::Filter => {
                if let Some(table) = self.table() {
                    table.set_filter(&prompt.text);
                }
            }
            Purpose::Fit => self.notice = self.map.ask(&prompt.text).err(),
        }
    }

    fn export(&mut self, kind: Kind) {
        let (Some(shown), tab) = (self.shown.clone(), self.tab) else { return };
        let export = match tab {
            Tab::Overview => Some(super::pools::export(&shown)),
            Tab::Map => Some(self.map.export()),
            Tab::Timeline => Some(self.timeline.export()),
            Tab::Buffers if !self.buffers.shows_groups() => self.export_buffers(shown.time_ns),
            _ => self.table().map(|table| table.export(name(tab))),
        };
        match export {
            Some(export) => {
                let file = export.file(kind, shown.pid.0, shown.time_ns);
                self.requests.push(Request::Export(file));
            }
            None => self.notice = Some("there is nothing to export in this view".to_owned()),
        }
    }

    fn export_buffers(&self, now_ns: u64) -> Option<Export> {
        if let Some(then) = &self.then {
            let past = then.past.as_ref().ok()?;
            return Some(self.buffers.export_all(&past.live, then.time_ns));
        }
        let history = self.history()?;
        let history = history.lock();
        Some(self.buffers.export_all(history.live(), now_ns))
    }

    fn click(&mut self, column: u16, line: u16) {
        let areas = self.areas();
        if line == areas.tabs.y && areas.tabs.height > 0 {
            if let Some(tab) = self.tab.at(areas.tabs, column) {
                self.open(tab);
            }
            return;
        }
        let inside = line >= areas.body.y && line < areas.body.bottom();
        if !inside || self.overlay != Overlay::None {
            return;
        }
        let body_line = usize::from(line - areas.body.y);
        match self.tab {
            Tab::Overview => self.overview.click(column, body_line),
            Tab::Map => self.map.click(column, body_line),
            Tab::Timeline => self.timeline.click(column),
            _ => {
                let Some(below) = line.checked_sub(self.table_top()) else { return };
                if let Some(table) = self.table() {
                    click_table(table, areas.body.width, column, below);
                }
            }
        }
    }

    fn toggle(&mut self, overlay: Overlay) {
        self.overlay = if self.overlay == overlay { Overlay::None } else { overlay };
        self.overlay_offset = 0;
    }

    fn scroll_overlay(&mut self, action: Action) -> bool {
        let page = usize::from(Overlay::inner(self.size).height);
        self.overlay_offset = match action {
            Action::Up => self.overlay_offset.saturating_sub(1),
            Action::Down => self.overlay_offset + 1,
            Action::PageUp => self.overlay_offset.saturating_sub(page),
            Action::PageDown => self.overlay_offset + page,
            Action::Top => 0,
            Action::Bottom => usize::MAX,
            _ => return false,
        };
        true
    }

    fn clamp(&mut self) {
        let page = usize::from(Overlay::inner(self.size).height);
        self.overlay_offset = self.overlay_offset.min(self.overlay_lines.saturating_sub(page));
    }
}

/// The name of a view in exports.
const fn name(tab: Tab) -> &'static str {
    match tab {
        Tab::Overview => "overview",
        Tab::Buffers => "buffers",
        Tab::Map => "map",
        Tab::Circular => "programs",
        Tab::Timeline => "timeline",
        Tab::Histograms => "histograms",
        Tab::Failures => "failures",
        Tab::Events => "events",
        Tab::Health => "health",
    }
}

fn click_table(table: &mut dyn Tabular, width: u16, column: u16, below: u16) {
    if let Some(line) = below.checked_sub(1) {
        table.click(None, line.into());
        return;
    }
    let columns = fitting(&table.headings(), width);
    let hit = columns.into_iter().find(|(_, x, width)| (*x..=x + width).contains(&column));
    if let Some((place, ..)) = hit {
        table.click(Some(place), 0);
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
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{fixture, ledger::snapshot::ProcessLabel};

    const USUAL: Size = Size { width: 80, height: 24 };

    fn observe(state: &mut State, size: Size, snapshot: &Snapshot) {
        state.observe(size, &Arc::new(Report::of_one(snapshot.clone())));
    }

    fn state(snapshot: &Snapshot) -> State {
        let mut state = State::default();
        observe(&mut state, USUAL, snapshot);
        state
    }

    #[test]
    fn scrolling_stops_at_both_ends() {
        let mut state = state(&fixture::galaxy());
        state.update(Action::Layout);
        observe(&mut state, USUAL, &fixture::galaxy());
        let after = |state: &mut State, action| {
            state.update(action);
            state.overview.offset
        };
        assert_eq!(after(&mut state, Action::Up), 0);
        assert_eq!(after(&mut state, Action::Down), 1);
        assert_eq!(after(&mut state, Action::PageDown), 4);
        assert_eq!(after(&mut state, Action::Bottom), 29);
        assert_eq!(after(&mut state, Action::Down), 29);
        assert_eq!(after(&mut state, Action::PageDown), 29);
        assert_eq!(after(&mut state, Action::PageUp), 26);
        assert_eq!(after(&mut state, Action::Top), 0);
    }

    #[test]
    fn the_offset_follows_a_shrinking_world() {
        let mut state = state(&fixture::galaxy());
        state.update(Action::Layout);
        state.update(Action::Bottom);
        observe(&mut state, Size { width: 200, height: 60 }, &fixture::galaxy());
        assert_eq!(state.overview.offset, 7);
        observe(&mut state, USUAL, &fixture::normal());
        assert_eq!(state.overview.offset, 0);
        observe(&mut state, Size::ZERO, &fixture::empty());
        state.update(Action::Bottom);
        assert_eq!(state.overview.offset, 0);
    }

    #[test]
    fn tab_goes_round_and_a_target_that_goes_gives_way() {
        let target = |serial| {
            let mut snapshot = fixture::normal();
            snapshot.process = Arc::new(ProcessLabel { serial, ..ProcessLabel::default() });
            Arc::new(snapshot)
        };
        let report = |serials: &[u64]| Report {
            targets: serials.iter().map(|serial| target(*serial)).collect(),
            ..Report::default()
        };
        let mut state = State::default();
        let shown = |state: &mut State, serials: &[u64]| {
            state.observe(USUAL, &Arc::new(report(serials)));
            state.shown.as_ref().map(|shown| shown.process.serial)
        };
        assert_eq!(shown(&mut state, &[]), None);
        state.update(Action::NextTarget);
        assert_eq!(shown(&mut state, &[3, 5, 9]), Some(3));
        for (action, expected) in [
            (Action::NextTarget, 5),
            (Action::NextTarget, 9),
            (Action::NextTarget, 3),
            (Action::PreviousTarget, 9),
        ] {
            state.update(action);
            assert_eq!(shown(&mut state, &[3, 5, 9]), Some(expected));
        }
        assert_eq!(state.place(), (3, 3));
        assert_eq!(shown(&mut state, &[3, 5]), Some(3), "the one that was shown is gone");
    }

    #[test]
    fn one_overlay_at_a_time() {
        let mut state = state(&fixture::normal());
        let steps = [
            (Action::ToggleHelp, Overlay::Help),
            (Action::ToggleHelp, Overlay::None),
            (Action::ToggleNotes, Overlay::Notes),
            (Action::ToggleHelp, Overlay::Help),
            (Action::Close, Overlay::None),
            (Action::Close, Overlay::None),
        ];
        for (action, overlay) in steps {
            state.update(action);
            assert_eq!(state.overlay, overlay, "after {action:?}");
        }
        assert!(!state.quit);
        state.update(Action::Quit);
        assert!(state.quit);
    }

    #[test]
    fn an_open_overlay_takes_the_scrolling() {
        let small = Size { width: 40, height: 8 };
        let mut state = state(&fixture::galaxy());
        state.update(Action::Layout);
        state.update(Action::Down);
        state.update(Action::ToggleHelp);
        observe(&mut state, small, &fixture::galaxy());
        state.update(Action::Bottom);
        assert_eq!((state.overview.offset, state.overlay_offset), (1, BINDINGS.len() - 6));
        state.update(Action::ToggleHelp);
        state.update(Action::ToggleHelp);
        assert_eq!(state.overlay_offset, 0);
    }
}
