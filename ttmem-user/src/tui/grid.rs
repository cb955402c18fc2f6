//! Where the chips go: how many columns, how many fit, how far one can scroll.
//!
//! Pure arithmetic on the size of the terminal and the number of chips. The state uses it to keep
//! the scroll offset in bounds and the view to draw, so that neither depends on the other.

use std::ops::Range;

use ratatui::layout::Size;

/// Lines of the header.
pub const HEADER: u16 = 2;
/// Lines of a view that are not the chips': the column headings.
pub const FIXED: u16 = 1;
/// Below this size of the terminal nothing useful fits.
pub const MINIMUM: Size = Size { width: 40, height: 8 };
/// From here on chips that do not fit below each other go side by side.
const TWO_COLUMNS_FROM: u16 = 160;

/// Blank space between two columns.
const GAP: u16 = 2;

/// What there is to show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Number of chips.
    pub chips: usize,
    /// Lines that each chip takes, its title included.
    pub block: usize,
}

/// How the chips are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    extent: Extent,
    /// Columns of chips.
    pub columns: usize,
    /// Width of each column.
    pub column_width: u16,
    /// Lines there are for chips.
    height: usize,
}

impl Grid {
    /// The layout of `extent` in a view of `size`.
    pub fn new(size: Size, extent: Extent) -> Self {
        let height = usize::from(size.height.saturating_sub(FIXED));
        let side_by_side = size.width >= TWO_COLUMNS_FROM && extent.chips * extent.block > height;
        let columns = if side_by_side { 2 } else { 1 };
        let column_width = if side_by_side { (size.width - GAP) / 2 } else { size.width };
        Self { extent, columns, column_width, height }
    }

    /// Lines that one step scrolls: a whole chip, or a line if not even one chip fits.
    fn step(&self) -> usize {
        if self.extent.block <= self.height { self.extent.block.max(1) } else { 1 }
    }

    fn total_lines(&self) -> usize {
        self.extent.chips.div_ceil(self.columns) * self.extent.block
    }

    /// Where a column begins.
    pub fn column_x(&self, column: usize) -> u16 {
        u16::try_from(column).map_or(0, |column| column * (self.column_width + GAP))
    }

    /// Steps that one screen scrolls.
    pub fn page(&self) -> usize {
        (self.height / self.step()).max(1)
    }

    /// The offset at which a chip, by its place, is the first.
    pub fn offset_of(&self, chip: usize) -> usize {
        (chip / self.columns * self.extent.block / self.step()).min(self.max_offset())
    }

    /// The highest offset, in steps, that still fills the screen.
    pub fn max_offset(&self) -> usize {
        (self.total_lines() / self.step()).saturating_sub(self.page())
    }

    /// The lines to show at an offset, counted over all chips of a column.
    pub fn lines(&self, offset: usize) -> Range<usize> {
        let first = offset.min(self.max_offset()) * self.step();
        first..(first + self.page() * self.step()).min(self.total_lines())
    }

    /// Which chip, and which of its lines (0 is the title), is on `line` of `column`.
    pub fn cell(&self, line: usize, column: usize) -> Option<(usize, usize)> {
        let chip = line / self.extent.block * self.columns + column;
        (chip < self.extent.chips).then_some((chip, line % self.extent.block))
    }

    /// The chips of which something is shown at an offset.
    pub fn chips(&self, offset: usize) -> Range<usize> {
        let lines = self.lines(offset);
        if lines.is_empty() {
            return 0..0;
        }
        let first = lines.start / self.extent.block * self.columns;
        let last = (lines.end - 1) / self.extent.block * self.columns + self.columns;
        first..last.min(self.extent.chips)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn grid(width: u16, height: u16, chips: usize, block: usize) -> (Size, Extent) {
        let height = height.saturating_sub(3);
        (Size { width, height }, Extent { chips, block })
    }

    fn new((size, extent): (Size, Extent)) -> Grid {
        Grid::new(size, extent)
    }

    #[test]
    fn four_chips_fit_the_usual_terminal() {
        let grid = new(grid(80, 24, 32, 5));
        assert_eq!((grid.columns, grid.page(), grid.max_offset()), (1, 4, 28));
        assert_eq!(grid.chips(0), 0..4);
        assert_eq!(grid.chips(28), 28..32);
        assert_eq!(grid.chips(usize::MAX), 28..32);
    }

    #[test]
    fn wide_terminals_get_two_columns_when_one_does_not_do() {
        assert_eq!(new(grid(160, 40, 7, 5)).columns, 1);
        let grid = new(grid(160, 40, 9, 5));
        assert_eq!((grid.columns, grid.column_width, grid.max_offset()), (2, 79, 0));
        assert_eq!(grid.cell(5, 1), Some((3, 0)));
        assert_eq!(grid.cell(24, 1), None);
        assert_eq!(grid.chips(0), 0..9);
    }

    #[test]
    fn a_chip_taller_than_the_screen_scrolls_by_lines() {
        let grid = new(grid(40, 8, 2, 5));
        assert_eq!((grid.page(), grid.max_offset()), (4, 6));
        assert_eq!(grid.lines(6), 6..10);
        assert_eq!(grid.chips(2), 0..2);
    }

    #[test]
    fn nothing_and_no_room_are_fine() {
        for (size, extent) in [grid(80, 24, 0, 1), grid(0, 0, 32, 5), grid(1, 1, 3, 1)] {
            let grid = Grid::new(size, extent);
            assert!(grid.chips(5).end <= extent.chips);
        }
    }
}
