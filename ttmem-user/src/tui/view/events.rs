//! What came and went last, and what else happened.

use ratatui::{Frame, layout::Rect};

use super::{Scene, table};

/// Draws the view.
pub fn view(frame: &mut Frame, area: Rect, scene: &Scene) {
    let events = &scene.state.events;
    let empty = events.missing.as_deref().unwrap_or("nothing came or went yet");
    table::view(frame, area, scene, &events.table, empty);
}
