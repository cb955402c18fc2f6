//! Sizes, lifetimes, threads.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::{Line, Span},
};

use super::{Scene, table};
use crate::{
    format,
    tui::state::histograms::{Bar, Histograms},
};

/// Draws the view.
pub fn view(frame: &mut Frame, area: Rect, scene: &Scene) {
    let state = &scene.state.histograms;
    if let Some(why) = &state.missing {
        return frame.render_widget(Line::styled(format!("  {why}"), scene.theme.dim()), area);
    }
    let bars = Constraint::Length(Histograms::bars(area.height));
    let [top, threads] = Layout::vertical([bars, Constraint::Fill(1)]).areas(area);
    let kind = state.buffer_type.name();
    let wide = area.width >= 120;
    let parts = if wide { 3 } else { 2 };
    let places = Layout::horizontal(vec![Constraint::Fill(1); parts]).split(top);
    let size = |start: u64| format::bytes(start);
    let time = |start: u64| format::duration(start);
    histogram(frame, places[0], scene, &format!("{kind}: live, by size"), &state.live, size);
    let title = "freed, by lifetime";
    histogram(frame, places[parts - 1], scene, title, &state.lifetimes, time);
    if wide {
        let title = "all allocated, by size";
        histogram(frame, places[1], scene, title, &state.allocated, size);
    }
    table::view(frame, threads, scene, &state.table, "no thread has allocated yet");
}

fn histogram(
    frame: &mut Frame,
    area: Rect,
    scene: &Scene,
    title: &str,
    bars: &[Bar],
    label: fn(u64) -> String,
) {
    let mut place = Rect { height: area.height.min(1), ..area };
    let heading = Line::styled(format!("  {title}"), scene.theme.strong());
    frame.render_widget(heading, place);
    let room = usize::from(area.height.saturating_sub(1));
    // The largest are at the top. Where there is no room empty ones are left out, then the smallest.
    let scarce = bars.len() > room;
    let shown = bars.iter().rev().filter(|(_, bin)| bin.buffers > 0 || !scarce);
    let most = bars.iter().map(|(_, bin)| bin.buffers).max().unwrap_or(0).max(1);
    let width = usize::from(area.width).saturating_sub(2 + 10 + 8);
    for (start, bin) in shown.take(room) {
        place.y += 1;
        let cells = u128::from(bin.buffers) * width as u128 / u128::from(most);
        let cells = usize::try_from(cells).unwrap_or(width).max(usize::from(bin.buffers > 0));
        let line = Line::from(vec![
            Span::raw(format!("  {:>9} ", label(*start))),
            Span::styled("█".repeat(cells.min(width)), scene.theme.key()),
            Span::raw(format!(" {}", format::count(bin.buffers))),
        ]);
        frame.render_widget(line, place);
    }
    if bars.is_empty() && room > 0 {
        place.y += 1;
        frame.render_widget(Line::styled("  none", scene.theme.dim()), place);
    }
}
