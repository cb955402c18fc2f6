//! Three witnesses of what is live: the probes, the allocators in the target's memory, and
//! tt-metal's own totals in shared memory.
//!
//! Only shows; sets nothing right, which is what [`super::resync`] does, and does not touch
//! exactness: tt-metal's totals are known to drift.
//!
//! Invariant: figures are compared only if they are of the same instant, which is if no event came
//! between; and they differ only if two readings show the same difference.

mod reason;
pub mod snapshot;

use hashbrown::{HashMap, HashSet};

use super::{BaselineState, Ledger};
use crate::{
    event::{BufferType, LiveBaseline, SHARED_TYPES, SharedFile, SharedTotals},
    units::{Avma, ChipId},
};
use reason::Facts;
use snapshot::{AuditRow, AuditSnapshot, Verdict};

/// Bytes and chips by place and type.
type Sums = HashMap<(usize, BufferType), u64, foldhash::fast::FixedState>;

/// The comparison of one target.
#[derive(Debug, Default)]
pub(super) struct Audit {
    shown: AuditSnapshot,
}

/// How figures differ: memory minus probes, shared memory minus memory.
type Difference = (i128, Option<i128>);

impl Ledger {
    /// From here on readings are compared.
    pub fn compare_witnesses(&mut self) {
        self.audit.get_or_insert_default();
    }

    /// Compares a later reading with what the probes say, before anything is set right. Every
    /// event up to its end must have been applied.
    pub fn audit(&mut self, reading: &LiveBaseline, time_ns: u64) {
        if self.audit.is_none() || self.baseline != BaselineState::Read {
            return;
        }
        let quiet = self.touched.as_ref().is_some_and(HashSet::is_empty)
            && self.bulk_freed_while_reading.is_empty();
        if quiet {
            self.learn_places(reading);
        }
        let rows = if quiet { self.audit_rows(reading) } else { Vec::new() };
        let Some(audit) = &mut self.audit else { return };
        if !quiet {
            audit.shown.busy += 1;
            return;
        }
        audit.shown.compared += 1;
        audit.shown.last_ns = Some(time_ns);
        audit.shown.rows = rows;
        audit.shown.shm_unknown_because = reading.shared.is_empty().then(|| NOT_MAPPED.to_owned());
    }

    pub(super) fn audit_snapshot(&self) -> Option<AuditSnapshot> {
        self.audit.as_ref().map(|audit| audit.shown.clone())
    }

    fn audit_rows(&self, reading: &LiveBaseline) -> Vec<AuditRow> {
        let mut in_memory = Sums::default();
        for buffer in &reading.buffers {
            let entry = self.topology.device_at(buffer.device);
            for &place in entry.map_or(&[][..], |entry| self.chips_of(entry)) {
                let sum = in_memory.entry((place, buffer.shape.buffer_type)).or_default();
                *sum = sum.saturating_add(buffer.shape.size);
            }
        }
        let mut rows = Vec::new();
        for (place, &chip) in self.topology.chips().iter().enumerate() {
            for buffer_type in BufferType::ALL {
                let memory = in_memory.get(&(place, buffer_type)).copied().unwrap_or(0);
                let has_pool = self.topology.capacity(place, buffer_type).is_some();
                if has_pool || memory > 0 || self.pool(place, buffer_type).was_used() {
                    rows.push(self.audit_row(reading, place, chip, buffer_type, memory));
                }
            }
        }
        rows.sort_by_key(|row| (row.chip, row.buffer_type));
        rows
    }

    fn audit_row(
        &self,
        reading: &LiveBaseline,
        place: usize,
        chip: ChipId,
        buffer_type: BufferType,
        memory: u64,
    ) -> AuditRow {
        let pool = self.pool(place, buffer_type);
        let shared = shared_of(&reading.shared, chip, buffer_type);
        let mut row = AuditRow {
            chip,
            buffer_type,
            probes_logical_bytes: pool.logical_bytes.get(),
            memory_logical_bytes: memory,
            shm_bytes: shared.as_ref().ok().map(|shared| shared.own),
            shm_all_bytes: shared.as_ref().ok().map(|shared| shared.all),
            shm_ended_bytes: shared.as_ref().ok().and_then(|shared| shared.ended),
            shm_unknown_because: shared.err(),
            verdict: Verdict::Agree,
            likely_reason: None,
        };
        row.verdict = self.verdict(&row);
        let measured = pool.unmeasured.get() == 0;
        row.likely_reason = Facts {
            used_bytes: measured.then(|| pool.used_bytes.get()),
            bank_bytes: pool.bytes_of_each_bank(),
            lost: self.lost != self.settled.lost,
            bulk_freed: !self.swept.is_empty(),
            allocators: self.allocators_with(place, buffer_type),
        }
        .likely_reason(&row);
        row
    }

    fn verdict(&self, row: &AuditRow) -> Verdict {
        let difference = difference(row);
        if difference.0 == 0 && difference.1.is_none_or(|by| by == 0) {
            return if difference.1.is_some() { Verdict::Agree } else { Verdict::AgreeWithoutShm };
        }
        let before = self.audit.iter().flat_map(|audit| &audit.shown.rows);
        let same = |before: &AuditRow| {
            (before.chip, before.buffer_type) == (row.chip, row.buffer_type)
                && self::difference(before) == difference
        };
        if before.into_iter().any(same) { Verdict::Differ } else { Verdict::Unconfirmed }
    }

    /// How many allocators have live buffers of this type on a chip.
    fn allocators_with(&self, place: usize, buffer_type: BufferType) -> usize {
        let here = self.live.values().filter(|live| {
            live.shape.buffer_type == buffer_type
                && self.chips_of_live(live.device).contains(&place)
        });
        here.map(|live| live.allocator).collect::<HashSet<Avma, foldhash::fast::FixedState>>().len()
    }
}

fn difference(row: &AuditRow) -> Difference {
    let [probes, memory] = [row.probes_logical_bytes, row.memory_logical_bytes].map(i128::from);
    (memory - probes, row.shm_bytes.map(|shm| i128::from(shm) - memory))
}

/// Why there is no third figure at all.
const NOT_MAPPED: &str = "the process has mapped no /dev/shm/tt_device_*_memory: no device is \
    open, or TT_METAL_SHM_TRACKING_DISABLED is set, or its tt-metal is older than 0.70";

/// What shared memory says of a chip and type.
struct Shared {
    own: u64,
    all: u64,
    ended: Option<u64>,
}

fn shared_of(
    files: &[SharedFile],
    chip: ChipId,
    buffer_type: BufferType,
) -> Result<Shared, String> {
    let index = SHARED_TYPES.iter().position(|&of_it| of_it == buffer_type);
    let index = index.ok_or("tt-metal keeps no total of this type")?;
    let totals = totals_of(files, chip)?;
    let own = totals.own.ok_or_else(|| {
        format!("it has no entry for process {}; there is room for 64", totals.own_pid)
    })?;
    let ended = totals.ended.map(|ended| ended[index]);
    Ok(Shared { own: own[index], all: totals.all[index], ended })
}

fn totals_of(files: &[SharedFile], chip: ChipId) -> Result<&SharedTotals, String> {
    let mut known = files.iter().filter_map(|file| file.totals.as_ref().ok());
    let mut of_chip = known.by_ref().filter(|totals| totals.chip == chip);
    match (of_chip.next(), of_chip.next()) {
        (Some(totals), None) => Ok(totals),
        (Some(_), Some(_)) => Err(format!("several files are said to be of chip {chip}")),
        (None, _) => Err(why_none(files)),
    }
}

/// A file that was refused may be the chip's.
fn why_none(files: &[SharedFile]) -> String {
    let refused = files.iter().find_map(|file| Some((file, file.totals.as_ref().err()?)));
    match refused {
        Some((file, reason)) => format!("{}: {reason}", file.name),
        None if files.is_empty() => NOT_MAPPED.to_owned(),
        None => "no file that the process has mapped is of this chip".to_owned(),
    }
}

#[cfg(test)]
mod tests;
