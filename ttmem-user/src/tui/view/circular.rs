//! What programs keep in L1: how much of each chip's cores, who bounds it, and the programs.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::{Line, Span},
};

use super::{Scene, ellipsize, table};
use crate::{
    format::{self, Level, UNKNOWN},
    ledger::snapshot::{ChipSnapshot, Headroom, HeadroomState},
    tui::state::circular::Circular,
};

/// Width of the bar of a chip.
const BAR: usize = 16;

/// Draws the view.
pub fn view(frame: &mut Frame, area: Rect, scene: &Scene) {
    let above = Circular::chip_lines(area.height, scene.snapshot);
    let parts = [Constraint::Length(above), Constraint::Fill(1)];
    let [top, programs] = Layout::vertical(parts).areas(area);
    let heading = "  chip  CB/core of a core     share   headroom, and what bounds it";
    let mut place = Rect { height: top.height.min(1), ..top };
    frame.render_widget(Line::styled(heading, scene.theme.dim()), place);
    for chip in &scene.snapshot.devices {
        place.y += 1;
        if place.y >= top.bottom() {
            break;
        }
        frame.render_widget(chip_line(scene, chip, area.width.into()), place);
    }
    let empty = match &scene.snapshot.programs {
        Some(_) => "no program with circular buffers was seen",
        None if scene.snapshot.totals_only.is_some() => {
            "not available: the programs are with the ttmem that attached"
        }
        None if scene.state.is_held() => {
            "the programs were not there when this was held  (z: go on)"
        }
        None => "the programs are being fetched",
    };
    table::view(frame, programs, scene, &scene.state.circular.table, empty);
}

fn chip_line(scene: &Scene, chip: &ChipSnapshot, width: usize) -> Line<'static> {
    let circular = &chip.circular;
    let headroom = &circular.headroom;
    let level = match headroom.state {
        Some(HeadroomState::Clash) => Some(Level::Critical),
        Some(HeadroomState::Low) => Some(Level::High),
        Some(HeadroomState::Ok) => Some(Level::Low),
        None => None,
    };
    let style = scene.theme.level(level);
    let mark = if level >= Some(Level::High) { "!" } else { " " };
    let known = circular.core_bytes.zip(circular.core_capacity_bytes);
    let bar = known.map_or_else(|| " ".repeat(BAR), |(used, whole)| bar(used, whole));
    let taken = 2 + 5 + 1 + BAR + 1 + 7 + 1 + 2;
    let unknown = match &circular.unknown_because {
        None if scene.snapshot.totals_only.is_some() => Some("the ttmem that attached says why"),
        why => why.as_deref(),
    };
    let text = ellipsize(&bounds(unknown, headroom), width.saturating_sub(taken));
    Line::from(vec![
        Span::raw(format!("  {:>4}  ", chip.chip)),
        Span::styled(bar, style),
        Span::styled(format!(" {:>7}{mark} ", format::circular_percent(circular)), style),
        Span::raw(text),
    ])
}

fn bar(used: u64, whole: u64) -> String {
    let cells = u128::from(used.min(whole)) * BAR as u128 / u128::from(whole.max(1));
    let cells = usize::try_from(cells).unwrap_or(BAR).max(usize::from(used > 0));
    "█".repeat(cells) + &"·".repeat(BAR - cells)
}

fn bounds(unknown: Option<&str>, headroom: &Headroom) -> String {
    let Some(room) = format::headroom(headroom) else {
        let why = headroom.unknown_because.as_deref().or(unknown).unwrap_or("nothing is known");
        return format!("{UNKNOWN}: {why}");
    };
    let program = headroom.program.map_or_else(String::new, |program| {
        let end = headroom.circular_end.map_or_else(String::new, |end| format!(" to {end}"));
        format!("  program {program}{end}")
    });
    let buffer = headroom.lowest_buffer.map_or_else(String::new, |lowest| {
        let id = headroom.buffer_unique_id.map_or_else(String::new, |id| format!(" (id {id})"));
        format!(", buffer at {lowest}{id}")
    });
    format!("{room}{program}{buffer}")
}
