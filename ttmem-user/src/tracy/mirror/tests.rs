//! What one delta after the other becomes.

use std::sync::Arc;

use super::*;
use crate::{
    event::BufferType,
    fixture,
    ledger::{
        delta::Cause,
        snapshot::{Lost, TargetState},
    },
    units::{DeviceAddr, Pid},
};

pub fn delta(change: Change, time_ns: u64, buffer: u64, address: u64) -> Delta {
    Delta {
        sequence: time_ns,
        time_ns,
        tid: Some(Tid(42)),
        change,
        cause: Cause::Event,
        buffer: Avma(buffer),
        allocator: Avma(0xa),
        unique_id: None,
        buffer_type: BufferType::L1,
        address: DeviceAddr(address),
        size: 4096,
        page_size: 1024,
        bank_bytes: Some(512),
        used_bytes: Some(6144),
        cores: None,
        chips: [ChipId(0)].into(),
        mesh: None,
        allocated_tid: None,
        allocated_ns: None,
        pre_attach: false,
    }
}

pub fn came(time_ns: u64, buffer: u64, address: u64) -> Delta {
    delta(Change::Allocated, time_ns, buffer, address)
}

pub fn went(time_ns: u64, buffer: u64, address: u64) -> Delta {
    delta(Change::Freed, time_ns, buffer, address)
}

pub fn mirror() -> Mirror {
    let label =
        ProcessLabel { command: "python model.py".to_owned(), ..ProcessLabel::of_pid(Pid(7)) };
    Mirror::new(&Arc::new(label), Style::Ttmem, 0)
}

/// What the operations say, one line each; points of plots are left out.
fn lines(mirror: &mut Mirror, deltas: &[Delta]) -> Vec<String> {
    let mut ops = Vec::new();
    for delta in deltas {
        mirror.apply(delta, &mut |op| ops.extend(line(op)));
    }
    ops.into_iter().map(|(name, rest)| format!("{}{rest}", text(mirror, name))).collect()
}

fn text(mirror: &Mirror, name: Option<Name>) -> &str {
    name.and_then(|name| mirror.names().text(name)).unwrap_or_default()
}

fn line(op: Op<'_>) -> Option<(Option<Name>, String)> {
    match op {
        Op::Alloc { pool, at, address, size, .. } => {
            Some((Some(pool), format!(" +{address:#x} {size} at {} on {}", at.time_ns, at.tid)))
        }
        Op::Free { pool, at, address, .. } => {
            Some((Some(pool), format!(" -{address:#x} at {}", at.time_ns)))
        }
        Op::Message { text, severity, .. } => Some((None, format!("{severity:?} {text}"))),
        Op::Plot { .. } | Op::Point { .. } | Op::AppInfo { .. } => None,
    }
}

#[test]
fn a_buffer_comes_into_the_pool_of_each_chip() {
    let mut mirror = mirror();
    let on_two = Delta { chips: [ChipId(0), ChipId(5)].into(), ..came(10, 1, 0x400) };
    let off_two = Delta { change: Change::Freed, time_ns: 20, ..on_two.clone() };
    assert_eq!(
        lines(&mut mirror, &[on_two, off_two]),
        [
            "TT_Dev0_L1 +0x400 512 at 10 on 42",
            "TT_Dev5_L1 +0x400 512 at 10 on 42",
            "TT_Dev0_L1 -0x400 at 20",
            "TT_Dev5_L1 -0x400 at 20",
        ]
    );
}

#[test]
fn what_contradicts_is_never_said() {
    let mut mirror = mirror();
    let found = lines(
        &mut mirror,
        &[
            went(1, 9, 0x400), // never announced
            came(2, 1, 0x400),
            came(3, 2, 0x400), // the free of 1 was lost
            went(4, 1, 0x400), // and is found out later
            went(5, 2, 0x400),
            went(6, 2, 0x400),
        ],
    );
    let expected = [
        "TT_Dev0_L1 +0x400 512 at 2 on 42",
        "TT_Dev0_L1 -0x400 at 3",
        "TT_Dev0_L1 +0x400 512 at 3 on 42",
        "TT_Dev0_L1 -0x400 at 5",
    ];
    assert_eq!(found, expected);
    assert_eq!(mirror.oddities().replaced, 1);
}

#[test]
fn allocators_have_pools_of_their_own_and_leave_them_when_empty() {
    let mut mirror = mirror();
    let other = |delta| Delta { allocator: Avma(0xb), ..delta };
    let third = |delta| Delta { allocator: Avma(0xc), ..delta };
    let found = lines(
        &mut mirror,
        &[
            came(1, 1, 0x400),
            other(came(2, 2, 0x400)),
            went(3, 1, 0x400),
            third(came(4, 3, 0x400)), // the first is empty
            came(5, 4, 0x400),        // and gone, so this is one more
            other(went(6, 2, 0x400)),
        ],
    );
    assert_eq!(
        found,
        [
            "TT_Dev0_L1 +0x400 512 at 1 on 42",
            "TT_Dev0_L1#2 +0x400 512 at 2 on 42",
            "TT_Dev0_L1 -0x400 at 3",
            "TT_Dev0_L1 +0x400 512 at 4 on 42",
            "TT_Dev0_L1#3 +0x400 512 at 5 on 42",
            "TT_Dev0_L1#2 -0x400 at 6",
        ]
    );
    assert_eq!(mirror.oddities(), Oddities::default());
}

#[test]
fn buffers_on_some_cores_may_have_the_same_address() {
    let mut mirror = mirror();
    let some = |delta| Delta { cores: Some(4), ..delta };
    let found = lines(
        &mut mirror,
        &[some(came(1, 1, 0)), some(came(2, 2, 0)), some(went(3, 1, 0)), some(went(4, 2, 0))],
    );
    assert_eq!(
        found,
        [
            "TT_Dev0_L1 +0x0 512 at 1 on 42",
            "TT_Dev0_L1#2 +0x0 512 at 2 on 42",
            "TT_Dev0_L1 -0x0 at 3",
            "TT_Dev0_L1#2 -0x0 at 4",
        ]
    );
}

#[test]
fn time_does_not_go_back() {
    let mut mirror = mirror();
    let found = lines(&mut mirror, &[came(10, 1, 0), came(8, 2, 1), came(12, 3, 2)]);
    let times = found.iter().map(|line| line.split(' ').nth(4).unwrap());
    assert_eq!(times.collect::<Vec<_>>(), ["10", "10", "12"]);
}

#[test]
fn what_is_too_large_is_cut_and_said() {
    let mut mirror = mirror();
    let large = Delta { bank_bytes: Some(1 << 47), ..came(1, 1, 0) };
    let unknown = Delta { bank_bytes: None, used_bytes: None, ..came(2, 2, 1) };
    let found = lines(&mut mirror, &[large, unknown]);
    assert_eq!(found[0], format!("TT_Dev0_L1 +0x0 {} at 1 on 42", (1_u64 << 47) - 1));
    assert_eq!(found[1], "TT_Dev0_L1 +0x1 4096 at 2 on 42");
    let said = told(&mut mirror, &fixture::normal());
    assert!(said.iter().any(|line| line.starts_with("Warning 1 sizes or addresses were cut")));
    assert!(said.iter().any(|line| line == "Warning 1 buffers are shown with their logical size"));
    assert!(!told(&mut mirror, &fixture::normal()).iter().any(|line| line.contains("were cut")));
}

fn told(mirror: &mut Mirror, snapshot: &crate::ledger::snapshot::Snapshot) -> Vec<String> {
    let mut said = Vec::new();
    mirror.observe(snapshot, &mut |op| said.extend(line(op).map(|(_, text)| text)));
    said.retain(|line| !line.ends_with(notes::ATTACHED));
    said
}

#[test]
fn each_doubt_is_said_once() {
    let mut mirror = mirror();
    let lossy = crate::ledger::snapshot::Snapshot {
        lost: Lost { ring_full: 3, read_fault: 0 },
        exact: false,
        inexact_because: vec!["3 records were lost".to_owned()],
        ..fixture::normal()
    };
    let said = told(&mut mirror, &lossy);
    assert_eq!(said, ["Warning 3 records were lost", "Warning not exact: 3 records were lost"]);
    assert!(told(&mut mirror, &lossy).is_empty());
    assert_eq!(told(&mut mirror, &fixture::normal()), ["Info exact from here on"]);
}

#[test]
fn the_end_frees_everything() {
    let mut mirror = mirror();
    lines(&mut mirror, &[came(1, 1, 0x400), came(2, 2, 0x800)]);
    let ended =
        crate::ledger::snapshot::Snapshot { state: TargetState::Exited, ..fixture::normal() };
    let said = told(&mut mirror, &ended);
    assert_eq!(said, ["Info the process has exited; 2 allocations were live in all pools"]);
    let mut ops = Vec::new();
    mirror.clear(fixture::normal().time_ns, &mut |op| ops.extend(line(op)));
    assert_eq!(ops.len(), 2);
    assert!(ops.iter().all(|(_, text)| text.starts_with(" -")));
}

#[test]
fn capacities_and_room_are_plots_of_their_own_said_once() {
    let mut mirror = mirror();
    let mut points = Vec::new();
    let mut snapshot = fixture::circulars();
    for _ in 0..2 {
        mirror.observe(&snapshot, &mut |op| {
            if let Op::Point { plot, value, .. } = op {
                points.push((plot, value));
            }
        });
    }
    let named = |wanted: &str| {
        let name = |plot: Name| mirror.names().text(plot).unwrap();
        points.iter().filter(|(plot, _)| name(*plot) == wanted).map(|it| it.1).collect::<Vec<_>>()
    };
    assert_eq!(named("TT_Dev0_DRAM capacity"), [12_288 << 20]);
    assert_eq!(named("TT_Dev1_CB headroom to L1"), [-2048]);
    snapshot.devices[1].circular.headroom.bytes = Some(64);
    let mut again = 0;
    mirror.observe(&snapshot, &mut |op| again += usize::from(matches!(op, Op::Point { .. })));
    assert_eq!(again, 1, "only what has changed");
}

#[test]
fn programs_are_not_added_up() {
    let mut mirror = mirror();
    let mut said = Vec::new();
    let programs = fixture::programs();
    mirror.show_programs(&programs, 5, &mut |op| said.extend(line(op)));
    let texts = |said: &[(Option<Name>, String)], mirror: &Mirror| {
        said.iter().map(|(name, rest)| format!("{}{rest}", text(mirror, *name))).collect::<Vec<_>>()
    };
    let found = texts(&said, &mirror);
    assert_eq!(found.len(), 8, "{found:?}");
    assert_eq!(found[0], "TT_Dev0_CB +0x19d60 4096 at 5 on 4250");
    said.clear();
    mirror.show_programs(&programs, 6, &mut |op| said.extend(line(op)));
    assert!(said.is_empty(), "nothing is new");
    mirror.show_programs(&programs[1..], 7, &mut |op| said.extend(line(op)));
    assert_eq!(said.len(), 9, "the other program has chip 0 now, the rest have none");
}
