//! Something that is stopped for a while.

use std::fs;

use anyhow::{Context as _, Result};
use nix::{
    sys::{
        ptrace,
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};
use rustix::process::{Pid as Process, Signal, kill_process};

/// It does not run until it is dropped.
#[derive(Debug)]
pub struct Stopped(What);

#[derive(Debug)]
enum What {
    Thread(Pid),
    Process(Process),
}

impl Stopped {
    /// Stops one thread of a process; the others run on.
    pub fn thread(process: u32, name: &str) -> Result<Self> {
        let mut threads = fs::read_dir(format!("/proc/{process}/task"))?.flatten();
        let is_it = |thread: &fs::DirEntry| {
            fs::read_to_string(thread.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name)
        };
        let thread = threads.find(is_it).with_context(|| format!("no thread {name}"))?;
        let thread = Pid::from_raw(thread.file_name().to_string_lossy().parse()?);
        ptrace::seize(thread, ptrace::Options::empty()).context("cannot stop it")?;
        ptrace::interrupt(thread)?;
        waitpid(thread, Some(WaitPidFlag::__WALL))?;
        Ok(Self(What::Thread(thread)))
    }

    /// Stops a process.
    pub fn process(process: u32) -> Result<Self> {
        let process = i32::try_from(process).ok().and_then(Process::from_raw).context("pid")?;
        kill_process(process, Signal::STOP)?;
        Ok(Self(What::Process(process)))
    }

    /// Lets it run on.
    pub fn go_on(mut self) -> Result<()> {
        self.resume()
    }

    fn resume(&mut self) -> Result<()> {
        match self.0 {
            What::Thread(thread) => ptrace::detach(thread, None)?,
            What::Process(process) => kill_process(process, Signal::CONT)?,
        }
        Ok(())
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // After `go_on`, or when it has gone, there is nothing to be done.
        let _ = self.resume();
    }
}
