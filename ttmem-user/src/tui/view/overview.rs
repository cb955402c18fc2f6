//! The overview: each chip, each of its pools, how full.
//!
//! Columns on the right are left out, last first, where the terminal is too narrow for them.

use ratatui::{
    Frame,
    layout::Rect,
    style::Style,
    text::{Line, Span},
    widgets::{Paragraph, Wrap},
};

use super::{
    Scene,
    bar::{self, Part},
    chips, spark,
};
use crate::{
    event::BufferType,
    format::{self, Level, UNKNOWN},
    ledger::snapshot::{ChipSnapshot, CircularSnapshot, HeadroomState, PoolSnapshot, TargetState},
    tui::pools,
};

/// Width of margin, name, percentage and the gaps between them.
const FIXED: usize = 1 + 8 + 1 + 1 + PERCENT;
const PERCENT: usize = 7;
const LEAST_BAR: usize = 8;
/// Width of the largest hole, the gap to the left included.
const LARGEST: usize = 11;
/// Width of the trend, or of the growth since the mark, the gap to the left included.
const TREND: usize = 13;
/// The largest hole is shown only where the bar stays this wide.
const ROOMY_BAR: usize = 35;

struct Column {
    heading: &'static str,
    /// Width, the gap to the left included.
    width: usize,
    cell: fn(&PoolSnapshot, Option<f64>) -> String,
}

const COLUMNS: [Column; 5] = [
    Column {
        heading: "used",
        width: 10,
        cell: |pool, _| format::bytes_or_unknown(pool.used_bytes),
    },
    Column {
        heading: "/  capacity",
        width: 12,
        cell: |pool, _| format!("/ {:>9}", format::bytes_or_unknown(pool.capacity_bytes)),
    },
    Column { heading: "peak", width: 10, cell: |pool, _| format::peak(pool) },
    Column { heading: "buffers", width: 8, cell: |pool, _| format::count(pool.buffers) },
    Column {
        heading: "alloc/s",
        width: 8,
        cell: |_, rate| rate.map_or_else(|| UNKNOWN.to_owned(), format::rate),
    },
];

/// Which columns a line has, and what is left for the bar.
struct Plan {
    columns: &'static [Column],
    bar: usize,
    width: u16,
    /// Whether there is room for the largest hole.
    largest: bool,
    /// Whether there is room for the trend.
    trend: bool,
}

impl Plan {
    fn new(width: u16, marked: bool, trends: bool) -> Self {
        let usual = Self::usual(width, marked);
        if trends && !(usual.largest && usual.trend) { Self::of_trends(width) } else { usual }
    }

    /// The largest hole and the trend come first, where there is no room for all.
    fn of_trends(width: u16) -> Self {
        let mut room = usize::from(width).saturating_sub(FIXED);
        let mut has_room = |width: usize| {
            let has = room >= width + LEAST_BAR;
            room -= if has { width } else { 0 };
            has
        };
        let trend = has_room(TREND);
        let largest = has_room(LARGEST);
        let shown = COLUMNS.iter().take(2).take_while(|column| has_room(column.width)).count();
        Self { columns: &COLUMNS[..shown], bar: room, width, largest, trend }
    }

    fn usual(width: u16, marked: bool) -> Self {
        let mut room = usize::from(width).saturating_sub(FIXED);
        let mut shown = 0;
        while let Some(column) = COLUMNS.get(shown).filter(|c| c.width + LEAST_BAR <= room) {
            room -= column.width;
            shown += 1;
        }
        let largest = shown == COLUMNS.len() && room >= LARGEST + ROOMY_BAR;
        let room = if largest { room - LARGEST } else { room };
        let all = shown == COLUMNS.len();
        let mut trend = all && room >= TREND + ROOMY_BAR;
        let mut bar = if trend { room - TREND } else { room };
        // Growth since a mark was asked for: where room is scarce it takes that of the last column.
        let gained = COLUMNS[COLUMNS.len() - 1].width;
        if marked && all && !trend && room + gained >= TREND + LEAST_BAR {
            (trend, shown, bar) = (true, shown - 1, room + gained - TREND);
        }
        Self { columns: &COLUMNS[..shown], bar, width, largest, trend }
    }
}

/// Draws headings and chips, or why there are none.
pub fn view(frame: &mut Frame, area: Rect, scene: &Scene) {
    if scene.snapshot.devices.is_empty() {
        let text = format::no_device(scene.snapshot.state);
        let below = area.height / 3;
        let place = Rect { y: area.y + below, height: area.height - below, ..area };
        let text = Paragraph::new(text).centered().wrap(Wrap { trim: true });
        frame.render_widget(text, place);
        return;
    }
    let overview = &scene.state.overview;
    if overview.chips.is_empty() {
        let text = "  no pool passes the filter: Esc shows all";
        return frame.render_widget(Line::styled(text, scene.theme.dim()), area);
    }
    if !overview.is_full() {
        return chips::view(frame, area, scene);
    }
    let grid = overview.grid();
    let plan = Plan::new(grid.column_width, scene.state.mark().is_some(), overview.trends);
    for column in 0..grid.columns {
        let x = area.x + grid.column_x(column);
        let mut place = Rect { x, y: area.y, width: grid.column_width, height: area.height.min(1) };
        frame.render_widget(headings(scene, &plan), place);
        for line in grid.lines(scene.state.overview.offset) {
            place.y += 1;
            let Some((chip, row)) = grid.cell(line, column) else { break };
            let chip = &scene.snapshot.devices[scene.state.overview.chips[chip]];
            frame.render_widget(chip_line(scene, &plan, chip, row), place);
        }
    }
}

/// Line `row` of a chip: its title, then its pools, blank when it has fewer than others.
fn chip_line(scene: &Scene, plan: &Plan, chip: &ChipSnapshot, row: usize) -> Line<'static> {
    let Some(row) = row.checked_sub(1) else {
        return title(scene, chip, plan.width);
    };
    let overview = &scene.state.overview;
    let pools: Vec<_> = overview.rows(chip).collect();
    match pools.get(row) {
        Some(pool) => pool_line(scene, plan, chip, pool),
        None if row == pools.len() && overview.shows_circular(chip) => {
            circular_line(scene, plan, &chip.circular)
        }
        None => Line::default(),
    }
}

/// Circular buffers, of the core with the most; a mark where they come near a tensor.
fn circular_line(scene: &Scene, plan: &Plan, circular: &CircularSnapshot) -> Line<'static> {
    let theme = scene.theme;
    let is_empty = circular.buffers == 0;
    let text = if is_empty { theme.dim() } else { Style::new() };
    let as_pool = PoolSnapshot {
        buffer_type: BufferType::L1,
        buffers: circular.buffers,
        logical_bytes: 0,
        bank_bytes: circular.core_bytes,
        banks: None,
        used_bytes: circular.core_bytes,
        capacity_bytes: circular.core_capacity_bytes,
        peak_used_bytes: circular.peak_core_bytes,
        peak_at_least_bytes: None,
        allocations: 0,
        frees: 0,
        pre_attach_frees: 0,
    };
    let level = match circular.headroom.state {
        Some(HeadroomState::Clash) => Some(Level::Critical),
        Some(HeadroomState::Low) => Some(Level::High),
        Some(HeadroomState::Ok) | None => Level::of_pool(&as_pool),
    };
    let style = if is_empty { theme.dim() } else { theme.level(level) };
    let mark = if level >= Some(Level::High) { "!" } else { " " };
    let mut spans = vec![Span::styled(format!(" {:<8} ", "CB/core"), text)];
    spans.extend(bar_spans(scene, &as_pool, plan.bar, style));
    spans.push(Span::styled(format!(" {:>6}{mark}", format::circular_percent(circular)), style));
    // Programs come and go too seldom for a rate: the last column stays empty.
    for column in plan.columns.iter().take(COLUMNS.len() - 1) {
        // Which programs there were is not recorded.
        let cell = if is_past(scene) { UNKNOWN.to_owned() } else { (column.cell)(&as_pool, None) };
        spans.push(Span::styled(right(&cell, column.width), text));
    }
    Line::from(spans)
}

fn headings(scene: &Scene, plan: &Plan) -> Line<'static> {
    let mut text = format!(" {:<8} {:<2$}", "type", "utilisation", plan.bar + 1 + PERCENT);
    for column in plan.columns {
        text.push_str(&right(column.heading, column.width));
    }
    if plan.largest {
        text.push_str(&right("hole/bank", LARGEST));
    }
    if plan.trend {
        let name = if scene.state.mark().is_some() { "since mark" } else { "trend" };
        text.push_str(&right(name, TREND));
    }
    Line::styled(text, scene.theme.dim())
}

fn title(scene: &Scene, chip: &ChipSnapshot, width: u16) -> Line<'static> {
    let name = format!(" chip {} ", chip.chip);
    let rest = usize::from(width).saturating_sub(1 + 2 + name.chars().count());
    Line::from(vec![
        Span::styled(" ──", scene.theme.dim()),
        Span::styled(name, scene.theme.strong()),
        Span::styled("─".repeat(rest), scene.theme.dim()),
    ])
}

fn pool_line(
    scene: &Scene,
    plan: &Plan,
    chip: &ChipSnapshot,
    pool: &PoolSnapshot,
) -> Line<'static> {
    let theme = scene.theme;
    let is_empty = pool.buffers == 0 && pool.used_bytes.unwrap_or(0) == 0;
    let text = if is_empty { theme.dim() } else { Style::new() };
    let level = Level::of_pool(pool);
    let style = if is_empty { theme.dim() } else { theme.level(level) };
    let mark = if level == Some(Level::Critical) { "!" } else { " " };
    let mut spans = vec![Span::styled(format!(" {:<8} ", name(pool.buffer_type)), text)];
    spans.extend(bar_spans(scene, pool, plan.bar, style));
    let percent = format::pool_percent(pool);
    spans.push(Span::styled(format!(" {percent:>6}{mark}"), style));
    let rate = match scene.snapshot.state {
        TargetState::Running => scene.state.rate(chip.chip, pool.buffer_type),
        TargetState::Exited | TargetState::Replaced => Some(0.0),
    };
    let rate = rate.filter(|_| !is_past(scene));
    for column in plan.columns {
        spans.push(Span::styled(right(&(column.cell)(pool, rate), column.width), text));
    }
    if plan.largest {
        let largest = pools::largest_hole(scene.snapshot, chip, pool.buffer_type);
        spans.push(Span::styled(right(&format::bytes_or_unknown(largest), LARGEST), text));
    }
    if plan.trend {
        spans.push(Span::styled(right(&trend(scene, chip, pool), TREND), text));
    }
    Line::from(spans)
}

/// Whether an earlier instant is shown: what is counted, as rates are, is not known of then.
fn is_past(scene: &Scene) -> bool {
    scene.state.shown_then().is_some()
}

/// How the use has changed lately, or since the mark if there is one.
fn trend(scene: &Scene, chip: &ChipSnapshot, pool: &PoolSnapshot) -> String {
    let Some(mark) = scene.state.mark() else {
        if is_past(scene) {
            return UNKNOWN.to_owned();
        }
        let values = scene.state.trend(chip.chip, pool.buffer_type);
        return spark::line(&values, TREND - 1);
    };
    let growth = pools::growth(mark, chip, pool);
    growth.map_or_else(|| UNKNOWN.to_owned(), format::growth)
}

fn bar_spans(scene: &Scene, pool: &PoolSnapshot, width: usize, used: Style) -> Vec<Span<'static>> {
    let Some(cells) = bar::cells(pool, width) else {
        return vec![Span::raw(" ".repeat(width))];
    };
    let style = |part| match part {
        Part::Used => used,
        Part::Peak => scene.theme.strong(),
        Part::Free => scene.theme.dim(),
    };
    cells
        .chunk_by(|left, right| left.0 == right.0)
        .map(|run| {
            let text: String = run.iter().map(|(_, cell)| cell).collect();
            Span::styled(text, style(run[0].0))
        })
        .collect()
}

/// tt-metal's name in at most 8 characters.
const fn name(buffer_type: BufferType) -> &'static str {
    match buffer_type {
        BufferType::SystemMemory => "SYSMEM",
        other => other.name(),
    }
}

fn right(text: &str, width: usize) -> String {
    format!("{text:>width$}")
}
