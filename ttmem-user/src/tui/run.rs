//! Feeds the live view: reports, keys and the end.

use std::{pin::pin, sync::Arc};

use crossterm::event::EventStream;
use futures_util::StreamExt as _;
use tokio::sync::watch;

use super::{Flow, TerminalGuard, Ui};
use crate::ledger::report::Report;

/// What the user asks for of whoever watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// To read the live buffers again, and compare.
    Resync,
}

/// Shows `reports` on the terminal until the user quits or `quit` completes, then gives the
/// terminal back. Dropping the future does so, too.
///
/// When the sender is gone, the last report stays on the screen. Writing to a terminal blocks
/// as long as the terminal does (Ctrl-S, a slow connection), so this must not run on the thread
/// that drains the ring buffer.
pub async fn run(
    mut ui: Ui,
    mut reports: watch::Receiver<Arc<Report>>,
    on_request: impl Fn(Request),
    quit: impl Future,
) -> anyhow::Result<()> {
    let mut quit = pin!(quit);
    let mut terminal = TerminalGuard::enter()?;
    let mut events = EventStream::new();
    let mut published = true;
    loop {
        let report = Arc::clone(&reports.borrow_and_update());
        terminal.draw(|frame| ui.draw(frame, &report))?;
        loop {
            tokio::select! {
                biased;
                _ = &mut quit => return Ok(()),
                event = events.next() => match event {
                    None => return Ok(()),
                    Some(event) => match ui.handle(&event?) {
                        Flow::Idle => {}
                        Flow::Continue => break,
                        Flow::Quit => return Ok(()),
                        Flow::Resync => {
                            on_request(Request::Resync);
                            break;
                        }
                    },
                },
                changed = reports.changed(), if published => {
                    published = changed.is_ok();
                    break;
                }
            }
        }
    }
}
