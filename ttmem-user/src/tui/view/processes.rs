//! The processes of the overview, with their totals.

use ratatui::{Frame, layout::Rect, style::Style, text::Line};

use super::{Scene, ellipsize};
use crate::{
    event::BufferType,
    format::{self, UNKNOWN, one_line},
    ledger::snapshot::{Snapshot, TargetState},
};

/// Draws the list; the shown one is marked.
pub fn view(frame: &mut Frame, area: Rect, scene: &Scene) {
    if area.height == 0 {
        return;
    }
    let heading = format!(
        "  {:>8} {:>9} {:>9} {:>7} {:<8} process  (n: next)",
        "pid", "DRAM", "L1", "buffers", "state"
    );
    let mut place = Rect { height: 1, ..area };
    frame.render_widget(Line::styled(heading, scene.theme.dim()), place);
    let width = usize::from(area.width);
    let shown = scene.snapshot.process.serial;
    let targets = scene.report.targets.iter().map(|target| {
        let mark = if target.process.serial == shown { "▶" } else { " " };
        let style = if target.exact { Style::new() } else { scene.theme.bad() };
        (format!("{mark} {}", target_line(target)), style)
    });
    let others = scene.report.unwatched.iter().map(|process| {
        let text = format!("  {:>8} not watched: {}", process.pid, one_line(&process.reason));
        (text, scene.theme.warn())
    });
    for (text, style) in targets.chain(others) {
        place.y += 1;
        if place.y >= area.bottom() {
            break;
        }
        frame.render_widget(Line::styled(ellipsize(&text, width), style), place);
    }
}

fn target_line(target: &Snapshot) -> String {
    let state = match target.state {
        TargetState::Running if target.exact => "exact",
        TargetState::Running => "inexact",
        TargetState::Exited => "exited",
        TargetState::Replaced => "replaced",
    };
    let buffers: u64 = pools(target).map(|pool| pool.buffers).sum();
    format!(
        "{:>8} {:>9} {:>9} {:>7} {state:<8} {}",
        target.pid,
        used(target, BufferType::Dram),
        used(target, BufferType::L1),
        format::count(buffers),
        one_line(&target.process.command),
    )
}

fn pools(target: &Snapshot) -> impl Iterator<Item = &crate::ledger::snapshot::PoolSnapshot> {
    target.devices.iter().flat_map(|chip| &chip.pools)
}

/// The sum over all chips; unknown if one is.
fn used(target: &Snapshot, kind: BufferType) -> String {
    let of_kind = pools(target).filter(|pool| pool.buffer_type == kind);
    let sum: Option<u64> = of_kind.map(|pool| pool.used_bytes).sum();
    sum.map_or_else(|| UNKNOWN.to_owned(), format::bytes)
}
