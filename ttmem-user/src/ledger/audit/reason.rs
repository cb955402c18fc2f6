//! Why figures are likely to differ. Words for people; nothing is decided by them.

use super::snapshot::AuditRow;

/// What else is known of the pool.
pub(super) struct Facts {
    /// What its live buffers take of all banks, bytes.
    pub used_bytes: Option<u64>,
    /// What they take of each bank, bytes.
    pub bank_bytes: Option<u64>,
    /// Whether records were lost that have not been set right.
    pub lost: bool,
    /// Whether buffers went in a bulk free and have not been freed one by one.
    pub bulk_freed: bool,
    /// How many allocators have live buffers in it.
    pub allocators: usize,
}

impl Facts {
    /// The likely reason of what is odd in a row.
    pub(super) fn likely_reason(&self, row: &AuditRow) -> Option<String> {
        if row.probes_logical_bytes != row.memory_logical_bytes {
            return Some(self.probes(row));
        }
        let own = row.shm_bytes?;
        if own != row.memory_logical_bytes {
            return Some(self.shm(own, row.memory_logical_bytes));
        }
        let ghosts = row.shm_ended_bytes.filter(|&bytes| bytes > 0)?;
        Some(format!(
            "ghosts: {ghosts} of the chip's total are still counted for processes that have ended"
        ))
    }

    fn probes(&self, row: &AuditRow) -> String {
        if self.lost {
            return "records were lost; the memory is right, and sets it right".to_owned();
        }
        let confirmed = row.shm_bytes == Some(row.memory_logical_bytes);
        let whom = if confirmed { "; shared memory agrees with the memory" } else { "" };
        format!("an event was missed{whom}")
    }

    fn shm(&self, shm: u64, memory: u64) -> String {
        if Some(shm) == self.used_bytes {
            return "it counts what the buffers take of all banks, padding included".to_owned();
        }
        if Some(shm) == self.bank_bytes {
            return "it counts what the buffers take of each bank".to_owned();
        }
        if shm < memory {
            return "it has counted off more than was freed, or its totals were reset".to_owned();
        }
        let times = shm.checked_div(memory).filter(|times| times * memory == shm);
        if let Some(times) = times {
            return format!("it counts each buffer {times} times, as of a mesh and its submesh");
        }
        if self.bulk_freed {
            return "it still counts buffers that went when their device was closed".to_owned();
        }
        if self.allocators > 1 {
            return "it counts buffers of a mesh and its submesh twice".to_owned();
        }
        "a ghost: left in its entry by an earlier process with the same id, or counted for \
         allocations that were only captured and never made"
            .to_owned()
    }
}
