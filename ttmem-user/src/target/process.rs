//! A running process: its identity, its mappings, whether it still runs.

use std::{
    fs::File,
    io::{self, Read as _},
    ops::Range,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::MetadataExt as _,
    process::{PidfdFlags, pidfd_open},
};

use super::maps::{self, MemoryMap};
use crate::units::{Pid, Tid};

/// Why a process cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// There is none.
    #[error("no process with pid {0}")]
    NotFound(Pid),
    /// The id is that of a thread.
    #[error("{thread} is a thread of process {process}: use --pid {process}")]
    IsThread {
        /// What was asked for.
        thread: Tid,
        /// Its process.
        process: Pid,
    },
    /// It belongs to somebody else.
    #[error("not allowed to look into process {pid} of user {owner}: {}", advice())]
    NotAllowed {
        /// The process.
        pid: Pid,
        /// Its user id.
        owner: u32,
    },
    /// It ended.
    #[error("process {0} has ended")]
    Ended(Pid),
    /// It is not an x86-64 program.
    #[error("process {pid} is no 64-bit x86 program ({what}): ttmem can only look into those")]
    WrongMachine {
        /// The process.
        pid: Pid,
        /// What it is instead.
        what: String,
    },
    /// Something else.
    #[error("cannot read {what} of process {pid}: {source}")]
    Io {
        /// The process.
        pid: Pid,
        /// What was to be read.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// What to do where one is not allowed to look.
fn advice() -> &'static str {
    if rustix::process::geteuid().is_root() {
        "a container, a security module or a capability that it has keeps even root out; run ttmem outside"
    } else {
        "run ttmem with sudo"
    }
}

/// A process that existed when it was opened.
///
/// The descriptor names this very process: a later one with the same pid is never mistaken for it.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    proc: procfs::process::Process,
}

impl Process {
    /// Opens a process.
    pub fn open(pid: Pid) -> Result<Self, ProcessError> {
        let raw = i32::try_from(pid.0)
            .ok()
            .and_then(rustix::process::Pid::from_raw)
            .ok_or(ProcessError::NotFound(pid))?;
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).map_err(|error| open_error(pid, error))?;
        let proc = procfs::process::Process::new(raw.as_raw_nonzero().get())
            .map_err(|_| ProcessError::NotFound(pid))?;
        let process = Self { pid, pidfd, proc };
        process.check_machine()?;
        Ok(process)
    }

    /// Its id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Its command line, or its name if it has none; for display.
    pub fn command(&self) -> String {
        let words = self.proc.cmdline().unwrap_or_default().join(" ");
        if words.trim().is_empty() {
            self.proc.stat().map_or_else(|_| "?".to_owned(), |stat| stat.comm)
        } else {
            words
        }
    }

    /// Whether it is, or was started by, the process `ancestor`, as far as its parents still show.
    pub fn descends_from(&self, ancestor: Pid) -> bool {
        /// More generations than this are a circle, made by ids that were used again.
        const GENERATIONS: usize = 64;
        let mut pid = self.pid;
        for _ in 0..GENERATIONS {
            if pid == ancestor {
                return true;
            }
            let Ok(raw) = i32::try_from(pid.0) else { return false };
            let stat = procfs::process::Process::new(raw).and_then(|process| process.stat());
            match stat.map(|stat| u32::try_from(stat.ppid)) {
                Ok(Ok(parent @ 1..)) => pid = Pid(parent),
                _ => return false,
            }
        }
        false
    }

    /// Its id in its own pid namespace; `None` if it is known by the same one there.
    pub fn namespace_pid(&self) -> Option<Pid> {
        let status = self.proc.status().ok()?;
        let own = status.nspid?.last().copied()?;
        let own = Pid(u32::try_from(own).ok()?);
        (own != self.pid).then_some(own)
    }

    /// The user it runs as; `None` if it has borrowed the rights of another.
    pub fn user(&self) -> Option<u32> {
        let status = self.proc.status().ok()?;
        (status.ruid == status.euid && status.euid == status.suid).then_some(status.euid)
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let now = rustix::time::Timespec::default();
        poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
    }

    /// Whether it has an address space. One that is ending gives it back before it has ended.
    pub fn has_memory(&self) -> bool {
        self.proc.stat().is_ok_and(|stat| stat.vsize > 0)
    }

    /// Its mappings.
    pub fn maps(&self) -> Result<Vec<MemoryMap>, ProcessError> {
        const WHAT: &str = "the mappings";
        let file = self.proc.open_relative("maps");
        let mut file = file.map_err(|error| self.proc_error(WHAT, error))?;
        let mut text = Vec::new();
        let read = file.read_to_end(&mut text).and_then(|_| maps::parse(&text));
        let maps = read.map_err(|source| self.io_error(WHAT, source))?;
        // A process that has ended, and not been waited for, shows none.
        if maps.is_empty() { Err(ProcessError::Ended(self.pid)) } else { Ok(maps) }
    }

    /// A file of its `/proc` directory.
    pub fn proc_path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }

    /// What leads to the file of a mapping, for those who may use it.
    pub fn map_file(&self, addresses: &Range<u64>) -> PathBuf {
        self.proc_path(&format!("map_files/{:x}-{:x}", addresses.start, addresses.end))
    }

    /// Opens a file of its `/proc` directory for reading.
    pub fn open_proc(&self, name: &'static str) -> Result<File, ProcessError> {
        File::open(self.proc_path(name)).map_err(|source| self.io_error(name, source))
    }

    fn check_machine(&self) -> Result<(), ProcessError> {
        // The first bytes of /proc/PID/exe, which opens the very file, even if it was replaced.
        let mut header = [0_u8; 20];
        let read = self.open_proc("exe")?.read_exact(&mut header);
        read.map_err(|source| self.io_error("the program file", source))?;
        let what = match (header[4], u16::from_le_bytes([header[18], header[19]])) {
            (2, 62) => return Ok(()),
            (1, machine) => format!("32-bit, ELF machine {machine}"),
            (_, machine) => format!("ELF machine {machine}"),
        };
        Err(ProcessError::WrongMachine { pid: self.pid, what })
    }

    fn proc_error(&self, what: &'static str, error: procfs::ProcError) -> ProcessError {
        let source = match error {
            procfs::ProcError::PermissionDenied(_) => io::ErrorKind::PermissionDenied.into(),
            procfs::ProcError::NotFound(_) => io::ErrorKind::NotFound.into(),
            procfs::ProcError::Io(error, _) => error,
            other => io::Error::other(other.to_string()),
        };
        self.io_error(what, source)
    }

    fn io_error(&self, what: &'static str, source: io::Error) -> ProcessError {
        if self.has_ended() {
            return ProcessError::Ended(self.pid);
        }
        if source.kind() == io::ErrorKind::PermissionDenied {
            let owner = std::fs::metadata(format!("/proc/{}", self.pid)).map_or(0, |m| m.uid());
            return ProcessError::NotAllowed { pid: self.pid, owner };
        }
        ProcessError::Io { pid: self.pid, what, source }
    }
}

/// The ids of all processes that can be seen.
pub fn all_pids() -> Vec<Pid> {
    let processes = procfs::process::all_processes().into_iter().flatten().flatten();
    let mut pids: Vec<Pid> =
        processes.filter_map(|process| u32::try_from(process.pid).ok().map(Pid)).collect();
    pids.sort_unstable();
    pids
}

impl AsFd for Process {
    /// Becomes readable when the process ends.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

fn open_error(pid: Pid, error: rustix::io::Errno) -> ProcessError {
    if error == rustix::io::Errno::INVAL || error == rustix::io::Errno::NOENT {
        // pidfd_open refuses the id of a thread that leads no group.
        if let Some(process) = leader_of(pid) {
            return ProcessError::IsThread { thread: Tid(pid.0), process };
        }
    }
    if error == rustix::io::Errno::SRCH || error == rustix::io::Errno::INVAL {
        return ProcessError::NotFound(pid);
    }
    ProcessError::Io { pid, what: "the process", source: error.into() }
}

fn leader_of(thread: Pid) -> Option<Pid> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    let leader = Pid(line.trim().parse().ok()?);
    (leader != thread).then_some(leader)
}

#[cfg(test)]
mod tests {
    #![expect(unsafe_code, reason = "maps a file, to see that it is shown")]

    use std::{ffi::OsStr, io::Write as _, os::unix::ffi::OsStrExt as _};

    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

    use super::*;

    #[test]
    fn this_process_can_be_opened() {
        let process = Process::open(Pid(std::process::id())).unwrap();
        assert!(!process.has_ended());
        assert!(process.command().contains("ttmem"));
        assert!(!process.maps().unwrap().is_empty());
    }

    #[test]
    fn parents_are_followed_up() {
        let process = Process::open(Pid(std::process::id())).unwrap();
        assert!(process.descends_from(process.pid()) && process.descends_from(Pid(1)));
        assert!(!process.descends_from(Pid(0x7fff_fff0)));
    }

    #[test]
    fn a_pid_that_cannot_be_is_not_found() {
        for pid in [0, 0x7fff_fff0, u32::MAX] {
            assert!(matches!(Process::open(Pid(pid)), Err(ProcessError::NotFound(_))), "{pid}");
        }
    }

    #[test]
    fn a_process_that_ends_is_noticed() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let process = Process::open(Pid(child.id())).unwrap();
        assert!(!process.has_ended() && process.has_memory());
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(process.has_ended() && !process.has_memory());
        assert!(matches!(process.maps(), Err(ProcessError::Ended(_))));
    }

    #[test]
    fn a_file_may_be_called_anything() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(OsStr::from_bytes(b"a\nb\xff "));
        let mut file = File::options().create_new(true).read(true).write(true).open(&path).unwrap();
        file.write_all(b"something").unwrap();
        let flags = MapFlags::PRIVATE;
        // SAFETY: a fresh mapping at an address of the kernel's choice, which nobody reads.
        let start = unsafe { mmap(std::ptr::null_mut(), 1, ProtFlags::READ, flags, &file, 0) };
        let start = start.unwrap();
        let maps = Process::open(Pid(std::process::id())).unwrap().maps();
        // SAFETY: the mapping of above.
        unsafe { munmap(start, 1) }.unwrap();
        let maps = maps.unwrap();
        let map = maps.iter().find(|map| map.addresses.start == start as u64).unwrap();
        assert_eq!(map.path(), Some(&*path));
        assert_eq!(map.inode, file.metadata().unwrap().ino());
    }

    #[test]
    fn a_thread_is_told_from_its_process() {
        let (send, receive) = std::sync::mpsc::channel();
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            send.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            let _ = wait.recv();
        });
        let tid = receive.recv().unwrap().cast_unsigned();
        let error = Process::open(Pid(tid)).unwrap_err();
        assert!(matches!(error, ProcessError::IsThread { .. }), "{error}");
        drop(done);
        thread.join().unwrap();
    }
}
