//! The map of one pool: which one, where the cursor is, what it is on, and whether it would fit.

use std::sync::Arc;

use ratatui::layout::Size;

use crate::{
    event::BufferType,
    format,
    ledger::{
        fit::{self, Answer, Request},
        snapshot::{BlockSnapshot, Snapshot, SpaceSnapshot},
    },
    tui::{Action, export::Export, filter::Filter, state::circular::chips},
};

/// Lines above the map, and below it.
pub const ABOVE: u16 = 2;
/// Lines below the map: what the cursor is on, what would fit.
pub const BELOW: u16 = 3;

/// A part of a bank that is one character wide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    /// Thousandths of it that buffers take, rounded up: 0 only if there is none.
    pub used_permille: u64,
    /// It has a part of the largest hole.
    pub largest_hole: bool,
    /// Circular buffers reach into it.
    pub circular: bool,
}

/// The state of the view.
#[derive(Debug, Default)]
pub struct Map {
    /// The place of the pool among those that have a bank.
    pub pool: usize,
    /// Which pools there are to choose from.
    pub filter: Filter,
    /// The cell with the cursor.
    pub cursor: usize,
    /// The cells, line by line.
    pub cells: Vec<Cell>,
    /// Cells of a line.
    pub width: usize,
    /// What the map was made from: the pool is one of its allocators.
    made: Option<Made>,
    /// What was asked, and the answer.
    pub answer: Option<(String, Result<Answer, String>)>,
    request: Option<(String, Request)>,
    bytes_per_cell: u64,
}

/// What a map was made from.
#[derive(Debug)]
struct Made {
    snapshot: Arc<Snapshot>,
    /// Place of the pool among all.
    space: Option<usize>,
    size: Size,
    pool: usize,
    filter: String,
}

/// The places of the pools that have a bank and pass the filter.
fn pools(snapshot: &Snapshot, filter: &Filter) -> Vec<usize> {
    let passes = |space: &SpaceSnapshot| {
        filter.is_empty() || {
            let chips: Vec<String> = space.chips.iter().map(|chip| format!("chip{chip}")).collect();
            let text =
                format!("{} allocator{} {}", space.buffer_type.name(), space.id, chips.join(" "));
            filter.passes(&text)
        }
    };
    let all = snapshot.allocators.iter().enumerate();
    let with_bank = all.filter(|(_, space)| space.banks > 0 && space.bank_size > 0);
    with_bank.filter(|(_, space)| passes(space)).map(|(place, _)| place).collect()
}

impl Map {
    /// Takes in what is to be shown in a view of `size`.
    pub fn observe(&mut self, size: Size, snapshot: &Arc<Snapshot>) {
        let is_there = |made: &Made| {
            let same = Arc::ptr_eq(&made.snapshot, snapshot) && made.size == size;
            same && made.pool == self.pool && made.filter == self.filter.text()
        };
        if !self.made.as_ref().is_some_and(is_there) {
            self.make(size, snapshot);
        }
        self.answer = self.request.as_ref().map(|(text, request)| {
            let space = self.space().ok_or_else(|| "no pool is known".to_owned());
            (text.clone(), space.map(|space| fit::answer(*request, space)))
        });
    }

    /// The pool that is shown.
    pub fn space(&self) -> Option<&SpaceSnapshot> {
        let made = self.made.as_ref()?;
        made.snapshot.allocators.get(made.space?)
    }

    fn make(&mut self, size: Size, snapshot: &Arc<Snapshot>) {
        let pools = pools(snapshot, &self.filter);
        self.pool = self.pool.min(pools.len().saturating_sub(1));
        let space = pools.get(self.pool).copied();
        let (pool, snapshot) = (self.pool, Arc::clone(snapshot));
        let filter = self.filter.text().to_owned();
        self.made = Some(Made { snapshot: Arc::clone(&snapshot), space, size, pool, filter });
        self.width = usize::from(size.width.saturating_sub(2)).max(1);
        let lines = usize::from(size.height.saturating_sub(ABOVE + BELOW)).max(1);
        self.cells = vec![Cell::default(); self.width * lines];
        self.cursor = self.cursor.min(self.cells.len() - 1);
        if let Some(space) = space.and_then(|space| snapshot.allocators.get(space)) {
            self.bytes_per_cell = space.bank_size.div_ceil(self.cells.len() as u64).max(1);
            let used = space.bank_size.div_ceil(self.bytes_per_cell);
            self.cells.truncate(usize::try_from(used).unwrap_or(1).max(1));
            self.cursor = self.cursor.min(self.cells.len() - 1);
            paint(&mut self.cells, self.bytes_per_cell, space, circular_end(&snapshot, space));
        }
    }

    /// Takes in a request; `false`: it is none for this view.
    pub fn update(&mut self, action: Action) -> bool {
        let page = self.width * 4;
        self.cursor = match action {
            Action::NextPool => return self.choose(self.pool + 1),
            Action::PreviousPool => return self.choose(self.pool.saturating_sub(1)),
            Action::Close if !self.filter.is_empty() => {
                self.filter.set("");
                return true;
            }
            Action::Left => self.cursor.saturating_sub(1),
            Action::Right => self.cursor + 1,
            Action::Up => self.cursor.checked_sub(self.width).unwrap_or(self.cursor),
            Action::Down if self.cursor + self.width < self.cells.len() => self.cursor + self.width,
            Action::Down => self.cursor,
            Action::PageUp => self.cursor.saturating_sub(page),
            Action::PageDown => self.cursor + page,
            Action::Top => 0,
            Action::Bottom => usize::MAX,
            _ => return false,
        };
        self.cursor = self.cursor.min(self.cells.len().saturating_sub(1));
        true
    }

    /// A click on a line of the view.
    pub fn click(&mut self, column: u16, line: usize) {
        let cell = line.checked_sub(ABOVE.into()).zip(usize::from(column).checked_sub(1));
        if let Some((line, column)) = cell
            && column < self.width
            && line * self.width + column < self.cells.len()
        {
            self.cursor = line * self.width + column;
        }
    }

    fn choose(&mut self, pool: usize) -> bool {
        (self.pool, self.cursor) = (pool, 0);
        true
    }

    /// Asks whether it would fit; `Err`: what was typed is no size.
    pub fn ask(&mut self, text: &str) -> Result<(), String> {
        if text.trim().is_empty() {
            self.request = None;
            return Ok(());
        }
        let request = match text.split_once('/') {
            None => Request::PerBank { size: format::parse_bytes(text.trim())? },
            Some((total, page)) => {
                let total = format::parse_bytes(total.trim())?;
                let page_size = format::parse_bytes(page.trim())?;
                if !total.is_multiple_of(page_size) {
                    return Err("a buffer has whole pages: no multiple of its page".to_owned());
                }
                Request::Interleaved { total, page_size }
            }
        };
        self.request = Some((text.trim().to_owned(), request));
        Ok(())
    }

    /// The addresses that the cursor is on: the first, and the first behind.
    pub fn at_cursor(&self) -> Option<(u64, u64)> {
        let start = self.cursor as u64 * self.bytes_per_cell;
        let space = self.space()?;
        let base = first_address(space);
        let end = base + (start + self.bytes_per_cell).min(space.bank_size);
        Some((base + start, end))
    }

    /// The blocks that the cursor is on.
    pub fn blocks(&self) -> Vec<&BlockSnapshot> {
        let map = self.space().and_then(|space| space.map.as_ref());
        let Some(((start, end), map)) = self.at_cursor().zip(map) else { return Vec::new() };
        let first = map.partition_point(|block| block.end.0 <= start);
        map[first..].iter().take_while(|block| block.start.0 < end).collect()
    }

    /// Every block of the pool.
    pub fn export(&self) -> Export {
        let map = self.space().into_iter().flat_map(|space| space.map.iter().flatten());
        let row = |block: &BlockSnapshot| {
            let bytes = block.bytes();
            vec![
                block.start.0.into(),
                block.end.0.into(),
                bytes.into(),
                block.free.into(),
                block.unique_id.into(),
                block.size.into(),
            ]
        };
        let columns = ["start", "end", "bank_bytes", "free", "unique_id", "size"].to_vec();
        let of = |space: &SpaceSnapshot| {
            vec![
                ("type", space.buffer_type.name().into()),
                ("allocator", space.id.into()),
                ("chips", chips(&space.chips).into()),
            ]
        };
        let of = self.space().map_or_else(Vec::new, of);
        Export { view: "map", of, columns, rows: map.map(row).collect() }
    }
}

/// The address of the first byte of a bank.
pub fn first_address(space: &SpaceSnapshot) -> u64 {
    let first = space.map.iter().flatten().map(|block| block.start.0).next();
    space.base.map_or_else(|| first.unwrap_or(0), |base| base.0)
}

/// Where the circular buffers of the chips of a pool in L1 end.
fn circular_end(snapshot: &Snapshot, space: &SpaceSnapshot) -> Option<u64> {
    if space.buffer_type != BufferType::L1 {
        return None;
    }
    let chips = snapshot.devices.iter().filter(|device| space.chips.contains(&device.chip));
    chips.filter_map(|device| device.circular.headroom.circular_end).map(|end| end.0).max()
}

fn paint(cells: &mut [Cell], per_cell: u64, space: &SpaceSnapshot, circular_end: Option<u64>) {
    let base = first_address(space);
    if let Some(end) = circular_end {
        let reached = end.saturating_sub(base).div_ceil(per_cell);
        let reached = usize::try_from(reached).unwrap_or(usize::MAX).min(cells.len());
        cells[..reached].iter_mut().for_each(|cell| cell.circular = true);
    }
    let mut used = vec![0_u64; cells.len()];
    // Blocks are in order of address: the cell of one is that of the last, or a later one.
    let mut first = 0;
    for block in space.map.iter().flatten() {
        let (start, end) = (block.start.0.saturating_sub(base), block.end.0.saturating_sub(base));
        let largest = block.free && Some(block.bytes()) == space.largest_free_bank_bytes;
        if end <= start || (block.free && !largest) {
            continue;
        }
        while first < cells.len() && (first as u64 + 1) * per_cell <= start {
            first += 1;
        }
        for place in first..cells.len() {
            let from = place as u64 * per_cell;
            if from >= end {
                break;
            }
            if largest {
                cells[place].largest_hole = true;
            } else {
                used[place] += end.min(from + per_cell) - start.max(from);
            }
        }
    }
    for (cell, used) in cells.iter_mut().zip(used) {
        cell.used_permille = (used * 1000).div_ceil(per_cell).min(1000);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    const SIZE: Size = Size { width: 12, height: 9 };

    fn map() -> Map {
        let mut map = Map::default();
        map.observe(SIZE, &Arc::new(fixture::mapped()));
        map
    }

    #[test]
    fn each_cell_says_how_much_of_it_is_used() {
        let map = map();
        let space = map.space().unwrap();
        let used: u64 =
            space.map.iter().flatten().filter(|block| !block.free).map(BlockSnapshot::bytes).sum();
        let shown: u64 = map.cells.iter().map(|cell| cell.used_permille * map.bytes_per_cell).sum();
        let shown = shown / 1000;
        assert!(shown >= used && shown - used <= map.bytes_per_cell, "{used} {shown}");
        assert!(map.cells.iter().any(|cell| cell.largest_hole));
    }

    #[test]
    fn the_cursor_shows_its_blocks_and_stays_inside() {
        let mut map = map();
        assert!(!map.blocks().is_empty());
        for action in [Action::Bottom, Action::Right, Action::Down, Action::PageDown] {
            map.update(action);
            assert_eq!(map.cursor, map.cells.len() - 1);
        }
        let (_, end) = map.at_cursor().unwrap();
        let space = map.space().unwrap();
        assert_eq!(end, first_address(space) + space.bank_size);
    }

    #[test]
    fn a_question_is_answered_by_the_code_of_fits() {
        let mut map = map();
        assert!(map.ask("much").is_err() && map.ask("1M/3K").is_err());
        map.ask("64K").unwrap();
        map.observe(SIZE, &Arc::new(fixture::mapped()));
        let (_, answer) = map.answer.clone().unwrap();
        assert_eq!(answer.unwrap().fits, Some(true));
        map.ask("900G").unwrap();
        map.observe(SIZE, &Arc::new(fixture::mapped()));
        let (_, answer) = map.answer.clone().unwrap();
        assert_eq!(answer.unwrap().fits, Some(false));
    }
}
