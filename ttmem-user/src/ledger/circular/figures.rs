//! What a set of buffers takes of each core.
//!
//! Leaves out what lies over a tensor: it has no memory of its own. Buffers of one set that lie
//! over each other on a core, as two ranges of a dataflow buffer can, count once.

use crate::event::{CircularBuffer, CircularKind, CoreRange};

/// What a set of buffers takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Buffers with memory of their own.
    pub buffers: u64,
    /// Where the highest one ends; `None` without any.
    pub end: Option<u64>,
    /// What follows from their cores; `None` if those of one could not be listed.
    pub cores: Option<PerCore>,
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

impl Figures {
    /// Of these buffers.
    pub fn of<'a>(buffers: impl Iterator<Item = &'a CircularBuffer>) -> Self {
        let own: Vec<_> = buffers.filter(|buffer| buffer.kind != CircularKind::Alias).collect();
        let end = own.iter().map(|buffer| buffer.address.0.saturating_add(buffer.size)).max();
        let listed: Option<Vec<_>> = own
            .iter()
            .map(|buffer| {
                let begin = buffer.address.0;
                let span = (begin, begin.saturating_add(buffer.size));
                buffer.cores.as_deref().map(|cores| (cores, span))
            })
            .collect();
        Self { buffers: own.len() as u64, end, cores: listed.map(|listed| per_core(&listed)) }
    }

    /// What is known to be on the core with the most, bytes.
    pub fn largest(&self) -> u64 {
        self.cores.map_or(0, |cores| cores.largest)
    }
}

/// Begin and end of a stretch of addresses.
type Span = (u64, u64);

/// Cuts the grid where ranges begin or end: all cores of a piece hold the same.
fn per_core(buffers: &[(&[CoreRange], Span)]) -> PerCore {
    let ranges = || buffers.iter().flat_map(|(ranges, _)| ranges.iter());
    let columns = cuts(ranges().map(|range| (range.start.0, range.end.0)));
    let rows = cuts(ranges().map(|range| (range.start.1, range.end.1)));
    let mut sum = PerCore::default();
    for column in columns.windows(2) {
        for row in rows.windows(2) {
            let spans = buffers.iter().filter_map(|(ranges, span)| {
                ranges.iter().any(|range| holds(range, (column[0], row[0]))).then_some(*span)
            });
            let bytes = covered(spans.collect());
            let cores = u64::from(column[1] - column[0]) * u64::from(row[1] - row[0]);
            if bytes > 0 {
                sum.count += cores;
                sum.largest = sum.largest.max(bytes);
                sum.total = sum.total.saturating_add(bytes.saturating_mul(cores));
            }
        }
    }
    sum
}

fn cuts(ranges: impl Iterator<Item = (u32, u32)>) -> Vec<u32> {
    let mut cuts: Vec<u32> = ranges.flat_map(|(first, last)| [first, last + 1]).collect();
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

fn holds(range: &CoreRange, (x, y): (u32, u32)) -> bool {
    (range.start.0..=range.end.0).contains(&x) && (range.start.1..=range.end.1).contains(&y)
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

    #[test]
    fn the_fullest_core_is_where_ranges_meet() {
        let buffers =
            [buffer(100, 10, &[[0, 0, 7, 0]]), buffer(110, 20, &[[7, 0, 7, 7], [0, 3, 0, 3]])];
        let figures = Figures::of(buffers.iter());
        let cores = PerCore { largest: 30, total: 8 * 10 + 9 * 20, count: 8 + 7 + 1 };
        assert_eq!(figures, Figures { buffers: 2, end: Some(130), cores: Some(cores) });
    }

    #[test]
    fn what_lies_over_a_tensor_counts_for_nothing() {
        let mut alias = buffer(1 << 20, 4096, &[[0, 0, 7, 7]]);
        alias.kind = CircularKind::Alias;
        let none = Figures { buffers: 0, end: None, cores: Some(PerCore::default()) };
        assert_eq!(Figures::of([alias].iter()), none);
    }

    #[test]
    fn the_same_bytes_count_once() {
        let buffers = [
            buffer(100, 50, &[[0, 0, 3, 3]]),
            buffer(100, 50, &[[2, 2, 5, 5]]),
            buffer(120, 60, &[[3, 3, 3, 3]]),
        ];
        let cores = Figures::of(buffers.iter()).cores.unwrap();
        assert_eq!((cores.largest, cores.count), (80, 28));
        assert_eq!(cores.total, 27 * 50 + 80);
    }

    #[test]
    fn cores_that_could_not_be_listed_make_it_unknown() {
        let mut unlisted = buffer(100, 10, &[]);
        unlisted.cores = None;
        let figures = Figures::of([unlisted].iter());
        assert_eq!((figures.end, figures.cores), (Some(110), None));
    }
}
