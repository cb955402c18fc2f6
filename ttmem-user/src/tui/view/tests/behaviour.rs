//! What keys and clicks do, seen on the screen and in what is asked for.

use super::*;
use crate::fixture::calls::Known;

#[test]
fn frozen_buffers_can_be_scrolled_and_stay() {
    let histories = recorded();
    let mut ui = ui().with_histories(histories.clone());
    let normal = fixture::normal();
    for key in ["2", "z", "G"] {
        draw(&mut ui, &normal, 80, 24);
        keys(&mut ui, key);
    }
    let before = text(&draw(&mut ui, &normal, 80, 24));
    let handle = histories.get(normal.process.serial).expect("it is recorded");
    let last = handle.lock().sequence();
    handle.lock().apply(&allocated(last + 1, 120 * SECOND, 7, 1 << 30));
    let later = Snapshot { time_ns: 121 * SECOND, ..normal };
    assert_eq!(text(&draw(&mut ui, &later, 80, 24)), before);
    keys(&mut ui, "zg");
    assert!(text(&draw(&mut ui, &later, 80, 24)).contains("1.0 GiB"));
}

#[test]
fn all_buffers_that_pass_are_exported() {
    let mut ui = ui().with_histories(recorded());
    let normal = fixture::normal();
    draw(&mut ui, &normal, 80, 24);
    keys(&mut ui, "2/l1\n");
    draw(&mut ui, &normal, 80, 24);
    ui.take_requests();
    keys(&mut ui, "e");
    let [Request::Export(file)] = &ui.take_requests()[..] else { panic!("one file") };
    let json: serde_json::Value = serde_json::from_str(&file.text).unwrap();
    let rows = json["rows"].as_array().unwrap();
    let screen = text(&draw(&mut ui, &normal, 80, 24));
    assert!(screen.contains(&format!("  {} buffers, ", rows.len())), "{screen}");
    assert!(!rows.is_empty() && rows.iter().all(|row| row["type"] == "L1"), "{json}");
}

#[test]
fn the_output_can_be_hidden_and_needs_room() {
    let mut ui = with_output(&["one line"]);
    let shown = |ui: &mut Ui, height| {
        let screen = text(&draw(ui, &fixture::normal(), 80, height));
        screen.contains("one line") || screen.contains("train.py ")
    };
    assert!(shown(&mut ui, 24) && shown(&mut ui, 16) && !shown(&mut ui, 15));
    assert_eq!(ui.output_size(), None);
    press(&mut ui, KeyCode::Char('o'));
    assert!(!shown(&mut ui, 24));
    assert_eq!(ui.output_size().map(|size| (size.width, size.height)), Some((80, 7)));
    assert_eq!(
        text(&draw(&mut ui, &fixture::normal(), 80, 24)),
        screen(&fixture::normal(), 80, 24)
    );
    press(&mut ui, KeyCode::Char('o'));
    assert!(shown(&mut ui, 24));
}

#[test]
fn an_interrupt_is_for_the_command_if_there_is_one() {
    let interrupt = Event::Key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
    assert_eq!(ui().handle(&interrupt), Flow::Quit);
    let mut ui = with_output(&[]);
    assert_eq!(ui.handle(&interrupt), Flow::Continue);
    assert_eq!(ui.take_requests(), [Request::Interrupt]);
    assert_eq!(press(&mut ui, KeyCode::Char('o')), Flow::Continue);
    assert_eq!(press(&mut ui, KeyCode::Char('q')), Flow::Quit);
}

#[test]
fn the_shell_is_asked_for_also_while_something_is_typed() {
    let stop = Event::Key(KeyEvent::new(KeyCode::Char('z'), KeyModifiers::CONTROL));
    let mut ui = with_output(&[]);
    assert_eq!(ui.handle(&stop), Flow::Suspend);
    press(&mut ui, KeyCode::Char('/'));
    assert_eq!(ui.handle(&stop), Flow::Suspend);
}

#[test]
fn a_frozen_screen_stays_until_it_goes_on() {
    let mut ui = ui();
    let before = fixture::normal();
    draw(&mut ui, &before, 80, 24);
    keys(&mut ui, "z");
    let frozen = text(&draw(&mut ui, &before, 80, 24));
    assert!(frozen.contains("frozen"));
    let mut later = fixture::lossy();
    later.time_ns += SECOND;
    assert_eq!(text(&draw(&mut ui, &later, 80, 24)), frozen);
    keys(&mut ui, "z");
    assert!(text(&draw(&mut ui, &later, 80, 24)).contains("lost 12"));
}

#[test]
fn a_view_asks_for_what_it_needs_and_exports_what_it_shows() {
    let mut ui = ui();
    let detailed = with_details(fixture::normal());
    let requests = |ui: &mut Ui, pressed: &str| {
        keys(ui, pressed);
        draw(ui, &detailed, 80, 24);
        ui.take_requests()
    };
    assert_eq!(requests(&mut ui, ""), []);
    let detail = |map, programs| Request::Detail(Detail { map, programs, ..Detail::default() });
    assert_eq!(requests(&mut ui, "3"), [detail(true, false)]);
    assert_eq!(requests(&mut ui, "4"), [detail(false, true)]);
    assert_eq!(requests(&mut ui, "1"), [detail(false, false)]);
    for (key, name, lines) in [("1", "overview", 10), ("7", "failures", 2)] {
        requests(&mut ui, key);
        let [Request::Export(file)] = &requests(&mut ui, "E")[..] else { panic!("{name}") };
        assert_eq!(file.name, format!("ttmem-{name}-4242-100000.csv"));
        assert_eq!(file.text.lines().count(), lines + 1, "{}", file.text);
    }
}

#[test]
fn events_call_for_the_right_thing() {
    let mut ui = ui();
    assert_eq!(ui.handle(&Event::Resize(80, 24)), Flow::Continue);
    assert_eq!(ui.handle(&Event::FocusLost), Flow::Idle);
    assert_eq!(press(&mut ui, KeyCode::Char('x')), Flow::Idle);
    assert_eq!(press(&mut ui, KeyCode::Esc), Flow::Continue);
    assert_eq!(press(&mut ui, KeyCode::Char('q')), Flow::Quit);
}

/// Of each view, what was held stays, whatever comes.
#[test]
fn every_view_can_be_frozen() {
    for key in "123456789".chars() {
        let histories = recorded();
        let mut ui = ui().with_histories(histories.clone());
        let normal = with_details(fixture::normal());
        for pressed in [key.to_string(), "z".to_owned(), String::new()] {
            draw(&mut ui, &normal, 80, 24);
            keys(&mut ui, &pressed);
        }
        let before = text(&draw(&mut ui, &normal, 80, 24));
        let handle = histories.get(normal.process.serial).expect("it is recorded");
        let last = handle.lock().sequence();
        handle.lock().apply(&allocated(last + 1, 120 * SECOND, 7, 1 << 30));
        handle.lock().mark("later", 120 * SECOND);
        let mut later = Snapshot { time_ns: 121 * SECOND, ..with_details(fixture::lossy()) };
        later.devices[0].pools[0].peak_used_bytes = None;
        assert_eq!(text(&draw(&mut ui, &later, 80, 24)), before, "view {key}");
        keys(&mut ui, "z");
        assert_ne!(text(&draw(&mut ui, &later, 80, 24)), before, "view {key} goes on");
    }
}

/// What a frozen overview says is what was there, peaks and holes included.
#[test]
fn a_frozen_overview_is_what_it_was() {
    let mut ui = ui().with_histories(recorded());
    let normal = with_details(fixture::normal());
    let before = text(&draw(&mut ui, &normal, 160, 40));
    keys(&mut ui, "z");
    let frozen = text(&draw(&mut ui, &normal, 160, 40));
    let body = |screen: &str| screen.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(body(&frozen), body(&before));
}

/// Only views that show the earlier instant say so.
#[test]
fn an_earlier_instant_is_said_where_it_is_shown() {
    let mut ui = ui().with_histories(recorded());
    let normal = with_details(fixture::normal());
    for key in ["5", "H", "H", "H"] {
        draw(&mut ui, &normal, 80, 24);
        keys(&mut ui, key);
    }
    for (key, is_then) in "123456789".chars().zip("tt..t..t.".chars()) {
        keys(&mut ui, &key.to_string());
        let screen = text(&draw(&mut ui, &normal, 80, 24));
        assert_eq!(screen.contains("Esc for now"), is_then == 't', "{screen}");
    }
}

/// The rows of an export after these keys, in which `<` draws.
fn exported(ui: &mut Ui, snapshot: &Snapshot, pressed: &str) -> serde_json::Value {
    draw(ui, snapshot, 80, 24);
    for key in pressed.chars() {
        keys(ui, &key.to_string());
        draw(ui, snapshot, 80, 24);
    }
    ui.take_requests();
    keys(ui, "e");
    let [Request::Export(file)] = &ui.take_requests()[..] else { panic!("one file") };
    serde_json::from_str(&file.text).unwrap()
}

#[test]
fn an_export_is_of_the_instant_that_is_shown() {
    let mut ui = ui().with_histories(recorded());
    let normal = fixture::normal();
    let now = exported(&mut ui, &normal, "1");
    let then = exported(&mut ui, &normal, "5HHHHHHHHHHHH1");
    assert!(then["time_ns"].as_u64() < now["time_ns"].as_u64());
    assert_ne!(now["rows"][0]["used_bytes"], then["rows"][0]["used_bytes"]);
    assert!(now["rows"][0]["peak_used_bytes"].is_u64());
    let unknown = ["peak_used_bytes", "allocations", "frees", "pre_attach_frees"];
    for column in unknown.into_iter().chain(["allocations_per_second"]) {
        assert!(then["rows"][0][column].is_null(), "{column} is not known of then");
    }
    assert!(now["rows"][0]["allocations"].is_u64());
    // Of what was live the logical bytes are known.
    let live = exported(&mut ui, &normal, "2");
    let is_of_first = |row: &&serde_json::Value| {
        row["type"] == "DRAM" && row["chips"].as_str().is_some_and(|chips| chips.starts_with('0'))
    };
    let rows = live["rows"].as_array().unwrap().iter().filter(is_of_first);
    let sum: u64 = rows.map(|row| row["size"].as_u64().unwrap()).sum();
    assert_eq!((then["rows"][0]["logical_bytes"].as_u64(), sum > 0), (Some(sum), true));
}

/// Before the older buffers have been read nothing is exact, whatever is so now; and what is exact
/// then stays it, whatever is lost later.
#[test]
fn an_earlier_instant_is_as_exact_as_it_was() {
    let header = |snapshot: &Snapshot, pressed: &str| {
        let mut ui = ui().with_histories(recorded());
        for key in pressed.chars() {
            draw(&mut ui, snapshot, 80, 24);
            keys(&mut ui, &key.to_string());
        }
        let screen = text(&draw(&mut ui, snapshot, 80, 24));
        assert!(screen.contains("Esc for now"), "{screen}");
        screen.lines().nth(1).unwrap().to_owned()
    };
    let back = "5HHHHHHHHHHHHHHHHHHHH1";
    assert!(header(&fixture::normal(), back).starts_with(" exact"));
    let first = header(&fixture::normal(), "5g1");
    assert!(first.starts_with(" inexact: it is not known whether"), "{first}");
    let before_a_loss = header(&fixture::inexact(), back);
    assert!(before_a_loss.starts_with(" inexact"), "the reports lie far apart: {before_a_loss}");
    let mut ui = ui().with_histories(recorded());
    draw(&mut ui, &fixture::normal(), 80, 24);
    let later = Snapshot { time_ns: 101 * SECOND, ..fixture::inexact() };
    for key in back.chars() {
        draw(&mut ui, &later, 80, 24);
        keys(&mut ui, &key.to_string());
    }
    let screen = text(&draw(&mut ui, &later, 80, 24));
    assert!(screen.contains("\n exact"), "{screen}");
}

/// A rate of now, or 0.0 after the end, is not that of an earlier instant.
#[test]
fn what_is_counted_is_not_shown_of_an_earlier_instant() {
    let screen = recorded_screen("5HHHHHHHHHHHH1", &fixture::exited(), 160, 40);
    let pool = screen.lines().find(|line| line.starts_with(" DRAM ")).unwrap();
    assert!(pool.ends_with(" –") && !pool.contains("0.0 "), "{screen}");
    let programs = screen.lines().find(|line| line.starts_with(" CB/core ")).unwrap();
    assert!(!programs.contains('0'), "{screen}");
}

/// Of a target of which nothing is kept any more no view shows, or exports, what another one did.
#[test]
fn what_is_no_longer_kept_is_said_and_nothing_else_shown() {
    let target = |serial| {
        let process = Arc::new(ProcessLabel { serial, ..ProcessLabel::default() });
        Arc::new(Snapshot { process, ..fixture::normal() })
    };
    let kept = fixture::empty().process.serial;
    let targets = vec![target(kept), target(kept + 1)];
    let report = Arc::new(Report { targets, ..Report::default() });
    for key in ["2", "2b", "5", "6", "8", "9"] {
        let mut ui = ui().with_histories(recorded());
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        let mut press = |ui: &mut Ui, pressed: &str| {
            for key in pressed.chars() {
                keys(ui, &key.to_string());
                terminal.draw(|frame| ui.draw(frame, &report)).unwrap();
            }
            text(terminal.backend().buffer())
        };
        let of_first = press(&mut ui, &format!("xx{key}"));
        assert!(!of_first.contains("no longer kept"), "{of_first}");
        let of_second = press(&mut ui, "n");
        assert!(of_second.contains("no longer kept"), "{of_second}");
        assert!(!of_second.contains(" live set, "), "{of_second}");
        ui.take_requests();
        keys(&mut ui, "E");
        for request in ui.take_requests() {
            let Request::Export(file) = request else { panic!("{request:?}") };
            assert!(key == "9" || file.text.lines().count() == 1, "{}", file.text);
        }
    }
}

/// Ages pass by themselves: what has grown is not known of them.
#[test]
fn growth_of_an_age_is_not_known() {
    let growth = |pressed| {
        let export = exported(&mut ui().with_histories(recorded()), &fixture::normal(), pressed);
        let rows = export["rows"].as_array().unwrap().clone();
        rows.iter().map(|row| row["growth_bytes"].clone()).collect::<Vec<_>>()
    };
    let (by_size, by_age) = (growth("2mb"), growth("2mbbbb"));
    assert!(!by_size.is_empty() && by_size.iter().all(|it| *it == 0), "{by_size:?}");
    assert!(!by_age.is_empty() && by_age.iter().all(serde_json::Value::is_null), "{by_age:?}");
}

/// Where the view shows one of several, the file says which.
#[test]
fn an_export_says_which_pool_or_failure_it_is_of() {
    let mapped = with_details(fixture::normal());
    let of = |pressed, keys: &[&str]| {
        let export = exported(&mut ui().with_histories(recorded()), &mapped, pressed);
        keys.iter().map(|key| export[*key].to_string()).collect::<Vec<_>>().join(" ")
    };
    let keys = ["type", "allocator", "chips"];
    assert_eq!(of("3", &keys), r#""L1" 0 "0-1""#);
    assert_ne!(of("3]", &keys), of("3", &keys));
    assert_eq!(of("5", &["type", "chips"]), r#""DRAM" "0""#);
    assert_ne!(of("5]", &["type", "chips"]), of("5", &["type", "chips"]));
    assert_eq!(of("7G\n", &["failure"]), mapped.failures.last[0].id.to_string());
}

#[test]
fn a_filter_leaves_pools_out_on_screen_and_in_exports() {
    let mut ui = ui().with_histories(recorded());
    let normal = with_details(fixture::normal());
    let export = exported(&mut ui, &normal, "1/'chip1 'l1\n");
    let screen = text(&draw(&mut ui, &normal, 80, 24));
    assert!(screen.contains("chip 1") && !screen.contains("chip 0"), "{screen}");
    assert!(!screen.contains(" DRAM ") && screen.contains("/'chip1 'l1"), "{screen}");
    let rows = export["rows"].as_array().unwrap();
    let is_meant = |row: &serde_json::Value| {
        row["chip"] == 1 && row["type"].as_str().unwrap().starts_with("L1")
    };
    assert!(!rows.is_empty() && rows.iter().all(is_meant), "{export}");
    keys(&mut ui, "/zzz\n");
    let none = text(&draw(&mut ui, &normal, 80, 24));
    assert!(none.contains("no pool passes the filter"), "{none}");
    press(&mut ui, KeyCode::Esc);
    assert!(text(&draw(&mut ui, &normal, 80, 24)).contains("chip 0"));
    // Map and timeline choose among the pools that pass.
    for (view, shown) in [("3/'dram\n", " DRAM  allocator"), ("5/'l1\n", "  L1 on chip")] {
        keys(&mut ui, view);
        let screen = text(&draw(&mut ui, &normal, 80, 24));
        assert!(screen.contains(shown), "{screen}");
    }
}

/// What a filter finds in the view of buffers it finds in that of events, too.
#[test]
fn a_filter_means_the_same_in_buffers_and_events() {
    for filter in ["'chip1", "'id59", "!'dram", "4250"] {
        let count = |view: &str| {
            let mut ui = ui().with_histories(recorded());
            let rows = exported(&mut ui, &fixture::normal(), &format!("{view}/{filter}\n"));
            rows["rows"].as_array().unwrap().clone()
        };
        let live = count("2");
        let came = |row: &serde_json::Value| {
            count("8").iter().any(|event| event["address"] == row["address"])
        };
        assert!(!live.is_empty() && live.iter().all(came), "{filter}");
    }
}

#[test]
fn a_click_on_a_process_shows_it() {
    let target = |serial: u64| {
        let process = Arc::new(ProcessLabel { serial, ..ProcessLabel::default() });
        Arc::new(Snapshot { process, ..fixture::normal() })
    };
    let targets = vec![target(1), target(2), target(3)];
    let report = Arc::new(Report { targets, ..Report::default() });
    let mut ui = ui();
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    for (row, shown) in [(21, "2 of 3"), (22, "3 of 3"), (20, "1 of 3"), (19, "1 of 3")] {
        terminal.draw(|frame| ui.draw(frame, &report)).unwrap();
        let kind = MouseEventKind::Down(MouseButton::Left);
        let click = MouseEvent { kind, column: 9, row, modifiers: KeyModifiers::NONE };
        ui.handle(&Event::Mouse(click));
        terminal.draw(|frame| ui.draw(frame, &report)).unwrap();
        let screen = text(terminal.backend().buffer());
        assert!(screen.contains(shown), "{row}: {screen}");
    }
}

/// In the middle of what is shown stays what the cursor is on; and with enough of it, one change is
/// told from the next.
#[test]
fn the_timeline_is_zoomed_around_the_cursor() {
    let mut ui = ui().with_histories(recorded());
    let normal = fixture::normal();
    let mut at = Vec::new();
    for zoom in ["5gLLLLLLLLLLLLLLLLLLLLLLLLLLLL", "+", "+", "+", "-", "-", "-"] {
        for key in zoom.chars() {
            keys(&mut ui, &key.to_string());
            draw(&mut ui, &normal, 80, 24);
        }
        let screen = text(&draw(&mut ui, &normal, 80, 24));
        let used = screen.lines().find(|line| line.contains(" ago: used ")).unwrap().to_owned();
        at.push(used.split(" (").next().unwrap().to_owned());
    }
    assert!(at.iter().all(|used| *used == at[0]), "{at:?}");
    // Left of the first column there is more.
    keys(&mut ui, "+++");
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..600 {
        press(&mut ui, KeyCode::Left);
        let screen = text(&draw(&mut ui, &normal, 80, 24));
        seen.extend(screen.lines().find(|line| line.contains(": used ")).map(str::to_owned));
    }
    assert!(seen.iter().any(|line| line.contains(" 1 buffer, ")), "{seen:?}");
    press(&mut ui, KeyCode::End);
    assert!(text(&draw(&mut ui, &normal, 80, 24)).contains("now: used"));
}

/// A filter over more rows than one frame looks at: it is said, and in the end it is right.
#[test]
fn a_filter_over_many_rows_takes_several_frames() {
    let mut history = History::default();
    for number in 1..=30_000 {
        history.apply(&allocated(number, SECOND + number, number, 4096 + number % 7));
    }
    let histories = Histories::default();
    histories.add(Arc::clone(&fixture::empty().process), history);
    let mut ui = ui().with_histories(histories);
    let normal = fixture::normal();
    draw(&mut ui, &normal, 80, 24);
    keys(&mut ui, "2");
    draw(&mut ui, &normal, 80, 24);
    keys(&mut ui, "/'0x77");
    let mut frames = 0;
    let last = loop {
        let screen = text(&draw(&mut ui, &normal, 80, 24));
        frames += 1;
        assert_eq!(screen.contains("  filtering, "), ui.is_unfinished(), "{screen}");
        if !ui.is_unfinished() {
            break screen;
        }
    };
    assert_eq!(frames, 3);
    let has = |number: &u64| format!("{:#x}", number * 64).contains("0x77");
    let expected = (1..=30_000).filter(has).count();
    assert!(last.contains(&format!("  {expected} buffers, ")), "{expected}: {last}");
}

/// The columns that the documentation names, by view.
fn documented() -> std::collections::BTreeMap<String, Vec<String>> {
    let pages = [
        include_str!("../../../../../docs/view/overview.md"),
        include_str!("../../../../../docs/view/buffers.md"),
        include_str!("../../../../../docs/view/map.md"),
        include_str!("../../../../../docs/view/circular.md"),
        include_str!("../../../../../docs/view/timeline.md"),
        include_str!("../../../../../docs/view/histograms.md"),
        include_str!("../../../../../docs/view/failures.md"),
        include_str!("../../../../../docs/view/events.md"),
        include_str!("../../../../../docs/view/health.md"),
    ];
    let mut views = std::collections::BTreeMap::new();
    for section in pages.iter().flat_map(|page| page.split("\n### `").skip(1)) {
        let (view, rest) = section.split_once('`').unwrap();
        let rows = rest.lines().filter_map(|line| line.strip_prefix("| `"));
        let columns = rows.map(|row| row.split('`').next().unwrap().to_owned()).collect();
        views.insert(view.to_owned(), columns);
    }
    views
}

/// Each column of each export is documented, in its order, and no other.
#[test]
fn every_exported_column_is_documented() {
    let mut documented = documented();
    let mapped = with_details(fixture::normal());
    for pressed in ["1", "2", "2b", "3", "4", "5", "6", "7", "7G\n", "8", "9"] {
        let mut ui = ui().with_histories(recorded()).with_calls(Arc::new(Known::new()));
        draw(&mut ui, &mapped, 80, 24);
        for key in pressed.chars() {
            keys(&mut ui, &key.to_string());
            draw(&mut ui, &mapped, 80, 24);
        }
        ui.take_requests();
        keys(&mut ui, "eE");
        let [Request::Export(json), Request::Export(csv)] = &ui.take_requests()[..] else {
            panic!("two files")
        };
        let value: serde_json::Value = serde_json::from_str(&json.text).unwrap();
        let view = value["view"].as_str().unwrap();
        let columns = documented.remove(view).unwrap_or_else(|| panic!("{view} is new"));
        let heading: Vec<&str> = csv.text.lines().next().unwrap().split(',').collect();
        assert_eq!(heading, columns, "{view}");
        let rows = value["rows"].as_array().unwrap();
        assert_eq!(rows.len() + 1, csv.text.lines().count(), "{view}");
        // What all rows are of is told once.
        let of = value.as_object().unwrap().keys();
        let of =
            of.filter(|it| !["schema", "view", "pid", "time_ns", "rows"].contains(&it.as_str()));
        let mut names: Vec<&String> = rows[0].as_object().unwrap().keys().chain(of).collect();
        names.sort_by_key(|name| columns.iter().position(|column| column == *name));
        assert_eq!(names, columns.iter().collect::<Vec<_>>(), "{view}");
    }
    assert!(documented.is_empty(), "nothing exports {documented:?}");
}
