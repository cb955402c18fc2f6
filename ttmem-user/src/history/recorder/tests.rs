//! The recorder with a pipeline of the test's own. What is waited for is a change of the history.

use std::sync::mpsc;

use super::*;
use crate::{
    history::sample::{allocated, freed},
    units::Pid,
};

fn label(serial: u64) -> Arc<ProcessLabel> {
    Arc::new(ProcessLabel { serial, ..ProcessLabel::of_pid(Pid(7)) })
}

fn recorder(queue: usize) -> Recorder {
    Recorder::with_queue(queue, || Ok(())).unwrap()
}

/// Waits until a history is as expected.
fn until(shared: &Shared, expected: impl Fn(&History) -> bool) {
    while !expected(&shared.lock()) {
        thread::yield_now();
    }
}

#[test]
fn what_is_taken_is_recorded() {
    let recorder = recorder(MAX_WAITING);
    let label = label(3);
    let mut sink = (recorder.follower())(&label);
    let shared = recorder.histories().get(3).unwrap();
    let before = shared.generation();
    let first = allocated(1, 1, 1, 100);
    assert!(sink.take(&vec![first.clone(), allocated(2, 2, 2, 50)].into()));
    assert!(sink.take(&vec![freed(&first, 3, 3)].into()));
    until(&shared, |history| history.sequence() == 3);
    assert_eq!(shared.lock().live().len(), 1);
    assert!(shared.lock().bytes() > 0);
    drop(sink);
    drop(recorder);
    assert!(shared.generation() > before);
    assert_eq!(shared.lock().live().len(), 1, "it stays");
}

/// A queue without room: everything is missed until it has been fetched, and nothing after that.
#[test]
fn who_falls_behind_catches_up() {
    let recorder = recorder(2);
    let label = label(1);
    let mut sink = (recorder.follower())(&label);
    let shared = recorder.histories().get(1).unwrap();
    let batch = |ids: std::ops::RangeInclusive<u64>| -> Arc<[Delta]> {
        ids.map(|id| allocated(id, id, id, 10)).collect::<Vec<_>>().into()
    };
    {
        // Readers keep the thread from applying anything.
        let _held = shared.lock();
        assert!(sink.take(&batch(1..=1)));
        assert!(sink.take(&batch(2..=10)), "a batch of any length if there is room");
        assert!(sink.take(&batch(11..=20)));
        assert!(sink.take(&batch(21..=30)));
    }
    until(&shared, |history| history.sequence() == 10 && history.gap().is_some());
    assert_eq!(recorder.queue().1, 1);
    let (asked, answers) = mpsc::channel();
    let asked = Mutex::new(asked);
    recorder.connect(Box::new(move |serial, answer| {
        asked.lock().unwrap().send((serial, answer)).unwrap();
    }));
    let (serial, answer) = answers.recv().unwrap();
    assert_eq!(serial, 1);
    let live: Vec<Delta> = batch(1..=30).to_vec();
    answer(Refill { time_ns: 30, last_delta: 30, live });
    assert!(sink.take(&batch(31..=31)));
    until(&shared, |history| history.sequence() == 31);
    let history = shared.lock();
    assert!(history.gap().is_none());
    assert_eq!((history.live().len(), history.missed()), (31, 20));
}

#[test]
fn a_target_that_is_gone_cannot_be_fetched() {
    let recorder = recorder(0);
    recorder.connect(Box::new(|_, answer| drop(answer)));
    let mut sink = (recorder.follower())(&label(1));
    let shared = recorder.histories().get(1).unwrap();
    assert!(sink.take(&vec![allocated(1, 1, 1, 10)].into()));
    until(&shared, |history| history.gap().is_some_and(|gap| !gap.healing));
}

#[test]
fn only_the_latest_that_ended_are_kept() {
    let recorder = recorder(MAX_WAITING);
    let follower = recorder.follower();
    let running = follower(&label(1));
    // The first one that was there ends last.
    let longest = follower(&label(2));
    let last = 2 + KEPT_ENDED as u64 + 3;
    for serial in 3..=last {
        drop(follower(&label(serial)));
    }
    drop(longest);
    let histories = recorder.histories();
    while histories.all().len() > KEPT_ENDED + 1 {
        thread::yield_now();
    }
    let left: Vec<u64> = histories.all().iter().map(|it| it.label.serial).collect();
    let latest = last - KEPT_ENDED as u64 + 2..=last;
    assert_eq!(left, [1, 2].into_iter().chain(latest).collect::<Vec<_>>());
    drop(running);
}

/// What has ended leaves the room that it does not need to what runs.
#[test]
fn what_has_ended_takes_no_room_from_what_runs() {
    let recorder = recorder(MAX_WAITING);
    let follower = recorder.follower();
    for serial in 1..=4 {
        drop(follower(&label(serial)));
    }
    let mut running = follower(&label(5));
    let shared = recorder.histories().get(5).unwrap();
    let all = MAX_ENTRIES as u64;
    for first in (1..=all).step_by(1_000) {
        let batch: Vec<Delta> = (first..first + 1_000).map(|id| allocated(id, id, id, 1)).collect();
        while recorder.queue().0 > MAX_WAITING / 2 {
            thread::yield_now();
        }
        assert!(running.take(&batch.into()));
    }
    until(&shared, |history| history.sequence() == all);
    assert_eq!(shared.lock().kept(), MAX_ENTRIES);
}

#[test]
fn without_giving_up_its_rights_it_does_not_start() {
    let refused = Recorder::start(|| Err(io::Error::other("no")));
    assert!(refused.is_err());
}
