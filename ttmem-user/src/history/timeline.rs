//! How much of each pool was used over the session.
//!
//! Chips that have always changed alike share one line: a mesh of 32 chips costs as much as one
//! chip. When a buffer comes that lies on some of them only, the line is copied, and each goes its
//! own way; what was before was the same for both.
//!
//! Invariant: the chips of the lines of one type are disjoint.

use std::collections::BTreeMap;

use ttmem_common::layout::BUFFER_TYPES;

use super::{
    line::{LEVELS, Level, Line, Step},
    row::{Packed, Places},
};
use crate::{event::BufferType, units::ChipId};

/// Buckets of all lines together.
pub(super) const MAX_BUCKETS: usize = 1 << 16;
/// Buckets that each level of a line keeps: many lines keep fewer each.
const KEPT: (usize, usize) = (4, 128);
/// Lines; more than any machine has pools that differ.
pub(super) const MAX_LINES: usize = MAX_BUCKETS / LEVELS / KEPT.0;

/// The lines of all pools.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    types: [OfType; BUFFER_TYPES],
    /// By place, then type, the lines that a buffer there changes, once they have been found.
    touched: Vec<[Option<Box<[u32]>>; BUFFER_TYPES]>,
    lines: usize,
    /// Buckets that each level of a line keeps.
    kept: usize,
    /// Changes that found no room for a line of their own.
    left_out: u64,
}

#[derive(Clone, Debug, Default)]
struct OfType(Vec<Shared>);

/// What chips have in common that go on sharing a line: the line, the type, and what they hold.
type Alike = (Option<usize>, BufferType, [u64; 3]);

/// A line and the chips that share it.
#[derive(Clone, Debug)]
struct Shared {
    chips: Vec<ChipId>,
    line: Line,
}

impl Timeline {
    /// The line of a pool; `None` if nothing ever was in it.
    pub fn line(&self, chip: ChipId, buffer_type: BufferType) -> Option<&Line> {
        let lines = &self.types[buffer_type.index()].0;
        lines.iter().find(|shared| shared.chips.contains(&chip)).map(|shared| &shared.line)
    }

    /// The pools that ever held something, in the order of chips, then types.
    pub fn pools(&self) -> Vec<(ChipId, BufferType)> {
        let mut pools: Vec<_> = self.each().map(|(pool, _)| pool).collect();
        pools.sort_unstable();
        pools
    }

    /// The pools that ever held something, each with its line, in no order.
    pub fn each(&self) -> impl Iterator<Item = ((ChipId, BufferType), &Line)> {
        BufferType::ALL.into_iter().flat_map(|buffer_type| {
            let lines = self.types[buffer_type.index()].0.iter();
            lines.flat_map(move |Shared { chips, line }| {
                chips.iter().map(move |&chip| ((chip, buffer_type), line))
            })
        })
    }

    /// Every line once, with the chips that share it; by type, then the lowest chip.
    pub fn lines(&self) -> Vec<(BufferType, Vec<ChipId>, &Line)> {
        let mut found = Vec::new();
        for buffer_type in BufferType::ALL {
            for Shared { chips, line } in &self.types[buffer_type.index()].0 {
                let mut chips = chips.clone();
                chips.sort_unstable();
                found.push((buffer_type, chips, line));
            }
        }
        found.sort_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
        found
    }

    /// Changes that are in no line: there were too many pools.
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }

    pub(super) fn step(&mut self, row: &Packed, places: &Places, step: Step) {
        if row.place == 0 {
            return;
        }
        let (place, buffer_type) = (row.place as usize, row.buffer_type.index());
        if self.touched.get(place).is_none_or(|types| types[buffer_type].is_none()) {
            self.find(row, places.chips(row.place));
        }
        let Some(found) = &self.touched[place][buffer_type] else { return };
        let lines = &mut self.types[buffer_type].0;
        for &at in found {
            lines[at as usize].line.step(step, self.kept);
        }
        self.left_out += u64::from(found.is_empty());
    }

    /// Has every pool hold what `now` says of it.
    pub(super) fn jump<'a>(
        &mut self,
        time_ns: u64,
        rows: impl Iterator<Item = &'a Packed>,
        places: &Places,
    ) {
        let mut now: BTreeMap<(ChipId, BufferType), Level> = BTreeMap::new();
        for row in rows {
            for &chip in places.chips(row.place) {
                let level = now.entry((chip, row.buffer_type)).or_default();
                level.buffers += 1;
                level.unmeasured += u64::from(row.used_bytes().is_none());
                level.used_bytes = level.used_bytes.saturating_add(row.used_bytes().unwrap_or(0));
            }
        }
        let mut pools: Vec<_> = self.pools().into_iter().chain(now.keys().copied()).collect();
        pools.sort_unstable();
        pools.dedup();
        // Chips that hold the same and shared a line go on sharing it.
        let mut alike: BTreeMap<Alike, Vec<ChipId>> = BTreeMap::new();
        for (chip, buffer_type) in pools {
            let lines = &self.types[buffer_type.index()].0;
            let shared = lines.iter().position(|shared| shared.chips.contains(&chip));
            let level = now.get(&(chip, buffer_type)).copied().unwrap_or_default();
            let key = [level.used_bytes, level.buffers, level.unmeasured];
            alike.entry((shared, buffer_type, key)).or_default().push(chip);
        }
        for ((_, buffer_type, [used_bytes, buffers, unmeasured]), chips) in alike {
            let level = Level { used_bytes, buffers, unmeasured };
            let found = self.lines_of(buffer_type, &chips);
            for at in found {
                let line = &mut self.types[buffer_type.index()].0[at as usize].line;
                line.jump(time_ns, level, self.kept);
            }
        }
    }

    fn find(&mut self, row: &Packed, chips: &[ChipId]) {
        let found = self.lines_of(row.buffer_type, chips);
        let place = row.place as usize;
        if self.touched.len() <= place {
            self.touched.resize_with(place + 1, Default::default);
        }
        self.touched[place][row.buffer_type.index()] = Some(found.into());
    }

    /// The lines of these chips, which no other chip shares from here on.
    fn lines_of(&mut self, buffer_type: BufferType, chips: &[ChipId]) -> Vec<u32> {
        let lines = &mut self.types[buffer_type.index()].0;
        let mut wanted: Vec<ChipId> = chips.to_vec();
        wanted.sort_unstable();
        wanted.dedup();
        let mut found = Vec::new();
        for at in 0..lines.len() {
            let is_wanted = |chip: &ChipId| wanted.binary_search(chip).is_ok();
            let (inside, outside): (Vec<_>, Vec<_>) =
                lines[at].chips.iter().copied().partition(is_wanted);
            if inside.is_empty() {
                continue;
            }
            wanted.retain(|chip| !inside.contains(chip));
            if !outside.is_empty() {
                if self.lines >= MAX_LINES {
                    // These go on as one with the others, which is wrong for some: said by the
                    // count.
                    self.left_out += 1;
                } else {
                    let line = lines[at].line.clone();
                    lines.push(Shared { chips: outside, line });
                    lines[at].chips = inside;
                    self.lines += 1;
                    // Who changed the one changes both from here on.
                    self.touched.clear();
                }
            }
            found.push(u32::try_from(at).unwrap_or(u32::MAX));
        }
        if !wanted.is_empty() && self.lines < MAX_LINES {
            found.push(u32::try_from(lines.len()).unwrap_or(u32::MAX));
            lines.push(Shared { chips: wanted, line: Line::default() });
            self.lines += 1;
        }
        self.share_out();
        found
    }

    /// Shares the buckets out among the lines.
    fn share_out(&mut self) {
        let each = MAX_BUCKETS / LEVELS / self.lines.max(1);
        let kept = (1 << each.max(1).ilog2()).clamp(KEPT.0, KEPT.1);
        if kept != self.kept {
            self.kept = kept;
            for shared in self.types.iter_mut().flat_map(|of_type| &mut of_type.0) {
                shared.line.thin_out(kept);
            }
        }
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        let shared = self.types.iter().flat_map(|of_type| &of_type.0);
        let lines: usize = shared.map(|it| it.line.bytes() + it.chips.capacity() * 4 + 24).sum();
        let of_place = size_of::<[Option<Box<[u32]>>; BUFFER_TYPES]>();
        let found = self.touched.iter().flatten().flatten();
        let found: usize = found.map(|lines| 16 + size_of_val::<[u32]>(lines)).sum();
        let touched = self.touched.capacity() * of_place + found;
        lines + touched
    }
}
