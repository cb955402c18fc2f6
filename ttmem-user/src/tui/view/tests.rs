//! Golden screens, and sizes at which no screen fits.

use std::sync::Arc;

use crossterm::event::{
    Event, KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};
use insta::assert_snapshot;
use proptest::prelude::*;
use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::Buffer,
    style::{Color, Modifier},
};

use crate::units::{ChipId, DeviceAddr, Tid};
use crate::{
    event::BufferType,
    fixture::{self, SECOND},
    history::{
        History,
        recorder::Histories,
        sample::{allocated, freed},
    },
    ledger::{
        delta::Cause,
        report::Report,
        snapshot::{Detail, ProcessLabel, Snapshot},
    },
    tui::{
        Flow, OutputTail, Palette, Request, Theme, Ui,
        keymap::{BINDINGS, Trigger},
    },
};

fn ui() -> Ui {
    Ui::new(Theme::colored())
}

fn draw(ui: &mut Ui, snapshot: &Snapshot, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let report = Arc::new(Report::of_one(snapshot.clone()));
    terminal.draw(|frame| ui.draw(frame, &report)).unwrap();
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width).max(1);
    let rows = buffer.content.chunks(width).map(|row| {
        let row: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
        row.trim_end().to_owned()
    });
    rows.collect::<Vec<_>>().join("\n")
}

/// What the agent knows of itself comes with its reports.
#[test]
fn health_shows_the_agents_own_cost() {
    for (width, height) in [(80, 24), (160, 40)] {
        let (mut ui, snapshot) = (ui(), fixture::normal());
        press(&mut ui, KeyCode::Char('9'));
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        for second in 0..2 {
            let mut snapshot = snapshot.clone();
            snapshot.time_ns += second * SECOND;
            let health = Some(fixture::health(second));
            let report = Arc::new(Report { health, ..Report::of_one(snapshot) });
            terminal.draw(|frame| ui.draw(frame, &report)).unwrap();
        }
        let shown = text(terminal.backend().buffer());
        assert_snapshot!(format!("health_agent_{width}x{height}"), shown);
    }
}

fn screen(snapshot: &Snapshot, width: u16, height: u16) -> String {
    text(&draw(&mut ui(), snapshot, width, height))
}

fn press(ui: &mut Ui, code: KeyCode) -> Flow {
    ui.handle(&Event::Key(KeyEvent::new(code, KeyModifiers::NONE)))
}

/// The screen after `keys`, with rates: an earlier snapshot came half a second before.
fn after(keys: &str, snapshot: &Snapshot, width: u16, height: u16) -> String {
    let mut ui = ui();
    let mut earlier = snapshot.clone();
    earlier.time_ns -= SECOND / 2;
    for pool in earlier.devices.iter_mut().flat_map(|chip| &mut chip.pools) {
        pool.allocations -= pool.allocations / 3;
    }
    draw(&mut ui, &earlier, width, height);
    for key in keys.chars() {
        let code = if key == '\n' { KeyCode::Enter } else { KeyCode::Char(key) };
        assert_eq!(press(&mut ui, code), Flow::Continue);
    }
    text(&draw(&mut ui, snapshot, width, height))
}

/// The states in which every view is shown.
fn states() -> [(&'static str, Snapshot); 9] {
    [
        ("empty", fixture::empty()),
        ("normal", fixture::normal()),
        ("full", fixture::full()),
        ("lossy", fixture::lossy()),
        ("inexact", fixture::inexact()),
        ("unresolved", fixture::unresolved()),
        ("exited", fixture::exited()),
        ("galaxy", fixture::galaxy()),
        ("one_chip", fixture::one_chip()),
    ]
}

mod behaviour;
mod empty;
mod held;
mod shared;
mod sites;

#[test]
fn golden_screens() {
    for (name, snapshot) in states() {
        assert_snapshot!(format!("{name}_80x24"), after("", &snapshot, 80, 24));
        assert_snapshot!(format!("{name}_160x40"), after("", &snapshot, 160, 40));
    }
}

/// The views besides the overview: in each state, with what only they show added.
#[test]
fn golden_views() {
    for (key, view) in [("3", "map"), ("4", "circular"), ("7", "failures"), ("9", "health")] {
        for (name, snapshot) in states() {
            let snapshot = with_details(snapshot);
            for (width, height) in [(80, 24), (160, 40)] {
                let screen = after(key, &snapshot, width, height);
                assert_snapshot!(format!("{view}_{name}_{width}x{height}"), screen);
            }
        }
    }
}

/// What the target of the fixtures has done: 60 buffers of a few sizes on two threads, every third
/// freed again, the first ones older than the attach.
fn recorded() -> Histories {
    let mut history = History::default();
    let mut sequence = 0;
    let mut live = Vec::new();
    for number in 0..60_u64 {
        let time_ns = 60 * SECOND + number * SECOND / 2;
        sequence += 1;
        let mut delta = allocated(sequence, time_ns, 0x1000 + number, 4096 << (number % 7));
        delta.unique_id = Some(number);
        delta.address = DeviceAddr(0x10_0000 + number * 0x1_0000);
        delta.chips =
            if number % 4 == 0 { [ChipId(0), ChipId(1)].into() } else { [ChipId(0)].into() };
        delta.tid = Some(Tid(if number % 5 == 0 { 77 } else { 4250 }));
        delta.allocated_tid = delta.tid;
        delta.used_bytes = Some(delta.size.next_multiple_of(12 * 2048));
        delta.buffer_type = BufferType::Dram;
        if number % 4 == 3 {
            delta.buffer_type = BufferType::L1;
        }
        if number < 3 {
            (delta.cause, delta.pre_attach) = (Cause::Baseline, true);
            (delta.allocated_ns, delta.allocated_tid) = (None, None);
        }
        history.apply(&delta);
        if number == 2 {
            // The older ones have been read: from here on it is exact.
            history.observe(&Snapshot { time_ns, ..fixture::empty() });
        }
        live.push(delta);
        if number % 3 == 2 {
            sequence += 1;
            let gone = live.remove(live.len() / 2);
            history.apply(&freed(&gone, sequence, time_ns + SECOND / 4));
        }
    }
    let histories = Histories::default();
    histories.add(Arc::clone(&fixture::empty().process), history);
    histories
}

/// The screen of a view of what is recorded, after more keys.
fn recorded_screen(pressed: &str, snapshot: &Snapshot, width: u16, height: u16) -> String {
    let mut ui = ui().with_histories(recorded());
    draw(&mut ui, snapshot, width, height);
    for key in pressed.chars() {
        keys(&mut ui, &key.to_string());
        draw(&mut ui, snapshot, width, height);
    }
    text(&draw(&mut ui, snapshot, width, height))
}

#[test]
fn golden_recorded_views() {
    for (key, view) in [("2", "buffers"), ("5", "timeline"), ("6", "histograms"), ("8", "events")] {
        for (name, snapshot) in states() {
            for (width, height) in [(80, 24), (160, 40)] {
                let screen = recorded_screen(key, &snapshot, width, height);
                assert_snapshot!(format!("{view}_{name}_{width}x{height}"), screen);
            }
        }
        let screen = after(key, &fixture::normal(), 80, 24);
        assert_snapshot!(format!("{view}_unrecorded_80x24"), screen);
    }
}

#[test]
fn golden_recorded_interactions() {
    let normal = fixture::normal();
    for (name, pressed) in [
        ("buffers_by_age", "2sssss"),
        ("buffers_by_cores", "2ssssssssssssS"),
        ("buffers_new_since_a_mark", "2m"),
        ("buffers_filtered", "2/chip1 l1"),
        ("buffers_grouped", "2mb"),
        ("buffers_of_a_group", "2bbb\n"),
        ("timeline_back", "5HHHHHHHHHHHHHHHHHHHH"),
        ("overview_back", "5HHHHHHHHHHHHHHHHHHHH1"),
        ("buffers_back", "5HHHHHHHHHHHHHHHHHHHH2"),
        ("timeline_l1", "5]]m"),
        ("timeline_zoomed", "5HHHHHHHHHH++"),
        ("events_filtered", "8/free"),
    ] {
        assert_snapshot!(format!("{name}_80x24"), recorded_screen(pressed, &normal, 80, 24));
    }
    let back = recorded_screen("5gx", &normal, 80, 24);
    assert!(back.contains("Esc for now"), "{back}");
    let now = recorded_screen("5g2", &normal, 80, 24);
    assert_ne!(now, recorded_screen("2", &normal, 80, 24));
    let mut ui = ui().with_histories(recorded());
    draw(&mut ui, &normal, 80, 24);
    for key in ["5", "g", "2"] {
        keys(&mut ui, key);
        draw(&mut ui, &normal, 80, 24);
    }
    press(&mut ui, KeyCode::Esc);
    let screen = text(&draw(&mut ui, &normal, 80, 24));
    assert_eq!(screen, recorded_screen("2", &normal, 80, 24), "Esc leads back to now");
}

/// A snapshot with map, programs and failures, if it has chips.
fn with_details(snapshot: Snapshot) -> Snapshot {
    if snapshot.devices.is_empty() {
        return snapshot;
    }
    let mapped = fixture::mapped();
    let mut detailed = Snapshot {
        allocators: mapped.allocators,
        programs: mapped.programs,
        failures: fixture::failed().failures,
        ..snapshot
    };
    detailed.devices.truncate(32);
    detailed
}

#[test]
fn golden_keys() {
    let galaxy = fixture::galaxy();
    assert_snapshot!("help_80x24", after("?", &fixture::normal(), 80, 24));
    assert_snapshot!("help_160x40", after("?", &galaxy, 160, 40));
    assert_snapshot!("help_scrolled_40x8", after("?jj", &galaxy, 40, 8));
    assert_snapshot!("notes_80x24", after("i", &fixture::inexact(), 80, 24));
    assert_snapshot!("notes_160x40", after("i", &fixture::unresolved(), 160, 40));
    assert_snapshot!("galaxy_scrolled_80x24", after("vjjj", &galaxy, 80, 24));
    assert_snapshot!("galaxy_end_160x40", after("vG", &galaxy, 160, 40));
    assert_snapshot!(
        "holes_and_trends_80x24",
        after("c", &with_details(fixture::normal()), 80, 24)
    );
    assert_snapshot!("overview_filtered_80x24", after("/chip1 l1\n", &fixture::normal(), 80, 24));
    assert_snapshot!("typing_80x24", after(&format!("/{}", "a word ".repeat(20)), &galaxy, 80, 24));
}

/// A view of a command that has written `lines`.
fn with_output(lines: &[&str]) -> Ui {
    let command = "python3 train.py --epochs 12".to_owned();
    let mut ui = Ui::with_command(Theme::colored(), command);
    let lines = lines.iter().map(|line| Arc::from(*line)).collect();
    ui.take_output(Arc::new(OutputTail { lines }));
    ui
}

#[test]
fn golden_output() {
    let long = "a line that is longer than the pane is wide goes on below, ".repeat(2);
    let lines: Vec<String> = (1..=20).map(|epoch| format!("epoch {epoch}")).collect();
    let many = lines.iter().map(String::as_str).chain([&*long, "loss 0.25"]);
    let many: Vec<&str> = many.collect();
    for (name, snapshot) in [("normal", fixture::normal()), ("galaxy", fixture::galaxy())] {
        for (width, height) in [(80, 24), (160, 40)] {
            let buffer = draw(&mut with_output(&many), &snapshot, width, height);
            assert_snapshot!(format!("output_{name}_{width}x{height}"), text(&buffer));
        }
    }
    let few = draw(&mut with_output(&["one line"]), &fixture::normal(), 80, 24);
    assert_snapshot!("output_few_80x24", text(&few));
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    let mut ui = with_output(&many);
    terminal.draw(|frame| ui.draw(frame, &Arc::default())).unwrap();
    assert_snapshot!("output_no_target_80x24", text(terminal.backend().buffer()));
}

#[test]
fn golden_sizes() {
    assert_snapshot!("too_small_80x7", screen(&fixture::normal(), 80, 7));
    assert_eq!(
        screen(&fixture::normal(), 20, 5).trim_end(),
        "terminal too small\n(need 40×8)",
        "all of it"
    );
    assert_snapshot!("smallest_40x8", screen(&fixture::inexact(), 40, 8));
    assert_snapshot!("narrow_60x20", screen(&fixture::normal(), 60, 20));
    assert_snapshot!("exited_empty_80x24", {
        let gone = Snapshot { devices: Vec::new(), ..fixture::exited() };
        screen(&gone, 80, 24)
    });
    assert_snapshot!("empty_40x8", screen(&fixture::empty(), 40, 8));
    assert_snapshot!("galaxy_200x60", screen(&fixture::galaxy(), 200, 60));
}

#[test]
fn golden_interactions() {
    let detailed = with_details(fixture::normal());
    assert_snapshot!("map_cursor_fits_80x24", {
        let mut ui = ui();
        draw(&mut ui, &detailed, 80, 24);
        keys(&mut ui, "3");
        draw(&mut ui, &detailed, 80, 24);
        keys(&mut ui, "jjLf300K\n");
        text(&draw(&mut ui, &detailed, 80, 24))
    });
    assert_snapshot!("failure_open_80x24", {
        let mut ui = ui();
        draw(&mut ui, &detailed, 80, 24);
        keys(&mut ui, "7");
        draw(&mut ui, &detailed, 80, 24);
        keys(&mut ui, "G\n");
        text(&draw(&mut ui, &detailed, 80, 24))
    });
    assert_snapshot!("filtered_80x24", {
        let mut ui = ui();
        draw(&mut ui, &detailed, 80, 24);
        keys(&mut ui, "9/lost");
        text(&draw(&mut ui, &detailed, 80, 24))
    });
    for (width, height) in [(80, 24), (160, 40)] {
        let mut ui = ui();
        draw(&mut ui, &fixture::normal(), width, height);
        keys(&mut ui, "m");
        let mut later = fixture::normal();
        later.time_ns += SECOND;
        later.devices[0].pools[0].used_bytes = Some(6_000 << 20);
        later.devices[1].pools[1].used_bytes = Some(0);
        let screen = text(&draw(&mut ui, &later, width, height));
        assert_snapshot!(format!("marked_{width}x{height}"), screen);
    }
    // A line each: 32 chips, one of which has grown, and at a width at which there is no room.
    for (width, height) in [(80, 24), (160, 40), (53, 12)] {
        let mut ui = ui();
        draw(&mut ui, &fixture::galaxy(), width, height);
        keys(&mut ui, "m");
        let mut later = fixture::galaxy();
        later.devices[31].pools[0].used_bytes = Some(9_900 << 20);
        later.devices[30].pools[1].used_bytes = None;
        let screen = text(&draw(&mut ui, &later, width, height));
        assert_snapshot!(format!("marked_galaxy_{width}x{height}"), screen);
    }
}

/// Presses keys; a line end is Enter.
fn keys(ui: &mut Ui, keys: &str) {
    for key in keys.chars() {
        press(ui, if key == '\n' { KeyCode::Enter } else { KeyCode::Char(key) });
    }
}

#[test]
fn several_processes_are_listed_with_their_totals() {
    let other = |serial: u64, snapshot: Snapshot| {
        let command = format!("worker {serial}");
        let process = Arc::new(ProcessLabel { serial, command, ..ProcessLabel::default() });
        Arc::new(Snapshot { process, ..snapshot })
    };
    let unwatched = crate::ledger::report::Unwatched {
        pid: crate::units::Pid(77),
        command: "secret".to_owned(),
        reason: "another user's".to_owned(),
    };
    let report = Arc::new(Report {
        time_ns: 7,
        targets: vec![other(1, fixture::normal()), other(2, fixture::lossy())],
        unwatched: vec![unwatched],
        health: None,
    });
    let mut ui = ui();
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    terminal.draw(|frame| ui.draw(frame, &report)).unwrap();
    keys(&mut ui, "n");
    terminal.draw(|frame| ui.draw(frame, &report)).unwrap();
    assert_snapshot!("processes_80x24", text(terminal.backend().buffer()));
}

#[test]
fn in_ascii_every_character_is_ascii() {
    for key in "123456789?i".chars() {
        for (_, snapshot) in states() {
            let mut ui = Ui::new(Theme::new(Palette::Usual, true)).with_histories(recorded());
            let snapshot = with_details(snapshot);
            draw(&mut ui, &snapshot, 100, 30);
            press(&mut ui, KeyCode::Char(key));
            let screen = text(&draw(&mut ui, &snapshot, 100, 30));
            assert!(screen.is_ascii(), "{key}: {screen}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_is_pressed_at_any_size_panics(
        steps in proptest::collection::vec((0_usize..60, 0_usize..9, 0_u16..130, 0_u16..45), 1..40),
    ) {
        let mut ui = with_output(&["a line"]).with_histories(recorded());
        let states = states();
        for (step, state, width, height) in steps {
            let event = match BINDINGS.get(step).map(|binding| binding.triggers[0]) {
                Some(Trigger::Key(code)) => Event::Key(KeyEvent::new(code, KeyModifiers::NONE)),
                _ => Event::Mouse(MouseEvent {
                    kind: MouseEventKind::Down(MouseButton::Left),
                    column: width / 2,
                    row: height / 2,
                    modifiers: KeyModifiers::NONE,
                }),
            };
            ui.handle(&event);
            draw(&mut ui, &with_details(states[state].1.clone()), width, height);
        }
    }
}

#[test]
fn no_size_panics() {
    let states = [fixture::empty(), fixture::galaxy(), fixture::inexact(), fixture::full()];
    let tiny = (1..=30).flat_map(|width| (1..=12).map(move |height| (width, height)));
    let small = (38..=90).flat_map(|width| (7..=9).map(move |height| (width, height)));
    for (width, height) in tiny.chain(small).chain([(159, 60), (160, 8), (300, 100)]) {
        for (state, key) in states.iter().zip(['x', 'i', '?', 'i']) {
            let mut ui = with_output(&["日本", "a long line of output"]);
            press(&mut ui, KeyCode::Char(key));
            draw(&mut ui, state, width, height);
            press(&mut ui, KeyCode::End);
            draw(&mut ui, state, width, height);
        }
    }
}

#[test]
fn a_zero_sized_terminal_is_survived() {
    draw(&mut ui(), &fixture::normal(), 0, 0);
}

#[test]
fn exactness_is_visible_at_any_width() {
    let mut worst = fixture::inexact();
    worst.lost.ring_full = u64::MAX;
    worst.unresolved = fixture::unresolved().unresolved;
    worst.state = crate::ledger::snapshot::TargetState::Exited;
    for width in 40..=200 {
        assert!(screen(&worst, width, 24).contains("inexact: the buffers"), "{width}");
        assert!(screen(&worst, width, 24).contains("target exited"), "{width}");
        assert!(screen(&fixture::normal(), width, 24).contains("\n exact  lost 0"), "{width}");
    }
}

#[test]
fn colours_say_how_full_and_how_sure() {
    let cell = |snapshot: &Snapshot, x, y| {
        let buffer = draw(&mut ui(), snapshot, 80, 24);
        let cell = &buffer[(x, y)];
        (cell.fg, cell.modifier.contains(Modifier::BOLD))
    };
    assert_eq!(cell(&fixture::normal(), 1, 1), (Color::Green, false));
    assert_eq!(cell(&fixture::inexact(), 1, 1), (Color::Red, true));
    assert_eq!(cell(&fixture::normal(), 10, 5), (Color::Green, false));
    assert_eq!(cell(&fixture::full(), 10, 5), (Color::Red, true));
    assert_eq!(cell(&fixture::full(), 10, 7), (Color::Indexed(208), false));
}

#[test]
fn what_is_critical_shows_without_colours() {
    let command = "a\u{1b}[2Jb".to_owned();
    let process = Arc::new(ProcessLabel { command, ..ProcessLabel::default() });
    let mut ui = Ui::new(Theme::plain());
    let buffer = draw(&mut ui, &Snapshot { process, ..fixture::full() }, 80, 24);
    assert!(text(&buffer).contains("99.9%!") && text(&buffer).contains("100.0%!"));
    let plain = |cell: &ratatui::buffer::Cell| cell.fg == Color::Reset && cell.bg == Color::Reset;
    assert!(buffer.content.iter().all(plain));
    assert!(!text(&buffer).contains('\u{1b}'));
}
