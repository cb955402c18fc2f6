//! The notes: each reason why a number is inexact or unknown.

use ratatui::{Frame, text::Line};

use super::{Scene, overlay};
use crate::tui::{notes, state::Overlay};

/// Draws the notes over everything else.
pub fn view(frame: &mut Frame, scene: &Scene) {
    let width = Overlay::inner(scene.state.size).width;
    let lines = notes::lines(scene.snapshot, width.into()).into_iter().map(Line::from);
    overlay(frame, scene, "Notes: what is inexact, and why", lines.collect());
}
