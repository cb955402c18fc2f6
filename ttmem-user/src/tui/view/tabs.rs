//! The bar that names the views.

use ratatui::{
    Frame,
    layout::Rect,
    text::{Line, Span},
};

use super::Scene;
use crate::tui::Tab;

/// Draws the bar.
pub fn view(frame: &mut Frame, area: Rect, scene: &Scene) {
    let open = scene.state.tab;
    let labels = Tab::ALL.into_iter().zip(open.labels(area.width)).map(|(tab, label)| {
        let style = if tab == open { scene.theme.reversed() } else { scene.theme.dim() };
        Span::styled(label, style)
    });
    frame.render_widget(Line::from(labels.collect::<Vec<_>>()), area);
}
