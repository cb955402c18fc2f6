//! Which processes are to be watched.

use regex::Regex;

use crate::{target::process::Process, units::Pid};

/// Which processes are to be watched.
#[derive(Clone, Debug)]
pub enum Selection {
    /// These; with `wait` also before they have loaded tt-metal.
    Pids {
        /// The processes.
        pids: Vec<Pid>,
        /// Wait for their library.
        wait: bool,
    },
    /// Every one with tt-metal, now or later, whose command line matches.
    Named {
        /// What its command line has to match.
        pattern: Regex,
        /// None need match at the start.
        wait: bool,
    },
    /// Every one with tt-metal, now or later.
    All,
    /// A command of ours, and all that it starts.
    Command(Pid),
}

impl Selection {
    /// Whether processes are to be looked for, and not only those named by their ids.
    pub const fn is_search(&self) -> bool {
        !matches!(self, Self::Pids { .. })
    }

    /// Whether there can be more than one.
    pub fn is_several(&self) -> bool {
        match self {
            Self::Pids { pids, .. } => pids.len() > 1,
            Self::Named { .. } | Self::All | Self::Command(_) => true,
        }
    }

    /// Whether there is nothing left to do once all that were there have ended. A search goes
    /// on until it is told to stop.
    pub const fn ends_with_targets(&self) -> bool {
        matches!(self, Self::Pids { .. })
    }

    /// Whether there need be none at the start, and one is waited for.
    pub const fn awaits_target(&self) -> bool {
        matches!(self, Self::Pids { wait: true, .. } | Self::Named { wait: true, .. })
    }

    /// Whether a process is selected, if it has tt-metal.
    pub fn takes(&self, process: &Process) -> bool {
        match self {
            Self::Pids { pids, .. } => pids.contains(&process.pid()),
            Self::Named { pattern, .. } => pattern.is_match(&process.command()),
            Self::All => true,
            Self::Command(command) => process.descends_from(*command),
        }
    }
}
