//! Whatever others ask, the rest goes on.

use super::*;

/// Asks, and has the answer ask again: as many clients who never pause.
fn ask_for_ever(control: &Arc<Control>, kind: QueryKind) {
    let again = Arc::clone(control);
    let run = Box::new(move |_: View<'_>| ask_for_ever(&again, kind));
    control.send(Command::Query(Query { serial: 0, kind, run }));
}

#[tokio::test(flavor = "current_thread")]
async fn who_asks_without_a_pause_holds_nothing_up() {
    let options = Options { refresh: Duration::from_millis(20), ..options() };
    let mut rig = Rig::start(Vec::new(), vec![target(0, nothing_older())], options);
    for kind in [QueryKind::Quick, QueryKind::Sync, QueryKind::Long] {
        ask_for_ever(&rig.control, kind);
    }
    for _ in 0..3 {
        rig.reports.changed().await.expect("reports still come");
    }
    rig.control.stop();
    rig.last_of_one().await;
}

#[tokio::test(flavor = "current_thread")]
async fn those_that_wait_are_answered_after_one_drain() {
    let control = Control::new().unwrap();
    let (told, answers) = mpsc::channel();
    let (added, _is_added) = mpsc::channel();
    control.send(Command::Add(Box::new(target(0, nothing_older())), added));
    for _ in 0..100 {
        let told = told.clone();
        let run = Box::new(move |view: View<'_>| told.send(view.time_ns).unwrap());
        control.send(Command::Query(Query { serial: 0, kind: QueryKind::Sync, run }));
    }
    let source = Scripted::new(Vec::new(), Vec::new());
    let drained = Arc::clone(&source.drained);
    let _rig = Rig::under(control, source, Vec::new(), options());
    for _ in 0..100 {
        answers.recv_timeout(Duration::from_secs(20)).expect("an answer");
    }
    let drained = drained.load(Ordering::SeqCst);
    assert!(drained < 50, "one for each lot, and a few for other reasons: {drained}");
}
