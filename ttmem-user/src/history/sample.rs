//! Deltas for the tests.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;

use crate::{
    event::BufferType,
    ledger::delta::{Cause, Change, Delta},
    units::{Avma, ChipId, DeviceAddr, MeshId, Tid},
};

/// A free of a buffer of which nothing is known.
pub(crate) fn delta(sequence: u64, change: Change) -> Delta {
    Delta {
        sequence,
        time_ns: 1,
        tid: None,
        change,
        cause: Cause::Event,
        buffer: Avma(1),
        allocator: Avma(2),
        unique_id: None,
        buffer_type: BufferType::L1,
        address: DeviceAddr(0),
        size: 0,
        page_size: 0,
        bank_bytes: None,
        used_bytes: None,
        cores: None,
        chips: [].into(),
        mesh: None,
        allocated_tid: None,
        allocated_ns: None,
        pre_attach: false,
    }
}

/// An allocation of `size` bytes on chip 0 by thread 1, as a probe sees it.
pub(crate) fn allocated(sequence: u64, time_ns: u64, buffer: u64, size: u64) -> Delta {
    Delta {
        time_ns,
        tid: Some(Tid(1)),
        buffer: Avma(buffer),
        unique_id: Some(sequence),
        address: DeviceAddr(buffer * 64),
        size,
        page_size: 2048,
        bank_bytes: Some(size / 12),
        used_bytes: Some(size),
        chips: [ChipId(0)].into(),
        allocated_tid: Some(Tid(1)),
        allocated_ns: Some(time_ns),
        ..delta(sequence, Change::Allocated)
    }
}

/// The free of what a delta has brought.
pub(crate) fn freed(of: &Delta, sequence: u64, time_ns: u64) -> Delta {
    Delta { sequence, time_ns, change: Change::Freed, ..of.clone() }
}

/// One thing that a made-up target does.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Allocates there, or frees what is there.
    pub buffer: u8,
    pub buffer_type: BufferType,
    pub size: u64,
    pub measured: bool,
    pub chips: usize,
    pub thread: u32,
    pub cause: Cause,
    /// Later than the step before; may be less than nothing.
    pub passes_ns: i64,
}

pub(crate) fn steps(most: usize) -> impl Strategy<Value = Vec<Step>> {
    let types = prop_oneof![Just(BufferType::Dram), Just(BufferType::L1), Just(BufferType::Trace)];
    let causes = prop_oneof![
        8 => Just(Cause::Event),
        1 => Just(Cause::Baseline),
        1 => Just(Cause::Resync)
    ];
    let passes = prop_oneof![
        4 => 0..1_000_i64,
        2 => 0..200_000_000_i64,
        1 => -500..0_i64,
        1 => 0..20_000_000_000_i64
    ];
    let sizes = prop_oneof![0..10_000_u64, Just(1 << 30)];
    let measured = proptest::bool::weighted(0.95);
    let step = (any::<u8>(), types, sizes, measured, 0..CHIPS.len(), 0..4_u32, causes, passes);
    let step =
        step.prop_map(|(buffer, buffer_type, size, measured, chips, thread, cause, passes_ns)| {
            Step { buffer, buffer_type, size, measured, chips, thread, cause, passes_ns }
        });
    proptest::collection::vec(step, 0..most)
}

/// A mesh, submeshes, single chips, and chips that are not known.
const CHIPS: [&[i32]; 7] = [&[0, 1, 2, 3], &[0, 1], &[2, 3], &[1, 2], &[3], &[9], &[]];

/// The deltas of what a target does.
pub(crate) fn deltas(steps: &[Step]) -> Vec<Delta> {
    let places = CHIPS.map(|chips| chips.iter().copied().map(ChipId).collect::<Arc<[ChipId]>>());
    let mut live: BTreeMap<u8, Delta> = BTreeMap::new();
    let mut deltas = Vec::new();
    let mut now_ns = 10_000_000_000_u64;
    for (step, sequence) in steps.iter().zip(1..) {
        now_ns = now_ns.saturating_add_signed(step.passes_ns);
        let new = if let Some(old) = live.remove(&step.buffer) {
            Delta { cause: step.cause, ..freed(&old, sequence, now_ns) }
        } else {
            let seen = step.cause == Cause::Event;
            let new = Delta {
                buffer_type: step.buffer_type,
                bank_bytes: step.measured.then_some(step.size / 12),
                used_bytes: step.measured.then_some(step.size),
                chips: Arc::clone(&places[step.chips]),
                mesh: (step.chips < 4).then_some(MeshId(1)),
                tid: seen.then_some(Tid(step.thread)),
                allocated_tid: seen.then_some(Tid(step.thread)),
                allocated_ns: seen.then_some(now_ns),
                pre_attach: step.cause == Cause::Baseline,
                cause: step.cause,
                ..allocated(sequence, now_ns, u64::from(step.buffer), step.size)
            };
            live.insert(step.buffer, new.clone());
            new
        };
        deltas.push(new);
    }
    deltas
}
