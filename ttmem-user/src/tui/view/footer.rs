//! The footer: the main keys, and which of the chips are on the screen.

use ratatui::{
    Frame,
    layout::Rect,
    text::{Line, Span},
};

use super::{Scene, ellipsize, ends};
use crate::{
    format::one_line,
    tui::{Tab, keymap::BINDINGS, table::Tabular as _},
};

/// Draws the footer; keys that do not fit beside the position are left out whole.
pub fn view(frame: &mut Frame, area: Rect, scene: &Scene) {
    let state = scene.state;
    if let Some(prompt) = &state.prompt {
        let label = Span::styled(prompt.label(), scene.theme.key());
        let cursor = Span::styled(" ", scene.theme.cursor());
        let keys = Span::styled(prompt.keys(), scene.theme.dim());
        // Of what is long the end is shown: that is where it is typed.
        let around = label.width() + cursor.width() + keys.width();
        let room = usize::from(area.width).saturating_sub(around);
        let mut text = Span::raw(prompt.text.clone());
        let mut rest = prompt.text.chars();
        while text.width() > room && rest.next().is_some() {
            text = Span::raw(format!("…{}", rest.as_str()));
        }
        return frame.render_widget(Line::from(vec![label, text, cursor, keys]), area);
    }
    if let Some(notice) = &state.notice {
        let left = Line::styled(format!(" {notice}"), scene.theme.warn());
        let keys = [(" q", " quit "), (" ?", " help ")];
        let spans = keys.into_iter().flat_map(|(key, what)| {
            [Span::styled(key, scene.theme.key()), Span::styled(what, scene.theme.dim())]
        });
        return ends(frame, area, left, Line::from(spans.collect::<Vec<_>>()));
    }
    let filter = match scene.state.filter().text() {
        "" => String::new(),
        text => format!(" /{} ", ellipsize(&one_line(text), usize::from(area.width) / 4)),
    };
    let filter = Span::styled(filter, scene.theme.warn());
    let position = Span::styled(position(scene), scene.theme.strong());
    let position = Line::from(vec![filter, position]);
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
        Tab::Failures => Some(scene.state.failures.shown().list()),
        _ => return String::new(),
    };
    if let Some(list) = list {
        let place = if list.rows == 0 { 0 } else { list.selected + 1 };
        return format!(" row {place} of {} ", list.rows);
    }
    let all = scene.state.overview.chips.len();
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
