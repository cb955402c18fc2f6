//! Ties the history of the targets to the pipeline: what is live is fetched by a query.

use std::sync::Arc;

use anyhow::Context as _;

use super::privileges;

use crate::{
    history::{Refill, recorder::Recorder},
    pipeline::{Command, Control, Query, QueryKind, View},
};

/// Starts a recorder if one is wanted.
pub fn start(wanted: bool, control: &Arc<Control>) -> anyhow::Result<Option<Recorder>> {
    if !wanted {
        return Ok(None);
    }
    let recorder = Recorder::start(privileges::drop_all).context("cannot start a thread")?;
    connect(&recorder, control);
    Ok(Some(recorder))
}

/// Has a recorder that fell behind fetch what is live from here.
pub fn connect(recorder: &Recorder, control: &Arc<Control>) {
    let control = Arc::clone(control);
    recorder.connect(Box::new(move |serial, answer| {
        let run = Box::new(move |view: View<'_>| {
            answer(Refill {
                time_ns: view.time_ns,
                last_delta: view.ledger.last_delta(),
                live: view.ledger.live_deltas(view.time_ns),
            });
        });
        control.send(Command::Query(Query { serial, kind: QueryKind::Long, run }));
    }));
}
