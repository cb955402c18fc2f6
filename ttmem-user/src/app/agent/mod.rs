//! The thread that attaches: it finds targets, puts the probes in, and tells the pipeline.
//!
//! It is the only one that keeps rights after the start, and only if targets may still come.

mod admission;
mod hold;
mod mailbox;
mod search;
mod selection;

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
};

use anyhow::Context as _;
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
        let thread = thread::Builder::new()
            .name("ttmem-agent".to_owned())
            .spawn(move || {
                let admission =
                    Admission::new(attacher, control, options, share, followers, stacks);
                Search::new(admission, selection, letters).run(started);
            })
            .context("cannot start a thread")?;
        Ok((Self { mailbox, thread: Some(thread) }, receiver))
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

impl Drop for Agent {
    fn drop(&mut self) {
        self.mailbox.send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed already.
            let _ = thread.join();
        }
    }
}
