//! A bar of use against capacity with a tick at the peak.
//!
//! Invariant: rounded down like every number, so it is full only when the pool is; but what is
//! used at all shows at least its thinnest sliver.

use crate::ledger::snapshot::PoolSnapshot;

/// What a cell of the bar is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What is used.
    Used,
    /// The mark of the peak.
    Peak,
    /// What is free.
    Free,
}

const EIGHTHS: [char; 8] = ['·', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
const FULL: char = '█';
const TICK: char = '│';

/// The cells of a bar of `width`; `None` if use or capacity is unknown or there is none.
pub fn cells(pool: &PoolSnapshot, width: usize) -> Option<Vec<(Part, char)>> {
    let capacity = pool.capacity_bytes.filter(|capacity| *capacity > 0)?;
    let eighths = eighths(pool.used_bytes?, capacity, width);
    let mut cells: Vec<_> = (0..width)
        .map(|cell| match eighths.saturating_sub(cell * 8) {
            0 => (Part::Free, EIGHTHS[0]),
            part @ 1..8 => (Part::Used, EIGHTHS[part]),
            _ => (Part::Used, FULL),
        })
        .collect();
    let peak = pool.peak_used_bytes.or(pool.peak_at_least_bytes);
    if let Some(peak) = peak.filter(|peak| pool.used_bytes < Some(*peak)) {
        let at = (eighths_exact(peak, capacity, width) / 8).min(width.saturating_sub(1));
        // The end of the bar within the same cell says nearly the same.
        if let Some(cell) = cells.get_mut(at).filter(|cell| cell.0 == Part::Free) {
            *cell = (Part::Peak, TICK);
        }
    }
    Some(cells)
}

fn eighths(part: u64, whole: u64, width: usize) -> usize {
    let exact = eighths_exact(part, whole, width);
    if part > 0 { exact.max(1) } else { exact }
}

/// `part` of `whole` on a scale of `width` cells, in eighths of a cell, rounded down.
fn eighths_exact(part: u64, whole: u64, width: usize) -> usize {
    let scaled = u128::from(part.min(whole)) * (width as u128) * 8 / u128::from(whole);
    usize::try_from(scaled).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::BufferType, fixture};

    fn bar(used: u64, capacity: u64, peak: u64, width: usize) -> String {
        let mut pool = fixture::pool(BufferType::L1, used, capacity);
        pool.peak_used_bytes = Some(peak);
        cells(&pool, width).unwrap().into_iter().map(|(_, cell)| cell).collect()
    }

    #[test]
    fn bars_are_rounded_down() {
        assert_eq!(bar(0, 1000, 0, 10), "··········");
        assert_eq!(bar(1, 1000, 1, 10), "▏·········");
        assert_eq!(bar(250, 1000, 250, 10), "██▌·······");
        assert_eq!(bar(999, 1000, 999, 10), "█████████▉");
        assert_eq!(bar(1000, 1000, 1000, 10), "██████████");
        assert_eq!(bar(5000, 1000, 5000, 10), "██████████");
    }

    #[test]
    fn the_peak_has_a_tick() {
        assert_eq!(bar(200, 1000, 550, 10), "██···│····");
        assert_eq!(bar(200, 1000, 1000, 10), "██·······│");
        assert_eq!(bar(0, 1000, 10, 10), "│·········");
        assert_eq!(bar(250, 1000, 260, 10), "██▌·······");
        assert_eq!(bar(1, 1000, 2000, 0), "");
    }

    #[test]
    fn unknown_has_no_bar() {
        let pool = fixture::pool(BufferType::L1, 1, 2);
        assert_eq!(cells(&PoolSnapshot { capacity_bytes: None, ..pool.clone() }, 9), None);
        assert_eq!(cells(&PoolSnapshot { capacity_bytes: Some(0), ..pool.clone() }, 9), None);
        assert_eq!(cells(&PoolSnapshot { used_bytes: None, ..pool }, 9), None);
    }
}
