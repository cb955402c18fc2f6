//! The thread that attaches: it finds targets, puts the probes in, and tells the pipeline.
//!
//! It is the only one that keeps rights after the start, and only if targets may still come. If it
//! fails, the pipeline ends too: the probes are out, and what is shown would stand still.

mod admission;
mod hold;
mod mailbox;
mod pending;
mod refused;
mod search;
mod selection;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context as _, ensure};
use tokio::sync::oneshot;

use super::share::Share;
use crate::{
    kernel::Attacher,
    pipeline::{Control, OnNotice},
    sink::Follower,
    stacks,
};
use admission::Admission;
pub use admission::TargetOptions;
use mailbox::{Mailbox, Message};
use search::Search;

pub use selection::Selection;

/// The running thread. Dropping it takes all probes out and waits for its end.
pub struct Agent {
    mailbox: Arc<Mailbox>,
    thread: Option<JoinHandle<()>>,
    failed: Arc<AtomicBool>,
}

/// Ends the pipeline when the thread that has it ends by a panic.
struct Lookout {
    control: Arc<Control>,
    failed: Arc<AtomicBool>,
}

/// Completes when all targets of the start are attached to, or with why that is not possible.
pub type Started = oneshot::Receiver<anyhow::Result<()>>;

impl Agent {
    /// Starts the thread. It inherits the rights of the caller, who can then drop its own.
    pub fn start(
        attacher: Attacher,
        selection: Selection,
        control: Arc<Control>,
        options: TargetOptions,
        share: Option<Share>,
        followers: Vec<Follower>,
        stacks: Option<stacks::Handle>,
    ) -> anyhow::Result<(Self, Started)> {
        let mailbox = Arc::new(Mailbox::new().context("cannot make an eventfd")?);
        let (started, receiver) = oneshot::channel();
        let letters = Arc::clone(&mailbox);
        let agent = Self::spawn(mailbox, Arc::clone(&control), move || {
            let admission = Admission::new(attacher, control, options, share, followers, stacks);
            Search::new(admission, selection, letters).run(started);
        })?;
        Ok((agent, receiver))
    }

    fn spawn(
        mailbox: Arc<Mailbox>,
        control: Arc<Control>,
        work: impl FnOnce() + Send + 'static,
    ) -> anyhow::Result<Self> {
        let failed = Arc::new(AtomicBool::new(false));
        let lookout = Lookout { control, failed: Arc::clone(&failed) };
        let thread = thread::Builder::new()
            .name("ttmem-agent".to_owned())
            .spawn(move || {
                let _lookout = lookout;
                work();
            })
            .context("cannot start a thread")?;
        Ok(Self { mailbox, thread: Some(thread), failed })
    }

    /// Whether all is well; to be asked when the pipeline has ended.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(
            !self.failed.load(Ordering::SeqCst),
            "the thread that attaches has failed, and nothing is watched any more: that is a defect of \
             ttmem"
        );
        Ok(())
    }

    /// Has every process looked at again.
    pub fn look_again(&self) {
        self.mailbox.send(Message::LookAgain);
    }

    /// Where the pipeline tells of what happens to targets.
    pub fn on_notice(&self) -> OnNotice {
        let mailbox = Arc::clone(&self.mailbox);
        Box::new(move |notice| mailbox.send(Message::Notice(notice)))
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        if thread::panicking() {
            self.failed.store(true, Ordering::SeqCst);
            self.control.stop();
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.mailbox.send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed already.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn agent(work: impl FnOnce() + Send + 'static) -> (Agent, Arc<Control>) {
        let control = Control::new().unwrap();
        let mailbox = Arc::new(Mailbox::new().unwrap());
        let agent = Agent::spawn(mailbox, Arc::clone(&control), work).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !agent.thread.as_ref().unwrap().is_finished() {
            assert!(Instant::now() < deadline, "it does not end");
            thread::yield_now();
        }
        (agent, control)
    }

    #[test]
    fn the_pipeline_ends_with_a_thread_that_panics() {
        let (agent, control) = agent(|| panic!("this is a test"));
        assert!(control.is_stopping());
        let error = agent.check().unwrap_err().to_string();
        assert!(error.contains("nothing is watched any more"), "{error}");
    }

    #[test]
    fn a_thread_that_has_done_its_work_is_no_failure() {
        let (agent, control) = agent(|| ());
        assert!(!control.is_stopping());
        assert!(agent.check().is_ok());
    }
}
