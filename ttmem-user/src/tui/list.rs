//! A cursor in rows, of which a screenful is shown.
//!
//! Invariant: after [`List::fit`] the cursor is on a row, if there is one, and the window shows it.

use std::ops::Range;

use super::Action;

/// Where the cursor is, and what is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// The row with the cursor.
    pub selected: usize,
    /// The first row that is shown.
    pub offset: usize,
    /// Rows that there are.
    pub rows: usize,
    /// Rows that fit on the screen.
    pub height: usize,
}

impl List {
    /// Takes in how many rows there are and how many fit.
    pub fn fit(&mut self, rows: usize, height: usize) {
        (self.rows, self.height) = (rows, height);
        self.clamp();
    }

    /// The rows that are shown.
    pub fn window(&self) -> Range<usize> {
        self.offset..(self.offset + self.height).min(self.rows)
    }

    /// The rows that would be shown if there were enough.
    pub fn window_of_any(&self) -> Range<usize> {
        self.offset..self.offset.saturating_add(self.height)
    }

    /// Moves the cursor; `false`: the action is none that does.
    pub fn move_by(&mut self, action: Action) -> bool {
        let page = self.height.saturating_sub(1).max(1);
        self.selected = match action {
            Action::Up => self.selected.saturating_sub(1),
            Action::Down => self.selected.saturating_add(1),
            Action::PageUp => self.selected.saturating_sub(page),
            Action::PageDown => self.selected.saturating_add(page),
            Action::Top => 0,
            Action::Bottom => usize::MAX,
            _ => return false,
        };
        self.clamp();
        true
    }

    /// Puts the cursor on the row that is shown `lines` below the first; `false`: there is none.
    pub fn click(&mut self, lines: usize) -> bool {
        let row = self.offset + lines;
        let is_row = lines < self.height && row < self.rows;
        if is_row {
            self.selected = row;
        }
        is_row
    }

    fn clamp(&mut self) {
        self.selected = self.selected.min(self.rows.saturating_sub(1));
        let last = (self.selected + 1).saturating_sub(self.height);
        let fullest = self.rows.saturating_sub(self.height);
        self.offset = self.offset.clamp(last, self.selected.max(last)).min(fullest.max(last));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_cursor_is_on_a_row_that_is_shown(
            steps in proptest::collection::vec((0_usize..8, 0_usize..40, 0_usize..12), 1..60),
        ) {
            let actions = [
                Action::Up, Action::Down, Action::PageUp, Action::PageDown, Action::Top,
                Action::Bottom, Action::Quit,
            ];
            let mut list = List::default();
            for (step, rows, height) in steps {
                match actions.get(step) {
                    Some(action) => _ = list.move_by(*action),
                    None => _ = list.click(rows),
                }
                list.fit(rows, height);
                prop_assert!(list.selected < rows || (rows == 0 && list.selected == 0));
                prop_assert!(list.window().end <= rows);
                if rows > 0 && height > 0 {
                    prop_assert!(list.window().contains(&list.selected), "{list:?}");
                    let full = list.window().len() == height.min(rows);
                    prop_assert!(full, "{list:?}");
                }
            }
        }
    }
}
