//! The live view without its terminal: frames out, events in.

use crossterm::event::Event;
use ratatui::Frame;

use super::{
    Theme, keymap,
    state::State,
    view::{self, Scene},
};
use crate::{ledger::snapshot::Snapshot, units::Pid};

/// What the header says of the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetLabel {
    /// The process.
    pub pid: Pid,
    /// Its command line, for people.
    pub command: String,
    /// The version of tt-metal it runs, as far as known.
    pub version: Option<String>,
}

/// What an event calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Nothing; the screen is as it should be.
    Idle,
    /// Go on, and draw again.
    Continue,
    /// The user wants to leave.
    Quit,
}

/// The live view.
#[derive(Debug)]
pub struct Ui {
    theme: Theme,
    target: TargetLabel,
    state: State,
}

impl Ui {
    /// A view of `target`.
    pub fn new(theme: Theme, target: TargetLabel) -> Self {
        Self { theme, target, state: State::default() }
    }

    /// Draws `snapshot`; the same one may be drawn again at any time.
    pub fn draw(&mut self, frame: &mut Frame, snapshot: &Snapshot) {
        self.state.observe(frame.area().as_size(), snapshot);
        let scene = Scene { theme: self.theme, target: &self.target, state: &self.state, snapshot };
        view::view(frame, &scene);
    }

    /// Takes in an event of the terminal.
    pub fn handle(&mut self, event: &Event) -> Flow {
        if let Some(action) = keymap::action(event) {
            self.state.update(action);
        } else if !matches!(event, Event::Resize(..)) {
            return Flow::Idle;
        }
        if self.state.quit { Flow::Quit } else { Flow::Continue }
    }
}
