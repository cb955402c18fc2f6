//! The help: the table of keys, as it stands.

use ratatui::{
    Frame,
    text::{Line, Span},
};

use super::{Scene, overlay};
use crate::tui::keymap::BINDINGS;

/// Draws the help over everything else.
pub fn view(frame: &mut Frame, scene: &Scene) {
    let lines = BINDINGS.iter().map(|binding| {
        Line::from(vec![
            Span::styled(format!("{:<12}", binding.shown), scene.theme.key()),
            Span::raw(binding.help),
        ])
    });
    overlay(frame, scene, "Keys", lines.collect());
}
