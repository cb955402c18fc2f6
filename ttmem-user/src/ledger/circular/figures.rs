//! What a set of buffers takes of each core.
//!
//! Leaves out what lies over a tensor: it has no memory of its own. Buffers of one set that lie
//! over each other on a core, as two ranges of a dataflow buffer can, count once.
//!
//! A target may say of its buffers what it likes. So it takes no more steps to look at them than so
//! many for each that it has placed; what would take more is unknown.

use std::{cell::Cell, ops::Range};

use crate::event::{CircularBuffer, CircularKind, CoreRange};

/// What a set of buffers takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// What follows from each buffer by itself.
    pub tally: Tally,
    /// What follows from their cores, or why that is not known.
    pub cores: Result<PerCore, Unknown>,
}

impl Figures {
    /// What is known to be on the core with the most, bytes.
    pub fn largest(&self) -> u64 {
        self.cores.map_or(0, |cores| cores.largest)
    }
}

/// What follows from each buffer by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Buffers with memory of their own.
    pub buffers: u64,
    /// Where the highest one ends; `None` without any.
    pub end: Option<u64>,
}

impl Tally {
    /// Counts one more.
    pub fn add(&mut self, buffer: &CircularBuffer) {
        if buffer.kind != CircularKind::Alias {
            self.buffers += 1;
            self.end = self.end.max(Some(buffer.address.0.saturating_add(buffer.size)));
        }
    }

    /// These and others.
    #[must_use]
    pub fn and(self, others: Self) -> Self {
        Self { buffers: self.buffers + others.buffers, end: self.end.max(others.end) }
    }
}

/// What a set of buffers takes of the cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerCore {
    /// Of the core with the most, bytes.
    pub largest: u64,
    /// Of all cores together, bytes.
    pub total: u64,
    /// Cores with any.
    pub count: u64,
}

/// Why it is not known what buffers take of the cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// The cores of one could not be listed.
    Unlisted,
    /// There are more than are kept.
    TooMany,
    /// They lie on more cores, in more pieces, than there are steps for.
    TooScattered,
}

impl Unknown {
    /// As people say it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unlisted => "a buffer lies on more ranges of cores than could be listed",
            Self::TooMany => "a program has more buffers than are followed",
            Self::TooScattered => "a program's buffers are too scattered over cores to be added up",
        }
    }
}

/// Steps that there are from the start: a program may be looked at before all of it is placed.
const FIRST_STEPS: u64 = 1 << 16;
/// Steps that each placed buffer adds. It lies on a few hundred cores, of which most are alike.
const STEPS_EACH: u64 = 1024;
/// Steps that are left at most. The largest program is a twentieth of it: 64 buffers of each core, each
/// with ranges of its own.
const MOST_STEPS: u64 = 1 << 20;

/// How many steps may still be taken.
#[derive(Debug)]
pub struct Steps(Cell<u64>);

impl Steps {
    /// Nothing has been placed yet.
    pub const fn new() -> Self {
        Self(Cell::new(FIRST_STEPS))
    }

    /// A buffer has been placed.
    pub fn add(&self) {
        self.0.set((self.0.get() + STEPS_EACH).min(MOST_STEPS));
    }

    /// Takes so many, if there are as many.
    fn take(&self, wanted: u64) -> Result<(), Unknown> {
        let left = self.0.get().checked_sub(wanted).ok_or(Unknown::TooScattered)?;
        self.0.set(left);
        Ok(())
    }
}

/// Begin and end of a stretch of addresses.
type Span = (u64, u64);

/// What these take of the cores. Cuts the grid where ranges begin or end: all cores of a piece hold the
/// same.
pub fn per_core(batches: &[&[CircularBuffer]], steps: &Steps) -> Result<PerCore, Unknown> {
    steps.take(batches.iter().map(|batch| batch.len() as u64).sum())?;
    let buffers = batches.iter().copied().flatten();
    let own = buffers.filter(|buffer| buffer.kind != CircularKind::Alias);
    let listed: Result<Vec<(&[CoreRange], Span)>, _> = own
        .map(|buffer| {
            let begin = buffer.address.0;
            let span = (begin, begin.saturating_add(buffer.size));
            buffer.cores.as_deref().map(|cores| (cores, span)).ok_or(Unknown::Unlisted)
        })
        .collect();
    let listed = listed?;
    let ranges = || listed.iter().flat_map(|(ranges, span)| ranges.iter().map(|it| (it, *span)));
    steps.take(ranges().count() as u64)?;
    let columns = Cuts::at(ranges().map(|(range, _)| (range.start.0, range.end.0)));
    let rows = Cuts::at(ranges().map(|(range, _)| (range.start.1, range.end.1)));
    let pieces = |range: &CoreRange| {
        (columns.pieces(range.start.0, range.end.0), rows.pieces(range.start.1, range.end.1))
    };
    let size = |(columns, rows): (Range<usize>, Range<usize>)| columns.len() * rows.len();
    let all = columns.sizes().len() * rows.sizes().len();
    let visits = ranges().map(|(range, _)| size(pieces(range)) as u64);
    steps.take(visits.fold(all as u64, u64::saturating_add))?;
    let mut spans: Vec<Vec<Span>> = vec![Vec::new(); all];
    for (range, span) in ranges() {
        let (within_columns, within_rows) = pieces(range);
        for column in within_columns {
            let first = column * rows.sizes().len();
            let within = first + within_rows.start..first + within_rows.end;
            spans[within].iter_mut().for_each(|spans| spans.push(span));
        }
    }
    let mut sum = PerCore::default();
    let sizes = columns.sizes().flat_map(|width| rows.sizes().map(move |height| width * height));
    for (cores, spans) in sizes.zip(spans) {
        let bytes = covered(spans);
        if bytes > 0 {
            sum.count += cores;
            sum.largest = sum.largest.max(bytes);
            sum.total = sum.total.saturating_add(bytes.saturating_mul(cores));
        }
    }
    Ok(sum)
}

/// Where columns or rows are cut.
struct Cuts(Vec<u32>);

impl Cuts {
    fn at(ranges: impl Iterator<Item = (u32, u32)>) -> Self {
        let mut cuts: Vec<u32> = ranges.flat_map(|(first, last)| [first, last + 1]).collect();
        cuts.sort_unstable();
        cuts.dedup();
        Self(cuts)
    }

    /// The sizes of the pieces.
    fn sizes(&self) -> impl ExactSizeIterator<Item = u64> + Clone + '_ {
        self.0.windows(2).map(|cut| u64::from(cut[1] - cut[0]))
    }

    /// The pieces of a range that is cut at both ends.
    fn pieces(&self, first: u32, last: u32) -> Range<usize> {
        let place = |at: u32| self.0.partition_point(|cut| *cut < at);
        place(first)..place(last + 1)
    }
}

/// Bytes that lie in any of the spans.
fn covered(mut spans: Vec<Span>) -> u64 {
    spans.sort_unstable();
    let mut bytes = 0;
    let mut reached = 0;
    for (begin, end) in spans {
        bytes += end.saturating_sub(begin.max(reached));
        reached = reached.max(end);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::DeviceAddr;

    fn buffer(address: u64, size: u64, cores: &[[u32; 4]]) -> CircularBuffer {
        let range =
            |&[x, y, last_x, last_y]: &[u32; 4]| CoreRange { start: (x, y), end: (last_x, last_y) };
        CircularBuffer {
            kind: CircularKind::Circular,
            address: DeviceAddr(address),
            size,
            cores: Some(cores.iter().map(range).collect()),
        }
    }

    fn figures(buffers: &[CircularBuffer]) -> Figures {
        let mut tally = Tally::default();
        for buffer in buffers {
            tally.add(buffer);
        }
        Figures { tally, cores: per_core(&[buffers], &Steps::new()) }
    }

    #[test]
    fn the_fullest_core_is_where_ranges_meet() {
        let buffers =
            [buffer(100, 10, &[[0, 0, 7, 0]]), buffer(110, 20, &[[7, 0, 7, 7], [0, 3, 0, 3]])];
        let figures = figures(&buffers);
        let cores = PerCore { largest: 30, total: 8 * 10 + 9 * 20, count: 8 + 7 + 1 };
        let tally = Tally { buffers: 2, end: Some(130) };
        assert_eq!(figures, Figures { tally, cores: Ok(cores) });
    }

    #[test]
    fn what_lies_over_a_tensor_counts_for_nothing() {
        let mut alias = buffer(1 << 20, 4096, &[[0, 0, 7, 7]]);
        alias.kind = CircularKind::Alias;
        let none = Figures { tally: Tally::default(), cores: Ok(PerCore::default()) };
        assert_eq!(figures(&[alias]), none);
    }

    #[test]
    fn the_same_bytes_count_once() {
        let buffers = [
            buffer(100, 50, &[[0, 0, 3, 3]]),
            buffer(100, 50, &[[2, 2, 5, 5]]),
            buffer(120, 60, &[[3, 3, 3, 3]]),
        ];
        let cores = figures(&buffers).cores.unwrap();
        assert_eq!((cores.largest, cores.count), (80, 28));
        assert_eq!(cores.total, 27 * 50 + 80);
    }

    #[test]
    fn cores_that_could_not_be_listed_make_it_unknown() {
        let mut unlisted = buffer(100, 10, &[]);
        unlisted.cores = None;
        let figures = figures(&[unlisted]);
        assert_eq!((figures.tally.end, figures.cores), (Some(110), Err(Unknown::Unlisted)));
    }

    #[test]
    fn what_takes_too_many_steps_is_unknown() {
        // Each range cuts the grid at a column and a row of its own.
        let scattered: Vec<[u32; 4]> = (0..32).map(|at| [at * 7, at * 5, 4000, 4000]).collect();
        let steps = Steps::new();
        let one = [buffer(100, 10, &scattered)];
        assert!(per_core(&[&one], &steps).is_ok(), "that much is");
        let many: Vec<_> = (0..64).map(|_| buffer(100, 10, &scattered)).collect();
        let before = steps.0.get();
        assert_eq!(per_core(&[&many], &steps), Err(Unknown::TooScattered));
        assert!(before - steps.0.get() <= 64 + 64 * 32, "it is not even begun");
    }

    #[test]
    fn whole_programs_are_looked_at_again_and_again() {
        // On each of 130 cores 64 buffers of its own.
        let program: Vec<_> = (0..130 * 64_u32)
            .map(|at| {
                let (x, y) = (at % 13, at / 13 % 10);
                buffer(u64::from(at / 130) * 16, 16, &[[x, y, x, y]])
            })
            .collect();
        let steps = Steps::new();
        for _ in 0..5 {
            for _ in &program {
                steps.add();
            }
            for _ in 0..8 {
                let cores = per_core(&[&program], &steps).unwrap();
                assert_eq!((cores.largest, cores.count), (1024, 130));
            }
        }
    }
}
