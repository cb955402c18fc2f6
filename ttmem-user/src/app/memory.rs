//! What parsing a library leaves behind: nothing, as far as the system can tell.
#![expect(unsafe_code, reason = "mallopt(3) and malloc_trim(3) have no safe wrappers")]

/// Has the allocator keep little of what is free. To be called before there is a second thread.
///
/// A library of tt-metal is parsed into some tens of megabytes, once. By default the allocator then
/// takes such sizes for the usual ones, and keeps a pool for each thread that cannot be trimmed.
pub fn be_frugal() {
    #[cfg(target_env = "gnu")]
    // SAFETY: they only set numbers; no other thread uses the allocator yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 256 << 10);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 256 << 10);
    }
}

/// Gives the memory back that is free.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it may be called at any time, by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
