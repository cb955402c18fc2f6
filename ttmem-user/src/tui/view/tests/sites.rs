//! Buffers with what called for them.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::{
    fixture::calls::Known,
    ledger::call::{Call, CallStack, Calls, Lookup, StackCounts, Unknown},
};

/// Stacks that come later than the buffers.
#[derive(Debug)]
struct Late {
    known: Known,
    have_come: AtomicBool,
}

impl Calls for Late {
    fn look(&self, serial: u64, look: &mut dyn FnMut(&dyn Lookup)) {
        if self.have_come.load(Ordering::Relaxed) {
            self.known.look(serial, look);
        } else {
            look(&Nothing);
        }
    }

    fn catch_up(&self) {}

    fn counts(&self, _: u64) -> Option<StackCounts> {
        None
    }
}

struct Nothing;

impl Lookup for Nothing {
    fn stack(&self, _: u64, _: Tid) -> Option<&Arc<CallStack>> {
        None
    }

    fn call(&self, _: Option<Tid>, _: Option<u64>, _: bool) -> Call {
        Call::Unknown(Unknown::NotArrived)
    }

    fn sites(&self) -> &[Arc<str>] {
        &[]
    }
}

fn with_sites() -> Ui {
    ui().with_histories(recorded()).with_calls(Arc::new(Known::new()))
}

/// The screen after keys; Enter as `\n`.
fn pressed(ui: &mut Ui, pressed: &str, width: u16, height: u16) -> String {
    let normal = fixture::normal();
    draw(ui, &normal, width, height);
    for key in pressed.chars() {
        keys(ui, &key.to_string());
        draw(ui, &normal, width, height);
    }
    text(&draw(ui, &normal, width, height))
}

#[test]
fn golden_sites() {
    for (name, typed) in [
        ("buffers_with_sites", "2"),
        ("buffers_sorted_by_site", "2sssssssssssss"),
        ("buffers_filtered_by_site", "2/ttnn::zeros\n"),
        ("buffers_grouped_by_site", "2bbbbb"),
        ("call_stack", "2j\n"),
        ("call_stack_unknown", "2G\n"),
    ] {
        let screen = pressed(&mut with_sites(), typed, 80, 24);
        assert_snapshot!(format!("{name}_80x24"), screen);
    }
    assert_snapshot!("buffers_with_sites_160x40", pressed(&mut with_sites(), "2", 160, 40));
}

#[test]
fn golden_failures_with_sites() {
    let failed = fixture::failed_with_calls();
    for (name, typed) in [
        ("failures_with_sites", "7"),
        ("failure_open_with_sites", "7G\n"),
        ("failure_call_stack", "7Gw"),
        ("failure_buffer_call_stack", "7G\nG\n"),
    ] {
        let mut ui = with_sites();
        for key in typed.chars() {
            draw(&mut ui, &failed, 120, 24);
            keys(&mut ui, &key.to_string());
        }
        let screen = text(&draw(&mut ui, &failed, 120, 24));
        assert_snapshot!(format!("{name}_120x24"), screen);
    }
}

#[test]
fn who_asks_for_a_call_stack_that_is_not_recorded_is_told() {
    let mut ui = ui();
    for key in ["7", "w"] {
        draw(&mut ui, &fixture::failed(), 80, 24);
        keys(&mut ui, key);
    }
    let screen = text(&draw(&mut ui, &fixture::failed(), 80, 24));
    assert!(screen.contains("call stacks are not recorded: start ttmem with --stacks"), "{screen}");
}

#[test]
fn a_group_of_a_site_has_its_buffers_alone() {
    let screen = pressed(&mut with_sites(), "2bbbbbj\n", 80, 40);
    assert!(screen.contains("  12 buffers of one group"), "{screen}");
    assert_eq!(screen.matches("ttnn::zeros").count(), 12, "{screen}");
}

#[test]
fn the_call_stack_closes_again() {
    let mut ui = with_sites();
    let before = pressed(&mut ui, "2", 80, 24);
    let open = pressed(&mut ui, "\n", 80, 24);
    assert!(open.contains("Call stack") || open.contains(Unknown::Lost.name()), "{open}");
    press(&mut ui, KeyCode::Esc);
    assert_eq!(pressed(&mut ui, "", 80, 24), before);
}

#[test]
fn sites_are_exported() {
    let mut ui = with_sites();
    pressed(&mut ui, "2", 80, 24);
    ui.take_requests();
    keys(&mut ui, "e");
    let [Request::Export(file)] = &ui.take_requests()[..] else { panic!("one file") };
    let json: serde_json::Value = serde_json::from_str(&file.text).unwrap();
    let rows = json["rows"].as_array().unwrap();
    let count = |site: serde_json::Value| rows.iter().filter(|row| row["site"] == site).count();
    let (zeros, add) = (count("ttnn::zeros".into()), count("ttnn::add".into()));
    assert!(zeros > 0 && add > 0, "{json}");
    assert_eq!(zeros + add + count(serde_json::Value::Null), rows.len());
}

#[test]
fn the_health_view_tells_of_the_stacks() {
    let screen = pressed(&mut with_sites(), "9", 160, 60);
    for line in
        ["seen", "57, of all 2 different", "lost, ring buffer full", "cut, copied bytes end"]
    {
        assert!(screen.contains(line), "{line}: {screen}");
    }
    let without = pressed(&mut ui().with_histories(recorded()), "9", 160, 60);
    assert!(!without.contains("stacks"), "{without}");
}

#[test]
fn a_filter_finds_what_comes_later() {
    let late = Arc::new(Late { known: Known::new(), have_come: AtomicBool::new(false) });
    let calls = Arc::clone(&late);
    let mut ui = ui().with_histories(recorded()).with_calls(calls);
    // The newest buffers are less than two seconds old.
    let now = 90 * SECOND + SECOND / 2;
    let at = |time_ns| Snapshot { time_ns, ..fixture::normal() };
    let screen = |ui: &mut Ui, time_ns| text(&draw(ui, &at(time_ns), 80, 24));
    screen(&mut ui, now);
    keys(&mut ui, "2/ttnn::\n");
    assert!(screen(&mut ui, now).contains("  0 buffers, "));
    late.have_come.store(true, Ordering::Relaxed);
    let found = screen(&mut ui, now + 1);
    assert!(!found.contains("  0 buffers, ") && found.contains("ttnn::add"), "{found}");
}
