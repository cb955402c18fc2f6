//! Delivers the call stacks, by mapped memory alone: no capability is needed.

use std::{
    os::fd::{AsFd as _, BorrowedFd},
    sync::atomic::Ordering,
};

use ttmem_common::{control::STACKS_WAKE_ARMED, loss::LossCause};

use super::{records::lost, ring::Ring};
use crate::{source::StackSource, words::Words};

/// The part of the eBPF side that delivers call stacks.
pub struct StackRecords {
    ring: Ring,
    control: Words,
    loss: Words,
    cpus: u32,
}

impl StackRecords {
    pub(super) fn new(ring: Ring, control: Words, loss: Words, cpus: u32) -> Self {
        Self { ring, control, loss, cpus }
    }
}

impl StackSource for StackRecords {
    fn drain(&mut self, take: &mut dyn FnMut(&[&[u8]])) -> bool {
        self.ring.drain(take)
    }

    fn lost(&self) -> u64 {
        lost(&self.loss, self.cpus, LossCause::StackRingFull)
    }

    fn request_wake_up(&self, wanted: bool) {
        self.control.word(STACKS_WAKE_ARMED).store(u32::from(wanted), Ordering::SeqCst);
    }

    fn wake_up(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}
