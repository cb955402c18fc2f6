//! Which process a number stands for: a process id and when that process was started.

use procfs::process::{Process, Stat};

/// A process, told from later ones with the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its process id.
    pub pid: u32,
    /// When it was started, clock ticks since boot.
    pub start_ticks: u64,
}

impl Identity {
    /// The process that has this id now; `None` if there is none.
    pub fn of(pid: u32) -> Option<Self> {
        let stat = stat(pid)?;
        Some(Self { pid, start_ticks: stat.starttime })
    }

    /// This program.
    pub fn own() -> Self {
        let pid = std::process::id();
        Self::of(pid).unwrap_or(Self { pid, start_ticks: 0 })
    }

    /// Whether that very process still runs. One that has ended does not, whether or not its parent
    /// has asked how.
    pub fn is_alive(self) -> bool {
        stat(self.pid)
            .is_some_and(|it| it.starttime == self.start_ticks && !matches!(it.state, 'Z' | 'X'))
    }
}

fn stat(pid: u32) -> Option<Stat> {
    Process::new(i32::try_from(pid).ok()?).ok()?.stat().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use rustix::process::{WaitId, WaitIdOptions, waitid};

    use super::*;

    #[test]
    fn another_start_is_another_process() {
        let own = Identity::own();
        assert!(own.is_alive());
        assert!(!Identity { start_ticks: own.start_ticks + 1, ..own }.is_alive());
    }

    #[test]
    fn what_has_ended_runs_no_more_though_nobody_has_asked_how() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().expect("cat");
        let child_is = Identity::of(child.id()).expect("it is there");
        assert!(child_is.is_alive());
        drop(child.stdin.take());
        let pid = rustix::process::Pid::from_child(&child);
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(pid), options).expect("it ends");
        assert_eq!(Identity::of(child.id()), Some(child_is), "its id is not used again yet");
        assert!(!child_is.is_alive());
        child.wait().expect("it has ended");
    }
}
