//! Feeds the live view: reports, keys and the end.

use std::{pin::pin, sync::Arc, time::Duration};

use crossterm::event::EventStream;
use futures_util::StreamExt as _;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use super::{
    Flow, OutputTail, Request, TerminalGuard, Ui,
    suspend::{self, Stops},
};
use crate::ledger::report::Report;

/// Output alone makes no more than one frame in this time.
const OUTPUT_FRAME: Duration = Duration::from_millis(50);

/// Shows `reports` on the terminal until the user quits or `quit` completes, then gives the
/// terminal back. Dropping the future does so, too.
///
/// What `on_request` returns is shown until the next key.
///
/// When the sender is gone, the last report stays on the screen. Writing to a terminal blocks
/// as long as the terminal does (Ctrl-S, a slow connection), so this must not run on the thread
/// that drains the ring buffer.
pub async fn run(
    mut ui: Ui,
    mut reports: watch::Receiver<Arc<Report>>,
    mut output: Option<watch::Receiver<Arc<OutputTail>>>,
    on_request: impl Fn(Request) -> Option<String>,
    quit: impl Future,
) -> anyhow::Result<()> {
    let mut quit = pin!(quit);
    let mut stops = Stops::listen()?;
    let mut terminal = TerminalGuard::enter()?;
    let mut events = EventStream::new();
    let mut published = true;
    let mut frames = interval(OUTPUT_FRAME);
    frames.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut size = None;
    loop {
        let report = Arc::clone(&reports.borrow_and_update());
        if let Some(output) = &mut output {
            ui.take_output(Arc::clone(&output.borrow_and_update()));
        }
        terminal.draw(|frame| ui.draw(frame, &report))?;
        if let Some(new) = ui.output_size().filter(|new| size != Some(*new)) {
            size = Some(new);
            on_request(Request::OutputSize(new));
        }
        if pass_on(&mut ui, &on_request) {
            continue;
        }
        let mut written = false;
        loop {
            tokio::select! {
                biased;
                _ = &mut quit => return Ok(()),
                event = events.next() => match event {
                    None => return Ok(()),
                    Some(event) => match ui.handle(&event?) {
                        Flow::Idle => {}
                        Flow::Continue => {
                            pass_on(&mut ui, &on_request);
                            break;
                        }
                        Flow::Suspend => suspend::ask()?,
                        Flow::Quit => return Ok(()),
                    },
                },
                () = stops.recv() => {
                    terminal.leave_for(Stops::stop)?;
                    break;
                }
                () = tokio::task::yield_now(), if ui.is_unfinished() => break,
                _ = frames.tick(), if written => break,
                changed = reports.changed(), if published => {
                    published = changed.is_ok();
                    break;
                }
                there_is_more = changed(&mut output), if !written => {
                    if there_is_more {
                        written = true;
                    } else {
                        output = None;
                    }
                }
            }
        }
    }
}

/// Passes on what the user asked for; `true`: there is something to be said of it.
fn pass_on(ui: &mut Ui, on_request: &impl Fn(Request) -> Option<String>) -> bool {
    let mut said = false;
    for notice in ui.take_requests().into_iter().filter_map(on_request) {
        ui.say(notice);
        said = true;
    }
    said
}

/// Waits for more output; `false`: there will be none.
async fn changed(output: &mut Option<watch::Receiver<Arc<OutputTail>>>) -> bool {
    match output {
        Some(output) => output.changed().await.is_ok(),
        None => std::future::pending().await,
    }
}
