//! One target in the pipeline: its ledger, its end, the readings of its memory.

use std::{os::fd::OwnedFd, sync::Arc, time::Duration};

use super::{
    Query, QueryKind, View,
    readers::{ReadLive, Readers},
};
use crate::{
    event::LiveBaseline,
    ledger::{
        Ledger, ReadingBegun, Resynced,
        delta::Delta,
        snapshot::{Detail, Lost, Snapshot, TargetState},
    },
    sink::DeltaSink,
    table::writer::Writer,
    witness::Witness,
};

/// A target, as it is handed to the pipeline.
pub struct NewTarget {
    /// Its slot in the layout map, which its records carry.
    pub slot: u32,
    /// What is known of it so far.
    pub ledger: Ledger,
    /// Becomes readable when it ends.
    pub ended: OwnedFd,
    /// Whether the program that was attached to is still what it runs.
    pub same_program: Box<dyn Fn() -> bool + Send>,
    /// It has not run an instruction of its library before the probes are in place: nothing is
    /// older than they are.
    pub fresh: bool,
    /// Reads its live buffers.
    pub read_live: ReadLive,
    /// Where its totals are written for others to read, if anywhere.
    pub table: Option<Writer>,
    /// What follows its changes from the first on.
    pub sinks: Vec<Box<dyn DeltaSink>>,
}

/// A target that is being watched.
pub(super) struct Watched {
    pub(super) target: NewTarget,
    /// What had been lost when it came.
    lost_before: Lost,
    /// What had been counted in its slot before it came.
    witness_before: Option<Witness>,
    phase: Phase,
    /// Readings to be repeated because something was lost meanwhile.
    unsettled: bool,
    /// When it was noticed that a reading is due, ns.
    doubtful_since: Option<u64>,
    /// Readings in a row that settled nothing.
    failures: u32,
    /// When a reading is to be confirmed by another, ns.
    confirm_at: Option<u64>,
    /// What the table says of circular buffers may not be all.
    pub(super) circular_is_old: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Its probes are being attached.
    Attaching,
    /// Its live buffers are being read for the first time.
    Baseline,
    /// Its live buffers are being read again.
    Resync(ReadingBegun),
    /// Nothing is being read.
    Settled,
}

/// How long to wait before differences are looked at once more.
const CONFIRM: Duration = Duration::from_millis(20);
/// How long after a reading another one looks for frees that were under way, and of which no record
/// will come: at the attach, or when records were lost.
const CONFIRM_NS: u64 = 1_000_000_000;
/// Loss comes in bursts: a reading begins this long after the first is noticed.
const CALM_NS: u64 = 50_000_000;
/// The wait doubles with every reading that settled nothing, this often at most.
const MAX_DOUBLINGS: u32 = 10;

impl Watched {
    pub(super) fn new(mut target: NewTarget, lost: Lost, witness: Option<Witness>) -> Self {
        let phase = Phase::Attaching;
        target.ledger.want_deltas(!target.sinks.is_empty());
        Self {
            target,
            lost_before: lost,
            witness_before: witness,
            phase,
            unsettled: false,
            doubtful_since: None,
            failures: 0,
            confirm_at: None,
            circular_is_old: true,
        }
    }

    pub(super) fn serial(&self) -> u64 {
        self.target.ledger.process().serial
    }

    /// Whether its live buffers are being read, so that frees have to say what they free.
    pub(super) fn is_reading(&self) -> bool {
        self.phase != Phase::Settled
    }

    /// Whether its probes are not in place yet.
    pub(super) fn is_attaching(&self) -> bool {
        self.phase == Phase::Attaching
    }

    /// Whether its older buffers are still to be read.
    pub(super) fn awaits_baseline(&self) -> bool {
        matches!(self.phase, Phase::Attaching | Phase::Baseline)
    }

    pub(super) fn set_lost(&mut self, lost: Lost) {
        let lost = lost.since(self.lost_before);
        self.circular_is_old |= lost != self.target.ledger.lost();
        self.target.ledger.set_lost(lost);
    }

    /// `now`: what has been counted in its slot.
    pub(super) fn set_witness(&mut self, now: Option<Witness>) {
        let since = |(now, before): (Witness, Witness)| now.since(&before);
        self.target.ledger.set_witness(now.zip(self.witness_before).map(since));
    }

    /// Its probes are in place: its older buffers can be read.
    pub(super) fn attached(&mut self, readers: &Readers) {
        if self.phase == Phase::Attaching {
            self.phase = Phase::Baseline;
            self.target.ledger.all_probes_attached();
            if self.target.fresh {
                self.finish_reading(Ok(LiveBaseline::default()), 0, readers);
                return;
            }
            if !readers.request(self.serial(), &self.target.read_live, Duration::ZERO) {
                self.finish_reading(Err("their reader is gone".to_owned()), 0, readers);
            }
        }
    }

    /// Has its live buffers read again, unless they are being read. What is asked for meanwhile
    /// is done afterwards.
    pub(super) fn request_resync(&mut self, readers: &Readers) {
        if self.phase != Phase::Settled {
            self.unsettled = true;
            return;
        }
        self.unsettled = false;
        self.doubtful_since = None;
        let begun = self.target.ledger.begin_reading();
        self.read_again(begun, readers);
    }

    fn read_again(&mut self, begun: ReadingBegun, readers: &Readers) {
        self.confirm_at = None;
        if readers.request(self.serial(), &self.target.read_live, Duration::ZERO) {
            self.phase = Phase::Resync(begun);
        }
    }

    /// Has them read again if something went wrong that this could set right.
    pub(super) fn resync_if_doubtful(&mut self, now_ns: u64, readers: &Readers) {
        if self.phase == Phase::Settled && self.confirm_at.is_some_and(|at| now_ns >= at) {
            let begun = self.target.ledger.begin_confirmation();
            self.read_again(begun, readers);
        }
        let ledger = &self.target.ledger;
        let possible = self.phase == Phase::Settled && ledger.has_baseline();
        if !possible || !(self.unsettled || ledger.needs_resync()) {
            self.doubtful_since = None;
            return;
        }
        let since = *self.doubtful_since.get_or_insert(now_ns);
        if now_ns.saturating_sub(since) >= self.patience_ns() {
            self.request_resync(readers);
        }
    }

    fn patience_ns(&self) -> u64 {
        CALM_NS << self.failures.min(MAX_DOUBLINGS)
    }

    /// When to look again whether a reading is due; `None`: nothing is to be set right.
    pub(super) fn next_look_ns(&self) -> Option<u64> {
        let doubtful = self.doubtful_since.map(|since| since.saturating_add(self.patience_ns()));
        doubtful.into_iter().chain(self.confirm_at).min()
    }

    /// Takes a reading in. Every event up to its end must have been applied.
    pub(super) fn finish_reading(
        &mut self,
        reading: Result<LiveBaseline, String>,
        now_ns: u64,
        readers: &Readers,
    ) {
        self.circular_is_old = true;
        let ledger = &mut self.target.ledger;
        if let (Phase::Resync(_), Ok(reading)) = (self.phase, &reading) {
            ledger.audit(reading, now_ns);
        }
        match std::mem::replace(&mut self.phase, Phase::Settled) {
            Phase::Attaching | Phase::Baseline => {
                let confirms = reading.is_ok() && !self.target.fresh;
                self.confirm_at = confirms.then(|| now_ns.saturating_add(CONFIRM_NS));
                ledger.finish_baseline(reading);
            }
            Phase::Resync(begun) => {
                let went_wrong = ledger.needs_resync();
                match ledger.finish_resync(begun, now_ns, reading) {
                    Resynced::Settled => {
                        self.confirm_at = went_wrong.then(|| now_ns.saturating_add(CONFIRM_NS));
                        self.failures = if ledger.needs_resync() { self.failures + 1 } else { 0 };
                    }
                    Resynced::Unsettled => {
                        self.failures += 1;
                        self.unsettled = true;
                    }
                    Resynced::Suspicious => {
                        if readers.request(self.serial(), &self.target.read_live, CONFIRM) {
                            self.phase = Phase::Resync(begun);
                        }
                    }
                }
            }
            Phase::Settled => {}
        }
    }

    /// Passes on what has changed since the last time. `up_to_ns`: every event up to then has
    /// been applied, if that is known.
    pub(super) fn pass_on(&mut self, up_to_ns: Option<u64>) {
        let ledger = &mut self.target.ledger;
        if let Some(table) = &mut self.target.table {
            table.publish(ledger, up_to_ns);
        }
        if self.target.sinks.is_empty() {
            return;
        }
        let deltas: Arc<[Delta]> = ledger.take_deltas().into();
        self.target.sinks.retain_mut(|sink| {
            let stays = !sink.is_closed();
            stays && (deltas.is_empty() || sink.take(&deltas))
        });
        ledger.want_deltas(!self.target.sinks.is_empty());
    }

    /// Writes what circular buffers take into the table, if anything has happened since. All live
    /// buffers have to be looked at for that, so it is not done with every event.
    pub(super) fn show_circular(&mut self) {
        if let Some(table) = &self.target.table
            && std::mem::take(&mut self.circular_is_old)
        {
            table.publish_circular(&self.target.ledger.circular_snapshots());
        }
    }

    /// Lets somebody look. Every event up to `time_ns` must have been applied and passed on.
    pub(super) fn answer(&mut self, query: Query, time_ns: u64) {
        if query.kind == QueryKind::Sync {
            self.show_circular();
        }
        let (ledger, sinks) = (&mut self.target.ledger, &mut self.target.sinks);
        (query.run)(View { time_ns, ledger, sinks });
        // Where nothing changes, nothing else would notice who has gone.
        sinks.retain(|sink| !sink.is_closed());
        ledger.want_deltas(!sinks.is_empty());
    }

    /// It has ended, or ttmem has: says so in its table.
    pub(super) fn close_table(&mut self, how: Option<TargetState>, time_ns: u64) {
        self.pass_on(Some(time_ns));
        if let Some(table) = self.target.table.take() {
            table.end(how);
        }
    }

    pub(super) fn snapshot(
        &self,
        time_ns: u64,
        state: TargetState,
        detail: Detail,
    ) -> Arc<Snapshot> {
        Arc::new(self.target.ledger.snapshot(time_ns, state, detail))
    }
}
