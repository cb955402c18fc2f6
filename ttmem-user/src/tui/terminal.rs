//! The terminal, taken over and given back.
//!
//! Invariant: whatever ends the view – return, error, panic of any thread – the terminal is as
//! before: cooked, on its main screen, with its cursor, and nothing more is drawn. Signals are the caller's, which drops the
//! [`TerminalGuard`]. It deliberately does not report errors of the restoring: there is no better
//! place to write to left, and the cause of the end must not be hidden by them.

use std::{
    io::{self, Stdout, stdout},
    panic,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

use crossterm::{
    cursor::{MoveTo, Show},
    event::{DisableMouseCapture, EnableMouseCapture},
    execute,
    terminal::{
        Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
        enable_raw_mode,
    },
};
use ratatui::{Frame, Terminal, backend::CrosstermBackend};

/// Whether the terminal is ours at the moment.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// A terminal in raw mode on its alternate screen, restored on drop.
#[derive(Debug)]
pub struct TerminalGuard {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl TerminalGuard {
    /// Takes the terminal over.
    pub fn enter() -> io::Result<Self> {
        restore_on_panic();
        TAKEN.store(true, Ordering::SeqCst);
        let entered = Self::try_enter();
        if entered.is_err() {
            restore();
        }
        entered
    }

    fn try_enter() -> io::Result<Self> {
        enable_raw_mode()?;
        // By hand: ratatui's `clear` asks the terminal where its cursor is, and not each answers.
        execute!(stdout(), EnterAlternateScreen, Clear(ClearType::All), EnableMouseCapture)?;
        Ok(Self { terminal: Terminal::new(CrosstermBackend::new(stdout()))? })
    }

    /// Draws one frame. An error once the terminal was given back: it shows the message of a panic.
    pub fn draw(&mut self, render: impl FnOnce(&mut Frame)) -> io::Result<()> {
        if !TAKEN.load(Ordering::SeqCst) {
            return Err(io::Error::other("the live view ends: a thread of it has panicked"));
        }
        self.terminal.draw(render).map(drop)
    }
}

impl Drop for TerminalGuard {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back; does nothing if it is not taken.
pub fn restore() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        // Cleared first: tmux, when resized meanwhile, else leaves lines of it above the prompt.
        let _ = execute!(
            stdout(),
            DisableMouseCapture,
            Clear(ClearType::All),
            MoveTo(0, 0),
            LeaveAlternateScreen,
            Show
        );
        let _ = disable_raw_mode();
    }
}

/// Restores the terminal before the hook that was there writes the panic's message.
fn restore_on_panic() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let next = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            restore();
            next(info);
        }));
    });
}
