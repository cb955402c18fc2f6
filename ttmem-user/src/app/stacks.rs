//! Call stacks, for the sessions that record them.

use std::{
    sync::{Arc, mpsc},
    time::Duration,
};

use anyhow::Context as _;

use super::privileges;
use crate::{
    kernel::StackRecords,
    ledger::{call::Calls as _, report::Report},
    pipeline::{Command, Control, Query, QueryKind},
    socket::FillIn,
    stacks::{Handle, Unwinding},
};

/// How long to wait for what is live of a target.
const PATIENCE: Duration = Duration::from_secs(1);

/// Starts the thread that unwinds.
pub fn start(source: StackRecords, control: &Arc<Control>) -> anyhow::Result<Unwinding> {
    let control = Arc::clone(control);
    let ask_live = Box::new(move |serial| {
        let (sender, live) = mpsc::channel();
        let run = move |view: crate::pipeline::View<'_>| {
            // Whoever asked may have given up.
            let _ = sender.send((view.time_ns, view.ledger.allocations().collect()));
        };
        control.send(Command::Query(Query { serial, kind: QueryKind::Long, run: Box::new(run) }));
        live.recv_timeout(PATIENCE).ok()
    });
    Unwinding::start(source, ask_live, privileges::drop_all)
        .context("cannot start the thread that unwinds call stacks")
}

/// Fills in what called for the buffers and failed allocations of a snapshot, and what was counted
/// of the stacks.
pub fn fill_in(stacks: Handle) -> FillIn {
    Arc::new(move |snapshot| {
        stacks.catch_up();
        stacks.fill_in(snapshot);
    })
}

/// A report with what called for its buffers and failed allocations, and what was counted of the
/// stacks.
pub fn with_calls(stacks: &Handle, report: &Report) -> Report {
    stacks.catch_up();
    let mut report = report.clone();
    for target in &mut report.targets {
        stacks.fill_in(Arc::make_mut(target));
    }
    report
}
