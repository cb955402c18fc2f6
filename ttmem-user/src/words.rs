//! Words of an array map, mapped into the agent's memory: no system call, and no capability, to
//! read or flip one while probes run.
#![expect(unsafe_code, reason = "maps kernel memory")]

use std::{
    io,
    os::fd::BorrowedFd,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU32, AtomicU64},
};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A mapped array map.
#[derive(Debug)]
pub struct SharedWords {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory is only accessed through atomics.
unsafe impl Send for SharedWords {}
// SAFETY: the memory is only accessed through atomics.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Maps `len` bytes of an array map whose elements are 8 bytes apart.
    pub fn map(fd: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let start = unsafe {
            mmap(ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, fd, 0)
        }?;
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

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`; no reference into it outlives `self`.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}
