//! `ttmem snapshot`: the live buffers from memory alone.

use std::{sync::Arc, thread, time::Duration};

use super::{
    Outcome,
    output::{Lines, Stream, outcome},
    target::Target,
};
use crate::{
    cli::args::{Format, SnapshotArgs},
    event::LiveBaseline,
    ledger::{
        Ledger,
        report::Report,
        snapshot::{Detail, Snapshot, TargetState},
    },
    pipeline::now_ns,
    target::live_buffers::Reader,
    units::Pid,
};

/// Attempts to read twice alike from a target that keeps changing.
const ATTEMPTS: usize = 10;
/// How often it is read again where what was read contradicts itself.
const CONFIRMATIONS: usize = 2;
/// The pause before.
const PAUSE: Duration = Duration::from_millis(20);

/// Runs the command.
pub fn run(args: &SnapshotArgs) -> anyhow::Result<Outcome> {
    let detail = Detail { buffers: args.buffers, map: args.map, ..Detail::default() };
    let report = Report::of_one(take(Pid(args.pid), detail)?);
    // No table has room for a map.
    let format = if args.json || args.map { Format::Json } else { Format::Text };
    Lines::new(format, None, Stream::Stdout)?.print(&report)?;
    Ok(outcome(&report))
}

/// Reads a process once.
pub fn take(pid: Pid, detail: Detail) -> anyhow::Result<Snapshot> {
    let target = Target::examine(pid)?;
    let reader = target.reader()?;
    let (mut time_ns, mut ledger) = read_into_ledger(&target, &reader);
    for _ in 0..CONFIRMATIONS {
        if !ledger.needs_resync() {
            break;
        }
        // A thread may have been stopped amid an allocation.
        thread::sleep(PAUSE);
        (time_ns, ledger) = read_into_ledger(&target, &reader);
    }
    let state = if target.process.has_ended() { TargetState::Exited } else { TargetState::Running };
    Ok(ledger.snapshot(time_ns, state, detail))
}

fn read_into_ledger(target: &Target, reader: &Result<Reader, String>) -> (u64, Ledger) {
    // Nothing is attached, so a probe that was not found hides nothing.
    let mut ledger = Ledger::of_process(Arc::new(target.label(0)), Vec::new());
    let (time_ns, baseline) = match reader {
        Ok(reader) => read_steady(reader),
        Err(reason) => (now_ns(), Err(reason.clone())),
    };
    ledger.finish_baseline(baseline);
    (time_ns, ledger)
}

/// Without probes only a second reading shows that the first one was of one instant.
fn read_steady(reader: &Reader) -> (u64, Result<LiveBaseline, String>) {
    let mut last = reader.read();
    for _ in 0..ATTEMPTS {
        let time_ns = now_ns();
        let again = reader.read();
        if again.is_err() || again == last {
            return (time_ns, again.map(|again| LiveBaseline { steady: true, ..again }));
        }
        last = again;
    }
    let reason =
        "the target allocates faster than its memory can be read twice; use `ttmem attach --once`";
    (now_ns(), Err(reason.to_owned()))
}
