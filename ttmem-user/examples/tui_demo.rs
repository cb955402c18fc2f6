//! The live view on made-up numbers: `cargo run --example tui_demo -- [chips] [seconds]`.
//!
//! Chips fill and empty, some records get lost after a while, and at the end the target exits.

use std::{env, sync::Arc, time::Duration};

use tokio::{sync::watch, time};
use ttmem::{
    event::BufferType,
    ledger::snapshot::{
        Anomalies, ChipSnapshot, CircularSnapshot, Lost, PoolSnapshot, SCHEMA, Snapshot,
        TargetState,
    },
    tui::{self, TargetLabel, Theme, Ui},
    units::{ChipId, Pid},
};

const TICK: Duration = Duration::from_millis(100);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut numbers = env::args().skip(1).map(|argument| argument.parse::<u32>());
    let chips = numbers.next().transpose()?.unwrap_or(4);
    let ticks = 10 * u64::from(numbers.next().transpose()?.unwrap_or(60));
    let (sender, receiver) = watch::channel(Arc::new(snapshot(0, 0, ticks)));
    tokio::spawn(async move {
        for tick in 1..=ticks {
            time::sleep(TICK).await;
            let opened = if tick < 20 { 0 } else { chips };
            sender.send_replace(Arc::new(snapshot(opened, tick, ticks)));
        }
    });
    let target = TargetLabel {
        pid: Pid(4242),
        command: "python3 -m pytest models/demos/llama3/demo/demo.py".into(),
        version: Some("made up".into()),
    };
    let quit = tokio::signal::ctrl_c();
    tui::run(Ui::new(Theme::from_env(), target), receiver, quit).await
}

fn snapshot(chips: u32, tick: u64, ticks: u64) -> Snapshot {
    let ring_full = tick.saturating_sub(ticks / 2);
    let exact = ring_full == 0;
    let why = format!("{ring_full} records were lost since the last resync");
    Snapshot {
        schema: SCHEMA,
        time_ns: (1 + tick) * 100_000_000,
        pid: Pid(4242),
        state: if tick < ticks { TargetState::Running } else { TargetState::Exited },
        exact,
        inexact_because: if exact { Vec::new() } else { vec![why] },
        lost: Lost { ring_full, read_fault: 0 },
        anomalies: Anomalies::default(),
        unresolved: Vec::new(),
        devices: (0..chips).map(|id| chip(id, tick)).collect(),
        buffers: None,
        programs: None,
    }
}

fn chip(id: u32, tick: u64) -> ChipSnapshot {
    let sizes: [u64; 5] = [12 << 30, 96 << 20, 0, 4 << 20, 24 << 20];
    let pools = BufferType::ALL.into_iter().zip(sizes).map(|(buffer_type, capacity)| {
        let speed = 1 + u64::from(id) + buffer_type.index() as u64;
        let wave = |tick: u64| (tick * speed % 202).min(100);
        let peak = (0..=tick.min(202)).map(wave).max().unwrap_or(0);
        let idle = buffer_type == BufferType::L1Small || capacity == 0;
        let scale = if idle { 0 } else { capacity / 100 };
        PoolSnapshot {
            buffer_type,
            buffers: if idle { 0 } else { wave(tick) },
            logical_bytes: wave(tick) * scale,
            bank_bytes: Some(wave(tick) * scale / 12),
            banks: Some(12),
            used_bytes: Some(wave(tick) * scale),
            capacity_bytes: Some(capacity),
            peak_used_bytes: Some(peak * scale),
            allocations: if idle { 0 } else { tick * speed },
            frees: 0,
            pre_attach_frees: 0,
        }
    });
    ChipSnapshot {
        chip: ChipId(i32::try_from(id).unwrap_or(i32::MAX)),
        pools: pools.collect(),
        circular: CircularSnapshot::default(),
    }
}
