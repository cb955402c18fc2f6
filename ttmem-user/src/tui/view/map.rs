//! A bank, address by address: every bank of a pool looks the same.

use ratatui::{
    Frame,
    layout::Rect,
    style::Style,
    text::{Line, Span},
};

use super::{Scene, ellipsize};
use crate::{
    format::{self, UNKNOWN},
    ledger::{
        fit::Answer,
        snapshot::{BlockSnapshot, SpaceSnapshot},
    },
    tui::state::{
        circular::chips,
        map::{ABOVE, BELOW, Cell},
    },
};

const PARTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws the view.
pub fn view(frame: &mut Frame, area: Rect, scene: &Scene) {
    let map = &scene.state.map;
    let width = usize::from(area.width).saturating_sub(2);
    let line = |frame: &mut Frame, y: u16, text: &str, style: Style| {
        if y < area.height {
            let place = Rect { y: area.y + y, height: 1, ..area };
            frame.render_widget(Line::styled(format!(" {}", ellipsize(text, width)), style), place);
        }
    };
    let Some(space) = map.space() else {
        let text = if scene.snapshot.totals_only.is_some() {
            "not available: the allocators are with the ttmem that attached"
        } else if map.filter.is_empty() {
            "no pool is known: nothing is open"
        } else {
            "no pool passes the filter: Esc shows all"
        };
        return line(frame, 0, text, scene.theme.dim());
    };
    line(frame, 0, &title(space), scene.theme.strong());
    line(frame, 1, &figures(space), Style::new());
    if let Some(why) = space.unknown_because.as_deref().or_else(|| missing(scene, space)) {
        return line(frame, ABOVE, why, scene.theme.warn());
    }
    let cells = area.height.saturating_sub(ABOVE + BELOW);
    for (y, row) in (0..cells).zip(map.cells.chunks(map.width)) {
        let first = usize::from(y) * map.width;
        let spans = row.iter().enumerate().map(|(x, cell)| {
            let (symbol, style) = drawn(scene, *cell);
            let here = first + x == map.cursor;
            let style = if here { style.patch(scene.theme.reversed()) } else { style };
            let symbol = if here && symbol == '·' { '+' } else { symbol };
            Span::styled(symbol.to_string(), style)
        });
        let place = Rect { x: area.x + 1, y: area.y + ABOVE + y, height: 1, width: area.width - 1 };
        frame.render_widget(Line::from(spans.collect::<Vec<_>>()), place);
    }
    let below = area.height.saturating_sub(BELOW);
    line(frame, below, &at_cursor(scene), Style::new());
    let legend = "█ used  · free  ░ largest hole  ▒ circular buffers";
    line(frame, below + 1, legend, scene.theme.dim());
    let (text, style) = answer(scene);
    line(frame, below + 2, &text, style);
}

fn missing(scene: &Scene, space: &SpaceSnapshot) -> Option<&'static str> {
    space.map.is_none().then_some(if scene.state.is_held() {
        "the map was not there when this was held  (z: go on)"
    } else {
        "the map is being fetched"
    })
}

fn drawn(scene: &Scene, cell: Cell) -> (char, Style) {
    let theme = scene.theme;
    match cell {
        Cell { used_permille: 0, circular: true, .. } => ('▒', theme.warn()),
        Cell { used_permille: 0, largest_hole: true, .. } => ('░', theme.good()),
        Cell { used_permille: 0, .. } => ('·', theme.dim()),
        Cell { used_permille, circular, .. } => {
            let part = usize::try_from(used_permille * 8 / 1001).unwrap_or(7).min(7);
            let style = if circular { theme.bad() } else { theme.key() };
            (PARTS[part], style)
        }
    }
}

fn title(space: &SpaceSnapshot) -> String {
    let mesh = space.mesh.map_or_else(String::new, |mesh| format!(" of mesh {mesh}"));
    let closed = if space.maybe_closed { "  (maybe closed)" } else { "" };
    format!(
        "{}  allocator {}{mesh}, chips {}: each of {} banks of {}{closed}",
        space.buffer_type.name(),
        space.id,
        chips(&space.chips),
        space.banks,
        format::bytes(space.bank_size),
    )
}

fn figures(space: &SpaceSnapshot) -> String {
    let fragmentation = space
        .fragmentation_permille
        .map_or_else(|| UNKNOWN.to_owned(), |part| format!("{}.{}%", part / 10, part % 10));
    format!(
        "free {}  holes {}  largest {}  fragmentation {fragmentation}",
        format::bytes_or_unknown(space.free_bank_bytes),
        space.holes.map_or_else(|| UNKNOWN.to_owned(), format::count),
        format::bytes_or_unknown(space.largest_free_bank_bytes),
    )
}

fn at_cursor(scene: &Scene) -> String {
    let map = &scene.state.map;
    let Some((start, end)) = map.at_cursor() else { return String::new() };
    let blocks = map.blocks();
    let (holes, buffers): (Vec<&BlockSnapshot>, Vec<&BlockSnapshot>) =
        blocks.into_iter().partition(|block| block.free);
    let what = match (buffers.as_slice(), holes.as_slice()) {
        ([one], _) => {
            let id = one.unique_id.map_or_else(String::new, |id| format!(" id {id}"));
            let size = format::bytes_or_unknown(one.size);
            format!(
                "buffer{id} at {}, {} per bank, {size} in all",
                one.start,
                format::bytes(one.bytes())
            )
        }
        ([], [hole, ..]) => format!("hole at {}, {}", hole.start, format::bytes(hole.bytes())),
        ([], []) => "nothing".to_owned(),
        (many, holes) => format!("{} buffers, {} holes", many.len(), holes.len()),
    };
    format!("{what}  ({start:#x}–{end:#x})")
}

fn answer(scene: &Scene) -> (String, Style) {
    let theme = scene.theme;
    match &scene.state.map.answer {
        None => ("f: would so many bytes fit?".to_owned(), theme.dim()),
        Some((asked, Err(why))) => (format!("{asked}: {why}"), theme.warn()),
        Some((asked, Ok(answer))) => {
            let style = match answer.fits {
                Some(true) => theme.good(),
                Some(false) => theme.bad(),
                None => theme.warn(),
            };
            (format!("{asked}: {}", verdict(answer)), style)
        }
    }
}

fn verdict(answer: &Answer) -> String {
    let block = format::bytes_or_unknown(answer.block_bytes);
    let largest = format::bytes_or_unknown(answer.largest_free_bank_bytes);
    match answer.fits {
        Some(true) => format!("fits: {block} of each bank, the largest hole has {largest}"),
        Some(false) => {
            let way = answer.in_the_way.as_ref().map_or_else(String::new, |way| {
                let bytes = format::bytes(way.bank_bytes);
                let count = format::plural(way.buffers.len() as u64, "buffer");
                format!("; in the way: {count} ({bytes}) from {}", way.start)
            });
            format!("does not fit: {block} of each bank, the largest hole has {largest}{way}")
        }
        None => {
            let why = answer.unknown_because.as_deref().unwrap_or("no reason is given");
            format!("cannot be told: {why}")
        }
    }
}
