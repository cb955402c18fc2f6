//! What snapshots say beyond the deltas: capacities, room, failures, loss, the end.

use super::{Kind, Mirror, signed};
use crate::{
    format,
    ledger::snapshot::{ChipSnapshot, HeadroomState, ProcessLabel, Snapshot, TargetState},
    tracy::op::{At, Op, Severity},
};

/// Said with the first snapshot.
pub(super) const ATTACHED: &str = "the probes are in place";

/// What has been said already.
#[derive(Debug, Default)]
pub struct Told {
    lost: u64,
    inexact_because: Vec<String>,
    resyncs: u64,
    failure: u64,
    oddities: super::Oddities,
    clashes: Vec<crate::units::ChipId>,
    state: Option<TargetState>,
}

/// What the trace is of.
pub fn about(process: &ProcessLabel, begun_ns: u64) -> Vec<String> {
    let mut lines = vec![
        format!("Mirrored by ttmem {}", env!("CARGO_PKG_VERSION")),
        format!("process {}", process.pid),
        format!("command {}", format::one_line(&process.command)),
    ];
    lines.extend(process.library.iter().map(|path| match version_in(path) {
        Some(version) => format!("tt-metal {version}, {path}"),
        None => format!("tt-metal {path}"),
    }));
    lines.extend(process.build_id.iter().map(|id| format!("build id {id}")));
    lines.push(format!("time 0 is CLOCK_MONOTONIC {begun_ns} ns"));
    lines.push("sizes are bytes of each bank; plots called `used` add up all banks".to_owned());
    lines
}

fn format_skipped(count: u64) -> String {
    format!("; {count} before it were not kept")
}

/// A version in a path, as in `ttnn-0.81.1/…`.
fn version_in(path: &str) -> Option<&str> {
    path.split('/').find_map(|part| {
        let (_, version) = part.rsplit_once('-')?;
        let is_version = |c: char| c.is_ascii_digit() || c == '.';
        (version.contains('.') && version.chars().all(is_version)).then_some(version)
    })
}

impl Mirror {
    /// Takes in a snapshot, which holds every event up to its time.
    pub fn observe(&mut self, snapshot: &Snapshot, out: &mut impl FnMut(Op<'_>)) {
        self.at(snapshot.time_ns, None);
        if self.told.state.is_none() {
            self.attached = Some(At { time_ns: snapshot.time_ns, tid: self.begun.tid });
            self.message(Severity::Info, ATTACHED, out);
        }
        for chip in &snapshot.devices {
            self.observe_chip(chip, out);
        }
        self.tell_failures(snapshot, out);
        self.tell_doubts(snapshot, out);
        self.tell_oddities(out);
        let before = self.told.state.replace(snapshot.state);
        if snapshot.state != TargetState::Running && before != Some(snapshot.state) {
            let live: usize = self.pools.iter().map(|pool| pool.live.len()).sum();
            let how = match snapshot.state {
                TargetState::Replaced => "the process runs another program now",
                TargetState::Exited | TargetState::Running => "the process has exited",
            };
            let text = format!("{how}; {live} allocations were live in all pools");
            self.message(Severity::Info, &text, out);
        }
    }

    /// Says something.
    pub fn message(&mut self, severity: Severity, text: &str, out: &mut impl FnMut(Op<'_>)) {
        out(Op::Message { at: self.now(), severity, text });
    }

    fn observe_chip(&mut self, chip: &ChipSnapshot, out: &mut impl FnMut(Op<'_>)) {
        for pool in &chip.pools {
            if let Some(capacity) = pool.capacity_bytes.filter(|capacity| *capacity > 0) {
                let label = self.style.pool(chip.chip, Kind::Buffers(pool.buffer_type), 0);
                self.plot(&format!("{label} capacity"), signed(capacity), out);
            }
        }
        let circular = &chip.circular;
        let label = self.style.pool(chip.chip, Kind::Circular, 0);
        if let Some(bytes) = circular.core_bytes.filter(|_| circular.programs > 0) {
            self.plot(&format!("{label} on the fullest core"), signed(bytes), out);
        }
        if let Some(bytes) = circular.headroom.bytes {
            self.plot(&format!("{label} headroom to L1"), bytes, out);
        }
        let clashes = circular.headroom.state == Some(HeadroomState::Clash);
        if clashes && !self.told.clashes.contains(&chip.chip) {
            let text =
                format!("chip {}: a program's circular buffers lie where a tensor is", chip.chip);
            self.message(Severity::Warning, &text, out);
            self.told.clashes.push(chip.chip);
        } else if !clashes {
            self.told.clashes.retain(|told| *told != chip.chip);
        }
    }

    fn tell_failures(&mut self, snapshot: &Snapshot, out: &mut impl FnMut(Op<'_>)) {
        for line in snapshot.failures.lines_after(snapshot.pid, self.told.failure) {
            let failure = line.failure;
            self.told.failure = failure.id;
            let mut text = format!("failed allocation: {}", format::failure(failure));
            if line.skipped > 0 {
                text.push_str(&format_skipped(line.skipped));
            }
            // Messages need no order: this one may have been some time ago.
            let at = At { time_ns: failure.time_ns.max(self.begun_ns()), tid: failure.tid.0 };
            out(Op::Message { at, severity: Severity::Error, text: &text });
        }
    }

    fn tell_doubts(&mut self, snapshot: &Snapshot, out: &mut impl FnMut(Op<'_>)) {
        let lost = snapshot.lost.total();
        if lost > self.told.lost {
            let text = format!("{} records were lost", lost - self.told.lost);
            self.message(Severity::Warning, &text, out);
            self.told.lost = lost;
        }
        let resyncs = snapshot.resync.done;
        if resyncs > self.told.resyncs {
            let differences = snapshot.resync.last_differences.map_or(0, |found| found.total());
            let text = format!("memory was read again: {differences} differences set right");
            self.message(Severity::Info, &text, out);
            self.told.resyncs = resyncs;
        }
        if snapshot.inexact_because != self.told.inexact_because {
            if snapshot.exact {
                self.message(Severity::Info, "exact from here on", out);
            }
            for reason in &snapshot.inexact_because {
                if !self.told.inexact_because.contains(reason) {
                    let text = format!("not exact: {}", format::one_line(reason));
                    self.message(Severity::Warning, &text, out);
                }
            }
            self.told.inexact_because.clone_from(&snapshot.inexact_because);
        }
    }

    fn tell_oddities(&mut self, out: &mut impl FnMut(Op<'_>)) {
        let (now, told) = (self.oddities, self.told.oddities);
        self.told.oddities = now;
        for (count, what) in [
            (now.clipped - told.clipped, "sizes or addresses were cut: Tracy keeps 47 bits"),
            (now.unmeasured - told.unmeasured, "buffers are shown with their logical size"),
            (now.replaced - told.replaced, "allocations where something was live; it was freed"),
            (now.nowhere - told.nowhere, "buffers on no known chip are not shown"),
        ] {
            if count > 0 {
                self.message(Severity::Warning, &format!("{count} {what}"), out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_a_path_or_not() {
        assert_eq!(version_in("/x/ttnn-0.81.1/lib/libtt_metal.so"), Some("0.81.1"));
        assert_eq!(version_in("/x/ttnn/build/lib/libtt_metal.so"), None);
        assert_eq!(version_in("/x/gcc-12/a-b.c/libtt_metal.so"), None);
    }
}
