//! Delivers what the probes recorded, by mapped memory alone: no capability is needed.

use std::{
    os::fd::{AsFd as _, BorrowedFd},
    sync::atomic::Ordering,
};

use ttmem_common::{
    control::{DESCRIBE_FREES, WAKE_ARMED},
    loss::{LossCause, loss_index},
};

use super::ring::Ring;
use crate::{missing::Lost, source::EventSource, words::Words};

/// The part of the eBPF side that delivers records.
pub struct Records {
    ring: Ring,
    control: Words,
    loss: Words,
    cpus: u32,
}

impl Records {
    pub(super) fn new(ring: Ring, control: Words, loss: Words, cpus: u32) -> Self {
        Self { ring, control, loss, cpus }
    }
}

impl EventSource for Records {
    fn drain(&mut self, each: &mut dyn FnMut(&[u8])) {
        self.ring.drain(each);
    }

    fn drain_to_now(&mut self, each: &mut dyn FnMut(&[u8])) {
        self.ring.drain_to_now(each);
    }

    fn fill(&self) -> Option<(u64, u64)> {
        Some(self.ring.fill())
    }

    fn request_wake_up(&self, wanted: bool) {
        self.control.word(WAKE_ARMED).store(u32::from(wanted), Ordering::SeqCst);
    }

    fn wake_up(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }

    fn describe_frees(&self, wanted: bool) {
        self.control.word(DESCRIBE_FREES).store(u32::from(wanted), Ordering::SeqCst);
    }

    fn lost(&self) -> Lost {
        let sum = |cause| {
            (0..self.cpus)
                .map(|cpu| self.loss.long(loss_index(cpu, cause)).load(Ordering::Relaxed))
                .sum()
        };
        Lost { ring_full: sum(LossCause::RingFull), read_fault: sum(LossCause::ReadFault) }
    }
}
