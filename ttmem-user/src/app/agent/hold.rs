//! Holds the thread that has just mapped the library until the probes are in.
//!
//! Only a command that ttmem itself has started is ever held, and only the one thread that loads
//! the library, for as long as attaching takes. By ptrace, because the kernel lets go of the
//! thread by itself if ttmem should end meanwhile.

use nix::sys::{
    ptrace,
    signal::Signal,
    wait::{Id, WaitPidFlag, WaitStatus, waitid},
};

use crate::units::Tid;

/// A held thread; dropping it lets it run on.
pub struct Held {
    thread: nix::unistd::Pid,
    /// A signal that arrived in the very moment, to be handed on.
    signal: Option<Signal>,
}

/// Holds a thread; `None` if that is not possible: somebody else may be tracing it.
pub fn hold(tid: Tid) -> Option<Held> {
    let thread = nix::unistd::Pid::from_raw(i32::try_from(tid.0).ok()?);
    ptrace::seize(thread, ptrace::Options::empty()).ok()?;
    let interrupted = ptrace::interrupt(thread);
    // Looked at, not taken: if it should end just now, its end is for whoever waits for it.
    let flags = WaitPidFlag::WSTOPPED
        | WaitPidFlag::WEXITED
        | WaitPidFlag::WNOWAIT
        | WaitPidFlag::__WALL
        | WaitPidFlag::__WNOTHREAD;
    let status = interrupted.and_then(|()| waitid(Id::Pid(thread), flags));
    match status {
        Ok(WaitStatus::Stopped(_, signal)) => Some(Held { thread, signal: Some(signal) }),
        Ok(WaitStatus::PtraceEvent(..) | WaitStatus::PtraceSyscall(_)) => {
            Some(Held { thread, signal: None })
        }
        _ => None,
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SIGTRAP is how the stop that was asked for shows itself.
        let signal = self.signal.filter(|signal| *signal != Signal::SIGTRAP);
        // If it has been killed meanwhile there is nothing to let go of.
        let _ = ptrace::detach(self.thread, signal);
    }
}
