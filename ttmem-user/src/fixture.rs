//! Snapshots that the tests of the outputs share.

use std::{
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::Arc,
};

use rustix::event::{EventfdFlags, eventfd};

use crate::{
    event::{BufferType, CircularKind, CoreRange},
    ledger::{
        call::Lookup as _,
        health::{Health, Queue, RingFill},
        snapshot::{
            Anomalies, BlockSnapshot, BufferSnapshot, ChipSnapshot, CircularBufferSnapshot,
            CircularSnapshot, Dispatches, Failure, FailuresSnapshot, Headroom, HeadroomState, Lost,
            PoolSnapshot, ProcessLabel, ProgramSnapshot, ResyncSnapshot, SCHEMA, Snapshot,
            SpaceSnapshot, TargetState, Unresolved, WitnessRow, WitnessSnapshot,
        },
    },
    source::EventSource,
    units::{Avma, ChipId, DeviceAddr, MeshId, Pid, Tid},
};

pub(crate) mod calls;
pub(crate) mod shared;

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const SECOND: u64 = 1_000_000_000;

/// A pool of 12 banks with everything known.
pub(crate) fn pool(buffer_type: BufferType, used: u64, capacity: u64) -> PoolSnapshot {
    PoolSnapshot {
        buffer_type,
        buffers: used.div_ceil(3 * MIB),
        logical_bytes: used / 10 * 9,
        bank_bytes: Some(used / 12),
        banks: Some(12),
        used_bytes: Some(used),
        capacity_bytes: Some(capacity),
        peak_used_bytes: Some((used + used / 3).min(capacity)),
        peak_at_least_bytes: Some((used + used / 3).min(capacity)),
        allocations: used / MIB,
        frees: (used / MIB).saturating_sub(used.div_ceil(3 * MIB)),
        pre_attach_frees: 0,
    }
}

/// A chip whose DRAM holds `dram` bytes of 12 GiB.
pub(crate) fn chip(id: i32, dram: u64) -> ChipSnapshot {
    let pools = vec![
        pool(BufferType::Dram, dram, 12_288 * MIB),
        pool(BufferType::L1, dram / 200, 96 * MIB),
        PoolSnapshot {
            capacity_bytes: None,
            used_bytes: None,
            peak_used_bytes: None,
            peak_at_least_bytes: None,
            banks: None,
            bank_bytes: None,
            ..pool(BufferType::SystemMemory, 0, 0)
        },
        pool(BufferType::L1Small, 0, 4 * MIB),
        pool(BufferType::Trace, 3 * MIB, 24 * MIB),
    ];
    ChipSnapshot { chip: ChipId(id), pools, circular: circular(dram / 100_000) }
}

/// Three programs, of which one keeps `bytes` on a core.
fn circular(bytes: u64) -> CircularSnapshot {
    let end = DeviceAddr(105_824 + bytes);
    CircularSnapshot {
        unknown_because: None,
        programs: 3,
        buffers: 14,
        core_bytes: Some(bytes),
        seen_core_bytes: bytes,
        peak_core_bytes: Some(bytes * 2),
        core_capacity_bytes: Some(MIB + MIB / 3),
        largest_program: Some(Avma(0x5555_5640_0000)),
        headroom: Headroom {
            bytes: Some(900_000),
            unknown_because: None,
            state: Some(HeadroomState::Ok),
            circular_end: Some(end),
            program: Some(Avma(0x5555_5640_0000)),
            lowest_buffer: Some(DeviceAddr(end.0 + 900_000)),
            buffer_unique_id: Some(17),
        },
        dispatches: None,
    }
}

/// A chip on which circular buffers come near a tensor, one on which they reach into it, and one
/// of which not all programs are known; dispatches are watched.
pub(crate) fn circulars() -> Snapshot {
    let mut snapshot = normal();
    let [low, clash] = &mut *snapshot.devices else { unreachable!() };
    low.circular.headroom.bytes = Some(4_096);
    low.circular.headroom.state = Some(HeadroomState::Low);
    clash.circular.headroom.bytes = Some(-2_048);
    clash.circular.headroom.state = Some(HeadroomState::Clash);
    clash.circular.dispatches = Some(Dispatches {
        count: 42,
        last_program: Some(Avma(0x5555_5640_0000)),
        last_ns: Some(97 * SECOND),
    });
    let mut older = chip(2, 10 * MIB);
    let reason = Some("programs from before the attach are not known".to_owned());
    older.circular.core_bytes = None;
    older.circular.peak_core_bytes = None;
    older.circular.headroom.bytes = None;
    older.circular.headroom.state = None;
    older.circular.headroom.unknown_because.clone_from(&reason);
    older.circular.unknown_because = reason;
    snapshot.devices.push(older);
    snapshot
}

/// What two programs keep, one of them more than could be listed.
pub(crate) fn programs() -> Vec<ProgramSnapshot> {
    let buffer = |kind, address, cores| CircularBufferSnapshot {
        kind,
        address: DeviceAddr(address),
        size: 4096,
        cores,
    };
    let grid = || Some(vec![CoreRange { start: (0, 0), end: (7, 6) }]);
    let program = ProgramSnapshot {
        program: Avma(0x5555_5640_0000),
        chips: (0..8).map(ChipId).collect(),
        tid: Tid(4250),
        placed_ns: 88 * SECOND,
        core_bytes: Some(4096),
        chip_bytes: Some(4096 * 56),
        cores: Some(56),
        end: Some(DeviceAddr(109_920)),
        dispatches: Some(12),
        buffers: vec![
            buffer(CircularKind::Circular, 105_824, grid()),
            buffer(CircularKind::Alias, 1_466_368, grid()),
        ],
    };
    let unlisted = ProgramSnapshot {
        program: Avma(0x5555_5640_9000),
        chips: vec![ChipId(0)],
        core_bytes: None,
        chip_bytes: None,
        cores: None,
        dispatches: None,
        buffers: vec![buffer(CircularKind::Dataflow, 105_824, None)],
        ..program.clone()
    };
    vec![program, unlisted]
}

/// What a mesh over two chips has free.
pub(crate) fn space(
    buffer_type: BufferType,
    bank_size: u64,
    free: u64,
    holes: u64,
) -> SpaceSnapshot {
    let largest = if holes == 1 { free } else { free / 3 };
    SpaceSnapshot {
        id: 0,
        mesh: Some(MeshId(1)),
        chips: vec![ChipId(0), ChipId(1)],
        buffer_type,
        maybe_closed: false,
        base: Some(DeviceAddr(0x10_0040)),
        bank_size,
        banks: 12,
        alignment: 32,
        block_minimum: Some(32),
        block_unit: Some(32),
        free_bank_bytes: Some(free),
        largest_free_bank_bytes: Some(largest),
        holes: Some(holes),
        fragmentation_permille: Some((free - largest) * 1000 / free.max(1)),
        unknown_because: None,
        checked: true,
        map: None,
    }
}

/// A mesh over two chips whose DRAM is scattered, and a part of it of which less is known.
pub(crate) fn spaces() -> Vec<SpaceSnapshot> {
    let unknown = SpaceSnapshot {
        id: 1,
        mesh: Some(MeshId(2)),
        chips: vec![ChipId(1)],
        free_bank_bytes: None,
        largest_free_bank_bytes: None,
        holes: None,
        fragmentation_permille: None,
        unknown_because: Some("live buffers of unknown size per bank".into()),
        checked: false,
        ..space(BufferType::L1, MIB, MIB, 1)
    };
    vec![
        space(BufferType::Dram, 1024 * MIB, 183 * MIB, 71),
        space(BufferType::L1, MIB, MIB, 1),
        SpaceSnapshot { banks: 0, bank_size: 0, ..space(BufferType::L1Small, 0, 0, 1) },
        unknown,
    ]
}

/// Two chips whose L1 is known block by block.
pub(crate) fn mapped() -> Snapshot {
    let base = 105_824;
    let block = |start: u64, end: u64, unique_id: Option<u64>| BlockSnapshot {
        start: DeviceAddr(base + start),
        end: DeviceAddr(base + end),
        free: unique_id.is_none(),
        unique_id,
        size: unique_id.map(|_| (end - start) * 12),
    };
    let map = vec![
        block(0, 300_000, None),
        block(300_000, 304_096, Some(17)),
        block(304_096, 400_000, None),
        block(400_000, 900_000, Some(18)),
        block(900_000, MIB, Some(21)),
    ];
    let l1 = SpaceSnapshot {
        base: Some(DeviceAddr(base)),
        free_bank_bytes: Some(395_904),
        largest_free_bank_bytes: Some(300_000),
        holes: Some(2),
        fragmentation_permille: Some(242),
        map: Some(map),
        ..space(BufferType::L1, MIB, MIB, 1)
    };
    let dram = space(BufferType::Dram, 1024 * MIB, 183 * MIB, 71);
    Snapshot { allocators: vec![l1, dram], programs: Some(programs()), ..normal() }
}

/// A running target in which nothing was opened.
pub(crate) fn empty() -> Snapshot {
    Snapshot {
        schema: SCHEMA,
        time_ns: 100 * SECOND,
        pid: Pid(4242),
        process: Arc::new(ProcessLabel {
            pid: Pid(4242),
            command: "python3 -m pytest models/demos/llama3/demo/demo.py -k performance-batch-1"
                .to_owned(),
            ..ProcessLabel::default()
        }),
        state: TargetState::Running,
        exact: true,
        inexact_because: Vec::new(),
        lost: Lost::default(),
        witness: None,
        anomalies: Anomalies::default(),
        last_delta: 0,
        totals_only: None,
        taken_blocks: 0,
        resync: ResyncSnapshot::default(),
        audit: None,
        unresolved: Vec::new(),
        failures: FailuresSnapshot { count: Some(0), ..FailuresSnapshot::default() },
        stacks: None,
        devices: Vec::new(),
        allocators: Vec::new(),
        buffers: None,
        programs: None,
    }
}

/// Two chips, all well.
pub(crate) fn normal() -> Snapshot {
    let devices = vec![chip(0, 5_000 * MIB), chip(1, 9_000 * MIB)];
    Snapshot { devices, allocators: spaces(), witness: Some(witness()), ..empty() }
}

/// What the probes counted.
fn witness() -> WitnessSnapshot {
    let row = |buffer_type: BufferType| {
        let counted = if buffer_type.index() < 2 { (1_234, 9_000 * MIB) } else { (0, 0) };
        WitnessRow { buffer_type, count: counted.0, logical_bytes: counted.1 }
    };
    let allocations = BufferType::ALL.map(row).to_vec();
    WitnessSnapshot { allocations, unread_allocations: 0, frees: 2_100, bulk_frees: 1 }
}

/// What the agent knows of itself: `later` seconds after the first report.
pub(crate) fn health(later: u64) -> Health {
    let records = 1_000_000 + 20_000 * later;
    Health {
        ring: Some(RingFill { waiting_bytes: 0, most_bytes: 400 << 10, size_bytes: 4 << 20 }),
        records,
        busy_ns: records * 50,
        cpu_ns: SECOND + later * 12_000_000,
        resident_bytes: Some(11 * MIB),
        queues: vec![Queue { name: "view", waiting: 3, room: 100_000, overflows: 0 }],
    }
}

/// DRAM and L1 of one chip nearly full, L1 of it full.
pub(crate) fn full() -> Snapshot {
    let mut chip = chip(0, 12_288 * MIB - 1);
    chip.pools[1] = pool(BufferType::L1, 96 * MIB, 96 * MIB);
    chip.pools[3] = pool(BufferType::L1Small, 3 * MIB + MIB / 2, 4 * MIB);
    Snapshot { devices: vec![chip], ..empty() }
}

/// Records were lost.
pub(crate) fn lossy() -> Snapshot {
    let mut snapshot = normal();
    for pool in snapshot.devices.iter_mut().flat_map(|chip| &mut chip.pools) {
        pool.peak_used_bytes = None;
    }
    Snapshot {
        exact: false,
        inexact_because: vec!["12 records were lost since the last resync".into()],
        lost: Lost { ring_full: 10, read_fault: 2 },
        ..snapshot
    }
}

/// Several reasons against exactness, one of them long.
pub(crate) fn inexact() -> Snapshot {
    Snapshot {
        exact: false,
        inexact_because: vec![
            "the buffers that were live before the attach could not be read: the layout of \
             GraphTracker is not known for this build"
                .into(),
            "1 free of an unknown buffer".into(),
            "L1 capacity is not known".into(),
        ],
        anomalies: Anomalies { unknown_free: 1, double_allocation: 2, ..Anomalies::default() },
        ..normal()
    }
}

/// A probe without an attach point; numbers unknown.
pub(crate) fn unresolved() -> Snapshot {
    let mut snapshot = normal();
    for pool in &mut snapshot.devices[1].pools {
        (pool.used_bytes, pool.capacity_bytes) = (None, None);
        (pool.peak_used_bytes, pool.peak_at_least_bytes) = (None, None);
    }
    snapshot.devices[0].pools[0].capacity_bytes = None;
    snapshot.unresolved = vec![
        Unresolved { probe: "deallocate_all".into(), reason: "no symbol matches".into() },
        Unresolved { probe: "bank size".into(), reason: "inlined in every caller".into() },
    ];
    snapshot
}

/// The target is gone.
pub(crate) fn exited() -> Snapshot {
    Snapshot { state: TargetState::Exited, ..normal() }
}

/// Many chips.
pub(crate) fn galaxy() -> Snapshot {
    let devices = (0..32).map(|id| chip(id, (300 * u64::from(id.unsigned_abs()) + 7) * MIB));
    Snapshot { devices: devices.collect(), ..empty() }
}

/// One chip whose system memory is used.
pub(crate) fn one_chip() -> Snapshot {
    let mut chip = chip(3, 700 * MIB);
    chip.pools[2] = pool(BufferType::SystemMemory, 64 * MIB, 1_024 * MIB);
    Snapshot { devices: vec![chip], ..empty() }
}

/// Live buffers, one of them from before the attach.
pub(crate) fn with_buffers() -> Snapshot {
    let buffer = BufferSnapshot {
        unique_id: Some(17),
        buffer_type: BufferType::Dram,
        address: DeviceAddr(0x20_0000),
        size: 3 * MIB,
        page_size: 2048,
        bank_bytes: Some(MIB / 4),
        cores: None,
        chips: (0..8).map(ChipId).collect(),
        mesh: Some(MeshId(1)),
        tid: Some(Tid(4250)),
        allocated_ns: Some(88 * SECOND),
        pre_attach: false,
        call: None,
    };
    let older = BufferSnapshot {
        unique_id: None,
        buffer_type: BufferType::L1Small,
        bank_bytes: None,
        chips: [0, 2, 3, 7].map(ChipId).to_vec(),
        mesh: None,
        tid: None,
        allocated_ns: None,
        pre_attach: true,
        ..buffer.clone()
    };
    Snapshot { buffers: Some(vec![older, buffer]), programs: Some(programs()), ..one_chip() }
}

/// The same with what called for them.
pub(crate) fn with_calls() -> Snapshot {
    let mut snapshot = with_buffers();
    for buffer in snapshot.buffers.iter_mut().flatten() {
        let known = calls::Known::new();
        let allocated_ns = buffer.allocated_ns.map(|_| SECOND / 2);
        buffer.call = Some(known.call(buffer.tid, allocated_ns, buffer.pre_attach));
    }
    snapshot
}

/// Seven failed allocations, two of them kept: one with all that can be known, one with nothing.
pub(crate) fn failed() -> Snapshot {
    failed_amid(with_buffers().buffers.unwrap_or_default())
}

/// The same; one of the two buffers that were live has a known call stack.
pub(crate) fn failed_with_calls() -> Snapshot {
    let mut live = with_buffers().buffers.unwrap_or_default();
    for allocated_ns in live.iter_mut().filter_map(|buffer| buffer.allocated_ns.as_mut()) {
        *allocated_ns += SECOND / 2;
    }
    failed_amid(live)
}

fn failed_amid(live: Vec<BufferSnapshot>) -> Snapshot {
    let full = Failure::made_up(1, 98 * SECOND, Some(live));
    let mut bare = Failure::made_up(7, 99 * SECOND, None);
    (bare.buffer_type, bare.size, bare.banks, bare.bank_bytes) = (None, None, None, None);
    (bare.bank_size_bytes, bare.bank_allocated_bytes) = (None, None);
    (bare.bank_free_bytes, bare.bank_largest_free_bytes) = (None, None);
    (bare.chips, bare.mesh) = (None, None);
    let last = [Arc::new(full), Arc::new(bare)].to_vec();
    Snapshot {
        failures: FailuresSnapshot { count: Some(7), unknown_because: None, last },
        ..one_chip()
    }
}

/// A library in which failed allocations cannot be seen.
pub(crate) fn blind_to_failures() -> Snapshot {
    let because = Some("nothing throws".to_owned());
    let failures = FailuresSnapshot { count: None, unknown_because: because, last: Vec::new() };
    Snapshot { failures, ..one_chip() }
}

/// A source of which nothing ever comes.
pub(crate) struct Quiet(OwnedFd);

impl Quiet {
    pub(crate) fn new() -> Self {
        Self(eventfd(0, EventfdFlags::CLOEXEC).expect("a descriptor"))
    }
}

impl EventSource for Quiet {
    fn drain(&mut self, _: &mut dyn FnMut(&[&[u8]])) -> bool {
        true
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
