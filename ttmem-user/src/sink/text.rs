//! A snapshot as plain text, for `--headless --format text` and `--once`.
//!
//! One fact a line and no line without its keyword, so that people and grep read it alike. Byte
//! counts are rounded down for people; programs take the JSON, which has every byte.

mod audit;
mod circular;

use std::fmt::Write as _;

use crate::{
    format::{self, Level, UNKNOWN},
    ledger::{
        report::{Totals, Unwatched},
        snapshot::{BufferSnapshot, PoolSnapshot, Snapshot, SpaceSnapshot, TargetState},
    },
    units::ChipId,
};

/// How a piece of text is set off when colours are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Paint {
    Plain,
    Bold,
    Dim,
    Good,
    Warn,
    Bad,
}

impl Paint {
    /// The number of the ANSI "select graphic rendition" sequence.
    const fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Bold => Some("1"),
            Self::Dim => Some("2"),
            Self::Good => Some("32"),
            Self::Warn => Some("33"),
            Self::Bad => Some("1;31"),
        }
    }

    const fn of(level: Option<Level>) -> Self {
        match level {
            Some(Level::Low) => Self::Good,
            Some(Level::Raised) => Self::Warn,
            Some(Level::High | Level::Critical) => Self::Bad,
            None => Self::Plain,
        }
    }
}

/// Lines of painted pieces, cut to a width when they are written.
struct Page {
    width: Option<usize>,
    color: bool,
    text: String,
}

impl Page {
    fn line(&mut self, pieces: &[(Paint, &str)]) {
        let mut room = self.width.unwrap_or(usize::MAX);
        let total: usize = pieces.iter().map(|(_, text)| text.chars().count()).sum();
        let cut = total > room;
        if cut {
            room = room.saturating_sub(1);
        }
        for (paint, text) in pieces {
            let shown: String = text.chars().take(room).collect();
            room -= shown.chars().count();
            match paint.code().filter(|_| self.color && !shown.is_empty()) {
                Some(code) => {
                    let _ = write!(self.text, "\u{1b}[{code}m{shown}\u{1b}[0m");
                }
                None => self.text.push_str(&shown),
            }
        }
        self.text.push_str(if cut { "…\n" } else { "\n" });
    }
}

/// The snapshot as lines of text, the last one ended too.
///
/// Lines are cut to `width` characters if there is one; `color` adds ANSI colours. With
/// [`Snapshot::buffers`] the live buffers follow in a second table. FREES counts all frees, those
/// of buffers from before the attach included.
pub fn render(snapshot: &Snapshot, width: Option<usize>, color: bool) -> String {
    let mut page = Page { width, color, text: String::new() };
    header(&mut page, snapshot);
    pools(&mut page, snapshot);
    spaces(&mut page, &snapshot.allocators);
    if let Some(audit) = &snapshot.audit {
        audit::audit(&mut page, audit);
    }
    if let Some(buffers) = &snapshot.buffers {
        live_buffers(&mut page, buffers, snapshot.time_ns);
    }
    if let Some(programs) = &snapshot.programs {
        circular::programs(&mut page, programs, snapshot.time_ns);
    }
    page.text
}

/// The failed allocations with an id above `shown`, a line each, and how many were not kept.
pub fn failures(snapshot: &Snapshot, shown: u64, width: Option<usize>, color: bool) -> String {
    let mut page = Page { width, color, text: String::new() };
    for line in snapshot.failures.lines_after(snapshot.pid, shown) {
        if line.skipped > 0 {
            let skipped = format!("{} more in quick succession, not kept", line.skipped);
            page.line(&[(Paint::Bad, "failed: "), (Paint::Plain, &skipped)]);
        }
        page.line(&[(Paint::Bad, "failed: "), (Paint::Plain, &format::failure(line.failure))]);
    }
    page.text
}

fn header(page: &mut Page, snapshot: &Snapshot) {
    let milliseconds = snapshot.time_ns / 1_000_000;
    let (state_paint, state) = match snapshot.state {
        TargetState::Running => (Paint::Good, "running"),
        TargetState::Exited => (Paint::Bold, "exited"),
        TargetState::Replaced => (Paint::Bold, "replaced by exec"),
    };
    let (exact_paint, exact) =
        if snapshot.exact { (Paint::Good, "exact") } else { (Paint::Bad, "inexact") };
    page.line(&[
        (Paint::Bold, "ttmem"),
        (Paint::Plain, &format!(" pid {}  ", pids(snapshot))),
        (state_paint, state),
        (Paint::Plain, "  "),
        (exact_paint, exact),
        (Paint::Dim, &format!("  at {}.{:03} s", milliseconds / 1000, milliseconds % 1000)),
    ]);
    for reason in &snapshot.inexact_because {
        page.line(&[(Paint::Bad, "inexact: "), (Paint::Plain, &format::one_line(reason))]);
    }
    let lost = snapshot.lost;
    if lost.total() > 0 {
        let causes = format!("{} ring full, {} read fault", lost.ring_full, lost.read_fault);
        page.line(&[(Paint::Bad, "lost: "), (Paint::Plain, &causes)]);
    }
    let odd = snapshot.anomalies;
    if odd.total() > 0 {
        let kinds = format!(
            "{} unknown free, {} double allocation, {} undecodable, {} size mismatch, \
             {} overlap, {} free list mismatch, {} missed allocation, {} missed free, {} changed",
            odd.unknown_free,
            odd.double_allocation,
            odd.undecodable,
            odd.size_mismatch,
            odd.overlap,
            odd.free_list_mismatch,
            odd.missed_allocation,
            odd.missed_free,
            odd.changed,
        );
        page.line(&[(Paint::Warn, "anomalies: "), (Paint::Plain, &kinds)]);
    }
    if snapshot.taken_blocks > 0 {
        let text = format!("{} live buffers, by late frees of others", snapshot.taken_blocks);
        page.line(&[(Paint::Warn, "blocks taken from: "), (Paint::Plain, &text)]);
    }
    if let Some(reason) = snapshot.failures.unseen_because() {
        let text = format::one_line(&format!("not known: {reason}"));
        page.line(&[(Paint::Warn, "failures: "), (Paint::Plain, &text)]);
    }
    for missing in &snapshot.unresolved {
        let text = format::one_line(&format!("{}: {}", missing.probe, missing.reason));
        page.line(&[(Paint::Warn, "unresolved: "), (Paint::Plain, &text)]);
    }
}

/// The sums over all targets as lines of text, the last one ended too.
pub fn render_totals(totals: &Totals, width: Option<usize>, color: bool) -> String {
    let mut page = Page { width, color, text: String::new() };
    let milliseconds = totals.time_ns / 1_000_000;
    let (paint, exact) =
        if totals.exact { (Paint::Good, "exact") } else { (Paint::Bad, "inexact") };
    page.line(&[
        (Paint::Bold, "ttmem"),
        (Paint::Plain, &format!(" all {} processes  ", totals.processes.len())),
        (paint, exact),
        (Paint::Dim, &format!("  at {}.{:03} s", milliseconds / 1000, milliseconds % 1000)),
    ]);
    left_out(&mut page, &totals.unwatched);
    if !totals.devices.is_empty() {
        heading(&mut page);
        for chip in &totals.devices {
            chip_pools(&mut page, chip.chip, &chip.pools);
        }
    }
    page.text
}

/// The processes that are left out, a line each with the reason.
pub fn unwatched(processes: &[Unwatched], width: Option<usize>, color: bool) -> String {
    let mut page = Page { width, color, text: String::new() };
    left_out(&mut page, processes);
    page.text
}

fn left_out(page: &mut Page, processes: &[Unwatched]) {
    for process in processes {
        let command = match &*process.command {
            "" => String::new(),
            command => format!(" ({})", format::one_line(command)),
        };
        let text = format!("pid {}{command}: {}", process.pid, format::one_line(&process.reason));
        page.line(&[(Paint::Bad, "not watched: "), (Paint::Plain, &text)]);
    }
}

/// The process id, and the one it has in its container.
fn pids(snapshot: &Snapshot) -> String {
    match snapshot.process.namespace_pid {
        Some(inside) => format!("{} (inside {inside})", snapshot.pid),
        None => snapshot.pid.to_string(),
    }
}

fn pools(page: &mut Page, snapshot: &Snapshot) {
    if snapshot.devices.is_empty() {
        page.line(&[(Paint::Dim, format::no_device(snapshot.state))]);
        return;
    }
    heading(page);
    for chip in &snapshot.devices {
        chip_pools(page, chip.chip, &chip.pools);
        circular::chip_line(page, chip.chip, &chip.circular, snapshot.time_ns);
    }
}

fn heading(page: &mut Page) {
    let heading = format!(
        "{:>4}  {:<13} {:>9} {:>9} {:>6} {:>9} {:>8} {:>10} {:>10}",
        "CHIP", "TYPE", "USED", "CAPACITY", "%", "PEAK", "BUFFERS", "ALLOCS", "FREES"
    );
    page.line(&[(Paint::Bold, &heading)]);
}

fn chip_pools(page: &mut Page, chip: ChipId, pools: &[PoolSnapshot]) {
    for pool in pools.iter().filter(|pool| format::has_row(pool)) {
        pool_line(page, chip, pool);
    }
}

fn pool_line(page: &mut Page, chip: ChipId, pool: &PoolSnapshot) {
    let start = format!(
        "{:>4}  {:<13} {:>9} {:>9} ",
        chip.0,
        pool.buffer_type.name(),
        format::bytes_or_unknown(pool.used_bytes),
        format::bytes_or_unknown(pool.capacity_bytes),
    );
    let end = format!(
        " {:>9} {:>8} {:>10} {:>10}",
        format::peak(pool),
        pool.buffers,
        pool.allocations,
        pool.frees + pool.pre_attach_frees,
    );
    let percent = format!("{:>6}", format::pool_percent(pool));
    let paint = Paint::of(Level::of_pool(pool));
    page.line(&[(Paint::Plain, &start), (paint, &percent), (Paint::Plain, &end)]);
}

/// What is free, of each bank: a row per allocator and type, not per chip.
fn spaces(page: &mut Page, spaces: &[SpaceSnapshot]) {
    let mut rows = spaces.iter().filter(|space| space.banks > 0).peekable();
    if rows.peek().is_none() {
        return;
    }
    page.line(&[]);
    let heading = format!(
        "{:>5} {:<13} {:>9} {:>9} {:>9} {:>7} {:>6}  CHIPS",
        "ALLOC", "TYPE", "BANK", "FREE", "LARGEST", "HOLES", "FRAG"
    );
    page.line(&[(Paint::Bold, &heading)]);
    for space in rows {
        let fragmentation =
            space.fragmentation_permille.and_then(|part| format::percent(part, 1000));
        let line = format!(
            "{:>5} {:<13} {:>9} {:>9} {:>9} {:>7} {:>6}  {}",
            space.id,
            space.buffer_type.name(),
            format::bytes(space.bank_size),
            format::bytes_or_unknown(space.free_bank_bytes),
            format::bytes_or_unknown(space.largest_free_bank_bytes),
            or_unknown(space.holes),
            fragmentation.unwrap_or_else(|| UNKNOWN.to_owned()),
            chip_ranges(&space.chips),
        );
        page.line(&[(Paint::Plain, &line)]);
        if let Some(reason) = &space.unknown_because {
            page.line(&[(Paint::Dim, &format!("{:>5} {}", "", format::one_line(reason)))]);
        }
    }
}

fn live_buffers(page: &mut Page, buffers: &[BufferSnapshot], now_ns: u64) {
    page.line(&[]);
    let heading = format!(
        "{:>8}  {:<13} {:>12} {:>9} {:>9} {:>10} {:>5} {:>8}  CHIPS",
        "BUFFER", "TYPE", "ADDRESS", "SIZE", "PER BANK", "AGE", "MESH", "TID"
    );
    // Where call stacks are recorded.
    let has_sites = buffers.iter().any(|buffer| buffer.call.is_some());
    let heading = if has_sites { format!("{heading:<93}  SITE") } else { heading };
    page.line(&[(Paint::Bold, &heading)]);
    for buffer in buffers {
        let line = format!(
            "{:>8}  {:<13} {:>12} {:>9} {:>9} {:>10} {:>5} {:>8}  {}",
            or_unknown(buffer.unique_id),
            buffer.buffer_type.name(),
            buffer.address.to_string(),
            format::bytes(buffer.size),
            format::bytes_or_unknown(buffer.bank_bytes),
            age(buffer, now_ns),
            or_unknown(buffer.mesh),
            or_unknown(buffer.tid),
            chip_ranges(&buffer.chips),
        );
        let line = match &buffer.call {
            Some(call) => {
                let site = call.site().map_or(UNKNOWN, |site| site);
                format!("{line:<93}  {}", format::one_line(site))
            }
            None => line,
        };
        page.line(&[(Paint::Plain, &line)]);
    }
    page.line(&[(Paint::Dim, &format!("{} live buffers", buffers.len()))]);
}

fn or_unknown<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), |value| value.to_string())
}

fn age(buffer: &BufferSnapshot, now_ns: u64) -> String {
    match buffer.allocated_ns {
        _ if buffer.pre_attach => "pre-attach".to_owned(),
        Some(then) => format::age(now_ns.saturating_sub(then)),
        None => UNKNOWN.to_owned(),
    }
}

/// `0-3,7` for chips 0, 1, 2, 3 and 7, in whatever order a mesh lists them.
pub fn chip_ranges(chips: &[ChipId]) -> String {
    let mut ranges: Vec<(i32, i32)> = Vec::new();
    let mut sorted = chips.to_vec();
    sorted.sort_unstable();
    for chip in sorted {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(chip.0) => *last = chip.0,
            _ => ranges.push((chip.0, chip.0)),
        }
    }
    let shown = ranges.iter().map(|(first, last)| match last - first {
        0 => first.to_string(),
        _ => format!("{first}-{last}"),
    });
    shown.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::fixture;

    #[test]
    fn golden_states() {
        assert_snapshot!("empty", render(&fixture::empty(), None, false));
        assert_snapshot!("normal", render(&fixture::normal(), None, false));
        assert_snapshot!("full", render(&fixture::full(), None, false));
        assert_snapshot!("lossy", render(&fixture::lossy(), None, false));
        assert_snapshot!("inexact", render(&fixture::inexact(), None, false));
        assert_snapshot!("unresolved", render(&fixture::unresolved(), None, false));
        assert_snapshot!("exited", render(&fixture::exited(), None, false));
        assert_snapshot!("circulars", render(&fixture::circulars(), None, false));
        assert_snapshot!("buffers", render(&fixture::with_buffers(), None, false));
        assert_snapshot!("buffers_with_sites", render(&fixture::with_calls(), None, false));
    }

    #[test]
    fn failed_allocations_are_a_line_each() {
        assert_snapshot!("failures", failures(&fixture::failed(), 0, None, false));
        assert_eq!(failures(&fixture::failed(), 7, None, false), "");
        let unseen = render(&fixture::blind_to_failures(), None, false);
        assert!(unseen.contains("\nfailures: not known: nothing throws\n"), "{unseen}");
        assert!(!render(&fixture::failed(), None, false).contains("failures:"));
    }

    #[test]
    fn colours_change_nothing_but_colours() {
        let colored = render(&fixture::inexact(), None, true);
        assert!(colored.contains("\u{1b}[1;31minexact\u{1b}[0m"));
        let mut plain = String::new();
        for piece in colored.split('\u{1b}') {
            let visible = piece.strip_prefix('[').and_then(|p| p.split_once('m'));
            plain.push_str(visible.map_or(piece, |(_, text)| text));
        }
        assert_eq!(plain, render(&fixture::inexact(), None, false));
    }

    #[test]
    fn lines_are_cut_to_the_width() {
        for width in 0..120 {
            let text = render(&fixture::with_buffers(), Some(width), false);
            let full = render(&fixture::with_buffers(), None, false);
            for (cut, line) in text.lines().zip(full.lines()) {
                assert!(cut.chars().count() <= width.max(1), "{width}: {cut}");
                assert!(cut == line || cut.ends_with('…'));
            }
        }
    }

    #[test]
    fn chips_in_a_row_are_joined() {
        let ranges =
            |ids: &[i32]| chip_ranges(&ids.iter().copied().map(ChipId).collect::<Vec<_>>());
        assert_eq!(ranges(&[]), "");
        assert_eq!(ranges(&[4]), "4");
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
        assert_eq!(ranges(&[0, 2, 1, 3]), "0-3");
    }
}
