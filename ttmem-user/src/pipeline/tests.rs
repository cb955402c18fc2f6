//! The pipeline on scripted records.

use std::{
    cell::{Cell, RefCell},
    os::fd::{AsFd as _, BorrowedFd},
    sync::{atomic::AtomicU64, mpsc},
};

use ttmem_common::record::{
    AllocateRecord, BulkFreeRecord, FreeRecord, KIND_ALLOCATE, KIND_BULK_FREE, KIND_FREE,
};
use zerocopy::{FromBytes as _, FromZeros as _, IntoBytes as _};

use super::*;

mod defects;
mod queries;
mod table;

use crate::{
    event::{BaselineBuffer, BufferShape, BufferType, DeviceSeen, LiveBaseline, Spread},
    ledger::{
        Ledger,
        delta::Delta,
        snapshot::{ProcessLabel, Snapshot, TargetState},
    },
    units::{Avma, DeviceAddr, Pid},
};

/// Hands out its records once.
struct Scripted {
    records: RefCell<Vec<Vec<u8>>>,
    /// Come just before a wake-up is asked for, which will not tell of them.
    in_between: RefCell<Vec<Vec<u8>>>,
    /// How often it was asked what was lost of slot 7, of which more is lost each time.
    faults: Cell<u64>,
    wake: OwnedFd,
    /// How many more are lost whenever there was something to hand out.
    loses: u64,
    lost: u64,
    /// How often all up to now was asked for.
    drained: Arc<AtomicU64>,
}

impl Scripted {
    fn new(records: Vec<Vec<u8>>, in_between: Vec<Vec<u8>>) -> Self {
        let [records, in_between] = [records, in_between].map(RefCell::new);
        let (wake, drained) = (never_ready(), Arc::default());
        let faults = Cell::new(0);
        Self { records, in_between, faults, wake, loses: 0, lost: 2, drained }
    }
}

impl EventSource for Scripted {
    fn drain(&mut self, take: &mut dyn FnMut(&[&[u8]])) -> bool {
        let records = self.records.take();
        self.lost += if records.is_empty() { 0 } else { self.loses };
        records
            .chunks(2)
            .for_each(|some| take(&some.iter().map(Vec::as_slice).collect::<Vec<_>>()));
        true
    }
    fn drain_to_now(&mut self, take: &mut dyn FnMut(&[&[u8]])) {
        self.drained.fetch_add(1, Ordering::SeqCst);
        self.drain(take);
    }
    fn ring_full(&self) -> u64 {
        self.lost
    }
    fn read_faults(&self, slot: u32) -> u64 {
        if slot == 7 {
            self.faults.set(self.faults.get() + 1);
        }
        1 + if slot == 7 { self.faults.get() } else { 0 }
    }
    fn request_wake_up(&self, _: bool) {
        self.records.borrow_mut().append(&mut self.in_between.borrow_mut());
    }
    fn wake_up(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
    fn describe_frees(&self, _: bool) {}
}

fn never_ready() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC).unwrap()
}

fn options() -> Options {
    Options {
        refresh: Duration::from_hours(1),
        duration: None,
        once: false,
        awaits_target: false,
        ends_with_targets: true,
        detail: Detail::default(),
        detail_at_end: Detail { programs: true, ..Detail::default() },
        audit: None,
    }
}

/// A target without events, whose older buffers are what `read_live` says.
fn target(slot: u32, read_live: ReadLive) -> NewTarget {
    let process = ProcessLabel { serial: u64::from(slot), ..ProcessLabel::of_pid(Pid(slot + 1)) };
    NewTarget {
        slot,
        ledger: Ledger::of_process(Arc::new(process), Vec::new()),
        ended: never_ready(),
        same_program: Box::new(|| true),
        fresh: false,
        read_live,
        table: None,
        sinks: Vec::new(),
    }
}

fn nothing_older() -> ReadLive {
    Arc::new(|| Ok(LiveBaseline::default()))
}

/// A pipeline on these records and targets.
struct Rig {
    _pipeline: Pipeline,
    control: Arc<Control>,
    reports: watch::Receiver<Arc<Report>>,
    notices: mpsc::Receiver<Notice>,
}

impl Rig {
    fn start(records: Vec<Vec<u8>>, targets: Vec<NewTarget>, options: Options) -> Self {
        Self::on(Scripted::new(records, Vec::new()), targets, options)
    }

    fn on(
        source: impl EventSource + Send + 'static,
        targets: Vec<NewTarget>,
        options: Options,
    ) -> Self {
        Self::under(Control::new().unwrap(), source, targets, options)
    }

    fn under(
        control: Arc<Control>,
        source: impl EventSource + Send + 'static,
        targets: Vec<NewTarget>,
        options: Options,
    ) -> Self {
        let (added, _is_added) = mpsc::channel();
        let slots: Vec<u32> = targets.iter().map(|target| target.slot).collect();
        // All first: the script's records are there from the start, whosever they are.
        for target in targets {
            control.send(Command::Add(Box::new(target), added.clone()));
        }
        for slot in slots {
            control.send(Command::Attached(slot));
        }
        control.send(Command::AllAdded);
        let (notice, notices) = mpsc::channel();
        let on_notice: OnNotice = Box::new(move |told| notice.send(told).unwrap());
        let (pipeline, reports) =
            Pipeline::start(source, options, Arc::clone(&control), on_notice).unwrap();
        Self { _pipeline: pipeline, control, reports, notices }
    }

    async fn last(&mut self) -> Arc<Report> {
        while self.reports.changed().await.is_ok() {}
        Arc::clone(&self.reports.borrow())
    }

    async fn last_of_one(&mut self) -> Snapshot {
        let report = self.last().await;
        assert_eq!(report.targets.len(), 1);
        Snapshot::clone(&report.targets[0])
    }
}

fn bulk_free(slot: u32) -> Vec<u8> {
    let mut bulk = BulkFreeRecord::new_zeroed();
    bulk.header.kind = KIND_BULK_FREE;
    bulk.header.slot = slot;
    bulk.header.tgid = slot + 1;
    bulk.as_bytes().to_vec()
}

#[tokio::test(flavor = "current_thread")]
async fn once_ends_with_the_baseline() {
    let records = vec![bulk_free(0), vec![1, 2, 3]];
    let options = Options { once: true, ..options() };
    let mut rig = Rig::start(records, vec![target(0, nothing_older())], options);
    let snapshot = rig.last_of_one().await;
    assert_eq!(snapshot.anomalies.undecodable, 1);
    assert_eq!(snapshot.state, TargetState::Running);
}

#[tokio::test(flavor = "current_thread")]
async fn once_with_a_wait_does_not_end_before_a_target_has_come() {
    let options =
        Options { once: true, awaits_target: true, ends_with_targets: false, ..options() };
    let mut rig = Rig::start(Vec::new(), Vec::new(), options);
    let (added, is_added) = mpsc::channel();
    rig.control.send(Command::Add(Box::new(target(0, nothing_older())), added));
    is_added.recv().unwrap();
    rig.control.send(Command::Attached(0));
    assert_eq!(rig.last_of_one().await.state, TargetState::Running);
}

#[tokio::test(flavor = "current_thread")]
async fn what_cannot_be_understood_of_one_says_nothing_of_another() {
    let mut unknown = bulk_free(0);
    unknown[8..12].copy_from_slice(&0xffff_u32.to_ne_bytes());
    let options = Options { once: true, ..options() };
    let targets = vec![target(0, nothing_older()), target(1, nothing_older())];
    let mut rig = Rig::start(vec![unknown], targets, options);
    let report = rig.last().await;
    let undecodable = report.targets.iter().map(|target| target.anomalies.undecodable);
    assert_eq!(undecodable.collect::<Vec<_>>(), [1, 0]);
}

#[tokio::test(flavor = "current_thread")]
async fn a_stop_still_publishes_a_last_report() {
    let read_live: ReadLive = Arc::new(|| Err("no reason".to_owned()));
    let mut rig = Rig::start(Vec::new(), vec![target(0, read_live)], options());
    rig.control.stop();
    let snapshot = rig.last_of_one().await;
    assert!(!snapshot.exact);
    assert_eq!(snapshot.inexact_because[0], "older buffers are not known: no reason");
}

#[tokio::test(flavor = "current_thread")]
async fn another_program_ends_the_target() {
    let replaced = NewTarget { same_program: Box::new(|| false), ..target(3, nothing_older()) };
    let mut rig = Rig::start(Vec::new(), vec![replaced], options());
    assert_eq!(rig.last_of_one().await.state, TargetState::Replaced);
    assert_eq!(
        rig.notices.try_recv(),
        Ok(Notice::Replaced(Gone { slot: 3, serial: 3, pid: Pid(4) }))
    );
}

#[tokio::test(flavor = "current_thread")]
async fn the_last_targets_end_ends_it() {
    let ended = |slot| NewTarget {
        ended: eventfd(1, EventfdFlags::CLOEXEC).unwrap(),
        ..target(slot, nothing_older())
    };
    let mut rig = Rig::start(Vec::new(), vec![ended(0), ended(5)], options());
    let report = rig.last().await;
    let states: Vec<TargetState> = report.targets.iter().map(|target| target.state).collect();
    assert_eq!(states, [TargetState::Exited; 2]);
    // What may be asked for later is kept.
    assert!(report.targets.iter().all(|it| it.programs.is_some() && it.buffers.is_none()));
    let notices: Vec<Notice> = rig.notices.try_iter().collect();
    let gone = |slot| Gone { slot, serial: u64::from(slot), pid: Pid(slot + 1) };
    assert_eq!(notices, [0, 5].map(|slot| Notice::Ended(gone(slot))));
}

#[tokio::test(flavor = "current_thread")]
async fn a_record_goes_to_the_target_of_its_slot_and_process() {
    let mut stranger = bulk_free(1);
    stranger[20..24].copy_from_slice(&77_u32.to_le_bytes());
    let free = |slot: u32| {
        let mut free = FreeRecord::new_zeroed();
        free.header = BulkFreeRecord::read_from_bytes(&bulk_free(slot)).unwrap().header;
        free.header.kind = KIND_FREE;
        free.as_bytes().to_vec()
    };
    let options = Options { once: true, ..options() };
    let targets = vec![target(0, nothing_older()), target(1, nothing_older())];
    let mut rig = Rig::start(vec![free(1), stranger, free(1), free(9)], targets, options);
    let report = rig.last().await;
    let odd: Vec<u64> = report.targets.iter().map(|t| t.anomalies.unknown_free).collect();
    assert_eq!(odd, [0, 2]);
}

#[tokio::test(flavor = "current_thread")]
async fn what_was_lost_before_a_target_came_is_not_its_loss() {
    let options = Options { once: true, ..options() };
    let mut rig = Rig::start(Vec::new(), vec![target(0, nothing_older())], options);
    let snapshot = rig.last_of_one().await;
    assert_eq!(snapshot.lost.total(), 0, "the script had lost 3 by then");
    assert!(snapshot.exact);
}

#[tokio::test(flavor = "current_thread")]
async fn what_could_not_be_read_of_one_is_no_others_loss() {
    let options = Options { once: true, ..options() };
    let targets = vec![target(0, nothing_older()), target(7, nothing_older())];
    let mut rig = Rig::start(Vec::new(), targets, options);
    let report = rig.last().await;
    let exact: Vec<bool> = report.targets.iter().map(|target| target.exact).collect();
    assert_eq!(exact, [true, false]);
    let lost: Vec<u64> = report.targets.iter().map(|target| target.lost.read_fault).collect();
    assert!(lost[0] == 0 && lost[1] > 0, "{lost:?}");
    assert_eq!(report.totals().lost.read_fault, lost[1]);
}

#[tokio::test(flavor = "current_thread")]
async fn an_unknown_free_has_the_live_buffers_read_again() {
    let reads = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&reads);
    let read_live: ReadLive = Arc::new(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        Ok(LiveBaseline::default())
    });
    let mut free = FreeRecord::new_zeroed();
    free.header = BulkFreeRecord::read_from_bytes(&bulk_free(0)).unwrap().header;
    free.header.kind = KIND_FREE;
    let records = vec![free.as_bytes().to_vec()];
    let options = Options { refresh: Duration::from_millis(20), ..options() };
    let mut rig = Rig::start(records, vec![target(0, read_live)], options);
    let mut was_inexact = false;
    loop {
        rig.reports.changed().await.unwrap();
        let report = Arc::clone(&rig.reports.borrow_and_update());
        let target = &report.targets[0];
        was_inexact |= !target.exact;
        if target.resync.done == 1 && target.exact {
            assert_eq!(target.anomalies.unknown_free, 1, "still counted");
            break;
        }
    }
    assert!(was_inexact);
    assert_eq!(reads.load(Ordering::SeqCst), 2);
}

/// A thread was about to free it, and the record of that was lost.
#[tokio::test(flavor = "current_thread")]
async fn what_goes_after_a_resync_is_found_by_another_reading() {
    let reads = Arc::new(AtomicU64::new(0));
    let read_live: ReadLive = Arc::new(move || {
        // The first reading, and the one after the unknown free.
        let is_there = reads.fetch_add(1, Ordering::SeqCst) < 2;
        let buffer = BaselineBuffer {
            buffer: Avma(0x500),
            allocator: Avma(0x2000),
            device: Avma(0x1000),
            shape: BufferShape {
                unique_id: Some(1),
                buffer_type: BufferType::Dram,
                address: DeviceAddr(64),
                size: 2048,
                page_size: 2048,
                spread: Spread::Interleaved,
            },
            block_bytes: None,
        };
        let device =
            DeviceSeen { device: Avma(0x1000), mesh: None, chips: vec![crate::units::ChipId(0)] };
        let buffers = if is_there { vec![buffer] } else { Vec::new() };
        Ok(LiveBaseline { devices: vec![device], buffers, ..LiveBaseline::default() })
    });
    let mut free = FreeRecord::new_zeroed();
    free.header = BulkFreeRecord::read_from_bytes(&bulk_free(0)).unwrap().header;
    free.header.kind = KIND_FREE;
    let options = Options { refresh: Duration::from_millis(20), ..options() };
    let records = vec![free.as_bytes().to_vec()];
    let mut rig = Rig::start(records, vec![target(0, read_live)], options);
    let begun = std::time::Instant::now();
    let mut was_settled = false;
    loop {
        rig.reports.changed().await.unwrap();
        let report = Arc::clone(&rig.reports.borrow_and_update());
        let target = &report.targets[0];
        let Some(chip) = target.devices.first() else { continue };
        let buffers: u64 = chip.pools.iter().map(|pool| pool.buffers).sum();
        was_settled |= target.resync.done == 1 && buffers == 1;
        if buffers == 0 && target.anomalies.missed_free == 1 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{target:?}");
    }
    assert!(was_settled);
}

/// Keeps what it is told.
struct Kept(mpsc::Sender<Arc<[Delta]>>);

impl DeltaSink for Kept {
    fn take(&mut self, deltas: &Arc<[Delta]>) -> bool {
        self.0.send(Arc::clone(deltas)).is_ok()
    }
}

fn allocate() -> Vec<u8> {
    let mut allocate = AllocateRecord::new_zeroed();
    allocate.header.kind = KIND_ALLOCATE;
    allocate.header.tgid = 1;
    allocate.buffer = 0x100;
    allocate.as_bytes().to_vec()
}

#[tokio::test(flavor = "current_thread")]
async fn what_comes_just_before_the_sleep_is_passed_on() {
    let (told, deltas) = mpsc::channel();
    let sinks: Vec<Box<dyn DeltaSink>> = vec![Box::new(Kept(told))];
    // Nothing is read of it either.
    let followed = NewTarget { fresh: true, sinks, ..target(0, nothing_older()) };
    let source = Scripted::new(Vec::new(), vec![allocate()]);
    // The next report comes in an hour.
    let _rig = Rig::on(source, vec![followed], options());
    let deltas = deltas.recv_timeout(Duration::from_secs(20)).expect("it does not wait for that");
    assert_eq!(deltas.len(), 1);
}

#[tokio::test(flavor = "current_thread")]
async fn who_follows_from_the_start_misses_nothing() {
    let (told, deltas) = mpsc::channel();
    let followed = NewTarget { sinks: vec![Box::new(Kept(told))], ..target(0, nothing_older()) };
    let options = Options { once: true, ..options() };
    let mut rig = Rig::start(vec![allocate()], vec![followed], options);
    rig.last_of_one().await;
    drop(rig);
    let sequences: Vec<u64> =
        deltas.iter().flat_map(|it| it.to_vec()).map(|it| it.sequence).collect();
    assert_eq!(sequences, [1]);
}

#[tokio::test(flavor = "current_thread")]
async fn what_a_view_asks_for_comes_at_once_and_goes_again() {
    let mut rig = Rig::start(Vec::new(), vec![target(0, nothing_older())], options());
    for buffers in [true, false] {
        rig.control.send(Command::Detail(Detail { buffers, ..Detail::default() }));
        // The next regular report comes in an hour.
        loop {
            rig.reports.changed().await.expect("it runs");
            let report = Arc::clone(&rig.reports.borrow_and_update());
            let health = report.health.as_ref().expect("it is the agent's own");
            assert!(health.cpu_ns > 0);
            if report.targets[0].buffers.is_some() == buffers {
                break;
            }
        }
    }
}
