//! What the probes counted before anything could be lost. Every layer can pass it on.

use ttmem_common::layout::BUFFER_TYPES;

/// What happened in one target since the attach, lost or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Witness {
    /// Allocations, by buffer type.
    pub allocations: [u64; BUFFER_TYPES],
    /// Sum of their logical sizes, bytes, by buffer type.
    pub bytes: [u64; BUFFER_TYPES],
    /// Allocations whose fields could not be read, or of a type that is not known.
    pub unread_allocations: u64,
    /// Frees of single buffers.
    pub frees: u64,
    /// Frees of all buffers of an allocator.
    pub bulk_frees: u64,
}

impl Witness {
    /// What was counted since `earlier`. The counters wrap.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let each = |now: &[u64; BUFFER_TYPES], then: &[u64; BUFFER_TYPES]| {
            std::array::from_fn(|at| now[at].wrapping_sub(then[at]))
        };
        Self {
            allocations: each(&self.allocations, &earlier.allocations),
            bytes: each(&self.bytes, &earlier.bytes),
            unread_allocations: self.unread_allocations.wrapping_sub(earlier.unread_allocations),
            frees: self.frees.wrapping_sub(earlier.frees),
            bulk_frees: self.bulk_frees.wrapping_sub(earlier.bulk_frees),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_was_anothers_counts_from_its_own_attach() {
        let earlier = Witness { allocations: [5; 5], bytes: [u64::MAX; 5], frees: 4, ..zero() };
        let now = Witness { allocations: [7; 5], bytes: [99; 5], frees: 5, ..zero() };
        let since = Witness { allocations: [2; 5], bytes: [100; 5], frees: 1, ..zero() };
        assert_eq!(now.since(&earlier), since);
    }

    fn zero() -> Witness {
        Witness::default()
    }
}
