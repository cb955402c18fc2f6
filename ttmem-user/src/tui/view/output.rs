//! The pane of the command's output: a title, and the newest lines at the bottom.

use std::sync::Arc;

use ratatui::{
    Frame,
    layout::Rect,
    text::{Line, Span},
    widgets::Paragraph,
};

use super::{Theme, ellipsize};
use crate::tui::OutputTail;

/// What the title says besides the command.
const HINT: &str = " o hides ──";

/// A command, and what it wrote last.
#[derive(Debug)]
pub struct Command {
    /// As the user typed it.
    pub name: String,
    /// Its last lines.
    pub output: Arc<OutputTail>,
}

/// Draws the pane; nothing where there is no room.
pub fn view(frame: &mut Frame, area: Rect, theme: Theme, command: &Command) {
    let Some(height) = area.height.checked_sub(1) else { return };
    frame.render_widget(title(theme, &command.name, area.width.into()), Rect { height: 1, ..area });
    let rows = last_rows(&command.output.lines, area.width.into(), height.into());
    let first = height - u16::try_from(rows.len()).unwrap_or(height);
    let place = Rect { y: area.y + 1 + first, height: height - first, ..area };
    frame.render_widget(Paragraph::new(rows), place);
}

fn title(theme: Theme, name: &str, width: usize) -> Line<'static> {
    let name = ellipsize(name, width.saturating_sub(HINT.chars().count() + 5));
    let taken = 4 + Span::raw(&name).width() + HINT.chars().count();
    let rule = "─".repeat(width.saturating_sub(taken));
    Line::from(vec![
        Span::styled("── ", theme.dim()),
        Span::styled(name, theme.strong()),
        Span::styled(format!(" {rule}{HINT}"), theme.dim()),
    ])
}

/// The last `height` rows that the lines take, each at most `width` columns.
fn last_rows(lines: &[Arc<str>], width: usize, height: usize) -> Vec<Line<'static>> {
    let mut rows = Vec::new();
    for line in lines.iter().rev() {
        rows.extend(wrapped(line, width).into_iter().rev());
        if rows.len() >= height {
            break;
        }
    }
    rows.truncate(height);
    rows.into_iter().rev().map(Line::from).collect()
}

/// One line in rows of at most `width` columns; at least one row.
fn wrapped(line: &str, width: usize) -> Vec<String> {
    let mut rows = vec![String::new()];
    let mut room = width;
    for character in line.chars() {
        let taken = Span::raw(&*character.encode_utf8(&mut [0; 4])).width();
        if taken > room {
            rows.push(String::new());
            room = width;
        }
        room = room.saturating_sub(taken);
        if let Some(row) = rows.last_mut() {
            row.push(character);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(lines: &[&str], width: usize, height: usize) -> Vec<String> {
        let lines: Vec<Arc<str>> = lines.iter().map(|line| Arc::from(*line)).collect();
        last_rows(&lines, width, height).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_newest_rows_are_kept() {
        assert_eq!(rows(&["a", "b", "c"], 10, 2), ["b", "c"]);
        assert_eq!(rows(&["a", "12345678"], 3, 2), ["456", "78"]);
        assert_eq!(rows(&["a", "", "b"], 3, 5), ["a", "", "b"]);
        assert_eq!(rows(&["日本語"], 4, 5), ["日本", "語"], "two columns each");
        assert!(rows(&["a"], 3, 0).is_empty());
        assert_eq!(rows(&["ab"], 0, 9).len(), 3, "no room, and no harm");
    }
}
