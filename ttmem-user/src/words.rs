//! Memory that is shared with others, as atomic words: no system call, and no capability, to read
//! or write one. It is an array map of the kernel, or a file of the shared tables.
//!
//! A file that somebody cuts short while it is mapped ends whoever looks at what is gone (SIGBUS).
//! So only a file is mapped whose owner is trusted: `table/` checks that.
#![expect(unsafe_code, reason = "maps shared memory")]

use std::{
    io,
    os::fd::BorrowedFd,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Shared memory.
#[derive(Debug)]
pub struct Words {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory is only accessed through atomics.
unsafe impl Send for Words {}
// SAFETY: the memory is only accessed through atomics.
unsafe impl Sync for Words {}

impl Words {
    /// Maps the first `len` bytes.
    pub fn map(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        Self::map_with(fd, len, ProtFlags::READ | ProtFlags::WRITE)
    }

    /// Maps them to be read only: a store would end the program.
    fn map_read_only(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        Self::map_with(fd, len, ProtFlags::READ)
    }

    fn map_with(fd: BorrowedFd<'_>, len: usize, protection: ProtFlags) -> io::Result<Self> {
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let start = unsafe { mmap(ptr::null_mut(), len, protection, MapFlags::SHARED, fd, 0) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }

    /// The low half of element `index`. Elements of an array map are padded to 8 bytes.
    pub fn word(&self, index: u32) -> &AtomicU32 {
        let at = self.element(index);
        // SAFETY: in bounds, aligned, and valid as long as `self`.
        unsafe { AtomicU32::from_ptr(at.cast()) }
    }

    /// Element `index`.
    pub fn long(&self, index: u32) -> &AtomicU64 {
        let at = self.element(index);
        // SAFETY: in bounds, aligned, and valid as long as `self`.
        unsafe { AtomicU64::from_ptr(at.cast()) }
    }

    fn element(&self, index: u32) -> *mut u8 {
        let offset = index as usize * 8;
        assert!(offset + 8 <= self.len, "element {index} of a map of {} bytes", self.len);
        // SAFETY: in bounds, just checked.
        unsafe { self.start.as_ptr().add(offset) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`; no reference into it outlives `self`.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Shared memory that can only be read.
#[derive(Debug)]
pub struct ReadOnlyWords(Words);

impl ReadOnlyWords {
    /// Maps the first `len` bytes.
    pub fn map(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        Words::map_read_only(fd, len).map(Self)
    }

    /// Word `index`.
    pub fn load(&self, index: u32, order: Ordering) -> u64 {
        self.0.long(index).load(order)
    }

    /// A word to be loaded again and again.
    pub fn word(&self, index: u32) -> ReadOnlyWord<'_> {
        ReadOnlyWord(self.0.long(index))
    }

    /// As many words as `into` has room for, from word `index` on, each by a load of its own.
    ///
    /// # Panics
    /// If there are not as many.
    #[expect(clippy::cast_ptr_alignment, reason = "a mapping begins at a page")]
    pub fn load_all(&self, index: u32, into: &mut [u64]) {
        let start = index as usize * 8;
        let end = start + size_of_val(into);
        assert!(end <= self.0.len, "bytes {start} to {end} of {}", self.0.len);
        // SAFETY: in bounds, aligned, and valid as long as `self`; others store atomically.
        let words = unsafe {
            let start = self.0.start.as_ptr().add(start).cast::<AtomicU64>();
            std::slice::from_raw_parts(start, into.len())
        };
        for (to, word) in into.iter_mut().zip(words) {
            *to = word.load(Ordering::Relaxed);
        }
    }
}

/// One word of [`ReadOnlyWords`].
#[derive(Clone, Copy, Debug)]
pub struct ReadOnlyWord<'a>(&'a AtomicU64);

impl ReadOnlyWord<'_> {
    /// Its value.
    #[inline]
    pub fn load(self, order: Ordering) -> u64 {
        self.0.load(order)
    }
}
