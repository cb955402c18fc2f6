//! The header: who is watched, and whether the numbers can be believed.
//!
//! Invariant: exactness begins the second line, the state of the target ends the first; long
//! commands and reasons give way to them at any width.

use std::fmt::Write as _;

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    text::{Line, Span},
};

use super::{Scene, ellipsize, ends};
use crate::{
    format::{self, one_line},
    ledger::snapshot::TargetState,
};

/// Least room for a command or reason; further facts are cut off before it gets less.
const LEAST: usize = 12;

/// Draws the two lines of the header.
pub fn view(frame: &mut Frame, area: Rect, scene: &Scene) {
    let [first, second] = Layout::vertical([Constraint::Length(1); 2]).areas(area);
    let state = if let Some(instant) = scene.state.past_instant() {
        let ago = format::age(scene.now_ns.saturating_sub(instant));
        Span::styled(format!(" {ago} ago: Esc for now "), scene.theme.reversed())
    } else if scene.state.is_held() {
        Span::styled(" frozen: z goes on ", scene.theme.reversed())
    } else {
        state(scene)
    };
    let room = usize::from(first.width).saturating_sub(state.width());
    ends(frame, first, target(scene, room), Line::from(state));
    frame.render_widget(trust(scene, second.width.into()), second);
}

fn state(scene: &Scene) -> Span<'static> {
    match scene.snapshot.state {
        TargetState::Running => Span::styled(" running ", scene.theme.good()),
        TargetState::Exited => Span::styled(" target exited ", scene.theme.reversed()),
        TargetState::Replaced => Span::styled(" replaced by exec ", scene.theme.reversed()),
    }
}

fn target(scene: &Scene, room: usize) -> Line<'static> {
    let name = " ttmem  ";
    let pid = pid(scene);
    let taken = name.len() + pid.len();
    let command = one_line(&scene.snapshot.process.command);
    let command = ellipsize(&command, room.saturating_sub(taken));
    Line::from(vec![
        Span::styled(name, scene.theme.key()),
        Span::styled(command, scene.theme.strong()),
        Span::raw(pid),
    ])
}

/// The process id, the one that it has in its container, and its place among several.
fn pid(scene: &Scene) -> String {
    let mut text = format!("  pid {}", scene.snapshot.pid);
    if let Some(inside) = scene.snapshot.process.namespace_pid {
        let _ = write!(text, " (inside {inside})");
    }
    if let (place, all @ 2..) = scene.state.place() {
        let _ = write!(text, "  {place} of {all}");
    }
    text
}

/// Exactness, then what was lost, odd or not found.
fn trust(scene: &Scene, width: usize) -> Line<'static> {
    let snapshot = scene.snapshot;
    let facts = facts(scene);
    if snapshot.exact {
        let mut spans = vec![Span::raw(" "), Span::styled("exact", scene.theme.good())];
        spans.extend(facts);
        return Line::from(spans);
    }
    let mut reasons = snapshot.inexact_because.iter();
    let reason = reasons.next().map_or_else(|| "no reason given".to_owned(), |why| one_line(why));
    let more = match reasons.len() {
        0 => String::new(),
        more => format!(" (+{more} more)"),
    };
    let label = " inexact: ";
    let rest: usize = facts.iter().map(Span::width).sum();
    let room = width.saturating_sub(label.len() + more.len() + rest).max(LEAST);
    let text = format!("{label}{}{more}", ellipsize(&reason, room));
    let mut spans = vec![Span::styled(text, scene.theme.bad())];
    spans.extend(facts);
    Line::from(spans)
}

fn facts(scene: &Scene) -> Vec<Span<'static>> {
    let (snapshot, theme) = (scene.snapshot, scene.theme);
    let lost = snapshot.lost.total();
    let odd = snapshot.anomaly_count();
    let missing = snapshot.unresolved.len();
    let mut facts = vec![Span::styled(
        format!("  lost {lost}"),
        if lost > 0 { theme.bad() } else { theme.dim() },
    )];
    if odd > 0 {
        facts.push(Span::styled(format!("  anomalies {odd}"), theme.warn()));
    }
    if missing > 0 {
        facts.push(Span::styled(format!("  unresolved {missing}"), theme.warn()));
    }
    facts
}
