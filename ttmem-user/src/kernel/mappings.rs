//! Tells which files processes map as code, and which processes are born.
//!
//! The kernel's own side-band records (`PERF_RECORD_MMAP2`, `PERF_RECORD_FORK`), which cost a
//! process only when it maps code: no polling of `/proc`, no probe on `mmap`. Layout and
//! protocol: perf_event_open(2).
#![expect(unsafe_code, reason = "perf_event_open(2) and its mapped ring")]

use std::{
    ffi::OsStr,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::PathBuf,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU64, Ordering},
};

use aya_obj::generated::{
    PERF_FLAG_FD_CLOEXEC, perf_event_attr, perf_event_mmap_page, perf_sw_ids::PERF_COUNT_SW_DUMMY,
    perf_type_id::PERF_TYPE_SOFTWARE,
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::load::possible_cpus;
use crate::units::{Pid, Tid};

/// Pages of a ring; a power of two. A record is about 100 bytes.
const PAGES: usize = 16;

const RECORD_LOST: u32 = 2;
const RECORD_FORK: u32 = 7;
const RECORD_MMAP2: u32 = 10;
/// Bytes before a record's own fields.
const HEADER: usize = 8;

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A file has been mapped as code.
    Mapped {
        /// By this process.
        pid: Pid,
        /// By this thread of it.
        tid: Tid,
        /// The file, as the process sees it.
        path: PathBuf,
    },
    /// A process has been born as a copy of another.
    Forked {
        /// The other.
        parent: Pid,
        /// The new one.
        child: Pid,
    },
    /// There was more than could be told: look at everything.
    Missed,
}

/// Whom to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every process.
    System,
    /// One process, and all that it will start.
    Descendants(Pid),
}

/// The open rings, one per CPU.
#[derive(Debug)]
pub struct Mappings {
    rings: Vec<Ring>,
}

#[derive(Debug)]
struct Ring {
    fd: OwnedFd,
    start: NonNull<u8>,
    len: usize,
    page: usize,
}

// SAFETY: plain memory of our own mapping; positions are accessed as atomics.
unsafe impl Send for Ring {}

impl Mappings {
    /// Begins to look.
    pub fn open(scope: Scope) -> io::Result<Self> {
        let mut rings = Vec::new();
        for cpu in 0..possible_cpus() {
            match Ring::open(scope, cpu) {
                Ok(ring) => rings.push(ring),
                // A CPU that could be there, but is not.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self { rings })
    }

    /// Each becomes readable when there is something to take.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.rings.iter().map(|ring| ring.fd.as_fd())
    }

    /// Takes what has been seen since.
    pub fn take(&mut self) -> Vec<Seen> {
        let mut seen = Vec::new();
        for ring in &mut self.rings {
            ring.take(&mut seen);
        }
        seen
    }
}

impl Ring {
    fn open(scope: Scope, cpu: u32) -> io::Result<Self> {
        // SAFETY: all-zero is a valid attribute with nothing asked for.
        let mut attr: perf_event_attr = unsafe { std::mem::zeroed() };
        attr.type_ = PERF_TYPE_SOFTWARE as u32;
        attr.config = PERF_COUNT_SW_DUMMY as u64;
        attr.size = u32::try_from(size_of::<perf_event_attr>()).unwrap_or(u32::MAX);
        // By bytes: counting events would count samples only.
        attr.set_watermark(1);
        attr.__bindgen_anon_2.wakeup_watermark = 1;
        attr.set_mmap(1);
        attr.set_mmap2(1);
        attr.set_task(1);
        let pid = match scope {
            Scope::System => -1,
            Scope::Descendants(pid) => {
                attr.set_inherit(1);
                libc::pid_t::try_from(pid.0).unwrap_or(libc::pid_t::MAX)
            }
        };
        // SAFETY: `attr` is a whole attribute and outlives the call.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                &raw const attr,
                pid,
                cpu,
                -1,
                u64::from(PERF_FLAG_FD_CLOEXEC),
            )
        };
        let fd = match i32::try_from(fd) {
            // SAFETY: the kernel has just made this descriptor for us.
            Ok(fd) if fd >= 0 => unsafe { OwnedFd::from_raw_fd(fd) },
            _ => return Err(io::Error::last_os_error()),
        };
        let page = rustix::param::page_size();
        let len = page * (1 + PAGES);
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let start = unsafe { mmap(ptr::null_mut(), len, protection, MapFlags::SHARED, &fd, 0) }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { fd, start, len, page })
    }

    fn position(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: `offset` is that of an aligned word of the first page; valid as long as `self`.
        unsafe { AtomicU64::from_ptr(self.start.as_ptr().add(offset).cast()) }
    }

    fn take(&mut self, seen: &mut Vec<Seen>) {
        let head = self.position(std::mem::offset_of!(perf_event_mmap_page, data_head));
        let tail = self.position(std::mem::offset_of!(perf_event_mmap_page, data_tail));
        let end = head.load(Ordering::Acquire);
        let mut at = tail.load(Ordering::Relaxed);
        while at < end {
            let header = self.bytes(at, HEADER);
            let kind = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
            let size = u16::from_ne_bytes([header[6], header[7]]);
            if usize::from(size) < HEADER {
                seen.push(Seen::Missed);
                at = end;
                break;
            }
            let body = self.bytes(at + HEADER as u64, usize::from(size) - HEADER);
            seen.extend(decode(kind, &body));
            at += u64::from(size);
        }
        tail.store(at, Ordering::Release);
    }

    /// Bytes of the data area, which wraps around.
    fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let size = self.page * PAGES;
        let from = usize::try_from(at).unwrap_or(0);
        (from..from + len)
            .map(|position| {
                let offset = self.page + position % size;
                // SAFETY: inside the mapping; the kernel has released it, and does not write
                // there before the tail is moved.
                unsafe { self.start.as_ptr().add(offset).read() }
            })
            .collect()
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        debug_assert!(self.fd.as_raw_fd() >= 0);
        // SAFETY: the mapping made in `open`; no reference into it outlives `self`.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// What a record says; `None` if it is of no interest, or too short to be what it claims.
fn decode(kind: u32, body: &[u8]) -> Option<Seen> {
    let half = |at: usize| {
        body.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes)
    };
    match kind {
        RECORD_LOST => Some(Seen::Missed),
        RECORD_FORK => {
            let (child, parent) = (half(0)?, half(4)?);
            // The same process: a thread.
            (child != parent).then_some(Seen::Forked { parent: Pid(parent), child: Pid(child) })
        }
        RECORD_MMAP2 => {
            /// pid, tid, address, length, offset, device, inode, generation, protection, flags.
            const NAME: usize = 4 + 4 + 8 + 8 + 8 + 8 + 8 + 8 + 4 + 4;
            let name = body.get(NAME..)?.split(|byte| *byte == 0).next()?;
            // Memory without a file: [vdso], //anon.
            if !name.starts_with(b"/") || name.starts_with(b"//") {
                return None;
            }
            let path = PathBuf::from(OsStr::from_bytes(name));
            Some(Seen::Mapped { pid: Pid(half(0)?), tid: Tid(half(4)?), path })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapped(name: &str) -> Vec<u8> {
        let mut body = vec![0; 64];
        body[0..4].copy_from_slice(&7_u32.to_ne_bytes());
        body[4..8].copy_from_slice(&8_u32.to_ne_bytes());
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(&[0; 8]);
        body
    }

    #[test]
    fn a_mapped_file_is_told_from_other_memory() {
        let path = PathBuf::from("/lib/x.so");
        let seen = decode(RECORD_MMAP2, &mapped("/lib/x.so"));
        assert_eq!(seen, Some(Seen::Mapped { pid: Pid(7), tid: Tid(8), path }));
        assert_eq!(decode(RECORD_MMAP2, &mapped("[vdso]")), None);
        assert_eq!(decode(RECORD_MMAP2, &mapped("//anon")), None);
    }

    #[test]
    fn a_thread_is_no_new_process() {
        let record = |pid: u32, ppid: u32| [pid.to_ne_bytes(), ppid.to_ne_bytes()].concat();
        assert_eq!(decode(RECORD_FORK, &record(5, 5)), None);
        let seen = decode(RECORD_FORK, &record(6, 5));
        assert_eq!(seen, Some(Seen::Forked { parent: Pid(5), child: Pid(6) }));
    }

    #[test]
    fn what_is_too_short_says_nothing() {
        let whole = mapped("/lib/x.so");
        for len in 0..64 {
            assert_eq!(decode(RECORD_MMAP2, &whole[..len]), None);
        }
        assert_eq!(decode(RECORD_FORK, &[1, 2, 3]), None);
        assert_eq!(decode(99, &whole), None);
        assert_eq!(decode(RECORD_LOST, &[]), Some(Seen::Missed));
    }
}
