//! The live view without its terminal: frames out, events in.

use crossterm::event::Event;
use ratatui::{
    Frame,
    widgets::{Paragraph, Wrap},
};

use super::{
    Theme, keymap,
    state::State,
    view::{self, Scene},
};
use crate::ledger::report::Report;

/// What an event calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Nothing; the screen is as it should be.
    Idle,
    /// Go on, and draw again.
    Continue,
    /// The user wants the live buffers read again; go on, and draw again.
    Resync,
    /// The user wants to leave.
    Quit,
}

/// The live view.
#[derive(Debug)]
pub struct Ui {
    theme: Theme,
    state: State,
}

impl Ui {
    /// A view with nothing open.
    pub fn new(theme: Theme) -> Self {
        Self { theme, state: State::default() }
    }

    /// Draws `report`; the same one may be drawn again at any time.
    pub fn draw(&mut self, frame: &mut Frame, report: &Report) {
        match self.state.observe(frame.area().as_size(), report) {
            Some(snapshot) => {
                view::view(frame, &Scene { theme: self.theme, state: &self.state, snapshot });
            }
            None => no_target(frame),
        }
    }

    /// Takes in an event of the terminal.
    pub fn handle(&mut self, event: &Event) -> Flow {
        if let Some(action) = keymap::action(event) {
            self.state.update(action);
        } else if !matches!(event, Event::Resize(..)) {
            return Flow::Idle;
        }
        if self.state.quit {
            Flow::Quit
        } else if std::mem::take(&mut self.state.resync) {
            Flow::Resync
        } else {
            Flow::Continue
        }
    }
}

fn no_target(frame: &mut Frame) {
    let text = " ttmem: no process with tt-metal yet; waiting for one  (q quits)";
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: false }), frame.area());
}
