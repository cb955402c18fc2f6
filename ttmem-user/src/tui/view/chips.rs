//! Many chips, each a line: 32 of them fit on one screen.

use ratatui::{
    Frame,
    layout::Rect,
    text::{Line, Span},
};

use super::{
    Scene,
    bar::{self, Part},
};
use crate::{
    event::BufferType,
    format::{self, Level},
    ledger::snapshot::{ChipSnapshot, PoolSnapshot},
    tui::{
        pools::{self, of_chip},
        state::overview::{LINE_WITH_GROWTH, Order},
    },
};

/// Width of what is no bar: mark, id, two names, two percentages, gaps.
const FIXED: u16 = 2 + 4 + 1 + 5 + 8 + 1 + 3 + 8;

/// Width of the growth since the mark, the gap to the left included. It takes its room from the bar.
const GROWTH: usize = 11;
const _: () = assert!(LINE_WITH_GROWTH as usize >= FIXED as usize + 2 * GROWTH);

/// Draws the lines, column after column.
pub fn view(frame: &mut Frame, area: Rect, scene: &Scene) {
    let overview = &scene.state.overview;
    let columns = u16::try_from(overview.columns()).unwrap_or(1).max(1);
    let width = area.width / columns;
    let lines = usize::from(area.height.saturating_sub(1)).max(1);
    let order = match overview.order {
        Order::Usual | Order::Dram => "the fullest DRAM first",
        Order::L1 => "the fullest L1 first",
        Order::Chip => "by id",
    };
    let is_marked = scene.state.mark().is_some() && width >= LINE_WITH_GROWTH;
    let growth = if is_marked { ", growth since the mark" } else { "" };
    let heading = format!("  chips, {order}{growth}  (s: order, v: in full, Enter: this one)");
    let top = Rect { height: area.height.min(1), ..area };
    frame.render_widget(Line::styled(heading, scene.theme.dim()), top);
    for (at, place) in overview.list.window().enumerate() {
        let (column, line) = (at / lines, at % lines);
        let x = area.x + u16::try_from(column).unwrap_or(0) * width;
        let y = area.y + 1 + u16::try_from(line).unwrap_or(0);
        let Some(chip) = overview.chips.get(place).map(|at| &scene.snapshot.devices[*at]) else {
            break;
        };
        if y >= area.bottom() || x >= area.right() {
            break;
        }
        let selected = place == overview.list.selected;
        let drawn = chip_line(scene, chip, width, selected);
        frame.render_widget(drawn, Rect { x, y, width: width.min(area.right() - x), height: 1 });
    }
}

fn chip_line(scene: &Scene, chip: &ChipSnapshot, width: u16, selected: bool) -> Line<'static> {
    let room = usize::from(width.saturating_sub(FIXED)) / 2;
    let mark_of = scene.state.mark().filter(|_| width >= LINE_WITH_GROWTH);
    let bars = if mark_of.is_some() { room.saturating_sub(GROWTH) } else { room };
    let mark = if selected { "▶ " } else { "  " };
    let style = if selected { scene.theme.reversed() } else { scene.theme.strong() };
    let mut spans = vec![Span::raw(mark), Span::styled(format!("{:>3}", chip.chip), style)];
    for (kind, name) in [(BufferType::Dram, " DRAM "), (BufferType::L1, " L1 ")] {
        spans.push(Span::styled(name, scene.theme.dim()));
        let pool = of_chip(chip, kind);
        spans.extend(pool_spans(scene, pool, bars));
        if let Some(mark) = mark_of {
            let growth = pool.and_then(|pool| pools::growth(mark, chip, pool));
            let text = growth.map_or_else(|| format::UNKNOWN.to_owned(), format::growth);
            spans.push(Span::raw(format!(" {text:>0$}", GROWTH - 1)));
        }
    }
    Line::from(spans)
}

fn pool_spans(scene: &Scene, pool: Option<&PoolSnapshot>, width: usize) -> Vec<Span<'static>> {
    let cells = pool.and_then(|pool| bar::cells(pool, width));
    let level = pool.and_then(Level::of_pool);
    let style = scene.theme.level(level);
    let percent = pool.map_or_else(|| format::UNKNOWN.to_owned(), format::pool_percent);
    let mark = if level == Some(Level::Critical) { "!" } else { " " };
    let mut spans = match cells {
        None => vec![Span::raw(" ".repeat(width))],
        Some(cells) => cells
            .chunk_by(|one, other| one.0 == other.0)
            .map(|run| {
                let text: String = run.iter().map(|(_, cell)| cell).collect();
                Span::styled(text, if run[0].0 == Part::Used { style } else { scene.theme.dim() })
            })
            .collect(),
    };
    spans.push(Span::styled(format!("{percent:>6}{mark}"), style));
    spans
}
