//! The overview: which chips, in which order, in full or a line each.

use std::cmp::Reverse;

use ratatui::layout::Size;

use crate::{
    event::BufferType,
    format,
    ledger::snapshot::{ChipSnapshot, PoolSnapshot, Snapshot},
    tui::{
        Action,
        filter::Filter,
        grid::{Extent, Grid},
        list::List,
        pools,
    },
};

/// In which order chips are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// By id where each chip is shown in full, the fullest first where it is a line.
    #[default]
    Usual,
    /// The fullest DRAM first.
    Dram,
    /// The fullest L1 first.
    L1,
    /// By id.
    Chip,
}

/// Columns that a chip takes at least where it is a line.
const LINE: u16 = 38;
/// The same with the growth since a mark.
pub const LINE_WITH_GROWTH: u16 = 54;
/// From so many chips on they are a line each if they do not fit in full.
const MANY: usize = 9;

/// The state of the overview.
#[derive(Debug, Default)]
pub struct Overview {
    /// Steps that chips in full are scrolled; see [`Grid`].
    pub offset: usize,
    /// The cursor, where each chip is a line.
    pub list: List,
    /// In which order.
    pub order: Order,
    /// The other way round.
    pub reversed: bool,
    /// Whether holes and trends are shown, where there is no room for all columns.
    pub trends: bool,
    /// Whether growth since a mark is shown.
    pub marked: bool,
    /// Which pools are shown.
    pub filter: Filter,
    /// Chips in full (`true`) or a line each; `None`: as it fits.
    full: Option<bool>,
    /// The places of the chips, in order.
    pub chips: Vec<usize>,
    extent: Extent,
    size: Size,
}

impl Overview {
    /// Takes in what is to be shown in a view of `size`.
    pub fn observe(&mut self, size: Size, snapshot: &Snapshot) {
        self.size = size;
        let rows =
            |chip: &ChipSnapshot| self.rows(chip).count() + usize::from(self.shows_circular(chip));
        let all = snapshot.devices.iter().map(rows).enumerate();
        let shown: Vec<(usize, usize)> = all.filter(|(_, rows)| *rows > 0).collect();
        let block = 1 + shown.iter().map(|(_, rows)| *rows).max().unwrap_or(0);
        self.chips = shown.into_iter().map(|(place, _)| place).collect();
        self.extent = Extent { chips: self.chips.len(), block };
        let order = match self.order {
            Order::Usual if self.is_full() => Order::Chip,
            Order::Usual => Order::Dram,
            other => other,
        };
        let fullest =
            |kind| move |place: &usize| Reverse(permille(&snapshot.devices[*place], kind));
        match order {
            Order::Dram => self.chips.sort_by_key(fullest(BufferType::Dram)),
            Order::L1 => self.chips.sort_by_key(fullest(BufferType::L1)),
            Order::Chip | Order::Usual => {}
        }
        if self.reversed {
            self.chips.reverse();
        }
        self.offset = self.offset.min(self.grid().max_offset());
        let lines = usize::from(size.height.saturating_sub(1));
        self.list.fit(self.chips.len(), lines * self.columns());
    }

    /// The pools of a chip that have a line.
    pub fn rows<'a>(&'a self, chip: &'a ChipSnapshot) -> impl Iterator<Item = &'a PoolSnapshot> {
        let has_row = |pool: &&PoolSnapshot| {
            format::has_row(pool) && self.passes(chip, pool.buffer_type.name())
        };
        chip.pools.iter().filter(has_row)
    }

    /// Whether the circular buffers of a chip have a line.
    pub fn shows_circular(&self, chip: &ChipSnapshot) -> bool {
        self.passes(chip, "CB/core")
    }

    /// Whether a line of a chip passes the filter.
    pub fn passes(&self, chip: &ChipSnapshot, name: &str) -> bool {
        self.filter.is_empty() || self.filter.passes(&format!("chip{} {name}", chip.chip))
    }

    /// How chips in full are laid out.
    pub fn grid(&self) -> Grid {
        Grid::new(self.size, self.extent)
    }

    /// Whether each chip is shown in full.
    pub fn is_full(&self) -> bool {
        let fits = || self.grid().max_offset() == 0 || self.extent.chips < MANY;
        self.full.unwrap_or_else(fits)
    }

    /// Columns of chips, where each is a line.
    pub fn columns(&self) -> usize {
        let lines = usize::from(self.size.height.saturating_sub(1)).max(1);
        let least = if self.marked { LINE_WITH_GROWTH } else { LINE };
        let room = usize::from(self.size.width / least).max(1);
        self.extent.chips.div_ceil(lines).clamp(1, room)
    }

    /// The chips that are on the screen, in order.
    pub fn shown(&self) -> std::ops::Range<usize> {
        if self.is_full() { self.grid().chips(self.offset) } else { self.list.window() }
    }

    /// Takes in a request; `false`: it is none for this view.
    pub fn update(&mut self, action: Action) -> bool {
        match action {
            Action::Columns => self.trends = !self.trends,
            Action::Reverse => self.reversed = !self.reversed,
            Action::Close if !self.filter.is_empty() => self.filter.set(""),
            Action::Layout => self.full = Some(!self.is_full()),
            Action::Sort => {
                self.order = match self.order {
                    Order::Usual => Order::Dram,
                    Order::Dram => Order::L1,
                    Order::L1 => Order::Chip,
                    Order::Chip => Order::Usual,
                };
            }
            Action::Enter if !self.is_full() => {
                self.full = Some(true);
                self.offset = self.grid().offset_of(self.list.selected);
            }
            _ if self.is_full() => return self.scroll(action),
            _ => return self.list.move_by(action),
        }
        true
    }

    /// A click on a line of the view, which shows the chip there.
    pub fn click(&mut self, column: u16, line: usize) {
        let width = self.size.width / u16::try_from(self.columns()).unwrap_or(1).max(1);
        let lines = usize::from(self.size.height.saturating_sub(1));
        if !self.is_full() && (1..=lines).contains(&line) {
            self.list.click(usize::from(column / width.max(1)) * lines + line - 1);
        }
    }

    fn scroll(&mut self, action: Action) -> bool {
        let page = self.grid().page();
        self.offset = match action {
            Action::Up => self.offset.saturating_sub(1),
            Action::Down => self.offset + 1,
            Action::PageUp => self.offset.saturating_sub(page),
            Action::PageDown => self.offset + page,
            Action::Top => 0,
            Action::Bottom => usize::MAX,
            _ => return false,
        };
        self.offset = self.offset.min(self.grid().max_offset());
        true
    }
}

fn permille(chip: &ChipSnapshot, kind: BufferType) -> Option<u128> {
    let pool = pools::of_chip(chip, kind)?;
    let (used, whole) = pool.used_bytes.zip(pool.capacity_bytes)?;
    (u128::from(used) * 1_000_000).checked_div(whole.into())
}
