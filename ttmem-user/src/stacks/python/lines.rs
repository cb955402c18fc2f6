//! Which line an instruction is of.
//!
//! Rules: `Objects/lnotab_notes.txt` of CPython 3.10 (PEP 626), `Objects/locations.md` of later ones.
//!
//! Invariant: whatever the bytes are, it ends; none panics.

/// Bytes of code by their lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines {
    kind: Table,
    first: u32,
    table: Box<[u8]>,
}

/// How a table says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// 3.10: pairs; for so many bytes of code the line is so much more than before.
    Pairs,
    /// Later: entries of several bytes, the first of which alone has its upper bit set.
    Entries,
}

impl Lines {
    /// By a code object's first line and its table.
    pub fn new(kind: Table, first: u32, table: Box<[u8]>) -> Self {
        Self { kind, first, table }
    }

    /// The line of the code at an offset in bytes; `None`: it has none. Before the first instruction it
    /// is the first line.
    pub fn at(&self, offset: i64) -> Option<u32> {
        if offset < 0 {
            return Some(self.first);
        }
        let line = match self.kind {
            Table::Pairs => self.of_pairs(offset),
            Table::Entries => self.of_entries(offset),
        };
        u32::try_from(line?).ok()
    }

    fn of_pairs(&self, offset: i64) -> Option<i64> {
        /// The line is none; that of what comes behind counts from the one before.
        const NONE: i8 = -128;
        let (mut end, mut line) = (0_i64, i64::from(self.first));
        for pair in self.table.chunks_exact(2) {
            let more = i8::from_ne_bytes([pair[1]]);
            end += i64::from(pair[0]);
            if more != NONE {
                line += i64::from(more);
            }
            if offset < end {
                return (more != NONE).then_some(line);
            }
        }
        None
    }

    fn of_entries(&self, offset: i64) -> Option<i64> {
        /// Bytes of a unit of code.
        const UNIT: i64 = 2;
        let (mut end, mut line) = (0_i64, i64::from(self.first));
        let mut rest = self.table.iter().copied().peekable();
        while let Some(head) = rest.next() {
            end += (i64::from(head & 7) + 1) * UNIT;
            let (kind, mut has_line) = (head >> 3 & 15, true);
            match kind {
                // In one line, that many behind.
                10..=12 => line += i64::from(kind - 10),
                13 | 14 => line = line.checked_add(signed(&mut rest)?)?,
                15 => has_line = false,
                _ => {}
            }
            if offset < end {
                return has_line.then_some(line);
            }
            while rest.next_if(|byte| byte & 0x80 == 0).is_some() {}
        }
        None
    }

    /// Bytes of memory that it takes.
    pub fn size(&self) -> usize {
        self.table.len()
    }
}

/// A signed number of 6 bits a byte, the lowest first; the lowest of all is its sign.
fn signed(bytes: &mut impl Iterator<Item = u8>) -> Option<i64> {
    const MORE: u8 = 0x40;
    let (mut number, mut shift) = (0_i64, 0);
    loop {
        let byte = bytes.next()?;
        number |= i64::from(byte & 0x3f).checked_shl(shift)?;
        if byte & MORE == 0 {
            let size = number >> 1;
            return Some(if number & 1 == 0 { size } else { -size });
        }
        shift += 6;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// From CPython 3.10, 3.12 and 3.13: `code.co_firstlineno`, `code.co_linetable`, and of `code.co_lines()` the lines
    /// by start and end.
    type Sample = (u32, &'static [u8], &'static [(i64, i64, Option<u32>)]);

    const SAMPLES: [Sample; 4] = [
        (
            2,
            &[2, 2, 2, 1, 4, 255, 12, 2, 4, 1, 2, 1, 10, 1, 6, 3, 2, 1, 6, 255],
            &[
                (0, 2, Some(4)),
                (2, 4, Some(5)),
                (4, 8, Some(4)),
                (8, 20, Some(6)),
                (20, 24, Some(7)),
                (24, 26, Some(8)),
                (26, 36, Some(9)),
                (36, 42, Some(12)),
                (42, 44, Some(13)),
                (44, 50, Some(12)),
            ],
        ),
        (
            14,
            &[2, 1, 10, 1, 2, 1, 30, 255, 10, 3, 2, 253, 18, 3],
            &[
                (0, 2, Some(15)),
                (2, 12, Some(16)),
                (12, 14, Some(17)),
                (14, 44, Some(16)),
                (44, 54, Some(19)),
                (54, 56, Some(16)),
                (56, 74, Some(19)),
            ],
        ),
        (20, &[0, 127, 0, 127, 4, 48], &[(0, 4, Some(322))]),
        (62, &[2, 128, 6, 0], &[(0, 2, None), (2, 8, Some(62))]),
    ];

    const LATER_SAMPLES: [Sample; 6] = [
        (
            2,
            &[
                128, 0, 224, 9, 10, 216, 9, 10, 241, 3, 1, 10, 11, 128, 65, 228, 13, 18, 144, 49,
                139, 88, 242, 0, 3, 5, 15, 136, 1, 217, 11, 12, 216, 12, 20, 216, 8, 9, 136, 81,
                137, 6, 137, 1, 240, 7, 3, 5, 15, 240, 14, 0, 22, 23, 246, 3, 1, 12, 24, 216, 16,
                17, 242, 3, 0, 13, 14, 242, 0, 1, 12, 24, 240, 0, 1, 5, 24, 249, 242, 0, 1, 12, 24,
            ],
            &[
                (0, 2, Some(2)),
                (2, 4, Some(4)),
                (4, 6, Some(5)),
                (6, 12, Some(4)),
                (12, 40, Some(6)),
                (40, 44, Some(7)),
                (44, 46, Some(8)),
                (46, 58, Some(9)),
                (58, 60, Some(6)),
                (60, 62, Some(13)),
                (62, 76, Some(12)),
                (76, 78, Some(13)),
                (78, 92, Some(12)),
                (92, 96, None),
                (96, 102, Some(12)),
            ],
        ),
        (
            14,
            &[
                128, 0, 240, 2, 4, 5, 12, 220, 13, 17, 144, 33, 139, 87, 240, 0, 1, 9, 17, 152, 1,
                216, 12, 16, 247, 3, 1, 9, 17, 244, 6, 0, 9, 10, 141, 3, 247, 7, 1, 9, 17, 240, 0,
                1, 9, 17, 251, 244, 6, 0, 9, 10, 141, 3, 250,
            ],
            &[
                (0, 2, Some(14)),
                (2, 4, Some(15)),
                (4, 28, Some(16)),
                (28, 30, Some(17)),
                (30, 46, Some(16)),
                (46, 68, Some(19)),
                (68, 86, Some(16)),
                (86, 94, None),
                (94, 116, Some(19)),
                (116, 122, None),
            ],
        ),
        (20, &[128, 0, 240, 92, 9, 0, 12, 13, 128, 72], &[(0, 2, Some(20)), (2, 6, Some(322))]),
        (
            2,
            &[
                128, 0, 224, 9, 10, 216, 9, 10, 241, 3, 1, 10, 11, 128, 65, 228, 13, 18, 144, 49,
                142, 88, 136, 1, 222, 11, 12, 217, 12, 20, 216, 8, 9, 136, 81, 137, 6, 138, 1, 241,
                7, 0, 14, 22, 241, 14, 0, 22, 23, 243, 3, 1, 12, 24, 217, 21, 22, 144, 1, 243, 3,
                0, 13, 14, 217, 21, 22, 241, 3, 1, 12, 24, 240, 0, 1, 5, 24, 249, 242, 0, 1, 12,
                24,
            ],
            &[
                (0, 2, Some(2)),
                (2, 4, Some(4)),
                (4, 6, Some(5)),
                (6, 12, Some(4)),
                (12, 40, Some(6)),
                (40, 54, Some(7)),
                (54, 58, Some(8)),
                (58, 72, Some(9)),
                (72, 76, Some(6)),
                (76, 80, Some(13)),
                (80, 88, Some(12)),
                (88, 94, Some(13)),
                (94, 102, Some(12)),
                (102, 106, Some(13)),
                (106, 112, Some(12)),
                (112, 116, None),
                (116, 122, Some(12)),
            ],
        ),
        (
            14,
            &[
                128, 0, 240, 2, 4, 5, 12, 220, 13, 17, 144, 33, 140, 87, 152, 1, 216, 12, 16, 247,
                3, 0, 14, 21, 244, 6, 0, 9, 10, 141, 3, 247, 7, 0, 14, 21, 141, 87, 251, 244, 6, 0,
                9, 10, 141, 3, 250,
            ],
            &[
                (0, 2, Some(14)),
                (2, 4, Some(15)),
                (4, 28, Some(16)),
                (28, 30, Some(17)),
                (30, 46, Some(16)),
                (46, 68, Some(19)),
                (68, 96, Some(16)),
                (96, 104, None),
                (104, 126, Some(19)),
                (126, 132, None),
            ],
        ),
        (20, &[128, 0, 240, 92, 9, 0, 12, 13, 128, 72], &[(0, 2, Some(20)), (2, 6, Some(322))]),
    ];

    #[test]
    fn lines_are_those_that_python_says() {
        let pairs = SAMPLES.map(|sample| (Table::Pairs, sample));
        let entries = LATER_SAMPLES.map(|sample| (Table::Entries, sample));
        for (kind, (first, table, ranges)) in pairs.into_iter().chain(entries) {
            let lines = Lines::new(kind, first, table.into());
            for (start, end, line) in ranges {
                for offset in *start..*end {
                    assert_eq!(lines.at(offset), *line, "{offset} of {table:?}");
                }
            }
            assert_eq!(lines.at(-2), Some(first));
            assert_eq!(lines.at(ranges.last().unwrap().1), None, "behind the code");
        }
    }

    proptest! {
        #[test]
        fn any_table_is_read(first: u32, table: Vec<u8>, offset in -2..2000_i64) {
            for kind in [Table::Pairs, Table::Entries] {
                let _ = Lines::new(kind, first, table.clone().into()).at(offset);
            }
        }
    }
}
