//! Where records come from.

use std::os::fd::BorrowedFd;

use crate::{missing::Lost, witness::Witness};

/// A source of call stacks: of records like those of an [`EventSource`], in a ring of their own.
pub trait StackSource {
    /// Hands every stack that has arrived so far to `take`, oldest first, some at a time; `false`: one
    /// is being written.
    fn drain(&mut self, take: &mut dyn FnMut(&[&[u8]])) -> bool;

    /// How many were lost so far.
    fn lost(&self) -> u64;

    /// Asks for the descriptor below to become readable with the next stack.
    fn request_wake_up(&self, wanted: bool);

    /// Becomes readable when a requested wake-up arrives.
    fn wake_up(&self) -> BorrowedFd<'_>;
}

/// A source of raw records. Whatever the source, the same decoder reads them.
pub trait EventSource {
    /// Hands every record that has arrived so far to `take`, oldest first, some at a time; `false`: of
    /// an event up to now there is one that is being written.
    fn drain(&mut self, take: &mut dyn FnMut(&[&[u8]])) -> bool;

    /// Hands over every record of an event up to now, waiting for those that are being written.
    fn drain_to_now(&mut self, take: &mut dyn FnMut(&[&[u8]]));

    /// How many records were lost so far of which the target in a slot may have been: all that there was
    /// no room for, and what could not be read in this slot, also of those that had it before.
    fn lost(&self, slot: u32) -> Lost {
        Lost { ring_full: self.ring_full(), read_fault: self.read_faults(slot) }
    }

    /// How many records there was no room for so far, whosever they were.
    fn ring_full(&self) -> u64;

    /// What could not be read so far in a slot, also of those that had it before.
    fn read_faults(&self, slot: u32) -> u64;

    /// What was counted of the target in a slot, before anything could be lost: since the start, so
    /// also of those that had the slot before. `None` if this source does not count.
    fn witness(&self, _slot: u32) -> Option<Witness> {
        None
    }

    /// Asks for the descriptor below to become readable with the next record.
    fn request_wake_up(&self, wanted: bool);

    /// Becomes readable when a requested wake-up arrives.
    fn wake_up(&self) -> BorrowedFd<'_>;

    /// Bytes that wait to be drained, and the bytes that there is room for; `None` if that means
    /// nothing to this source.
    fn fill(&self) -> Option<(u64, u64)> {
        None
    }

    /// A target comes of which nothing is known, though another may have been told of the same process:
    /// whatever device is met from here on is described once more.
    fn forget_descriptions(&self) {}

    /// Lets frees say what they free, for as long as the live set is not known.
    fn describe_frees(&self, wanted: bool);
}
