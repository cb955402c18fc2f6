use super::{
    super::{
        snapshot::{Detail, TargetState},
        tests::{allocate, baseline},
    },
    *,
};
use crate::{
    event::{Event, SharedBytes},
    units::Pid,
};

const SIZE: u64 = 26 * 2048;

/// A mesh of two chips with two buffers from before the attach.
fn ledger() -> Ledger {
    let mut ledger = Ledger::new(Pid(1), Vec::new());
    let mut older = baseline(&[1, 2]);
    // tt-metal's shared memory has no figure for this one.
    let pools = &mut older.allocators[0].pools;
    pools[BufferType::SystemMemory.index()] = pools[0];
    ledger.finish_baseline(Ok(older));
    ledger.compare_witnesses();
    ledger
}

fn file(chip: i32, own: SharedBytes) -> SharedFile {
    let totals = SharedTotals {
        chip: ChipId(chip),
        own_pid: Pid(1),
        own: Some(own),
        all: own,
        ended: Some([0; 4]),
    };
    SharedFile { name: format!("tt_device_{chip}_memory"), totals: Ok(totals) }
}

fn reading(ids: &[u64], shared: Vec<SharedFile>) -> LiveBaseline {
    LiveBaseline { shared, ..baseline(ids) }
}

/// A later reading, and what is shown of the audit after it.
fn audited(ledger: &mut Ledger, meanwhile: &[Event], reading: &LiveBaseline) -> AuditSnapshot {
    ledger.begin_reading();
    for event in meanwhile {
        ledger.apply(event);
    }
    ledger.audit(reading, 42);
    ledger.touched = None;
    ledger.snapshot(43, TargetState::Running, Detail::default()).audit.unwrap()
}

fn dram(audit: &AuditSnapshot, chip: i32) -> &AuditRow {
    let mut rows = audit.rows.iter();
    rows.find(|row| row.chip == ChipId(chip) && row.buffer_type == BufferType::Dram).unwrap()
}

#[test]
fn three_figures_agree() {
    let shared = vec![file(0, [2 * SIZE, 0, 0, 0]), file(1, [2 * SIZE, 0, 0, 0])];
    let audit = audited(&mut ledger(), &[], &reading(&[1, 2], shared));
    assert_eq!((audit.compared, audit.busy, audit.last_ns), (1, 0, Some(42)));
    assert_eq!(audit.shm_unknown_because, None);
    for chip in 0..2 {
        let row = dram(&audit, chip);
        assert_eq!(row.probes_logical_bytes, 2 * SIZE);
        assert_eq!(row.memory_logical_bytes, 2 * SIZE);
        assert_eq!(row.shm_bytes, Some(2 * SIZE));
        assert_eq!((row.verdict, &row.likely_reason), (Verdict::Agree, &None));
    }
    let system = audit.rows.iter().find(|row| row.buffer_type == BufferType::SystemMemory).unwrap();
    assert_eq!((system.shm_bytes, system.verdict), (None, Verdict::AgreeWithoutShm));
}

#[test]
fn an_event_meanwhile_makes_it_busy_and_keeps_what_was_shown() {
    let mut ledger = ledger();
    let shared = || vec![file(0, [2 * SIZE, 0, 0, 0])];
    let first = audited(&mut ledger, &[], &reading(&[1, 2], shared()));
    let busy = audited(&mut ledger, &[allocate(3)], &reading(&[1, 2], shared()));
    assert_eq!((busy.compared, busy.busy), (1, 1));
    assert_eq!(busy.rows, first.rows);
    let bulk = Event::BulkFreed { allocator: Avma(0x7777) };
    assert_eq!(audited(&mut ledger, &[bulk], &reading(&[1, 2], shared())).busy, 2);
}

#[test]
fn a_difference_counts_when_it_is_seen_twice() {
    let mut ledger = ledger();
    let wrong = |extra| reading(&[1, 2], vec![file(0, [2 * SIZE + extra, 0, 0, 0])]);
    for (extra, verdict) in [
        (7, Verdict::Unconfirmed),
        (7, Verdict::Differ),
        (8, Verdict::Unconfirmed),
        (0, Verdict::Agree),
        (8, Verdict::Unconfirmed),
    ] {
        let audit = audited(&mut ledger, &[], &wrong(extra));
        assert_eq!(dram(&audit, 0).verdict, verdict, "{extra}");
        assert_eq!(dram(&audit, 0).likely_reason.is_none(), extra == 0);
    }
}

#[test]
fn each_trouble_has_its_reason() {
    let reason = |own: u64, change: fn(&mut SharedTotals), ids: &[u64]| {
        let mut shared = file(0, [own, 0, 0, 0]);
        change(shared.totals.as_mut().unwrap());
        let audit = audited(&mut ledger(), &[], &reading(ids, vec![shared]));
        dram(&audit, 0).likely_reason.clone().unwrap_or_default()
    };
    assert_eq!(reason(2 * SIZE, |_| {}, &[1, 2]), "");
    assert!(reason(2 * SIZE, |t| t.ended = Some([5, 0, 0, 0]), &[1, 2]).starts_with("ghosts: 5 "));
    assert!(reason(4 * SIZE, |_| {}, &[1, 2]).contains("2 times"));
    assert!(reason(2 * 3 * 2048 * 12, |_| {}, &[1, 2]).contains("padding"));
    assert!(reason(2 * 3 * 2048, |_| {}, &[1, 2]).contains("each bank"));
    assert!(reason(1, |_| {}, &[1, 2]).contains("counted off"));
    assert!(reason(2 * SIZE + 1, |_| {}, &[1, 2]).starts_with("a ghost"));
    let missed = reason(3 * SIZE, |_| {}, &[1, 2, 3]);
    assert_eq!(missed, "an event was missed; shared memory agrees with the memory");
    assert_eq!(reason(2 * SIZE, |_| {}, &[1]), "an event was missed");
}

#[test]
fn what_is_not_known_says_why() {
    let why = |shared: Vec<SharedFile>| {
        let audit = audited(&mut ledger(), &[], &reading(&[1, 2], shared));
        let row = dram(&audit, 0).clone();
        assert_eq!((row.shm_bytes, row.verdict), (None, Verdict::AgreeWithoutShm));
        assert_eq!(row.likely_reason, None);
        row.shm_unknown_because.unwrap()
    };
    assert!(why(Vec::new()).contains("TT_METAL_SHM_TRACKING_DISABLED"));
    let refused = SharedFile { name: "f".to_owned(), totals: Err("bad".to_owned()) };
    assert_eq!(why(vec![refused]), "f: bad");
    assert_eq!(why(vec![file(1, [0; 4])]), "no file that the process has mapped is of this chip");
    assert!(why(vec![file(0, [0; 4]), file(0, [0; 4])]).starts_with("several files"));
    let mut without = file(0, [0; 4]);
    without.totals.as_mut().unwrap().own = None;
    assert!(why(vec![without]).starts_with("it has no entry for process 1"));
}

#[test]
fn nothing_is_compared_unless_asked_for() {
    let mut ledger = Ledger::new(Pid(1), Vec::new());
    ledger.finish_baseline(Ok(LiveBaseline::default()));
    ledger.audit(&LiveBaseline::default(), 1);
    assert_eq!(ledger.snapshot(1, TargetState::Running, Detail::default()).audit, None);
}
