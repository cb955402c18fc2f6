//! What keys do, and that nothing leaves its bounds.

use std::sync::Arc;

use super::*;
use crate::tui::{Action, keymap::BINDINGS};
use crate::{
    fixture,
    history::{History, sample::allocated},
    ledger::snapshot::ProcessLabel,
};

const USUAL: Size = Size { width: 80, height: 24 };

fn observe(state: &mut State, size: Size, snapshot: &Snapshot) {
    state.observe(size, &Arc::new(Report::of_one(snapshot.clone())));
}

fn state(snapshot: &Snapshot) -> State {
    let mut state = State::default();
    observe(&mut state, USUAL, snapshot);
    state
}

#[test]
fn scrolling_stops_at_both_ends() {
    let mut state = state(&fixture::galaxy());
    state.update(Action::Layout);
    observe(&mut state, USUAL, &fixture::galaxy());
    let after = |state: &mut State, action| {
        state.update(action);
        state.overview.offset
    };
    assert_eq!(after(&mut state, Action::Up), 0);
    assert_eq!(after(&mut state, Action::Down), 1);
    assert_eq!(after(&mut state, Action::PageDown), 4);
    assert_eq!(after(&mut state, Action::Bottom), 29);
    assert_eq!(after(&mut state, Action::Down), 29);
    assert_eq!(after(&mut state, Action::PageDown), 29);
    assert_eq!(after(&mut state, Action::PageUp), 26);
    assert_eq!(after(&mut state, Action::Top), 0);
}

#[test]
fn the_offset_follows_a_shrinking_world() {
    let mut state = state(&fixture::galaxy());
    state.update(Action::Layout);
    state.update(Action::Bottom);
    observe(&mut state, Size { width: 200, height: 60 }, &fixture::galaxy());
    assert_eq!(state.overview.offset, 7);
    observe(&mut state, USUAL, &fixture::normal());
    assert_eq!(state.overview.offset, 0);
    observe(&mut state, Size::ZERO, &fixture::empty());
    state.update(Action::Bottom);
    assert_eq!(state.overview.offset, 0);
}

#[test]
fn tab_goes_round_and_a_target_that_goes_gives_way() {
    let target = |serial| {
        let mut snapshot = fixture::normal();
        snapshot.process = Arc::new(ProcessLabel { serial, ..ProcessLabel::default() });
        Arc::new(snapshot)
    };
    let report = |serials: &[u64]| Report {
        targets: serials.iter().map(|serial| target(*serial)).collect(),
        ..Report::default()
    };
    let mut state = State::default();
    let shown = |state: &mut State, serials: &[u64]| {
        state.observe(USUAL, &Arc::new(report(serials)));
        state.shown.as_ref().map(|shown| shown.process.serial)
    };
    assert_eq!(shown(&mut state, &[]), None);
    state.update(Action::NextTarget);
    assert_eq!(shown(&mut state, &[3, 5, 9]), Some(3));
    for (action, expected) in [
        (Action::NextTarget, 5),
        (Action::NextTarget, 9),
        (Action::NextTarget, 3),
        (Action::PreviousTarget, 9),
    ] {
        state.update(action);
        assert_eq!(shown(&mut state, &[3, 5, 9]), Some(expected));
    }
    assert_eq!(state.place(), (3, 3));
    assert_eq!(shown(&mut state, &[3, 5]), Some(3), "the one that was shown is gone");
}

#[test]
fn one_overlay_at_a_time() {
    let mut state = state(&fixture::normal());
    let steps = [
        (Action::ToggleHelp, Overlay::Help),
        (Action::ToggleHelp, Overlay::None),
        (Action::ToggleNotes, Overlay::Notes),
        (Action::ToggleHelp, Overlay::Help),
        (Action::Close, Overlay::None),
        (Action::Close, Overlay::None),
    ];
    for (action, overlay) in steps {
        state.update(action);
        assert_eq!(state.overlay, overlay, "after {action:?}");
    }
    assert!(!state.quit);
    state.update(Action::Quit);
    assert!(state.quit);
}

#[test]
fn an_open_overlay_takes_the_scrolling() {
    let small = Size { width: 40, height: 8 };
    let mut state = state(&fixture::galaxy());
    state.update(Action::Layout);
    state.update(Action::Down);
    state.update(Action::ToggleHelp);
    observe(&mut state, small, &fixture::galaxy());
    state.update(Action::Bottom);
    assert_eq!((state.overview.offset, state.overlay_offset), (1, BINDINGS.len() - 6));
    state.update(Action::ToggleHelp);
    state.update(Action::ToggleHelp);
    assert_eq!(state.overlay_offset, 0);
}

/// To go far back takes several frames. Each is on its way; the last is what was at that instant, and
/// from there the next one is near.
#[test]
fn going_far_back_takes_several_frames() {
    let snapshot = Snapshot { time_ns: 100_000, ..fixture::normal() };
    let mut history = History::default();
    for number in 1..=30_000 {
        history.apply(&allocated(number, number, number, 100));
    }
    let histories = Histories::default();
    histories.add(Arc::clone(&snapshot.process), history);
    let mut state = State { tab: Tab::Overview, histories: Some(histories), ..State::default() };
    let arrive = |state: &mut State, time_ns: u64| {
        state.timeline.instant = Some(time_ns);
        let mut frames = 0_u64;
        loop {
            observe(state, USUAL, &snapshot);
            frames += 1;
            let then = state.shown_then().expect("it is looked back");
            let (left, shown) = (then.left(), &then.snapshot);
            let says = shown.inexact_because.iter().any(|why| why.contains("changes to go"));
            assert_eq!((state.is_unfinished(), says), (left > 0, left > 0));
            let there = then.past().unwrap().live.len() as u64;
            assert_eq!(there.abs_diff(time_ns), left);
            assert!(!(shown.exact && left > 0));
            if left == 0 {
                return (frames, then.copy);
            }
        }
    };
    let step = past::AT_ONCE;
    assert_eq!(arrive(&mut state, 30_000 - 5 * step), (5, 1));
    assert_eq!(arrive(&mut state, 30_000 - 5 * step - 1), (1, 1));
    assert_eq!(arrive(&mut state, 30_000 - 4 * step), (2, 1));
    // It is less to begin anew.
    assert_eq!(arrive(&mut state, 29_000).0, 1);
    assert_eq!(arrive(&mut state, 1).0, 29_000_u64.div_ceil(step));
    // What is exported is of the instant that it names.
    state.timeline.instant = Some(20_000);
    state.tab = Tab::Buffers;
    observe(&mut state, USUAL, &snapshot);
    assert!(state.is_unfinished());
    state.requests.clear();
    state.update(Action::ExportCsv);
    let [Request::Export(file)] = &state.requests[..] else { panic!("one file") };
    assert_eq!(file.text.lines().count(), 20_001);
}
