//! Reads what a command writes to its terminal: kept while the view is open, passed on after it.
//!
//! Invariant: the command never waits for the view. A thread of its own reads, and whoever shows
//! the output gets only the newest.

use std::{
    io::{self, Write as _},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
};

use anyhow::Context as _;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use tokio::sync::watch;

use super::{output::Transcript, pty::Pty};
use crate::tui::OutputTail;

/// What one reading takes at most, in bytes.
const CHUNK: usize = 16 << 10;
/// A terminal holds less than this, in bytes; so there is no more from before the command's end.
const MOST_AFTER_END: usize = 256 << 10;

/// The thread that reads.
pub struct Reader {
    state: Arc<Mutex<State>>,
    tail: watch::Receiver<Arc<OutputTail>>,
    /// Told of the command's end.
    ended: Arc<OwnedFd>,
    thread: JoinHandle<()>,
}

/// Where the output goes.
struct State {
    /// What is kept; `None` once it is passed on.
    kept: Option<Transcript>,
    /// Whether what was passed on last ended its line.
    line_ended: bool,
}

impl Reader {
    /// Starts the thread, which first of all gives up its rights by `give_up`: what it takes apart comes
    /// from the command.
    pub fn start(pty: Pty, give_up: fn() -> io::Result<()>) -> anyhow::Result<Self> {
        let kept = Some(Transcript::default());
        let state = Arc::new(Mutex::new(State { kept, line_ended: true }));
        let ended = eventfd(0, EventfdFlags::CLOEXEC).context("cannot make an eventfd")?;
        let ended = Arc::new(ended);
        let (publish, tail) = watch::channel(Arc::default());
        let (begun, started) = mpsc::channel();
        let theirs = (Arc::clone(&state), Arc::clone(&ended));
        let work = move || {
            let without_rights = give_up();
            let may_go_on = without_rights.is_ok();
            let _ = begun.send(without_rights);
            if may_go_on {
                read_all(&pty, &theirs.0, &theirs.1, &publish);
            }
        };
        let thread = thread::Builder::new()
            .name("ttmem-output".to_owned())
            .spawn(work)
            .context("cannot start a thread")?;
        started
            .recv()
            .context("the thread that reads the command's output is gone")?
            .context("cannot drop capabilities")?;
        Ok(Self { state, tail, ended, thread })
    }

    /// The last lines, as long as they are kept.
    pub fn tail(&self) -> watch::Receiver<Arc<OutputTail>> {
        self.tail.clone()
    }

    /// Prints what was kept; from here on the output is passed on as it comes.
    pub fn pass_on(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = state.kept.take() {
            state.print(kept.text().as_bytes());
        }
    }

    /// Passes on the rest, once the command has ended.
    pub fn finish(self) {
        let _ = rustix::io::write(&*self.ended, &1_u64.to_ne_bytes());
        // A thread that panicked has said so itself.
        let _ = self.thread.join();
        self.state.lock().unwrap_or_else(PoisonError::into_inner).end_line();
    }
}

impl State {
    fn take(&mut self, bytes: &[u8], publish: &watch::Sender<Arc<OutputTail>>) {
        if let Some(kept) = &mut self.kept {
            kept.take(bytes);
            publish.send_replace(Arc::new(kept.tail()));
        } else {
            self.print(bytes);
        }
    }

    /// Whoever reads may have gone; that is no concern of the command.
    fn print(&mut self, bytes: &[u8]) {
        let Some(last) = bytes.last() else { return };
        self.line_ended = *last == b'\n';
        let mut stdout = io::stdout().lock();
        let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
    }

    fn end_line(&mut self) {
        if !self.line_ended {
            self.print(b"\n");
        }
    }
}

/// Reads until nobody can write any more, or, after the command's end, until nothing is left.
fn read_all(
    pty: &Pty,
    state: &Mutex<State>,
    ended: &OwnedFd,
    publish: &watch::Sender<Arc<OutputTail>>,
) {
    let mut buffer = vec![0; CHUNK];
    let mut left = MOST_AFTER_END;
    while left > 0 {
        let Ok((readable, at_end)) = wait(pty, ended) else { return };
        if !readable {
            return;
        }
        match pty.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => {
                state
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .take(&buffer[..count], publish);
                if at_end {
                    left = left.saturating_sub(count);
                }
            }
        }
    }
}

/// Waits for output or the end; whether there is any, and whether the end has come.
fn wait(pty: &Pty, ended: &OwnedFd) -> rustix::io::Result<(bool, bool)> {
    let mut fds = [PollFd::new(pty, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
    loop {
        match poll(&mut fds, None) {
            Ok(_) => {
                let [output, end] = &fds;
                return Ok((!output.revents().is_empty(), !end.revents().is_empty()));
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}
