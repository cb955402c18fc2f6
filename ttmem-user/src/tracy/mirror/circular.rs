//! Circular and dataflow buffers: of each chip those of the program that keeps the most on one
//! core, for programs are not added up.

use super::{Entry, Kind, Mirror, Op};
use crate::{
    event::{CircularKind, CoreRange},
    ledger::snapshot::ProgramSnapshot,
    units::{Avma, ChipId},
};

/// All pools of that kind on a chip are one owner's.
const OWNER: Avma = Avma(0);

impl Mirror {
    /// Takes in which programs there are at an instant.
    pub fn show_programs(
        &mut self,
        programs: &[ProgramSnapshot],
        time_ns: u64,
        out: &mut impl FnMut(Op<'_>),
    ) {
        let at = self.at(time_ns, None);
        let mut chips: Vec<ChipId> = programs.iter().flat_map(|it| &it.chips).copied().collect();
        let shown = self.numbered.keys().filter(|(_, kind)| *kind == Kind::Circular);
        chips.extend(shown.map(|(chip, _)| *chip));
        chips.sort_unstable();
        chips.dedup();
        for chip in chips {
            let here = programs.iter().filter(|program| program.chips.contains(&chip));
            // Of equals the first, so that it stays the same one.
            let largest = here.reduce(|a, b| if b.core_bytes > a.core_bytes { b } else { a });
            let mut wanted = largest.map_or_else(Vec::new, buffers_of);
            self.keep_only(chip, &mut wanted, at, out);
            for (address, mut entry) in wanted {
                entry.at.time_ns = at.time_ns;
                self.came((OWNER, chip, Kind::Circular), address, entry, out);
            }
        }
        self.settle(out);
    }

    /// Lets go of what is not wanted any more; what is there already is taken out of `wanted`.
    fn keep_only(
        &mut self,
        chip: ChipId,
        wanted: &mut Vec<(u64, Entry)>,
        at: super::At,
        out: &mut impl FnMut(Op<'_>),
    ) {
        let numbers = self.numbered.get(&(chip, Kind::Circular)).cloned().unwrap_or_default();
        for number in numbers {
            let pool = &mut self.pools[number];
            let mut gone = Vec::new();
            for (address, there) in &pool.live {
                let same = |(other, entry): &(u64, Entry)| {
                    other == address && (entry.owner, entry.size) == (there.owner, there.size)
                };
                match wanted.iter().position(same) {
                    Some(place) => drop(wanted.swap_remove(place)),
                    None => gone.push(*address),
                }
            }
            gone.sort_unstable();
            for address in gone {
                pool.remove(address, at, out);
            }
        }
        wanted.sort_unstable_by_key(|(address, entry)| (*address, entry.owner));
    }
}

/// The buffers of a program with memory of their own. Several may have the same address on
/// different cores.
fn buffers_of(program: &ProgramSnapshot) -> Vec<(u64, Entry)> {
    let own = program.buffers.iter().enumerate();
    let own = own.filter(|(_, buffer)| buffer.kind != CircularKind::Alias);
    own.map(|(number, buffer)| {
        let cores = buffer.cores.as_deref().map_or(1, cores_in);
        let entry = Entry {
            // Names the buffer, not only its program.
            owner: program.program.plus(number as u64),
            at: super::At { time_ns: program.placed_ns, tid: program.tid.0 },
            size: buffer.size.min(super::MAX_SIZE),
            used: buffer.size.saturating_mul(cores),
            allocated_ns: 0,
            on_some_cores: true,
        };
        (buffer.address.0 & super::ADDRESS_MASK, entry)
    })
    .collect()
}

fn cores_in(ranges: &[CoreRange]) -> u64 {
    let side = |from: u32, to: u32| u64::from(to.saturating_sub(from)) + 1;
    ranges
        .iter()
        .map(|range| {
            side(range.start.0, range.end.0).saturating_mul(side(range.start.1, range.end.1))
        })
        .sum()
}
