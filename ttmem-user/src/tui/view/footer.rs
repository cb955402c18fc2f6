//! The footer: the main keys, and which of the chips are on the screen.

use ratatui::{
    Frame,
    layout::Rect,
    text::{Line, Span},
};

use super::{Scene, ends};
use crate::tui::{Tab, keymap::BINDINGS, table::Tabular as _};

/// Draws the footer; keys that do not fit beside the position are left out whole.
pub fn view(frame: &mut Frame, area: Rect, scene: &Scene) {
    let state = scene.state;
    if let Some(prompt) = &state.prompt {
        let label = Span::styled(prompt.label(), scene.theme.key());
        let cursor = Span::styled(" ", scene.theme.cursor());
        let text = Span::raw(prompt.text.clone());
        let keys = Span::styled("  Enter keeps, Esc drops", scene.theme.dim());
        return frame.render_widget(Line::from(vec![label, text, cursor, keys]), area);
    }
    if let Some(notice) = &state.notice {
        return frame.render_widget(Line::styled(format!(" {notice}"), scene.theme.warn()), area);
    }
    let position = Line::styled(position(scene), scene.theme.strong());
    let mut room = usize::from(area.width).saturating_sub(position.width());
    let mut keys = Vec::new();
    for text in footer_keys(state.tab) {
        let (key, what) = text.split_once(' ').unwrap_or((text, ""));
        let key = Span::styled(format!(" {key}"), scene.theme.key());
        let what = Span::styled(format!(" {what} "), scene.theme.dim());
        let Some(left) = room.checked_sub(key.width() + what.width()) else { break };
        room = left;
        keys.extend([key, what]);
    }
    ends(frame, area, Line::from(keys), position);
}

/// The main keys of a view, its own first.
fn footer_keys(tab: Tab) -> impl Iterator<Item = &'static str> {
    let of = move |own: bool| {
        BINDINGS.iter().filter_map(|binding| binding.footer).filter_map(move |(text, tabs)| {
            let shown = if own { tabs.contains(&tab) } else { tabs.is_empty() };
            shown.then_some(text)
        })
    };
    of(false).take(2).chain(of(true)).chain(of(false).skip(2))
}

/// The cursor's place among the rows; of chips `4 chips` if all are on the screen, `chips 1–4 of 32` if not.
fn position(scene: &Scene) -> String {
    let list = match scene.state.tab {
        Tab::Overview => None,
        Tab::Buffers => Some(scene.state.buffers.shown().list()),
        Tab::Histograms => Some(scene.state.histograms.table.list()),
        Tab::Events => Some(scene.state.events.table.list()),
        Tab::Circular => Some(scene.state.circular.table.list()),
        Tab::Health => Some(scene.state.health.table.list()),
        Tab::Failures if scene.state.failures.open.is_some() => {
            Some(scene.state.failures.live.list())
        }
        Tab::Failures => Some(scene.state.failures.table.list()),
        _ => return String::new(),
    };
    if let Some(list) = list {
        let place = if list.rows == 0 { 0 } else { list.selected + 1 };
        return format!(" row {place} of {} ", list.rows);
    }
    let all = scene.snapshot.devices.len();
    let shown = scene.state.overview.shown();
    let whole = shown.len() == all;
    match all {
        0 => String::new(),
        1 if whole => " 1 chip ".to_owned(),
        _ if whole => format!(" {all} chips "),
        _ if shown.len() == 1 => format!(" chip {} of {all} ", shown.end),
        _ => format!(" chips {}–{} of {all} ", shown.start + 1, shown.end),
    }
}
