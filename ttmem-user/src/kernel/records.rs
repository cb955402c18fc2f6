//! Delivers what the probes recorded, by mapped memory alone: no capability is needed.

use std::{
    os::fd::{AsFd as _, BorrowedFd},
    sync::atomic::Ordering,
};

use ttmem_common::{
    control::{DESCRIBE_FREES, DESCRIBED, FORGOTTEN, WAKE_ARMED},
    layout::BUFFER_TYPES,
    loss::{LossCause, loss_index},
    witness::{self as row, WITNESS_WORDS, witness_row},
};

use super::merge::Merge;
use crate::{source::EventSource, witness::Witness, words::Words};

/// The part of the eBPF side that delivers records.
pub struct Records {
    rings: Merge,
    control: Words,
    loss: Words,
    witness: Words,
    cpus: u32,
}

impl Records {
    pub(super) fn new(
        rings: Merge,
        control: Words,
        loss: Words,
        witness: Words,
        cpus: u32,
    ) -> Self {
        Self { rings, control, loss, witness, cpus }
    }

    /// A word of a target's row, over all CPUs.
    fn counted(&self, slot: u32, word: usize) -> u64 {
        let of = |(cpu, beside)| {
            let word = u32::try_from(word).unwrap_or(u32::MAX);
            let at = witness_row(cpu, beside, slot) * WITNESS_WORDS + word;
            self.witness.long(at).load(Ordering::Relaxed)
        };
        let rows = (0..self.cpus).flat_map(|cpu| [(cpu, false), (cpu, true)]);
        rows.map(of).fold(0, u64::wrapping_add)
    }
}

/// What was lost for a reason, over all CPUs.
pub(super) fn lost(loss: &Words, cpus: u32, cause: LossCause) -> u64 {
    let of = |cpu| loss.long(loss_index(cpu, cause)).load(Ordering::Relaxed);
    (0..cpus).map(of).sum()
}

impl EventSource for Records {
    fn drain(&mut self, take: &mut dyn FnMut(&[&[u8]])) -> bool {
        self.rings.drain(take).is_all
    }

    fn drain_to_now(&mut self, take: &mut dyn FnMut(&[&[u8]])) {
        self.rings.drain_to_now(take);
    }

    fn fill(&self) -> Option<(u64, u64)> {
        Some(self.rings.fill())
    }

    fn request_wake_up(&self, wanted: bool) {
        self.control.word(WAKE_ARMED).store(u32::from(wanted), Ordering::SeqCst);
    }

    fn wake_up(&self) -> BorrowedFd<'_> {
        self.rings.shared().as_fd()
    }

    fn describe_frees(&self, wanted: bool) {
        self.control.word(DESCRIBE_FREES).store(u32::from(wanted), Ordering::SeqCst);
    }

    fn forget_descriptions(&self) {
        self.control.long(DESCRIBED).fetch_add(FORGOTTEN, Ordering::SeqCst);
    }

    fn ring_full(&self) -> u64 {
        lost(&self.loss, self.cpus, LossCause::RingFull)
    }

    fn read_faults(&self, slot: u32) -> u64 {
        self.counted(slot, row::READ_FAULTS)
    }

    fn witness(&self, slot: u32) -> Option<Witness> {
        let by_type = |beside: usize| -> [u64; BUFFER_TYPES] {
            std::array::from_fn(|kind| self.counted(slot, row::allocations(kind) + beside))
        };
        Some(Witness {
            allocations: by_type(0),
            bytes: by_type(1),
            unread_allocations: self.counted(slot, row::UNREAD_ALLOCATIONS),
            frees: self.counted(slot, row::FREES),
            bulk_frees: self.counted(slot, row::BULK_FREES),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::AsFd as _};

    use rustix::fs::{MemfdFlags, memfd_create};
    use ttmem_common::{control::CONTROL_WORDS, layout::MAX_SLOTS, loss::LOSS_STRIDE};

    use super::*;
    use crate::{
        kernel::fake::{FakeCpus, FakeRing},
        missing::Lost,
    };

    const CPUS: u32 = 2;

    fn words(count: u32) -> Words {
        let file = File::from(memfd_create("words", MemfdFlags::CLOEXEC).unwrap());
        file.set_len(u64::from(count) * 8).unwrap();
        Words::map(file.as_fd(), count as usize * 8).unwrap()
    }

    #[test]
    fn what_could_not_be_read_is_the_loss_of_one_and_what_had_no_room_of_all() {
        let (_cpus, rings) = FakeCpus::new(CPUS, 1, 64);
        let (_ring, shared) = FakeRing::new(4096);
        let (loss, witness) =
            (words(CPUS * LOSS_STRIDE), words(CPUS * row::ROWS * MAX_SLOTS * WITNESS_WORDS));
        let fault = u32::try_from(row::READ_FAULTS).unwrap();
        for (cpu, beside) in [(0, false), (1, false), (1, true)] {
            let at = witness_row(cpu, beside, 3) * WITNESS_WORDS + fault;
            witness.long(at).store(2, Ordering::Relaxed);
        }
        loss.long(loss_index(1, LossCause::RingFull)).store(5, Ordering::Relaxed);
        loss.long(loss_index(1, LossCause::StackRingFull)).store(7, Ordering::Relaxed);
        let merge = Merge::new(rings, shared);
        let records = Records::new(merge, words(CONTROL_WORDS), loss, witness, CPUS);
        assert_eq!(records.lost(3), Lost { ring_full: 5, read_fault: 6 });
        assert_eq!(records.lost(2), Lost { ring_full: 5, read_fault: 0 });
    }
}
