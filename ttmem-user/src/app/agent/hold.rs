//! Holds the thread that has just mapped the library until the probes are in.
//!
//! Only a command that ttmem itself has started is ever held, and only the one thread that loads
//! the library, for as long as attaching takes. By ptrace, because the kernel lets go of the
//! thread by itself if ttmem should end meanwhile.
#![expect(unsafe_code, reason = "sched_setattr(2) has no safe wrapper")]

use nix::sys::{
    ptrace,
    signal::Signal,
    wait::{Id, WaitPidFlag, WaitStatus, waitid},
};
use procfs::process::Process;

use crate::units::Tid;

/// A slice of the processor's time, ns: the shortest that Linux has.
const SLICE_NS: u64 = 100_000;

/// Has this thread run as soon as it is woken: by the time that others usually have on a processor
/// before their turn ends, 3 ms, the thread that it is to hold has loaded its library and may be
/// gone. It gets no larger share for it. Where the kernel cannot do that, it comes when it comes.
pub fn be_prompt() {
    // SAFETY: plain numbers, of which 0 is one.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    let size = u32::try_from(size_of::<libc::sched_attr>()).unwrap_or(0);
    // SAFETY: the kernel writes at most `size` bytes.
    let known = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    if known == 0 {
        attributes.sched_runtime = SLICE_NS;
        // SAFETY: it only reads.
        unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    }
}

/// A held thread; dropping it lets it run on.
pub struct Held {
    thread: nix::unistd::Pid,
    /// A signal that arrived in the very moment, to be handed on.
    signal: Option<Signal>,
}

/// Holds a thread; `None` if that is not possible: somebody else may be tracing it, or it ends.
pub fn hold(tid: Tid) -> Option<Held> {
    let thread = nix::unistd::Pid::from_raw(i32::try_from(tid.0).ok()?);
    ptrace::seize(thread, ptrace::Options::empty()).ok()?;
    let interrupted = ptrace::interrupt(thread);
    // Looked at, not taken: whose its end is has to be found out first.
    let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT | OF_ITS_END;
    match interrupted.and_then(|()| waitid(Id::Pid(thread), flags)) {
        Ok(WaitStatus::Stopped(_, signal)) => Some(Held { thread, signal: Some(signal) }),
        Ok(WaitStatus::PtraceEvent(..) | WaitStatus::PtraceSyscall(_)) => {
            Some(Held { thread, signal: None })
        }
        _ => {
            bury(thread);
            None
        }
    }
}

/// Waits for the end of a thread that this thread traces.
const OF_ITS_END: WaitPidFlag =
    WaitPidFlag::WEXITED.union(WaitPidFlag::__WALL).union(WaitPidFlag::__WNOTHREAD);

/// Takes the end of a thread that has ended while it was being traced: until then its parent is not
/// told of it. A process that ttmem has started itself is left to whoever waits for it here.
fn bury(thread: nix::unistd::Pid) {
    let status = Process::new(thread.as_raw()).and_then(|process| process.status());
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    if status.is_ok_and(|status| status.ppid == own && status.tgid == status.pid) {
        return;
    }
    // An error means that it is not traced any more.
    let _ = waitid(Id::Pid(thread), OF_ITS_END);
}

impl Drop for Held {
    fn drop(&mut self) {
        // SIGTRAP is how the stop that was asked for shows itself.
        let signal = self.signal.filter(|signal| *signal != Signal::SIGTRAP);
        if ptrace::detach(self.thread, signal).is_err() {
            // It has been killed meanwhile.
            bury(self.thread);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
        process::{Child, ChildStdout, Command, Stdio},
    };

    use nix::{sys::signal::kill, unistd::Pid};
    use rustix::{
        event::{PollFd, PollFlags, poll},
        time::Timespec,
    };

    use super::*;

    /// A shell that waits for a process of its own, and that process.
    struct Shell {
        child: Child,
        lines: BufReader<ChildStdout>,
        process: Pid,
    }

    impl Shell {
        fn start() -> Self {
            let mut command = Command::new("sh");
            command.args(["-c", "sleep 1000 & echo $!; wait $!; echo over"]);
            let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
            let lines = BufReader::new(child.stdout.take().unwrap());
            let mut shell = Self { child, lines, process: Pid::from_raw(0) };
            shell.process = Pid::from_raw(shell.line().parse().unwrap());
            shell
        }

        fn line(&mut self) -> String {
            let mut fds = [PollFd::new(self.lines.get_ref(), PollFlags::IN)];
            let ready = poll(&mut fds, Some(&Timespec { tv_sec: 10, tv_nsec: 0 })).unwrap();
            assert_eq!(ready, 1, "the shell still waits for its process");
            let mut line = String::new();
            self.lines.read_line(&mut line).unwrap();
            line.trim().to_owned()
        }
    }

    impl Drop for Shell {
        fn drop(&mut self) {
            let _ = kill(self.process, Signal::SIGKILL);
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    #[test]
    fn the_end_of_a_held_process_is_its_parents_to_see() {
        let mut shell = Shell::start();
        let tid = Tid(u32::try_from(shell.process.as_raw()).unwrap());
        let held = hold(tid).expect("held");
        kill(shell.process, Signal::SIGKILL).unwrap();
        drop(held);
        assert_eq!(shell.line(), "over");
    }

    #[test]
    fn so_is_the_end_of_one_that_could_not_be_held_any_more() {
        let mut shell = Shell::start();
        ptrace::seize(shell.process, ptrace::Options::empty()).unwrap();
        kill(shell.process, Signal::SIGKILL).unwrap();
        bury(shell.process);
        assert_eq!(shell.line(), "over");
    }
}
