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
    thread,
};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Set in a record's length while the record is being written.
const BUSY: u32 = 1 << 31;
/// Set in a record's length if it is to be skipped.
const DISCARDED: u32 = 1 << 30;
/// Before each record: its length and an offset that only the kernel uses.
const HEADER: usize = 8;
/// Room is handed back after this many bytes, so that a long drain does not starve the producer.
const HAND_BACK: u64 = 64 << 10;

/// Records that are handed over together.
const AT_ONCE: usize = 32;

/// Bytes that a processor fetches at a time.
const CACHE_LINE: usize = 64;

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
    position: u64,
}

#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: plain memory; positions are accessed as atomics, data only after the kernel released it.
unsafe impl Send for Mapping {}

impl Mapping {
    fn new(fd: BorrowedFd<'_>, len: usize, offset: u64, protection: ProtFlags) -> io::Result<Self> {
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let start =
            unsafe { mmap(ptr::null_mut(), len, protection, MapFlags::SHARED, fd, offset) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
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

/// Where a drain stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stopped {
    /// Nothing more was there.
    Empty,
    /// At a record that is being written.
    Busy,
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
        let (size, joined) = (u64::from(size), Vec::new());
        Ok(Self { fd, consumer, producer, joined, page, size, position })
    }

    /// Hands over what is there.
    pub fn drain(&mut self, take: &mut dyn FnMut(&[&[u8]])) {
        let end = self.produced();
        self.read_until(end, take);
    }

    /// Hands over every record that was reserved before the call.
    pub fn drain_to_now(&mut self, take: &mut dyn FnMut(&[&[u8]])) {
        let end = self.produced();
        // A record is written within microseconds, unless its writer has been preempted.
        while self.read_until(end, take) == Stopped::Busy {
            thread::yield_now();
        }
    }

    /// Bytes that wait, and the size of the ring.
    pub fn fill(&self) -> (u64, u64) {
        (self.produced().saturating_sub(self.position), self.size)
    }

    fn produced(&self) -> u64 {
        self.producer.position().load(Ordering::Acquire)
    }

    fn read_until(&mut self, end: u64, take: &mut dyn FnMut(&[&[u8]])) -> Stopped {
        let mut handed_back = self.position;
        while self.position < end {
            let mut records: [&[u8]; AT_ONCE] = [&[]; AT_ONCE];
            let (mut count, mut at, mut split) = (0, self.position, None);
            while at < end && count < AT_ONCE {
                // SAFETY: the position is inside the data area, 8-aligned as every record is.
                let length = unsafe { AtomicU32::from_ptr(self.data(at).cast()) };
                let length = length.load(Ordering::Acquire);
                if length & BUSY != 0 {
                    break;
                }
                let len = length & !(BUSY | DISCARDED);
                let start = at + HEADER as u64;
                at += (u64::from(len) + HEADER as u64).next_multiple_of(8);
                if length & DISCARDED != 0 {
                    continue;
                }
                if u64::from(len) > self.to_end(start) {
                    split = Some((start, len as usize));
                    break;
                }
                // SAFETY: the kernel has released the record, and does not overwrite it before
                // the position is handed back, which is after its last use.
                records[count] = unsafe { self.piece(start, len as usize) };
                count += 1;
            }
            if at == self.position {
                self.consumer.position().store(at, Ordering::Release);
                return Stopped::Busy;
            }
            // They come from another processor's cache: on their way while these are worked on.
            self.fetch(at, end.min(at + (at - self.position)));
            take(&records[..count]);
            if let Some((start, len)) = split {
                // SAFETY: as above.
                unsafe { self.hand_over_split(start, len, take) };
            }
            self.position = at;
            if self.position - handed_back >= HAND_BACK {
                handed_back = self.position;
                self.consumer.position().store(handed_back, Ordering::Release);
            }
        }
        self.consumer.position().store(self.position, Ordering::Release);
        Stopped::Empty
    }

    /// Where the data of a position is.
    fn data(&self, position: u64) -> *mut u8 {
        let at = usize::try_from(position & (self.size - 1)).unwrap_or(0);
        // SAFETY: `size` is a power of two, so that is inside the data area.
        unsafe { self.producer.start.as_ptr().add(self.page + at) }
    }

    /// Has the processor fetch the data from one position to another.
    fn fetch(&self, from: u64, to: u64) {
        #[cfg(target_arch = "x86_64")]
        for position in (from..to).step_by(CACHE_LINE) {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a hint; the address is inside the data area.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(self.data(position).cast_const().cast()) };
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

    /// Hands over the record of `len` bytes at `start` that goes on at the start of the data.
    ///
    /// # Safety
    /// The kernel has released the record, and it is not handed back yet.
    unsafe fn hand_over_split(&mut self, start: u64, len: usize, take: &mut dyn FnMut(&[&[u8]])) {
        let first = usize::try_from(self.to_end(start)).unwrap_or(usize::MAX).min(len);
        self.joined.clear();
        for (start, len) in [(start, first), (start + first as u64, len - first)] {
            // SAFETY: both pieces are inside the data area; the rest is as the caller says.
            let piece = unsafe { self.piece(start, len) };
            self.joined.extend_from_slice(piece);
        }
        take(&[&self.joined]);
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, fs::File, os::unix::fs::FileExt as _};

    use proptest::prelude::*;
    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    /// Small, so that records are split and the ring runs full.
    const SIZE: u32 = 4096;

    /// A ring buffer as the kernel writes it, in a file.
    struct Kernel {
        file: File,
        produced: u64,
        /// Where records are that are still being written, and what becomes of them.
        busy: VecDeque<(u64, u32)>,
    }

    impl Kernel {
        fn new() -> (Self, Ring) {
            let fd = memfd_create("ring", MemfdFlags::CLOEXEC).unwrap();
            let page = rustix::param::page_size() as u64;
            let file = File::from(fd.try_clone().unwrap());
            file.set_len(2 * page + u64::from(SIZE)).unwrap();
            (Self { file, produced: 0, busy: VecDeque::new() }, Ring::map(fd, SIZE).unwrap())
        }

        fn page() -> u64 {
            rustix::param::page_size() as u64
        }

        fn consumed(&self) -> u64 {
            let mut word = [0; 8];
            self.file.read_exact_at(&mut word, 0).unwrap();
            u64::from_ne_bytes(word)
        }

        fn write(&self, position: u64, bytes: &[u8]) {
            for (position, byte) in (position..).zip(bytes) {
                let at = 2 * Self::page() + position % u64::from(SIZE);
                self.file.write_all_at(&[*byte], at).unwrap();
            }
        }

        /// Reserves room for a record and writes it, all but its length; `false` if there is none.
        fn reserve(&mut self, record: &[u8], length: u32) -> bool {
            let end = self.produced + (HEADER as u64 + record.len() as u64).next_multiple_of(8);
            if end - self.consumed() > u64::from(SIZE) {
                return false;
            }
            self.write(self.produced, &(length | BUSY).to_ne_bytes());
            self.write(self.produced + HEADER as u64, record);
            self.busy.push_back((self.produced, length));
            self.produced = end;
            self.file.write_all_at(&end.to_ne_bytes(), Self::page()).unwrap();
            true
        }

        /// The oldest record that is being written is done.
        fn commit(&mut self) {
            if let Some((position, length)) = self.busy.pop_front() {
                self.write(position, &length.to_ne_bytes());
            }
        }
    }

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
            let (mut kernel, mut ring) = Kernel::new();
            // What is done, and what is being written; `None` if it is discarded.
            let (mut done, mut busy) = (Vec::new(), VecDeque::new());
            let mut seen: Vec<Vec<u8>> = Vec::new();
            for step in steps.into_iter().chain([Step::Drain]) {
                match step {
                    Step::Reserve { record, discarded } => {
                        let length = u32::try_from(record.len()).unwrap();
                        let discard = if discarded { DISCARDED } else { 0 };
                        if kernel.reserve(&record, length | discard) {
                            busy.push_back((!discarded).then_some(record));
                        }
                    }
                    Step::Commit => {
                        kernel.commit();
                        done.extend(busy.pop_front().flatten());
                    }
                    Step::Drain => {
                        ring.drain(&mut |some| {
                            seen.extend(some.iter().map(|record| record.to_vec()));
                        });
                        prop_assert_eq!(&seen, &done);
                        let waiting = busy.is_empty();
                        prop_assert_eq!(ring.fill().0 == 0, waiting);
                        prop_assert_eq!(kernel.consumed() == kernel.produced, waiting);
                    }
                }
            }
        }
    }
}
