//! Circular and dataflow buffers as text: a row per chip, and a table of programs.

use super::{Page, Paint, chip_ranges, or_unknown};
use crate::{
    event::{CircularKind, CoreRange},
    format::{self, Level, UNKNOWN},
    ledger::snapshot::{CircularBufferSnapshot, CircularSnapshot, HeadroomState, ProgramSnapshot},
    units::ChipId,
};

/// The row of a chip. Used and capacity are those of one core.
pub fn chip_line(page: &mut Page, chip: ChipId, circular: &CircularSnapshot, now_ns: u64) {
    let start = format!(
        "{:>4}  {:<13} {:>9} {:>9} ",
        chip.0,
        "CB per core",
        format::bytes_or_unknown(circular.core_bytes),
        format::bytes_or_unknown(circular.core_capacity_bytes),
    );
    let percent = format!("{:>6}", format::circular_percent(circular));
    let level = circular.core_bytes.zip(circular.core_capacity_bytes);
    let paint = Paint::of(level.and_then(|(part, whole)| Level::of(part, whole)));
    let middle = format!(
        " {:>9} {:>8}  {} programs",
        format::bytes_or_unknown(circular.peak_core_bytes),
        circular.buffers,
        circular.programs,
    );
    let (room_paint, room) = room(circular);
    page.line(&[
        (Paint::Plain, &start),
        (paint, &percent),
        (Paint::Plain, &middle),
        (room_paint, &room),
        (Paint::Plain, &dispatches(circular, now_ns)),
        (Paint::Dim, &doubt(circular)),
    ]);
}

fn room(circular: &CircularSnapshot) -> (Paint, String) {
    let Some(room) = format::headroom(&circular.headroom) else {
        return (Paint::Plain, String::new());
    };
    match circular.headroom.state {
        Some(HeadroomState::Clash) => (Paint::Bad, format!(", CLASH: headroom {room}")),
        Some(HeadroomState::Low) => (Paint::Warn, format!(", LOW headroom {room}")),
        Some(HeadroomState::Ok) | None => (Paint::Plain, format!(", headroom {room}")),
    }
}

fn dispatches(circular: &CircularSnapshot, now_ns: u64) -> String {
    let Some(dispatches) = circular.dispatches else { return String::new() };
    let last = dispatches.last_program.zip(dispatches.last_ns).map(|(program, then)| {
        format!(", the last {program} {} ago", format::age(now_ns.saturating_sub(then)))
    });
    format!(", {} dispatches{}", dispatches.count, last.unwrap_or_default())
}

fn doubt(circular: &CircularSnapshot) -> String {
    let Some(reason) = &circular.unknown_because else { return String::new() };
    let seen = if circular.seen_core_bytes > 0 {
        format!(", at least {}", format::bytes(circular.seen_core_bytes))
    } else {
        String::new()
    };
    format!("{seen}; {}", format::one_line(reason))
}

/// The table of programs, each with its buffers.
pub fn programs(page: &mut Page, programs: &[ProgramSnapshot], now_ns: u64) {
    page.line(&[]);
    let heading = format!(
        "{:<14} {:>9} {:>9} {:>5} {:>10} {:>8} {:>10}  CHIPS",
        "PROGRAM", "PER CORE", "PER CHIP", "CORES", "AGE", "TID", "DISPATCHES"
    );
    page.line(&[(Paint::Bold, &heading)]);
    for program in programs {
        let line = format!(
            "{:<14} {:>9} {:>9} {:>5} {:>10} {:>8} {:>10}  {}",
            program.program.to_string(),
            format::bytes_or_unknown(program.core_bytes),
            format::bytes_or_unknown(program.chip_bytes),
            or_unknown(program.cores),
            format::age(now_ns.saturating_sub(program.placed_ns)),
            program.tid,
            or_unknown(program.dispatches),
            chip_ranges(&program.chips),
        );
        page.line(&[(Paint::Plain, &line)]);
        program.buffers.iter().for_each(|buffer| buffer_line(page, buffer));
    }
    page.line(&[(Paint::Dim, &format!("{} programs", programs.len()))]);
}

fn buffer_line(page: &mut Page, buffer: &CircularBufferSnapshot) {
    let kind = match buffer.kind {
        CircularKind::Circular => "circular",
        CircularKind::Alias => "alias",
        CircularKind::Dataflow => "dataflow",
    };
    let cores = buffer.cores.as_deref().map_or_else(|| UNKNOWN.to_owned(), core_ranges);
    let line = format!(
        "  {kind:<12} {:>9} at {:>12}  cores {cores}",
        format::bytes(buffer.size),
        buffer.address.to_string(),
    );
    page.line(&[(Paint::Plain, &line)]);
}

/// `(0,0)-(7,6)` for the 8 columns and 7 rows from the origin on.
fn core_ranges(ranges: &[CoreRange]) -> String {
    let shown = ranges.iter().map(|range| {
        let ((x, y), (last_x, last_y)) = (range.start, range.end);
        if range.start == range.end {
            format!("({x},{y})")
        } else {
            format!("({x},{y})-({last_x},{last_y})")
        }
    });
    shown.collect::<Vec<_>>().join(" ")
}
