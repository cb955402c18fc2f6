//! The live buffers, or groups of them.

use std::fmt::Write as _;

use ratatui::{Frame, layout::Rect, text::Line};

use super::{Scene, ellipsize, table};
use crate::{format, history::group::By, tui::state::buffers::TITLE};

/// Draws the view.
pub fn view(frame: &mut Frame, area: Rect, scene: &Scene) {
    let buffers = &scene.state.buffers;
    let title = Rect { height: area.height.min(TITLE), ..area };
    let table = Rect { y: title.bottom(), height: area.height - title.height, ..area };
    let text = if buffers.missing.is_some() { String::new() } else { text(scene) };
    let text = ellipsize(&text, usize::from(area.width).saturating_sub(2));
    frame.render_widget(Line::styled(format!("  {text}"), scene.theme.strong()), title);
    let empty = buffers.missing.as_deref().unwrap_or("nothing is live");
    table::view(frame, table, scene, buffers.shown(), empty);
}

fn text(scene: &Scene) -> String {
    let buffers = &scene.state.buffers;
    let by = |by: By| match by {
        By::Type => "by type",
        By::Thread => "by thread",
        By::Size => "by size",
        By::Age => "by age",
        By::Site => "by site",
    };
    let rows = buffers.shown().list().rows;
    let bytes = format::bytes(buffers.bytes);
    let (what, keys) = if buffers.shows_groups() {
        let how = buffers.by.map_or("", by);
        let groups = format::plural(rows as u64, "group");
        (format!("{groups} {how}, {bytes} in all"), "  (Enter: its buffers, b: next)")
    } else if buffers.only.is_some() {
        (
            format!("{} of one group, {bytes}", format::plural(rows as u64, "buffer")),
            "  (Esc: all groups)",
        )
    } else {
        (format!("{}, {bytes}, each counted once", format::plural(rows as u64, "buffer")), "")
    };
    let growth = buffers.growth.map_or_else(String::new, |(buffers, bytes)| {
        format!("; since the mark {buffers:+}, {}", format::growth(bytes))
    });
    let mut text = what + &growth + keys;
    let filter = buffers.shown().filter().text();
    if !filter.is_empty() {
        let _ = write!(text, "  filter: {filter}");
    }
    if let Some((done, all)) = buffers.filtering {
        let percent = (done * 100).checked_div(all).unwrap_or(0);
        text = format!("filtering, {percent}%: {text}");
    }
    if let Some(note) = &buffers.note {
        text = format!("{note}: {text}");
    }
    text
}
