//! Has the processor fetch what will be needed soon.
#![expect(unsafe_code, reason = "the instruction takes any address")]

/// Bytes that a processor fetches at a time.
pub const CACHE_LINE: usize = 64;

/// Has the processor fetch the cache line of an address. Nothing waits for it.
#[inline]
pub fn fetch<T>(line: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}
