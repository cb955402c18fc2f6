//! What a report brings: makes ready what the open view is about to show, of now or of the instant
//! that is looked at, and asks for what it lacks.

use std::sync::Arc;

use ratatui::layout::Size;

use super::{Overlay, State, buffers, events, past};
use crate::{
    format,
    history::{Gap, recorder::Handle},
    ledger::{
        call::Calls,
        report::KEPT_ENDED,
        snapshot::{Detail, Snapshot},
    },
    tui::{Request, Tab, keymap::BINDINGS, notes},
};

/// Why there is nothing to show of what is recorded.
const NOT_RECORDED: &str = "not available here: only the ttmem that attached keeps every change";

/// Why there is nothing of one of several.
fn no_longer_kept() -> String {
    format!("no longer kept: only of the last {KEPT_ENDED} that ended")
}

/// Why the rows of a history may not be what is live.
fn incomplete(gap: Gap, now_ns: u64) -> String {
    if gap.healing {
        return "changes were missed: being fetched anew".to_owned();
    }
    let ago = format::age(now_ns.saturating_sub(gap.from_ns));
    format!("as it was {ago} ago: what came later was missed")
}

/// Looks up what called for the buffers of a target, if that is recorded.
pub(super) fn look_up(
    calls: Option<&Arc<dyn Calls>>,
    serial: u64,
    look: &mut dyn FnMut(buffers::Sites<'_>),
) {
    match calls {
        Some(calls) => {
            calls.look(serial, &mut |known| look(buffers::Sites::new(Some(known))));
        }
        None => look(buffers::Sites::new(None)),
    }
}

impl State {
    /// Makes ready what was at the instant that is looked at.
    pub(super) fn look_back(&mut self, now: &Snapshot) {
        let (Some(time_ns), Some(history)) = (self.instant(), self.history()) else {
            self.then = None;
            return;
        };
        let serial = now.process.serial;
        let is_there =
            |then: &past::Then| then.serial == serial && then.time_ns == time_ns && then.is_final();
        if !self.then.as_ref().is_some_and(is_there) {
            self.copies += 1;
            let (before, copy) = (self.then.take(), self.copies);
            self.then = Some(past::Then::new(&history.lock(), time_ns, now, before, copy));
        }
    }

    /// Makes ready a view that shows what is recorded.
    fn observe_history(&mut self, size: Size, snapshot: &Snapshot) {
        let Some(history) = self.history() else {
            return self.show_unrecorded(size);
        };
        let until_ns = self.instant().unwrap_or(u64::MAX);
        match self.tab {
            Tab::Buffers => self.observe_buffers(size, &history, snapshot),
            Tab::Timeline => {
                let until_ns = self.held_ns();
                self.timeline.observe(size, &history.lock(), snapshot, until_ns);
            }
            Tab::Histograms => {
                let history = history.lock();
                self.histograms.observe(size.height, history.tally(), snapshot.time_ns);
            }
            Tab::Events => {
                let newest = self.newest.as_ref().map_or(0, |report| report.time_ns);
                let number = self.instant().unwrap_or(newest);
                let version = (self.chosen, number, until_ns);
                if self.events.is_old(version) {
                    self.events.observe(version, &history.lock(), until_ns);
                }
                self.events.table.resize(size.height.saturating_sub(events::TITLE + 1).into());
            }
            _ => {}
        }
    }

    /// Shows why nothing is recorded, and no row of another target.
    fn show_unrecorded(&mut self, size: Size) {
        let is_gone = self.histories.is_some();
        let why = if is_gone { no_longer_kept() } else { NOT_RECORDED.to_owned() };
        let version = buffers::Version { serial: self.chosen, ..buffers::Version::default() };
        self.buffers.observe(size.height, version, |_| Err(why.clone()));
        self.timeline.forget(why.clone());
        self.histograms.forget(why.clone());
        self.events.forget(why);
    }

    fn observe_buffers(&mut self, size: Size, history: &Handle, snapshot: &Snapshot) {
        let mark_ns = self.mark().map(|mark| mark.time_ns);
        let Self { buffers, then, chosen, newest, calls, .. } = self;
        let serial = *chosen;
        buffers.set_sites(calls.is_some());
        let Some(then) = then else {
            let number = newest.as_ref().map_or(0, |report| report.time_ns);
            let time_ns = snapshot.time_ns;
            let version = buffers::Version { serial, number, past: None, time_ns, mark_ns };
            return buffers.observe(size.height, version, |make| {
                let history = history.lock();
                let mark = history.marks().last();
                let growth = |by| history.group_growth(mark?, by);
                look_up(calls.as_ref(), serial, &mut |sites| {
                    make(&buffers::Look { live: history.live(), growth: &growth, sites });
                });
                Ok(history.gap().map(|gap| incomplete(gap, time_ns)))
            });
        };
        let (time_ns, left) = (then.time_ns, then.left());
        let past = Some((then.copy, left));
        let version = buffers::Version { serial, number: time_ns, past, time_ns, mark_ns };
        buffers.observe(size.height, version, |make| {
            let past = then.past().map_err(ToOwned::to_owned)?;
            look_up(calls.as_ref(), serial, &mut |sites| {
                make(&buffers::Look { live: &past.live, growth: &|_| None, sites });
            });
            Ok((left > 0).then(|| past::on_the_way(left)))
        });
    }

    pub(super) fn observe_target(&mut self, snapshot: &Arc<Snapshot>) {
        let body = self.areas().body;
        let size = body.as_size();
        if self.instant().is_none() || matches!(self.tab, Tab::Overview | Tab::Buffers) {
            self.look_back(snapshot);
        }
        match self.tab {
            Tab::Overview => {
                let then = self.shown_then().map(|then| Arc::clone(&then.snapshot));
                let area = self.chips_area().as_size();
                self.overview.marked = self.mark().is_some();
                self.overview.observe(area, then.as_deref().unwrap_or(snapshot));
            }
            Tab::Map => self.map.observe(size, snapshot),
            Tab::Circular => self.circular.observe(size.height, snapshot),
            Tab::Failures => {
                self.failures.observe(size.height, snapshot, self.calls.as_deref());
            }
            Tab::Health => {
                let history = self.history();
                let history = history.as_ref().map(|history| history.lock());
                let why = self.histories.is_some().then(no_longer_kept);
                let history = history.as_deref().ok_or(why.as_deref());
                let stacks = self.calls.as_ref().and_then(|calls| calls.counts(self.chosen));
                self.health.observe(size.height, snapshot, history, stacks.as_ref());
            }
            Tab::Buffers | Tab::Timeline | Tab::Histograms | Tab::Events => {
                self.observe_history(size, snapshot);
            }
        }
        self.overlay_lines = match self.overlay {
            Overlay::None => 0,
            Overlay::Help => BINDINGS.len(),
            Overlay::Notes => notes::lines(snapshot, Overlay::inner(self.size).width.into()).len(),
            Overlay::Stack => self.stack.len(),
        };
        self.clamp();
        let all = self.hold.is_wanted();
        let detail = Detail {
            map: all || self.tab == Tab::Map,
            programs: all || self.tab == Tab::Circular,
            ..Detail::default()
        };
        if detail != self.detail {
            self.detail = detail;
            self.requests.push(Request::Detail(detail));
        }
    }
}
