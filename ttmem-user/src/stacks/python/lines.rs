//! Which line an instruction is of.
//!
//! Rules: `Objects/lnotab_notes.txt` of CPython 3.10 (PEP 626).
//!
//! Invariant: whatever the bytes are, it ends; none panics.

/// Bytes of code by their lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines {
    first: u32,
    /// Pairs: for so many bytes of code the line is so much more than before.
    table: Box<[u8]>,
}

impl Lines {
    /// By a code object's first line and its table.
    pub fn new(first: u32, table: Box<[u8]>) -> Self {
        Self { first, table }
    }

    /// The line of the code at an offset in bytes; `None`: it has none. Before the first instruction it
    /// is the first line.
    pub fn at(&self, offset: i64) -> Option<u32> {
        /// The line is none; that of what comes behind counts from the one before.
        const NONE: i8 = -128;
        if offset < 0 {
            return Some(self.first);
        }
        let (mut end, mut line) = (0_i64, i64::from(self.first));
        for pair in self.table.chunks_exact(2) {
            let more = i8::from_ne_bytes([pair[1]]);
            end += i64::from(pair[0]);
            if more != NONE {
                line += i64::from(more);
            }
            if offset < end {
                return u32::try_from(line).ok().filter(|_| more != NONE);
            }
        }
        None
    }

    /// Bytes of memory that it takes.
    pub fn size(&self) -> usize {
        self.table.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// From CPython 3.10: `code.co_firstlineno`, `code.co_linetable`, and of `code.co_lines()` the lines
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

    #[test]
    fn lines_are_those_that_python_says() {
        for (first, table, ranges) in SAMPLES {
            let lines = Lines::new(first, table.into());
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
        fn any_table_is_read(first: u32, table: Vec<u8>, offset: i64) {
            let lines = Lines::new(first, table.into());
            let _ = lines.at(offset);
        }
    }
}
