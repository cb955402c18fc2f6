//! The footer: the main keys, and which of the chips are on the screen.

use ratatui::{
    Frame,
    layout::Rect,
    text::{Line, Span},
};

use super::{Scene, ends};
use crate::tui::keymap::BINDINGS;

/// Draws the footer; keys that do not fit beside the position are left out whole.
pub fn view(frame: &mut Frame, area: Rect, scene: &Scene) {
    let position = Line::styled(position(scene), scene.theme.strong());
    let mut room = usize::from(area.width).saturating_sub(position.width());
    let mut keys = Vec::new();
    for text in BINDINGS.iter().filter_map(|binding| binding.footer) {
        let (key, what) = text.split_once(' ').unwrap_or((text, ""));
        let key = Span::styled(format!(" {key}"), scene.theme.key());
        let what = Span::styled(format!(" {what} "), scene.theme.dim());
        let Some(left) = room.checked_sub(key.width() + what.width()) else { break };
        room = left;
        keys.extend([key, what]);
    }
    ends(frame, area, Line::from(keys), position);
}

/// `4 chips` if all are on the screen, `chips 1–4 of 32` if not.
fn position(scene: &Scene) -> String {
    let all = scene.snapshot.devices.len();
    let shown = scene.state.grid().chips(scene.state.offset);
    let whole = scene.state.grid().max_offset() == 0;
    match all {
        0 => String::new(),
        1 if whole => " 1 chip ".to_owned(),
        _ if whole => format!(" {all} chips "),
        _ if shown.len() == 1 => format!(" chip {} of {all} ", shown.end),
        _ => format!(" chips {}–{} of {all} ", shown.start + 1, shown.end),
    }
}
