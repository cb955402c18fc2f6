//! Use over time.

use ratatui::{
    Frame,
    layout::Rect,
    style::Style,
    text::{Line, Span as Text},
};

use super::{Scene, ellipsize};
use crate::{
    format,
    history::Span,
    tui::state::{
        circular::chips,
        timeline::{AROUND, SCALE, Timeline, text},
    },
};

const PARTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws the view.
pub fn view(frame: &mut Frame, area: Rect, scene: &Scene) {
    let timeline = &scene.state.timeline;
    let line = |frame: &mut Frame, y: u16, text: Line<'static>| {
        if y < area.height {
            frame.render_widget(text, Rect { y: area.y + y, height: 1, ..area });
        }
    };
    let dim = scene.theme.dim();
    if let Some(why) = &timeline.missing {
        return line(frame, 0, Line::styled(format!("  {why}"), dim));
    }
    let Some((buffer_type, of)) = &timeline.title else { return };
    let capacity = format::bytes_or_unknown(timeline.capacity);
    let peak = format::bytes_or_unknown((!timeline.peak_in_doubt).then_some(timeline.peak));
    let (first, last) = timeline.range;
    let zoom = match timeline.zoom {
        0 => String::new(),
        _ => format!(", {} of it shown", format::duration(last.saturating_sub(first))),
    };
    let title = format!(
        "  {} on {} {}: peak {peak}, capacity {capacity}{zoom}",
        buffer_type.name(),
        if of.len() == 1 { "chip" } else { "each of chips" },
        chips(of)
    );
    line(frame, 0, Line::styled(ellipsize(&title, area.width.into()), scene.theme.strong()));
    let height = area.height.saturating_sub(AROUND);
    let top = timeline.peak.max(1);
    let cursor = timeline.cursor(timeline.columns.len());
    for row in 0..height {
        let above = u64::from(height - 1 - row);
        let scale = match row {
            0 => format!("{:>9} ", format::bytes(top)),
            _ if row + 1 == height => format!("{:>9} ", "0 B"),
            _ => " ".repeat(SCALE.into()),
        };
        let mut spans = vec![Text::styled(scale, dim)];
        for (column, span) in timeline.columns.iter().enumerate() {
            let (symbol, style) = cell(scene, span.as_ref(), above, u64::from(height), top);
            let style = if column == cursor { style.patch(scene.theme.cursor()) } else { style };
            spans.push(Text::styled(symbol.to_string(), style));
        }
        line(frame, 1 + row, Line::from(spans));
    }
    let mark = |(column, mark): (usize, &Option<char>)| {
        let cursor = if column == cursor { '▲' } else { ' ' };
        mark.unwrap_or(cursor)
    };
    let marks: String = timeline.marks.iter().enumerate().map(mark).collect();
    let marks = format!("{}{marks}", " ".repeat(SCALE.into()));
    line(frame, height + 1, Line::styled(marks, scene.theme.warn()));
    line(frame, height + 2, Line::styled(axis(timeline, scene), dim));
    line(frame, height + 3, Line::raw(ellipsize(&at_cursor(timeline, scene), area.width.into())));
    let notes: Vec<String> = timeline.notes.iter().map(|note| text(&note.what)).collect();
    let legend =
        "m mark F failure L loss ? anomaly r memory read again ! inexact = exact G gap E end";
    let (said, style) = if notes.is_empty() {
        (legend.to_owned(), dim)
    } else {
        (notes.join("; "), scene.theme.warn())
    };
    let said = ellipsize(&format!("  {said}"), area.width.into());
    line(frame, height + 4, Line::styled(said, style));
}

/// A cell of the graph: what is used all the time is solid, what is used at times is not.
fn cell(scene: &Scene, span: Option<&Span>, above: u64, height: u64, top: u64) -> (char, Style) {
    let Some(span) = span else { return (' ', Style::new()) };
    let eighths = |used: u64| {
        let scaled = u128::from(used) * u128::from(height) * 8 / u128::from(top);
        u64::try_from(scaled).unwrap_or(u64::MAX).max(u64::from(used > 0))
    };
    let part = |used: u64| eighths(used).saturating_sub(above * 8).min(8);
    let style = if span.inexact { scene.theme.bad() } else { scene.theme.good() };
    match (part(span.min_used), part(span.max_used)) {
        (_, 0) => (' ', Style::new()),
        (8, _) => ('█', style),
        (least, most) if least == most => (PARTS[usize::try_from(most - 1).unwrap_or(0)], style),
        (_, 8) => ('▒', style),
        (_, most) => (PARTS[usize::try_from(most - 1).unwrap_or(0)], style),
    }
}

fn axis(timeline: &Timeline, scene: &Scene) -> String {
    let (first, last) = timeline.range;
    let left = format!("-{}", format::age(scene.snapshot.time_ns.saturating_sub(first)));
    let right = format!("-{}", format::age(scene.snapshot.time_ns.saturating_sub(last)));
    let right = if right == "-0.0s" { "now".to_owned() } else { right };
    let width = timeline.columns.len().saturating_sub(left.len());
    format!("{}{left}{right:>width$}", " ".repeat(SCALE.into()))
}

fn at_cursor(timeline: &Timeline, scene: &Scene) -> String {
    let when = timeline.instant.map_or_else(
        || "now".to_owned(),
        |instant| format!("{} ago", format::age(scene.now_ns.saturating_sub(instant))),
    );
    let column = timeline.cursor(timeline.columns.len());
    let Some(Some(span)) = timeline.columns.get(column) else {
        return format!("  {when}: nothing was allocated yet");
    };
    let inexact = if span.inexact { ", inexact" } else { "" };
    format!(
        "  {when}: used {} ({} to {}), {}, {} allocations{inexact}",
        format::bytes(span.last_used),
        format::bytes(span.min_used),
        format::bytes(span.max_used),
        format::plural(span.last_buffers, "buffer"),
        format::count(span.allocations),
    )
}
