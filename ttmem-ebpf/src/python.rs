//! The functions that a thread executes in CPython.
//!
//! They are found in the interpreter's own objects: its list of threads leads to the thread that has
//! hit the probe, whether or not that holds the interpreter's lock, and its frames to each other.
//! Nobody else changes them while the thread is here.

use aya_ebpf::{
    Global,
    helpers::{bpf_get_current_task, generated::bpf_probe_read_kernel},
};
use ttmem_common::{
    layout::ABSENT,
    python::{
        MOST_FRAMES, MOST_OF_FRAME, MOST_OF_THREAD, MOST_THREADS, PYTHON_DEEP, PYTHON_NO_THREAD,
        PYTHON_NONE, PYTHON_UNREADABLE, PYTHON_WHOLE, PythonFrame, PythonLayout,
    },
};

use crate::{emit::Hit, maps::PYTHON, user_memory::read_raw};

/// Where the kernel keeps a task's `fs` base, which is its `pthread_t`; 0: that is not known.
#[unsafe(no_mangle)]
static FS_BASE: Global<u32> = Global::new(0);

/// Records the Python functions of this thread; how many, and why there are no more.
///
/// # Safety
/// There is room for as many frames as there can be, and for [`MOST_OF_THREAD`] bytes of scratch.
#[inline(always)]
pub unsafe fn frames(hit: &Hit, to: *mut PythonFrame, scratch: *mut u64) -> (u32, u32) {
    let Some(layout) = PYTHON.get(hit.slot) else { return (0, PYTHON_NONE) };
    if FS_BASE.load() == 0 || layout.threads == 0 {
        return (0, PYTHON_NONE);
    }
    // SAFETY: as the caller says.
    unsafe {
        match innermost(layout, scratch) {
            Ok(frame) => follow(layout, frame, to, scratch),
            Err(end) => (0, end),
        }
    }
}

/// The innermost frame of this thread.
///
/// # Safety
/// As for [`frames`].
#[inline(always)]
unsafe fn innermost(layout: &PythonLayout, scratch: *mut u64) -> Result<u64, u32> {
    let len = layout.thread_len;
    if len > MOST_OF_THREAD {
        return Err(PYTHON_NONE);
    }
    let mut ident = 0_u64;
    // SAFETY: the helper checks the address, and there is room for 8 bytes.
    let error = unsafe {
        let task = bpf_get_current_task().wrapping_add(u64::from(FS_BASE.load()));
        bpf_probe_read_kernel((&raw mut ident).cast(), 8, task as *const _)
    };
    if error != 0 || read_raw(scratch.cast(), 8, layout.threads) != 0 {
        return Err(PYTHON_UNREADABLE);
    }
    // SAFETY: as the caller says.
    let mut thread = unsafe { *scratch };
    for _ in 0..MOST_THREADS {
        if thread == 0 {
            break;
        }
        if read_raw(scratch.cast(), len, thread) != 0 {
            return Err(PYTHON_UNREADABLE);
        }
        // SAFETY: the mask keeps it inside of what the caller has room for.
        let word =
            |offset: u32| unsafe { *scratch.add((offset / 8 % (MOST_OF_THREAD / 8)) as usize) };
        if word(layout.ident) == ident {
            // SAFETY: as the caller says.
            return unsafe { inner(layout, word(layout.frame), scratch) };
        }
        thread = word(layout.next);
    }
    Err(PYTHON_NO_THREAD)
}

/// The innermost frame of a thread, by what its state leads to.
///
/// # Safety
/// As for [`frames`].
#[inline(always)]
unsafe fn inner(layout: &PythonLayout, frame: u64, scratch: *mut u64) -> Result<u64, u32> {
    if layout.frame_in == ABSENT || frame == 0 {
        return Ok(frame);
    }
    if read_raw(scratch.cast(), 8, frame.wrapping_add(u64::from(layout.frame_in))) != 0 {
        return Err(PYTHON_UNREADABLE);
    }
    // SAFETY: as the caller says.
    Ok(unsafe { *scratch })
}

/// Records a frame and those of its callers.
///
/// # Safety
/// As for [`frames`].
#[inline(always)]
unsafe fn follow(
    layout: &PythonLayout,
    mut frame: u64,
    to: *mut PythonFrame,
    scratch: *mut u64,
) -> (u32, u32) {
    let len = layout.frame_len;
    if len > MOST_OF_FRAME {
        return (0, PYTHON_NONE);
    }
    for count in 0..MOST_FRAMES {
        if frame == 0 {
            return (count as u32, PYTHON_WHOLE);
        }
        if read_raw(scratch.cast(), len, frame) != 0 {
            return (count as u32, PYTHON_UNREADABLE);
        }
        // SAFETY: as above.
        let word =
            |offset: u32| unsafe { *scratch.add((offset / 8 % (MOST_OF_FRAME / 8)) as usize) };
        let found = PythonFrame { code: word(layout.code), place: word(layout.place) };
        // SAFETY: there is room for so many.
        unsafe { to.add(count).write(found) };
        frame = word(layout.back);
    }
    (MOST_FRAMES as u32, if frame == 0 { PYTHON_WHOLE } else { PYTHON_DEEP })
}
