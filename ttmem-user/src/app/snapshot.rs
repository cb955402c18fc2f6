//! `ttmem snapshot`: the live buffers from memory alone.

use std::sync::Arc;

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

/// Runs the command.
pub fn run(args: &SnapshotArgs) -> anyhow::Result<Outcome> {
    let detail = Detail { buffers: args.buffers, map: args.map };
    let report = Report::of_one(take(Pid(args.pid), detail)?);
    let format = if args.json { Format::Json } else { Format::Text };
    Lines::new(format, None, Stream::Stdout)?.print(&report)?;
    Ok(outcome(&report))
}

/// Reads a process once.
pub fn take(pid: Pid, detail: Detail) -> anyhow::Result<Snapshot> {
    let target = Target::examine(pid)?;
    let reader = target.reader()?;
    // Nothing is attached, so a probe that was not found hides nothing.
    let mut ledger = Ledger::of_process(Arc::new(target.label(0)), Vec::new());
    let (time_ns, baseline) = match &reader {
        Ok(reader) => read_steady(reader),
        Err(reason) => (now_ns(), Err(reason.clone())),
    };
    ledger.finish_baseline(baseline);
    let state = if target.process.has_ended() { TargetState::Exited } else { TargetState::Running };
    Ok(ledger.snapshot(time_ns, state, detail))
}

/// Without probes only a second reading shows that the first one was of one instant.
fn read_steady(reader: &Reader) -> (u64, Result<LiveBaseline, String>) {
    let mut last = reader.read();
    for _ in 0..ATTEMPTS {
        let time_ns = now_ns();
        let again = reader.read();
        if again.is_err() || again == last {
            return (time_ns, again);
        }
        last = again;
    }
    let reason =
        "the target allocates faster than its memory can be read twice; use `ttmem attach --once`";
    (now_ns(), Err(reason.to_owned()))
}
