//! Any table: headings, and the rows that are on the screen.

use ratatui::{
    Frame,
    layout::Rect,
    style::Style,
    text::{Line, Span},
};

use super::{Scene, ellipsize};
use crate::tui::table::{Heading, MARGIN, Tabular, Tone, fitting};

/// Draws a table; `empty` is said where it has no rows.
pub fn view(frame: &mut Frame, area: Rect, scene: &Scene, table: &dyn Tabular, empty: &str) {
    let headings = table.headings();
    let sorting = table.sorting();
    let columns = fitting(&headings, area.width, sorting.column);
    let names = columns.iter().map(|(place, _, width)| {
        let arrow = if sorting.descending { "▼" } else { "▲" };
        let arrow = if *place == sorting.column { arrow } else { "" };
        cell(&headings[*place], &format!("{}{arrow}", headings[*place].name), *width)
    });
    let names: Vec<String> = names.collect();
    let top = Rect { height: area.height.min(1), ..area };
    let margin = " ".repeat(MARGIN.into());
    frame.render_widget(Line::styled(margin + &names.join(" "), scene.theme.dim()), top);
    let mut place = Rect { y: area.y + 1, height: 1, ..area };
    if table.list().rows == 0 && area.height > 1 {
        let filter = table.filter();
        let text =
            if filter.is_empty() { empty } else { "no row passes the filter: Esc shows all" };
        frame.render_widget(Line::styled(format!("  {text}"), scene.theme.dim()), place);
        return;
    }
    for row in table.list().window() {
        let Some(fields) = table.row(row) else { break };
        if place.y >= area.bottom() {
            break;
        }
        let across = table.across(row);
        let mut room = area.width.saturating_sub(MARGIN);
        let mut texts = Vec::new();
        for (column, _, width) in &columns {
            let text = fields[*column].shown(scene.snapshot.time_ns);
            if across == Some(*column) {
                texts.push(ellipsize(&text, room.into()));
                break;
            }
            texts.push(cell(&headings[*column], &text, *width));
            room = room.saturating_sub(*width + 1);
        }
        let text = texts.join(" ");
        let selected = row == table.list().selected;
        let mark = if selected { "▶ " } else { "  " };
        let style = tone(scene, table.tone(row));
        let style = if selected { style.patch(scene.theme.cursor()) } else { style };
        frame.render_widget(Line::from(vec![Span::raw(mark), Span::styled(text, style)]), place);
        place.y += 1;
    }
}

fn tone(scene: &Scene, tone: Tone) -> Style {
    match tone {
        Tone::Usual => Style::new(),
        Tone::Good => scene.theme.good(),
        Tone::Warn => scene.theme.warn(),
        Tone::Bad => scene.theme.bad(),
    }
}

fn cell(heading: &Heading, text: &str, width: u16) -> String {
    let width = usize::from(width);
    let text = ellipsize(text, width);
    let blank = " ".repeat(width.saturating_sub(Span::raw(&text).width()));
    if heading.right { blank + &text } else { text + &blank }
}
