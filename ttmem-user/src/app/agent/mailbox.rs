//! Messages to the agent's thread, which can wait for them together with other descriptors.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Mutex, PoisonError},
};

use rustix::event::{EventfdFlags, eventfd};

use crate::pipeline::Notice;

/// What the agent's thread is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Something happened to a target.
    Notice(Notice),
    /// It is to look at every process again.
    LookAgain,
    /// It is to end.
    Stop,
}

/// The messages not read yet.
#[derive(Debug)]
pub struct Mailbox {
    messages: Mutex<VecDeque<Message>>,
    wake: OwnedFd,
}

impl Mailbox {
    /// An empty one.
    pub fn new() -> io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { messages: Mutex::default(), wake })
    }

    /// Adds a message.
    pub fn send(&self, message: Message) {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).push_back(message);
        // It cannot fail but by a full counter, which wakes up too.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Takes all messages.
    pub fn take(&self) -> VecDeque<Message> {
        let mut drained = [0; 8];
        let _ = rustix::io::read(&self.wake, &mut drained);
        std::mem::take(&mut *self.messages.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AsFd for Mailbox {
    /// Becomes readable when there is a message.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
