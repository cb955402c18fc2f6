//! Which part of the terminal is for what. State and views both go by it.

use ratatui::layout::{Rect, Size};

use super::grid::HEADER;

/// Lines of the bar that names the views.
const TABS: u16 = 1;
/// Lines of the footer.
const FOOTER: u16 = 1;

/// The parts of the terminal, from top to bottom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Areas {
    /// Who is watched, and whether the numbers can be believed.
    pub header: Rect,
    /// The names of the views.
    pub tabs: Rect,
    /// The view.
    pub body: Rect,
    /// The output of the command.
    pub output: Rect,
    /// The main keys.
    pub footer: Rect,
}

impl Areas {
    /// The parts of a terminal of `size`, of which `output` lines are for the command's output.
    pub fn new(size: Size, output: u16) -> Self {
        let width = size.width;
        let mut y = 0;
        let mut part = |height: u16| {
            let height = height.min(size.height - y);
            let part = Rect { x: 0, y, width, height };
            y += height;
            part
        };
        let fixed = HEADER + TABS + output + FOOTER;
        Self {
            header: part(HEADER),
            tabs: part(TABS),
            body: part(size.height.saturating_sub(fixed)),
            output: part(output),
            footer: part(FOOTER),
        }
    }
}
