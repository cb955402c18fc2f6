//! The output of the command that `run` started, as far as the live view is concerned: its last
//! lines, and how much room there is for them.
//!
//! What the command writes is read and taken apart elsewhere; a line here has no line end and no
//! escape sequence.

use std::sync::Arc;

use ratatui::layout::Size;

/// Below this height of the terminal, in lines, there is no pane.
const LEAST_TERMINAL: u16 = 16;
/// The lowest pane, in lines.
const LEAST: u16 = 3;
/// More lines than this are never shown.
pub const TALLEST: u16 = 256;

/// The last lines that the command wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputTail {
    /// Oldest first; the last one may still grow.
    pub lines: Vec<Arc<str>>,
}

/// Lines of the pane on a terminal of this size, its title included; 0 if there is no room.
pub(super) fn output_height(terminal: Size) -> u16 {
    if terminal.height < LEAST_TERMINAL { 0 } else { (terminal.height / 3).clamp(LEAST, TALLEST) }
}

/// Columns and lines for the output itself on a terminal of this size; `None` if there is no room.
pub fn output_size(terminal: Size) -> Option<Size> {
    let height = output_height(terminal).checked_sub(1)?;
    Some(Size { width: terminal.width, height })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_is_for_the_output_if_there_is_room() {
        let height = |height| output_size(Size { width: 80, height }).map(|size| size.height);
        assert_eq!(height(0), None);
        assert_eq!(height(15), None);
        assert_eq!(height(16), Some(4));
        assert_eq!(height(24), Some(7));
        assert_eq!(height(40), Some(12));
        assert_eq!(height(u16::MAX), Some(255));
    }
}
