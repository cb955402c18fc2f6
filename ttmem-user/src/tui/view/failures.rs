//! Failed allocations; of the one that is open, what was live then.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::Line,
};

use super::{Scene, ellipsize, table};
use crate::{format, tui::state::failures::TITLE};

/// Draws the view.
pub fn view(frame: &mut Frame, area: Rect, scene: &Scene) {
    let failures = &scene.state.failures;
    let Some(open) = &failures.open else {
        let seen = &scene.snapshot.failures;
        let text = match (seen.count, seen.unseen_because()) {
            (_, Some(why)) => format!("failed allocations cannot be seen: {why}"),
            (Some(0), _) => "no allocation has failed since the attach".to_owned(),
            (Some(count), _) if scene.snapshot.totals_only.is_some() => {
                format!("failed allocations: {count}; they are with the ttmem that attached")
            }
            (Some(count), _) => format!("failed allocations: {count}; none was kept"),
            (None, _) => "whether allocations failed is not known".to_owned(),
        };
        return table::view(frame, area, scene, &failures.table, &text);
    };
    let parts = [Constraint::Length(TITLE), Constraint::Fill(1)];
    let [top, live] = Layout::vertical(parts).areas(area);
    let [first, second] = Layout::vertical([Constraint::Length(1); 2]).areas(top);
    let width = usize::from(area.width).saturating_sub(2);
    let what = ellipsize(&format!("{}: {}", open.id, format::failure(open)), width);
    frame.render_widget(Line::styled(format!("  {what}"), scene.theme.strong()), first);
    let doubts = open.inexact_because();
    let (text, style) = match (open.buffers(), doubts.first()) {
        (None, _) => ("what was live was not kept".to_owned(), scene.theme.warn()),
        (Some(_), Some(why)) => (format!("what was live, inexact: {why}"), scene.theme.bad()),
        (Some(_), None) => ("what was live, exact  (Esc: back)".to_owned(), scene.theme.good()),
    };
    frame.render_widget(Line::styled(format!("  {}", ellipsize(&text, width)), style), second);
    table::view(frame, live, scene, &failures.live, "nothing");
}
