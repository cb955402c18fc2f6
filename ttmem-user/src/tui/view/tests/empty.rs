//! The view while nothing is watched.

use super::*;
use crate::{ledger::report::Unwatched, units::Pid};

#[test]
fn who_only_looks_is_told_who_would_watch() {
    let mut terminal = Terminal::new(TestBackend::new(110, 24)).unwrap();
    let mut ui = Ui::new(Theme::colored()).of_others();
    terminal.draw(|frame| ui.draw(frame, &Arc::default())).unwrap();
    let shown = text(terminal.backend().buffer());
    assert!(shown.contains("no process is watched yet; `sudo ttmem attach --pid N`"), "{shown}");
}

#[test]
fn a_process_that_cannot_be_watched_is_shown_while_there_is_no_other() {
    let unwatched = Unwatched {
        pid: Pid(4711),
        command: "python serve.py".to_owned(),
        reason: "it is watched already".to_owned(),
    };
    let report = Arc::new(Report { unwatched: vec![unwatched], ..Report::default() });
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    let mut ui = Ui::new(Theme::colored());
    terminal.draw(|frame| ui.draw(frame, &report)).unwrap();
    let shown = text(terminal.backend().buffer());
    assert!(shown.contains("not watched: pid 4711 python serve.py: it is watched already"));
    assert!(!shown.contains("no process with tt-metal"));
}
