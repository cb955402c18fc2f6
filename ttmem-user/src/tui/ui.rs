//! The live view without its terminal: frames out, events in.

use std::sync::Arc;

use crossterm::event::Event;
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect, Size},
    widgets::{Paragraph, Wrap},
};

use super::{
    Action, OutputTail, Request, Theme, ascii, keymap, output_size,
    state::{State, failures::Failures},
    view::{self, Command, Scene},
};
use crate::{
    format::one_line,
    history::recorder::Histories,
    ledger::{
        call::Calls,
        report::{Report, Unwatched},
    },
};

/// What an event calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Nothing; the screen is as it should be.
    Idle,
    /// Go on, and draw again.
    Continue,
    /// The user wants to be back in the shell for a while.
    Suspend,
    /// The user wants to leave.
    Quit,
}

/// The live view.
#[derive(Debug)]
pub struct Ui {
    /// Boxed: it is large, and futures have it in them.
    state: Box<State>,
    command: Option<Command>,
    /// What is said while there is nothing to show.
    waits_for: &'static str,
}

const ANY_TARGET: &str = "no process with tt-metal yet; waiting for one";
const WATCHED_BY_OTHERS: &str =
    "no process is watched yet; `sudo ttmem attach --pid N` or `ttmem serve` watches one";

impl Ui {
    /// A view with nothing open.
    pub fn new(theme: Theme) -> Self {
        let state = Box::new(State::new(theme, false));
        Self { state, command: None, waits_for: ANY_TARGET }
    }

    /// A view with a pane for the output of `command`, as the user typed it.
    pub fn with_command(theme: Theme, command: String) -> Self {
        let state = Box::new(State::new(theme, true));
        let command = Command { name: command, output: Arc::default() };
        Self { state, command: Some(command), waits_for: ANY_TARGET }
    }

    /// The same with what is recorded of the targets.
    #[must_use]
    pub fn with_histories(mut self, histories: Histories) -> Self {
        self.state.histories = Some(histories);
        self
    }

    /// The same with what called for their buffers.
    #[must_use]
    pub fn with_calls(mut self, calls: Arc<dyn Calls>) -> Self {
        self.state.calls = Some(calls);
        self.state.failures = Failures::with_sites();
        self
    }

    /// The same of what other programs watch.
    #[must_use]
    pub fn of_others(self) -> Self {
        Self { waits_for: WATCHED_BY_OTHERS, ..self }
    }

    /// Takes in what the command has written last.
    pub fn take_output(&mut self, output: Arc<OutputTail>) {
        if let Some(command) = &mut self.command {
            command.output = output;
        }
    }

    /// Size of the pane for the command's output, shown or not; `None` if there is no command, or
    /// no room.
    pub fn output_size(&self) -> Option<Size> {
        self.command.as_ref().and_then(|_| output_size(self.state.size))
    }

    /// What has been asked for since the last call.
    pub fn take_requests(&mut self) -> Vec<Request> {
        std::mem::take(&mut self.state.requests)
    }

    /// Whether to draw again at once: not all that is to be shown could be found in one frame.
    pub fn is_unfinished(&self) -> bool {
        self.state.is_unfinished()
    }

    /// Says something until the next key.
    pub fn say(&mut self, notice: String) {
        self.state.notice = Some(notice);
    }

    /// Draws `report`; the same one may be drawn again at any time.
    pub fn draw(&mut self, frame: &mut Frame, report: &Arc<Report>) {
        let report = self.state.observe(frame.area().as_size(), report);
        let Self { state, command, waits_for } = self;
        let (command, theme) = (command.as_ref(), state.theme);
        if let Some(now) = &state.shown {
            let snapshot = state.shown_then().map_or(now, |then| &then.snapshot);
            let (report, now_ns) = (&*report, now.time_ns);
            view::view(frame, &Scene { theme, state, snapshot, now_ns, report, command });
        } else {
            let panes = [Constraint::Fill(1), Constraint::Length(state.output_height())];
            let [top, bottom] = Layout::vertical(panes).areas(frame.area());
            no_target(frame, top, waits_for, &report.unwatched);
            if let Some(command) = command {
                view::output(frame, bottom, theme, command);
            }
        }
        if theme.ascii {
            ascii::replace(frame.buffer_mut());
        }
    }

    /// Takes in an event of the terminal.
    pub fn handle(&mut self, event: &Event) -> Flow {
        match keymap::action(event, self.state.is_typing()) {
            Some(Action::Suspend) => return Flow::Suspend,
            Some(action) => self.state.update(action),
            None if matches!(event, Event::Resize(..)) => {}
            None => return Flow::Idle,
        }
        if self.state.quit { Flow::Quit } else { Flow::Continue }
    }
}

fn no_target(frame: &mut Frame, area: Rect, waits_for: &str, unwatched: &[Unwatched]) {
    let waits = format!(" ttmem: {waits_for}  (q quits)");
    let found =
        " ttmem: no process that could be watched yet; waiting for one  (q quits)".to_owned();
    let mut lines = vec![if unwatched.is_empty() { waits } else { found }];
    lines.extend(unwatched.iter().map(|process| {
        let Unwatched { pid, command, reason } = process;
        one_line(&format!(" not watched: pid {pid} {command}: {reason}"))
    }));
    let text = lines.join("\n");
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: false }), area);
}
