//! What came and went last, and what else happened.

use ratatui::{Frame, layout::Rect, text::Line};

use super::{Scene, ellipsize, table};
use crate::tui::state::events::TITLE;

/// Draws the view.
pub fn view(frame: &mut Frame, area: Rect, scene: &Scene) {
    let events = &scene.state.events;
    let title = Rect { height: area.height.min(TITLE), ..area };
    let table = Rect { y: title.bottom(), height: area.height - title.height, ..area };
    if events.missing.is_none() {
        let text = ellipsize(&format!("  {}", events.title), area.width.into());
        frame.render_widget(Line::styled(text, scene.theme.strong()), title);
    }
    let empty = events.missing.as_deref().unwrap_or("nothing came or went yet");
    table::view(frame, table, scene, &events.table, empty);
}
