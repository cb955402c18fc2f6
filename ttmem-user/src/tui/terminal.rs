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
use ratatui::{
    Frame, Terminal, TerminalOptions, Viewport,
    backend::{Backend as _, CrosstermBackend},
    layout::{Position, Rect, Size},
};

/// What a terminal is taken to have that does not say.
pub const USUAL: Size = Size { width: 80, height: 24 };

/// The size to draw at: what a terminal says, unless it does not know.
pub fn usable(said: Size) -> Size {
    if said.width == 0 || said.height == 0 { USUAL } else { said }
}

/// Whether the terminal is ours at the moment.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// What frames are drawn by.
type Drawn = Terminal<CrosstermBackend<Stdout>>;

/// A terminal in raw mode on its alternate screen, restored on drop.
#[derive(Debug)]
pub struct TerminalGuard {
    terminal: Drawn,
    /// Whether it says no size, so that what is drawn cannot follow it.
    is_sizeless: bool,
}

impl TerminalGuard {
    /// Takes the terminal over.
    pub fn enter() -> io::Result<Self> {
        restore_on_panic();
        let (terminal, is_sizeless) = take()?;
        Ok(Self { terminal, is_sizeless })
    }

    /// Gives the terminal back while `pause` lasts, then takes it again, with nothing drawn.
    pub fn leave_for(&mut self, pause: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        restore();
        pause()?;
        (self.terminal, self.is_sizeless) = take()?;
        Ok(())
    }

    /// Draws one frame. An error once the terminal was given back: it shows the message of a panic.
    pub fn draw(&mut self, render: impl FnOnce(&mut Frame)) -> io::Result<()> {
        if !TAKEN.load(Ordering::SeqCst) {
            return Err(io::Error::other("the live view ends: a thread of it has panicked"));
        }
        let is_sizeless = is_sizeless()?;
        if is_sizeless != self.is_sizeless {
            self.terminal = terminal(is_sizeless)?;
            self.is_sizeless = is_sizeless;
        }
        self.terminal.draw(render).map(drop)
    }
}

/// Takes the terminal; whether it says no size comes with it.
fn take() -> io::Result<(Drawn, bool)> {
    TAKEN.store(true, Ordering::SeqCst);
    let taken = try_take();
    if taken.is_err() {
        restore();
    }
    taken
}

fn try_take() -> io::Result<(Drawn, bool)> {
    enable_raw_mode()?;
    // By hand: ratatui's `clear` asks the terminal where its cursor is, and not each answers.
    execute!(stdout(), EnterAlternateScreen, Clear(ClearType::All), EnableMouseCapture)?;
    let is_sizeless = is_sizeless()?;
    Ok((terminal(is_sizeless)?, is_sizeless))
}

fn terminal(is_sizeless: bool) -> io::Result<Drawn> {
    let viewport = if is_sizeless {
        Viewport::Fixed(Rect::from((Position::ORIGIN, USUAL)))
    } else {
        Viewport::Fullscreen
    };
    let backend = CrosstermBackend::new(stdout());
    Terminal::with_options(backend, TerminalOptions { viewport })
}

fn is_sizeless() -> io::Result<bool> {
    let said = CrosstermBackend::new(stdout()).size()?;
    Ok(usable(said) != said)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_that_does_not_know_its_size_has_a_usual_one() {
        assert_eq!(usable(Size::new(0, 0)), USUAL);
        assert_eq!(usable(Size::new(0, 24)), USUAL);
        assert_eq!(usable(Size::new(1, 1)), Size::new(1, 1));
    }
}
