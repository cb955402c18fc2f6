//! The rules of programs, one by one.

use super::{
    snapshot::{CircularSnapshot, HeadroomState},
    view::L1,
    *,
};
use crate::{
    event::{CoreRange, Place},
    units::DeviceAddr,
};

const CHIP: ChipId = ChipId(3);
const BANK: u64 = 1_000_000;
const ROOM: L1 = L1 { bank_size: Some(BANK), lowest: None, doubt: None };

fn placed(program: u64, batch: u64, address: u64, size: u64) -> CircularPlaced {
    CircularPlaced {
        time_ns: batch,
        tid: Tid(7),
        program: (program != 0).then_some(Avma(program)),
        batch,
        place: Place { chip: Some(CHIP), device: Avma(0x700) },
        buffer: CircularBuffer {
            kind: CircularKind::Circular,
            address: DeviceAddr(address),
            size,
            cores: Some(vec![CoreRange { start: (0, 0), end: (1, 1) }]),
        },
    }
}

fn watching() -> Circular {
    let mut circular = Circular::new();
    circular.watch(Ok(()), false);
    circular.older_on(&[]);
    circular
}

fn with(buffers: &[CircularPlaced]) -> Circular {
    let mut circular = watching();
    for buffer in buffers {
        circular.placed(buffer, &[CHIP]);
    }
    circular
}

fn chip(circular: &Circular) -> CircularSnapshot {
    circular.chip_snapshot(CHIP, ROOM)
}

#[test]
fn behind_a_gap_nothing_is_known() {
    let mut circular = with(&[placed(1, 10, 100, 40)]);
    assert_eq!(chip(&circular).unknown_because, None);
    circular.note_gap();
    let why = "records were lost, and programs cannot be read again";
    assert_eq!(chip(&circular).unknown_because.as_deref(), Some(why));
}

#[test]
fn the_largest_program_counts_and_not_their_sum() {
    let circular = with(&[
        placed(1, 10, 100, 40),
        placed(1, 10, 140, 10),
        placed(2, 20, 100, 30),
        placed(3, 30, 100, 20),
    ]);
    let shown = chip(&circular);
    assert_eq!((shown.programs, shown.buffers), (3, 4));
    assert_eq!((shown.core_bytes, shown.largest_program), (Some(50), Some(Avma(1))));
    assert_eq!(shown.headroom.circular_end, Some(DeviceAddr(150)));
}

#[test]
fn a_later_batch_replaces_the_earlier() {
    let mut circular = with(&[placed(1, 10, 100, 40), placed(1, 10, 140, 40)]);
    circular.placed(&placed(1, 11, 100, 8), &[CHIP]);
    let shown = chip(&circular);
    assert_eq!((shown.core_bytes, shown.peak_core_bytes), (Some(8), Some(80)));
    assert_eq!(shown.buffers, 1);
}

#[test]
fn dataflow_buffers_are_placed_in_batches_of_their_own() {
    let dataflow = |batch, address| {
        let mut placed = placed(1, batch, address, 16);
        placed.buffer.kind = CircularKind::Dataflow;
        placed
    };
    let circular =
        with(&[placed(1, 10, 100, 40), dataflow(11, 200), dataflow(11, 216), dataflow(12, 200)]);
    let [program] = &*circular.program_snapshots() else { panic!("not one program") };
    assert_eq!(program.buffers.len(), 2);
    assert_eq!(
        (program.core_bytes, program.cores, program.chip_bytes),
        (Some(56), Some(4), Some(224))
    );
}

#[test]
fn an_end_takes_everything_of_the_program() {
    let mut circular = with(&[placed(1, 10, 100, 40), placed(2, 10, 100, 30)]);
    circular.ended(Avma(1));
    circular.ended(Avma(77));
    let shown = chip(&circular);
    assert_eq!((shown.programs, shown.core_bytes), (1, Some(30)));
    assert_eq!(shown.peak_core_bytes, Some(40));
}

#[test]
fn what_lies_over_a_tensor_is_listed_but_not_counted() {
    let mut alias = placed(1, 10, 900, 40);
    alias.buffer.kind = CircularKind::Alias;
    let circular = with(&[placed(1, 10, 100, 4), alias]);
    let shown = chip(&circular);
    assert_eq!((shown.core_bytes, shown.headroom.circular_end), (Some(4), Some(DeviceAddr(104))));
    assert_eq!(circular.program_snapshots()[0].buffers.len(), 2);
}

#[test]
fn chips_with_the_same_buffers_share_a_row() {
    let mut circular = watching();
    circular.placed(&placed(1, 10, 100, 40), &[ChipId(0), ChipId(1)]);
    circular.placed(&placed(1, 11, 100, 41), &[ChipId(1)]);
    let rows = circular.program_snapshots();
    let chips: Vec<_> = rows.iter().map(|row| (row.chips.clone(), row.core_bytes)).collect();
    assert_eq!(chips, [(vec![ChipId(0)], Some(40)), (vec![ChipId(1)], Some(41))]);
}

#[test]
fn unknown_is_never_zero() {
    let reason = |circular: &Circular| {
        let shown = chip(circular);
        assert_eq!((shown.core_bytes, shown.peak_core_bytes), (None, None));
        assert_eq!(shown.headroom.bytes, None);
        assert_eq!(shown.headroom.unknown_because, shown.unknown_because);
        shown.unknown_because.unwrap()
    };
    assert_eq!(reason(&Circular::new()), "only `ttmem attach` sees programs");
    let mut circular = Circular::new();
    circular.watch(Err("circular: gone".to_owned()), false);
    assert_eq!(reason(&circular), "circular: gone");
    circular.watch(Ok(()), false);
    let older = "programs from before the attach are not known";
    assert_eq!(reason(&circular), older);
    circular.older_on(&[CHIP]);
    assert_eq!(reason(&circular), older);
    circular.older_on(&[ChipId(9)]);
    assert_eq!(chip(&circular).core_bytes, Some(0));
    circular.placed(&placed(0, 10, 100, 40), &[CHIP]);
    assert_eq!(reason(&circular), "buffers whose program or chip is not known: 1");
    circular.placed(&placed(1, 10, 100, 40), &[]);
    assert_eq!(reason(&circular), "buffers whose program or chip is not known: 2");
}

#[test]
fn cores_that_were_not_listed_leave_only_the_end_known() {
    let mut unlisted = placed(1, 10, 100, 40);
    unlisted.buffer.cores = None;
    let circular = with(&[unlisted]);
    let shown = chip(&circular);
    assert!(shown.unknown_because.unwrap().contains("more ranges"));
    assert_eq!((shown.core_bytes, shown.headroom.circular_end), (None, Some(DeviceAddr(140))));
}

#[test]
fn headroom_is_what_lies_between_the_ends() {
    let circular = with(&[placed(1, 10, 100, 40), placed(2, 10, 100, 60)]);
    let with_doubt = |lowest: u64, doubt| {
        let lowest = Some((DeviceAddr(lowest), Some(5)));
        circular.chip_snapshot(CHIP, L1 { lowest, doubt, ..ROOM }).headroom
    };
    let at = |lowest| with_doubt(lowest, None);
    let room = at(160 + BANK / 10);
    assert_eq!((room.bytes, room.state), (Some(100_000), Some(HeadroomState::Ok)));
    assert_eq!((room.program, room.buffer_unique_id), (Some(Avma(2)), Some(5)));
    let room = at(160 + BANK / 10 - 1);
    assert_eq!((room.bytes, room.state), (Some(99_999), Some(HeadroomState::Low)));
    assert_eq!(at(160).state, Some(HeadroomState::Low));
    let room = at(159);
    assert_eq!((room.bytes, room.state), (Some(-1), Some(HeadroomState::Clash)));
    let unknown = with_doubt(160, Some("some reason"));
    assert_eq!((unknown.bytes, unknown.state, unknown.lowest_buffer), (None, None, None));
    assert_eq!(unknown.unknown_because.unwrap(), "some reason");
    let empty = chip(&circular).headroom;
    assert_eq!((empty.bytes, &*empty.unknown_because.unwrap()), (None, "no tensor lies in L1"));
    let nothing = chip(&watching()).headroom.unknown_because.unwrap();
    assert_eq!(nothing, "no program keeps circular buffers here");
}

#[test]
fn dispatches_count_by_program_and_by_chip() {
    let mut circular = watching();
    circular.watch(Ok(()), true);
    assert_eq!(chip(&circular).dispatches.unwrap().last_ns, None);
    let place = Place { chip: Some(CHIP), device: Avma(0x700) };
    // The first dispatch of a program can come before its buffers.
    for (program, time_ns) in [(1, 5), (2, 6), (1, 12)] {
        circular.dispatched(&Dispatched { time_ns, program: Avma(program), place }, &[CHIP]);
        if program == 1 && time_ns == 5 {
            circular.placed(&placed(1, 10, 100, 40), &[CHIP]);
        }
    }
    let shown = chip(&circular);
    let dispatches = shown.dispatches.unwrap();
    assert_eq!((dispatches.count, dispatches.last_program), (3, Some(Avma(1))));
    assert_eq!((dispatches.last_ns, shown.programs), (Some(12), 1));
    let [program] = &*circular.program_snapshots() else { panic!("not one program") };
    assert_eq!((program.dispatches, program.tid, program.placed_ns), (Some(2), Tid(7), 10));
}

#[test]
fn dispatches_that_are_not_watched_are_unknown() {
    let circular = with(&[placed(1, 10, 100, 40)]);
    assert_eq!(chip(&circular).dispatches, None);
    assert_eq!(circular.program_snapshots()[0].dispatches, None);
}

/// A buffer on so many single cores, no two of a row or a column.
fn scattered(batch: u64, kind: CircularKind) -> CircularPlaced {
    let mut buffer = placed(1, batch, 100, 40);
    let core = |at| CoreRange { start: (at, at), end: (at, 4000) };
    buffer.buffer.cores = Some((0..32).map(|at| core(at * 11)).collect());
    buffer.buffer.kind = kind;
    buffer
}

#[test]
fn to_look_at_buffers_takes_steps_by_their_number_whatever_they_say() {
    let mut circular = watching();
    for _ in 0..300 {
        circular.placed(&scattered(1, CircularKind::Circular), &[CHIP]);
    }
    // Each record ends a batch, and what was there is added up.
    for batch in 2..1000 {
        circular.placed(&scattered(batch, CircularKind::Dataflow), &[CHIP]);
    }
    let shown = chip(&circular);
    let why = "a program's buffers are too scattered over cores to be added up";
    assert_eq!(shown.unknown_because.as_deref(), Some(why));
    assert_eq!((shown.core_bytes, shown.peak_core_bytes), (None, None));
    circular.ended(Avma(1));
    let after = chip(&circular);
    assert_eq!((after.unknown_because, after.core_bytes), (None, Some(0)));
    assert_eq!(after.peak_core_bytes, None, "what was gone is not known for good");
}

#[test]
fn more_buffers_than_are_followed_are_said_to_be() {
    let mut circular = watching();
    for _ in 0..=MOST_BUFFERS {
        circular.placed(&placed(1, 10, 100, 40), &[CHIP]);
    }
    let shown = chip(&circular);
    let why = "a program has more buffers than are followed";
    assert_eq!(shown.unknown_because.as_deref(), Some(why));
    assert_eq!(
        (shown.buffers, shown.headroom.circular_end),
        (MOST_BUFFERS as u64 + 1, Some(DeviceAddr(140)))
    );
    circular.placed(&placed(1, 11, 100, 40), &[CHIP]);
    assert_eq!(chip(&circular).core_bytes, Some(40), "the next batch is known again");
}
