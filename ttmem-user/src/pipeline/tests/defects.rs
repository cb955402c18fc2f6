//! What panics is noticed, and nothing waits for it.

use super::*;

/// A source with a defect.
struct Defective(OwnedFd);

impl EventSource for Defective {
    fn drain(&mut self, _: &mut dyn FnMut(&[&[u8]])) -> bool {
        panic!("this is a test")
    }
    fn drain_to_now(&mut self, _: &mut dyn FnMut(&[&[u8]])) {}
    fn ring_full(&self) -> u64 {
        0
    }
    fn read_faults(&self, _: u32) -> u64 {
        0
    }
    fn request_wake_up(&self, _: bool) {}
    fn wake_up(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
    fn describe_frees(&self, _: bool) {}
}

#[tokio::test(flavor = "current_thread")]
async fn a_pipeline_that_panics_has_failed_before_its_reports_end() {
    let mut rig = Rig::on(Defective(never_ready()), Vec::new(), options());
    rig.last().await;
    assert!(rig.control.has_failed());
}

#[tokio::test(flavor = "current_thread")]
async fn a_pipeline_that_is_stopped_has_not_failed() {
    let mut rig = Rig::start(Vec::new(), Vec::new(), options());
    rig.control.stop();
    rig.last().await;
    assert!(!rig.control.has_failed());
}

#[tokio::test(flavor = "current_thread")]
async fn a_reader_that_panics_has_read_nothing() {
    let options = Options { once: true, ..options() };
    let read_live: ReadLive = Arc::new(|| panic!("this is a test"));
    // There are two threads that read: a third target needs one that goes on.
    let targets = (0..3).map(|slot| target(slot, Arc::clone(&read_live))).collect();
    let mut rig = Rig::start(Vec::new(), targets, options);
    let report = rig.last().await;
    assert_eq!(report.targets.len(), 3);
    for snapshot in &report.targets {
        let why = &snapshot.inexact_because[0];
        assert!(why.contains("a defect of ttmem"), "{why}");
    }
    assert!(!rig.control.has_failed());
}
