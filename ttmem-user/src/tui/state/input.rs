//! What the user asks for: keys and clicks, first for what is typed into, then for what lies on top,
//! then for the open view.

use std::sync::Arc;

use super::{
    Overlay, State, buffers, circular, events, failures,
    held::{Hold, Wanted},
    histograms,
    ready::look_up,
};
use crate::{
    history::{LiveSet, Past, recorder::Handle},
    ledger::snapshot::Snapshot,
    tui::{
        Action, Request, Tab,
        export::{Export, Kind},
        pools::{self, When},
        prompt::{Prompt, Purpose},
        table::{Tabular, fitting},
    },
};

/// The name of the mark that the view sets.
const MARK: &str = "view";

impl State {
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
            Action::Enter if self.open_stack(self.buffer_at_cursor()) => {}
            Action::CallStack => self.open_call_stack(),
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
        for history in self.recorded() {
            history.lock().forget_mark(MARK);
        }
        if let Some(history) = self.history() {
            history.mark(MARK, shown.time_ns);
            // What is held may be out of reach by now in what goes on being recorded.
            let mark = history.lock().marks().last().cloned();
            let others = self.recorded().filter(|other| !Arc::ptr_eq(other, &history));
            for (other, mark) in others.zip(mark) {
                other.take_mark(mark);
            }
        }
        self.marks.insert(self.chosen, shown);
        self.notice = Some("marked: overview and buffers show growth since".to_owned());
    }

    fn unmark(&mut self) {
        self.marks.remove(&self.chosen);
        for history in self.recorded() {
            history.lock().forget_mark(MARK);
        }
    }

    /// What is recorded of the shown target, and what is held of it.
    fn recorded(&self) -> impl Iterator<Item = Handle> {
        let live = self.histories.as_ref().and_then(|all| all.get(self.chosen));
        live.into_iter().chain(self.hold.history(self.chosen).cloned())
    }

    fn freeze(&mut self) {
        self.then = None;
        self.hold = match &self.hold {
            Hold::No => Hold::Wanted(Wanted::default()),
            Hold::Wanted(_) | Hold::Held(_) => Hold::No,
        };
    }

    fn update_view(&mut self, action: Action) {
        let own = match self.tab {
            Tab::Overview => self.overview.update(action),
            Tab::Map => self.map.update(action),
            Tab::Buffers => self.buffers.update_view(action),
            Tab::Timeline => self.timeline.update(action),
            Tab::Histograms => self.histograms.update(action),
            Tab::Failures => {
                let (calls, serial) = (self.calls.as_deref(), self.chosen);
                self.failures.update(action, |live| {
                    let Some(calls) = calls else { return };
                    calls.look(serial, &mut |known| {
                        for buffer in live.iter_mut() {
                            buffer.look_up(known);
                        }
                    });
                })
            }
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
            (Tab::Events, _) => events::TITLE,
            (Tab::Histograms, _) => histograms::Histograms::bars(body.height),
            (Tab::Failures, _) if self.failures.open.is_some() => failures::TITLE,
            _ => 0,
        };
        body.y + above
    }

    fn begin_filter(&mut self) {
        let text = self.filter().text().to_owned();
        self.prompt = Some(Prompt { purpose: Purpose::Filter, text });
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
            Purpose::Filter => self.set_filter(&prompt.text),
            Purpose::Fit => self.notice = self.map.ask(&prompt.text).err(),
        }
    }

    fn export(&mut self, kind: Kind) {
        let (Some(shown), tab) = (self.shown.clone(), self.tab) else { return };
        // A file is of the instant that it names.
        while self.shown_then().is_some_and(|then| then.left() > 0) {
            self.look_back(&shown);
        }
        let export = match tab {
            Tab::Overview => Some(self.export_pools(&shown)),
            Tab::Map => Some(self.map.export()),
            Tab::Timeline => Some(self.timeline.export()),
            Tab::Circular => Some(self.circular.export(&shown)),
            Tab::Histograms => Some(self.histograms.export()),
            Tab::Buffers if !self.buffers.shows_groups() => self.export_buffers(shown.time_ns),
            Tab::Buffers => Some(self.buffers.shown().export("groups")),
            Tab::Failures => Some(self.failures.export()),
            Tab::Events => Some(self.events.table.export("events")),
            Tab::Health => Some(self.health.table.export("health")),
        };
        match export {
            Some(export) => {
                let time_ns = self.shown_then().map_or(shown.time_ns, |then| then.time_ns);
                let file = export.file(kind, shown.pid.0, time_ns);
                self.requests.push(Request::Export(file));
            }
            None => self.notice = Some("there is nothing to export in this view".to_owned()),
        }
    }

    /// Every pool that passes the filter.
    fn export_pools(&self, now: &Snapshot) -> Export {
        let since = self.mark();
        let (snapshot, when) = self.shown_then().map_or((now, When::Now), |then| {
            let logical = then.past().ok().map(Past::logical_bytes);
            (&*then.snapshot, When::Then(logical))
        });
        pools::export(snapshot, &when, since, |chip, pool| {
            let rate = self.rate(chip.chip, pool.buffer_type);
            self.overview.passes(chip, pool.buffer_type.name()).then_some(rate)
        })
    }

    fn export_buffers(&self, now_ns: u64) -> Option<Export> {
        let mark_ns = self.mark().map(|mark| mark.time_ns);
        if let Some(then) = &self.then {
            let past = then.past().ok()?;
            return self.export_live(&past.live, then.time_ns, mark_ns);
        }
        let history = self.history()?;
        let history = history.lock();
        self.export_live(history.live(), now_ns, mark_ns)
    }

    fn export_live(&self, live: &LiveSet, now_ns: u64, mark_ns: Option<u64>) -> Option<Export> {
        let mut export = None;
        look_up(self.calls.as_ref(), self.chosen, &mut |sites| {
            export = Some(self.buffers.export_all(live, now_ns, mark_ns, sites));
        });
        export
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
        let chips = usize::from(self.chips_area().height);
        match self.tab {
            Tab::Overview if body_line >= chips => {
                self.choose_nth((body_line - chips).checked_sub(1));
            }
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

    /// Shows the target at a place of the list.
    fn choose_nth(&mut self, place: Option<usize>) {
        let here = self.serials.iter().position(|serial| *serial == self.chosen);
        let Some((place, here)) = place.filter(|place| *place < self.serials.len()).zip(here)
        else {
            return;
        };
        self.choose(place + self.serials.len() - here);
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

    pub(super) fn clamp(&mut self) {
        let page = usize::from(Overlay::inner(self.size).height);
        self.overlay_offset = self.overlay_offset.min(self.overlay_lines.saturating_sub(page));
    }
}

fn click_table(table: &mut dyn Tabular, width: u16, column: u16, below: u16) {
    if let Some(line) = below.checked_sub(1) {
        table.click(None, line.into());
        return;
    }
    let columns = fitting(&table.headings(), width, table.sorting().column);
    let hit = columns.into_iter().find(|(_, x, width)| (*x..=x + width).contains(&column));
    if let Some((place, ..)) = hit {
        table.click(Some(place), 0);
    }
}
