//! Whether the numbers are known to be exact, and if not, why.

use super::{
    Ledger,
    snapshot::{Anomalies, Lost},
};

/// Whether the live buffers from before the attach are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BaselineState {
    /// They are being read.
    Pending,
    /// They have been read.
    Read,
    /// They could not be read, and why.
    Unavailable(String),
}

/// What had gone wrong up to the last reading that set it right.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    pub lost: Lost,
    pub anomalies: Anomalies,
}

impl Ledger {
    /// One short sentence for each reason why the numbers may be wrong; empty: they are exact.
    pub fn doubts(&self) -> Vec<String> {
        let mut doubts = Vec::new();
        match &self.baseline {
            BaselineState::Read => {}
            BaselineState::Pending => doubts.push("older buffers are still being read".to_owned()),
            BaselineState::Unavailable(reason) => {
                doubts.push(format!("older buffers are not known: {reason}"));
            }
        }
        doubts.extend(self.bounds.doubt());
        let lost = self.lost.since(self.settled.lost);
        let odd = self.anomalies.since(&self.settled.anomalies);
        let counted = [
            (lost.total(), "records lost"),
            (odd.unknown_free, "frees of unknown buffers"),
            (odd.double_allocation, "allocations of a live buffer"),
            (odd.undecodable, "records not understood"),
            (odd.size_mismatch, "buffers of unexpected size"),
            // Memory itself may say so: then a reading sets nothing right.
            (
                odd.overlap.max(self.spaces.overlapped()),
                "buffers that overlap others or leave their bank",
            ),
            (odd.free_list_mismatch, "free lists that the live buffers contradict"),
            (self.unknown_devices, "allocations on a device that could not be resolved"),
            (self.live.unmeasured() as u64, "live buffers of unknown size per bank"),
        ];
        doubts.extend(
            counted
                .iter()
                .chain(&self.per_core.doubts())
                .filter(|(count, _)| *count > 0)
                .map(|(count, what)| format!("{what}: {count}")),
        );
        doubts.extend(
            self.unresolved.iter().map(|missing| format!("{}: {}", missing.probe, missing.reason)),
        );
        doubts
    }
}
