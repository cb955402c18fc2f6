//! From state and snapshot to a frame. Every pane is a file; none of them changes anything.

mod bar;
mod buffers;
mod chips;
mod circular;
mod events;
mod failures;
mod footer;
mod header;
mod help;
mod histograms;
mod map;
mod notes;
mod output;
mod overview;
mod processes;
mod spark;
mod stack;
mod table;
mod tabs;
mod timeline;

#[cfg(test)]
mod tests;

use ratatui::{
    Frame,
    layout::{Constraint, Rect},
    text::{Line, Span},
    widgets::{Block, Clear, Padding, Paragraph, Wrap},
};

pub use output::{Command, view as output};

use super::{
    Tab, Theme,
    grid::MINIMUM,
    state::{Overlay, State},
};
use crate::ledger::{report::Report, snapshot::Snapshot};

/// All that a pane is made from.
pub struct Scene<'a> {
    /// How things look.
    pub theme: Theme,
    /// What is open and how far it is scrolled.
    pub state: &'a State,
    /// What is known.
    pub snapshot: &'a Snapshot,
    /// When everything that is shown of now was so, CLOCK_MONOTONIC nanoseconds.
    pub now_ns: u64,
    /// All that it is part of.
    pub report: &'a Report,
    /// The command whose output is shown, if there is one.
    pub command: Option<&'a Command>,
}

/// Draws everything.
pub fn view(frame: &mut Frame, scene: &Scene) {
    let area = frame.area();
    if area.width < MINIMUM.width || area.height < MINIMUM.height {
        let text = format!("terminal too small (need {MINIMUM})").replace('x', "×");
        frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
        return;
    }
    let areas = scene.state.areas();
    header::view(frame, areas.header, scene);
    tabs::view(frame, areas.tabs, scene);
    body(frame, areas.body, scene);
    if let Some(command) = scene.command {
        output::view(frame, areas.output, scene.theme, command);
    }
    footer::view(frame, areas.footer, scene);
    match scene.state.overlay {
        Overlay::None => {}
        Overlay::Help => help::view(frame, scene),
        Overlay::Notes => notes::view(frame, scene),
        Overlay::Stack => stack::view(frame, scene),
    }
}

/// Draws the open view.
fn body(frame: &mut Frame, area: Rect, scene: &Scene) {
    match scene.state.tab {
        Tab::Overview => {
            let chips = scene.state.chips_area();
            overview::view(frame, chips, scene);
            let below = Rect { y: chips.bottom(), height: area.bottom() - chips.bottom(), ..area };
            processes::view(frame, below, scene);
        }
        Tab::Map => map::view(frame, area, scene),
        Tab::Circular => circular::view(frame, area, scene),
        Tab::Failures => failures::view(frame, area, scene),
        Tab::Health => table::view(frame, area, scene, &scene.state.health.table, "nothing"),
        Tab::Buffers => buffers::view(frame, area, scene),
        Tab::Timeline => timeline::view(frame, area, scene),
        Tab::Histograms => histograms::view(frame, area, scene),
        Tab::Events => events::view(frame, area, scene),
    }
}

/// Draws `lines` in a frame in the middle of the screen, scrolled as the state says.
fn overlay(frame: &mut Frame, scene: &Scene, title: &str, lines: Vec<Line>) {
    let inner = Overlay::inner(scene.state.size);
    let height = inner.height.min(u16::try_from(lines.len()).unwrap_or(u16::MAX));
    let outside = Constraint::Length;
    let area = frame.area().centered(outside(inner.width + 4), outside(height + 2));
    let hidden = lines.len().saturating_sub(height.into());
    let mut block = Block::bordered()
        .padding(Padding::horizontal(1))
        .border_style(scene.theme.dim())
        .title(Span::styled(format!(" {title} "), scene.theme.strong()));
    if hidden > 0 {
        block = block.title_bottom(Line::from(" ↑↓ for more ").right_aligned());
    }
    let offset = u16::try_from(scene.state.overlay_offset.min(hidden)).unwrap_or(u16::MAX);
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(lines).block(block).scroll((offset, 0)), area);
}

/// Draws one line at the left and one at the right of `area`; the right one wins.
fn ends(frame: &mut Frame, area: Rect, left: Line, right: Line) {
    frame.render_widget(left, area);
    let width = u16::try_from(right.width()).unwrap_or(u16::MAX).min(area.width);
    let place = Rect { x: area.right() - width, width, ..area };
    frame.render_widget(Clear, place);
    frame.render_widget(right, place);
}

/// `text` in at most `width` columns, the end replaced by `…` if it is longer.
fn ellipsize(text: &str, width: usize) -> String {
    let columns = |text: &str| Span::raw(text).width();
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut room = width.saturating_sub(1);
    let mut shown = String::new();
    for character in text.chars() {
        let taken = columns(character.encode_utf8(&mut [0; 4]));
        if taken > room {
            break;
        }
        room -= taken;
        shown.push(character);
    }
    if width > 0 {
        shown.push('…');
    }
    shown
}
