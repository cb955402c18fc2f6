//! The consumer of the ring buffer.
//!
//! Our own and not aya's, because a snapshot has to hold every event up to its time: that takes
//! the producer's position, which aya's does not show, and telling "empty" from "being written".
//! Layout and protocol: kernel/bpf/ringbuf.c.
#![expect(unsafe_code, reason = "maps kernel memory and reads records from it")]

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr::{self, NonNull},
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::fetch::{CACHE_LINE, fetch};

/// Set in a record's length while the record is being written.
pub(super) const BUSY: u32 = 1 << 31;
/// Set in a record's length if it is to be skipped.
pub(super) const DISCARDED: u32 = 1 << 30;
/// Before each record: its length and an offset that only the kernel uses.
pub(super) const HEADER: usize = 8;
/// Room is handed back after this many bytes, so that a long drain does not starve the producer.
pub(super) const HAND_BACK: u64 = 64 << 10;

/// Records that are handed over together: what they need of memory is fetched for all of them at once.
pub(super) const AT_ONCE: usize = 64;

/// The reading end of a ring buffer map.
#[derive(Debug)]
pub struct Ring {
    fd: OwnedFd,
    consumer: Mapping,
    /// Producer position, then the data.
    producer: Mapping,
    /// A record that goes on at the start of the data, put together. The kernel can map the data
    /// twice in a row, so that none is ever split; but that counts twice as this process's memory.
    joined: Vec<u8>,
    page: usize,
    size: u64,
    /// What is before has been read.
    position: u64,
    /// What is before can be overwritten.
    handed_back: u64,
    /// What is before was reserved at the last look.
    end: u64,
    /// Before that there is a record that was being written.
    is_busy: bool,
}

/// Memory that is shared with the kernel.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: plain memory; positions are accessed as atomics, data only after the kernel released it.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps `len` bytes.
    pub(super) fn new(
        fd: BorrowedFd<'_>,
        len: usize,
        offset: u64,
        protection: ProtFlags,
    ) -> io::Result<Self> {
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let start =
            unsafe { mmap(ptr::null_mut(), len, protection, MapFlags::SHARED, fd, offset) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }

    /// The byte at an offset, which has to be inside.
    pub(super) fn at(&self, offset: usize) -> *const u8 {
        debug_assert!(offset < self.len, "byte {offset} of {}", self.len);
        // SAFETY: inside the mapping.
        unsafe { self.start.as_ptr().add(offset) }
    }

    fn position(&self) -> &AtomicU64 {
        // SAFETY: the first word of a page is aligned and valid as long as `self`.
        unsafe { AtomicU64::from_ptr(self.start.as_ptr().cast()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; no reference into it outlives `self`.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

impl Ring {
    /// Maps a ring buffer of `size` bytes.
    pub fn map(fd: OwnedFd, size: u32) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let rw = ProtFlags::READ | ProtFlags::WRITE;
        let consumer = Mapping::new(fd.as_fd(), page, 0, rw)?;
        let len = page + size as usize;
        let producer = Mapping::new(fd.as_fd(), len, page as u64, ProtFlags::READ)?;
        let position = consumer.position().load(Ordering::Acquire);
        Ok(Self {
            fd,
            consumer,
            producer,
            joined: Vec::new(),
            page,
            size: u64::from(size),
            position,
            handed_back: position,
            end: position,
            is_busy: false,
        })
    }

    /// Hands over what is there; `false`: there was a record that is being written.
    pub fn drain(&mut self, take: &mut dyn FnMut(&[&[u8]])) -> bool {
        self.look();
        let mut records: [&[u8]; AT_ONCE] = [&[]; AT_ONCE];
        let mut more = self.next_ns();
        while more.is_some() {
            // SAFETY: they are handed back after their last use.
            let (count, next) = unsafe { self.take(u64::MAX, &mut records) };
            take(&records[..count]);
            self.hand_back(true);
            more = next;
        }
        self.hand_back(false);
        !self.is_busy
    }

    /// From now on what has been reserved up to here is handed over.
    pub fn look(&mut self) {
        self.end = self.produced();
        self.is_busy = false;
    }

    /// Where the last look ended: a position, in bytes since the start.
    pub const fn looked_at(&self) -> u64 {
        self.end
    }

    /// Whether all before a position has been read.
    pub const fn has_read(&self, position: u64) -> bool {
        self.position >= position
    }

    /// When the next record that was there at the last look happened, CLOCK_MONOTONIC nanoseconds.
    pub fn next_ns(&mut self) -> Option<u64> {
        let (_, start) = self.next_record()?;
        // Only a longer record begins with a time, and only a time is wanted: it is not split, as
        // both are multiples of 8.
        // SAFETY: inside the data area, and the kernel has released it.
        let time = unsafe { self.data(start).cast::<[u8; 8]>().read() };
        Some(u64::from_le_bytes(time))
    }

    /// The length and start of the next record that is not to be skipped.
    fn next_record(&mut self) -> Option<(usize, u64)> {
        while self.position < self.end {
            // SAFETY: the position is inside the data area, 8-aligned as every record is.
            let length = unsafe { AtomicU32::from_ptr(self.data(self.position).cast()) };
            let length = length.load(Ordering::Acquire);
            if length & BUSY != 0 {
                self.is_busy = true;
                return None;
            }
            if length & DISCARDED == 0 {
                return Some((length as usize, self.position + HEADER as u64));
            }
            self.skip((length & !DISCARDED) as usize);
        }
        None
    }

    /// Goes on behind a record of so many bytes.
    const fn skip(&mut self, len: usize) {
        self.position += (len as u64 + HEADER as u64).next_multiple_of(8);
    }

    /// Takes records, as many as there is room for, until one is not earlier than a time; there has to
    /// be one. How many, and when the next one happened.
    ///
    /// # Safety
    /// The bytes must not be used after they have been handed back.
    pub unsafe fn take(&mut self, until_ns: u64, into: &mut [&[u8]]) -> (usize, Option<u64>) {
        let (begin, mut count) = (self.position, 0);
        let mut next = self.next_ns();
        for to in into {
            if next.is_none_or(|next| count > 0 && next >= until_ns) {
                break;
            }
            let Some((len, start)) = self.next_record() else { break };
            // SAFETY: the kernel has released the record, and does not overwrite it before it has
            // been handed back; the rest is the caller's.
            *to = unsafe {
                if len as u64 > self.to_end(start) {
                    self.join(start, len)
                } else {
                    self.piece(start, len)
                }
            };
            count += 1;
            self.skip(len);
            next = self.next_ns();
        }
        // They come from another processor's cache: on their way while these are worked on.
        self.fetch(self.position, self.end.min(self.position + (self.position - begin)));
        (count, next)
    }

    /// Lets what has been read be overwritten. `if_much`: only if it is worth it.
    pub fn hand_back(&mut self, if_much: bool) {
        let least = if if_much { HAND_BACK } else { 1 };
        if self.position - self.handed_back >= least {
            self.handed_back = self.position;
            self.consumer.position().store(self.position, Ordering::Release);
        }
    }

    /// Bytes that wait, and the size of the ring.
    pub fn fill(&self) -> (u64, u64) {
        (self.produced().saturating_sub(self.position), self.size)
    }

    fn produced(&self) -> u64 {
        self.producer.position().load(Ordering::Acquire)
    }

    /// Where the data of a position is.
    fn data(&self, position: u64) -> *mut u8 {
        let at = usize::try_from(position & (self.size - 1)).unwrap_or(0);
        // SAFETY: `size` is a power of two, so that is inside the data area.
        unsafe { self.producer.start.as_ptr().add(self.page + at) }
    }

    /// Has the processor fetch the data from one position to another.
    fn fetch(&self, from: u64, to: u64) {
        for position in (from..to).step_by(CACHE_LINE) {
            fetch(self.data(position));
        }
    }

    /// Bytes from a position to where the data starts again.
    const fn to_end(&self, position: u64) -> u64 {
        self.size - (position & (self.size - 1))
    }

    /// Bytes of a record, or of a part of one.
    ///
    /// # Safety
    /// They do not reach over the end of the data, and the kernel has released them; they must not
    /// be used after they have been handed back.
    unsafe fn piece<'a>(&self, position: u64, len: usize) -> &'a [u8] {
        // SAFETY: as the caller says.
        unsafe { std::slice::from_raw_parts(self.data(position), len) }
    }

    /// The record of `len` bytes at `start` that goes on at the start of the data. There is at most one
    /// such among those that have not been handed back.
    ///
    /// # Safety
    /// The kernel has released the record. The bytes must not be used after they have been handed back.
    unsafe fn join<'a>(&mut self, start: u64, len: usize) -> &'a [u8] {
        let first = usize::try_from(self.to_end(start)).unwrap_or(usize::MAX).min(len);
        self.joined.clear();
        for (start, len) in [(start, first), (start + first as u64, len - first)] {
            // SAFETY: both pieces are inside the data area; the rest is as the caller says.
            let piece = unsafe { self.piece(start, len) };
            self.joined.extend_from_slice(piece);
        }
        // SAFETY: nothing changes it before the next such record.
        unsafe { std::slice::from_raw_parts(self.joined.as_ptr(), len) }
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::kernel::fake::FakeRing;

    /// Small, so that records are split and the ring runs full.
    const SIZE: u32 = 4096;

    #[derive(Clone, Debug)]
    enum Step {
        Reserve { record: Vec<u8>, discarded: bool },
        Commit,
        Drain,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (proptest::collection::vec(any::<u8>(), 0..200), proptest::bool::weighted(0.1))
                .prop_map(|(record, discarded)| Step::Reserve { record, discarded }),
            8 => Just(Step::Commit),
            1 => Just(Step::Drain),
        ]
    }

    proptest! {
        /// Whatever is done is handed over once, whole and in order, and nothing behind a record
        /// that is still being written.
        #[test]
        fn what_is_written_is_handed_over(steps in proptest::collection::vec(step(), 0..600)) {
            let (mut kernel, mut ring) = FakeRing::new(SIZE);
            // What is done, and what is being written; `None` if it is discarded.
            let (mut done, mut busy) = (Vec::new(), VecDeque::new());
            let mut seen: Vec<Vec<u8>> = Vec::new();
            for step in steps.into_iter().chain([Step::Drain]) {
                match step {
                    Step::Reserve { record, discarded } => {
                        let length = u32::try_from(record.len()).unwrap();
                        let discard = if discarded { DISCARDED } else { 0 };
                        if kernel.reserve(&record, length | discard).is_some() {
                            busy.push_back((!discarded).then_some(record));
                        }
                    }
                    Step::Commit => {
                        kernel.commit_oldest();
                        done.extend(busy.pop_front().flatten());
                    }
                    Step::Drain => {
                        let whole = ring.drain(&mut |some| {
                            seen.extend(some.iter().map(|record| record.to_vec()));
                        });
                        prop_assert_eq!(&seen, &done);
                        let nothing_waits = busy.is_empty();
                        prop_assert_eq!(whole, nothing_waits);
                        prop_assert_eq!(ring.fill().0 == 0, nothing_waits);
                        prop_assert_eq!(kernel.consumed() == kernel.produced(), nothing_waits);
                    }
                }
            }
        }
    }
}
