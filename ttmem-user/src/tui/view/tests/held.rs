//! What is held, of each view.

use super::*;

/// Whichever view is open when all are held, and whatever comes then: each shows what it would have
/// shown at that instant. What only some reports have is asked for.
#[test]
fn each_view_shows_what_it_would_have_shown() {
    let plain = fixture::normal();
    let whole = with_details(Snapshot { last_delta: 3, ..plain.clone() });
    for key in "123456789".chars() {
        let recorded_then = || {
            let histories = recorded();
            let serial = plain.process.serial;
            (histories.get(serial).expect("it is recorded"), histories)
        };
        let (_, histories) = recorded_then();
        let mut expected = ui().with_histories(histories);
        for key in ["1".to_owned(), key.to_string()] {
            keys(&mut expected, &key);
            draw(&mut expected, &whole, 160, 40);
        }
        let (handle, histories) = recorded_then();
        let mut ui = ui().with_histories(histories);
        draw(&mut ui, &plain, 160, 40);
        ui.take_requests();
        keys(&mut ui, "z");
        assert!(!text(&draw(&mut ui, &plain, 160, 40)).contains("frozen"));
        let all = Detail { map: true, programs: true, ..Detail::default() };
        assert_eq!(ui.take_requests(), [Request::Detail(all)]);
        assert!(text(&draw(&mut ui, &whole, 160, 40)).contains("frozen"));
        assert_eq!(ui.take_requests(), [Request::Detail(Detail::default())]);
        // All that was recorded goes.
        let last = handle.lock().sequence();
        handle.lock().set_log_limit(0);
        for (number, buffer) in (last + 1..).zip(0x9000..0x9100) {
            handle.lock().apply(&allocated(number, 120 * SECOND, buffer, 1 << 30));
        }
        let later = Snapshot { time_ns: 121 * SECOND, ..fixture::lossy() };
        draw(&mut ui, &later, 160, 40);
        keys(&mut ui, &key.to_string());
        let body = |ui: &mut Ui, snapshot: &Snapshot| {
            let screen = text(&draw(ui, snapshot, 160, 40));
            // A copy takes less room than what grows.
            let rows = screen.lines().skip(1).filter(|row| !row.contains(" live set, "));
            rows.map(str::to_owned).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(body(&mut ui, &later), body(&mut expected, &whole), "view {key}");
        keys(&mut ui, "z");
        assert_ne!(body(&mut ui, &later), body(&mut expected, &whole), "view {key}");
    }
}

/// What is held leads back as far as it did then.
#[test]
fn what_is_held_leads_back_in_time() {
    let whole = with_details(fixture::normal());
    let back = |hold: bool| {
        let histories = recorded();
        let mut ui = ui().with_histories(histories.clone());
        draw(&mut ui, &whole, 80, 24);
        if hold {
            keys(&mut ui, "z");
            draw(&mut ui, &whole, 80, 24);
            let handle = histories.get(whole.process.serial).expect("it is recorded");
            handle.lock().set_log_limit(0);
            handle.lock().fell_behind();
        }
        for key in ["5", "H", "H", "2"] {
            keys(&mut ui, key);
            draw(&mut ui, &whole, 80, 24);
        }
        text(&draw(&mut ui, &whole, 80, 24)).replace(" frozen: z goes on ", "")
    };
    let rows = |screen: &str| screen.lines().skip(2).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(rows(&back(true)), rows(&back(false)));
    assert!(back(false).contains("Esc for now"));
}

/// What is marked while it is held is what is held: what came meanwhile has grown since.
#[test]
fn what_is_held_can_be_marked() {
    let whole = with_details(fixture::normal());
    let histories = recorded();
    let mut ui = ui().with_histories(histories.clone());
    draw(&mut ui, &whole, 80, 24);
    keys(&mut ui, "2z");
    draw(&mut ui, &whole, 80, 24);
    let handle = histories.get(whole.process.serial).expect("it is recorded");
    let last = handle.lock().sequence();
    for number in 1..=3 {
        handle.lock().apply(&allocated(last + number, 120 * SECOND, 0x9000 + number, 1 << 20));
    }
    // Not even if all that came meanwhile cannot be undone any more.
    handle.lock().set_log_limit(1);
    keys(&mut ui, "mz");
    let later = Snapshot { time_ns: 121 * SECOND, ..whole };
    let screen = text(&draw(&mut ui, &later, 80, 24));
    assert!(screen.contains("since the mark +3, +3.0 MiB"), "{screen}");
}

/// Changes that the report has are waited for: what is held is of one instant.
#[test]
fn what_is_recorded_has_all_that_the_report_has() {
    let histories = recorded();
    let handle = histories.get(fixture::normal().process.serial).expect("it is recorded");
    let last = handle.lock().sequence();
    let whole = with_details(Snapshot { last_delta: last + 1, ..fixture::normal() });
    let mut ui = ui().with_histories(histories);
    let report = Arc::new(Report::of_one(whole));
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    let mut draw = |ui: &mut Ui| {
        terminal.draw(|frame| ui.draw(frame, &report)).unwrap();
        text(terminal.backend().buffer())
    };
    keys(&mut ui, "2z");
    assert!(!draw(&mut ui).contains("frozen") && ui.is_unfinished());
    let mut last_one = allocated(last + 1, 90 * SECOND, 0x9000, 7 << 30);
    last_one.chips = [ChipId(0)].into();
    handle.lock().apply(&last_one);
    let held = draw(&mut ui);
    assert!(held.contains("frozen") && held.contains("7.0 GiB"), "{held}");
    assert!(!ui.is_unfinished());
}

/// Nobody has more of somebody else's numbers; and what was wanted can be called off.
#[test]
fn what_does_not_come_is_not_waited_for() {
    let mut watching = ui();
    keys(&mut watching, "z");
    assert!(text(&draw(&mut watching, &fixture::normal(), 80, 24)).contains("frozen"));
    let mut ui = ui().with_histories(recorded());
    draw(&mut ui, &fixture::normal(), 80, 24);
    keys(&mut ui, "z");
    let is_held = |ui: &mut Ui| text(&draw(ui, &fixture::normal(), 80, 24)).contains("frozen");
    assert_eq!([is_held(&mut ui), is_held(&mut ui)], [false, true]);
    keys(&mut ui, "zz");
    assert!(!is_held(&mut ui));
    keys(&mut ui, "z");
    assert_eq!([is_held(&mut ui), is_held(&mut ui)], [false, false]);
}

/// Of an instant that cannot be reached no row is shown, of groups neither; and how long ago it was
/// stands in one place, which goes on with time.
#[test]
fn an_instant_out_of_reach_shows_no_rows_of_another() {
    for pressed in ["2", "2b", "2bb"] {
        let histories = recorded();
        let now = fixture::normal();
        let handle = histories.get(now.process.serial).expect("it is recorded");
        handle.lock().set_log_limit(1);
        let mut ui = ui().with_histories(histories);
        draw(&mut ui, &now, 80, 24);
        for key in pressed.chars() {
            keys(&mut ui, &key.to_string());
            draw(&mut ui, &now, 80, 24);
        }
        assert!(text(&draw(&mut ui, &now, 80, 24)).contains('▶'), "rows of now");
        for key in ["5", &"H".repeat(20), "2"] {
            keys(&mut ui, key);
            draw(&mut ui, &now, 80, 24);
        }
        let later = Snapshot { time_ns: now.time_ns + 100 * SECOND, ..now.clone() };
        for snapshot in [&now, &later] {
            let screen = text(&draw(&mut ui, snapshot, 80, 24));
            assert!(!screen.contains('▶'), "{screen}");
            assert!(screen.contains("\n  only the latest 1 changes can be undone"), "{screen}");
            assert_eq!(screen.matches(" ago").count(), 1, "{screen}");
        }
    }
}
