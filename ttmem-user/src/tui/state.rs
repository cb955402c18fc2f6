//! What the user sees of it all right now: what is open, how far it is scrolled, the rates.
//!
//! Invariant: offsets are in bounds after every update and every snapshot, whatever came before.

use std::collections::HashMap;

use ratatui::layout::Size;

use super::{
    Action,
    grid::{Extent, Grid},
    keymap::BINDINGS,
    notes,
    output::output_height,
    rates::Rates,
};
use crate::{
    event::BufferType,
    ledger::{report::Report, snapshot::Snapshot},
    units::ChipId,
};

/// What lies over the overview.
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
#[expect(clippy::struct_excessive_bools, reason = "each is a wish or a fact of its own")]
pub struct State {
    /// What lies over the overview.
    pub overlay: Overlay,
    /// Lines that the overlay is scrolled.
    pub overlay_offset: usize,
    /// Steps that the overview is scrolled; see [`Grid`].
    pub offset: usize,
    /// Whether the user wants to leave.
    pub quit: bool,
    /// Whether the user wants the live buffers read again.
    pub resync: bool,
    /// Whether the user wants the command interrupted.
    pub interrupt: bool,
    /// Whether there is a command, whose output can be shown.
    pub has_command: bool,
    /// Whether its output is hidden.
    pub output_hidden: bool,
    /// Size of the terminal.
    pub size: Size,
    /// The targets that there are, by serial.
    serials: Vec<u64>,
    /// The one that is shown, by serial.
    chosen: u64,
    /// Allocation rates, by target.
    rates: HashMap<u64, Rates>,
    extent: Extent,
    overlay_lines: usize,
}

impl State {
    /// Takes in the size of the terminal and the report that is about to be shown; returns the
    /// target to show, if there is any.
    pub fn observe<'a>(&mut self, size: Size, report: &'a Report) -> Option<&'a Snapshot> {
        self.size = size;
        self.serials = report.targets.iter().map(|target| target.process.serial).collect();
        let Self { serials, rates, .. } = self;
        rates.retain(|serial, _| serials.contains(serial));
        for target in &report.targets {
            rates.entry(target.process.serial).or_default().observe(target);
        }
        let chosen = report.targets.iter().find(|target| target.process.serial == self.chosen);
        let target = chosen.or(report.targets.first());
        if let Some(target) = target {
            self.chosen = target.process.serial;
            self.observe_target(target);
        }
        target.map(AsRef::as_ref)
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

    /// Chooses the target `steps` further on.
    fn choose(&mut self, steps: usize) {
        let place = self.serials.iter().position(|serial| *serial == self.chosen).unwrap_or(0);
        let count = self.serials.len().max(1);
        if let Some(serial) = self.serials.get((place + steps) % count) {
            self.chosen = *serial;
        }
    }

    fn observe_target(&mut self, snapshot: &Snapshot) {
        self.extent = Extent::of(snapshot);
        self.overlay_lines = match self.overlay {
            Overlay::None => 0,
            Overlay::Help => BINDINGS.len(),
            Overlay::Notes => notes::lines(snapshot, Overlay::inner(self.size).width.into()).len(),
        };
        self.clamp();
    }

    /// How the chips are laid out.
    pub fn grid(&self) -> Grid {
        let height = self.size.height.saturating_sub(self.output_height());
        Grid::new(Size { height, ..self.size }, self.extent)
    }

    /// Lines that the pane of the command's output takes, its title included; 0 without it.
    pub fn output_height(&self) -> u16 {
        let shown = self.has_command && !self.output_hidden;
        if shown { output_height(self.size) } else { 0 }
    }

    /// Does what the user asked for.
    pub fn update(&mut self, action: Action) {
        match action {
            Action::Interrupt if self.has_command => self.interrupt = true,
            Action::Quit | Action::Interrupt => self.quit = true,
            Action::ToggleOutput => self.output_hidden = !self.output_hidden,
            Action::ToggleHelp => self.toggle(Overlay::Help),
            Action::ToggleNotes => self.toggle(Overlay::Notes),
            Action::Close => self.overlay = Overlay::None,
            Action::NextTarget => self.choose(1),
            Action::PreviousTarget => self.choose(self.serials.len().saturating_sub(1)),
            Action::Resync => self.resync = true,
            Action::Up => self.scroll(|offset, _| offset.saturating_sub(1)),
            Action::Down => self.scroll(|offset, _| offset + 1),
            Action::PageUp => self.scroll(usize::saturating_sub),
            Action::PageDown => self.scroll(|offset, page| offset + page),
            Action::Top => self.scroll(|_, _| 0),
            Action::Bottom => self.scroll(|_, _| usize::MAX),
        }
        self.clamp();
    }

    fn toggle(&mut self, overlay: Overlay) {
        self.overlay = if self.overlay == overlay { Overlay::None } else { overlay };
        self.overlay_offset = 0;
    }

    /// Sets the offset of what is on top to a function of itself and the size of a page.
    fn scroll(&mut self, to: impl Fn(usize, usize) -> usize) {
        if self.overlay == Overlay::None {
            self.offset = to(self.offset, self.grid().page());
        } else {
            let page = usize::from(Overlay::inner(self.size).height);
            self.overlay_offset = to(self.overlay_offset, page);
        }
    }

    fn clamp(&mut self) {
        let page = usize::from(Overlay::inner(self.size).height);
        self.offset = self.offset.min(self.grid().max_offset());
        self.overlay_offset = self.overlay_offset.min(self.overlay_lines.saturating_sub(page));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{fixture, ledger::snapshot::ProcessLabel};

    const USUAL: Size = Size { width: 80, height: 24 };

    fn observe(state: &mut State, size: Size, snapshot: &Snapshot) {
        state.observe(size, &Report::of_one(snapshot.clone()));
    }

    fn state(snapshot: &Snapshot) -> State {
        let mut state = State::default();
        observe(&mut state, USUAL, snapshot);
        state
    }

    #[test]
    fn scrolling_stops_at_both_ends() {
        let mut state = state(&fixture::galaxy());
        let after = |state: &mut State, action| {
            state.update(action);
            state.offset
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
        state.update(Action::Bottom);
        observe(&mut state, Size { width: 200, height: 60 }, &fixture::galaxy());
        assert_eq!(state.offset, 7);
        observe(&mut state, USUAL, &fixture::normal());
        assert_eq!(state.offset, 0);
        observe(&mut state, Size::ZERO, &fixture::empty());
        state.update(Action::Bottom);
        assert_eq!(state.offset, 0);
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
            state.observe(USUAL, &report(serials)).map(|shown| shown.process.serial)
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
        state.update(Action::Down);
        state.update(Action::ToggleHelp);
        observe(&mut state, small, &fixture::galaxy());
        state.update(Action::Bottom);
        assert_eq!((state.offset, state.overlay_offset), (1, BINDINGS.len() - 6));
        state.update(Action::ToggleHelp);
        state.update(Action::ToggleHelp);
        assert_eq!(state.overlay_offset, 0);
    }
}
