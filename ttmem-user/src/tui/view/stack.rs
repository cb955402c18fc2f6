//! What called for a buffer, frame by frame.

use ratatui::{Frame, text::Line};

use super::{Scene, ellipsize, overlay};
use crate::{format::one_line, tui::state::Overlay};

/// Draws it over everything else.
pub fn view(frame: &mut Frame, scene: &Scene) {
    let width = usize::from(Overlay::inner(scene.state.size).width);
    let lines = scene.state.stack.iter();
    let lines = lines.map(|line| Line::from(ellipsize(&one_line(line), width)));
    overlay(frame, scene, "Call stack, the innermost first", lines.collect());
}
