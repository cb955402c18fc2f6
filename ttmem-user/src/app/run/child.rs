//! The command: prepared, let go, waited for.

use std::{
    env,
    ffi::OsString,
    fs::File,
    io::{self, Write as _},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::process::ExitStatusExt as _,
    },
    process::{ExitStatus, Stdio},
};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::{process::Command, sync::watch};

use super::{environment, invoker::Invoker};
use crate::units::Pid;

/// Added to the number of the signal that ended a command, as shells do.
const BY_SIGNAL: i32 = 128;

/// A command of ours. Killed when dropped before it was let go.
pub struct Child {
    pid: Pid,
    /// Its other end is what the command waits at.
    gate: Option<File>,
    /// What the command gets, as bytes.
    environment: Vec<u8>,
    /// Its end, once it has come.
    status: watch::Receiver<Option<io::Result<ExitStatus>>>,
}

impl Child {
    /// Starts the command up to the point where it waits for [`Child::go`].
    /// With a terminal it gets that for all three standard streams, else ours.
    pub fn prepare(
        words: &[OsString],
        invoker: Option<&Invoker>,
        terminal: Option<OwnedFd>,
    ) -> anyhow::Result<Self> {
        // Inherited: neither end may close on exec, so ours is closed by hand in the child.
        let (waits, gate) = pipe_with(PipeFlags::empty()).context("cannot make a pipe")?;
        // This very file, also where the user may not follow the path to it.
        let mut command = Command::new("/proc/self/exe");
        command.arg("launch").arg(format!("--gate={}", waits.as_raw_fd()));
        if let Some(invoker) = invoker {
            command.arg(format!("--user={}", invoker.user));
            command.arg(format!("--group={}", invoker.group));
        }
        // It is root's until it has become the user's: nothing that the user has set may be looked at
        // before, as the loader would at LD_PRELOAD.
        command.env_clear();
        let environment =
            invoker.map_or_else(|| env::vars_os().collect(), Invoker::command_environment);
        if let Some(terminal) = terminal {
            give(&mut command, terminal)?;
        }
        command.arg("--").args(words);
        close_on_exec(&gate)?;
        let mut process = command.spawn().context("cannot start a process")?;
        let pid = Pid(process.id().context("the command has no process id")?);
        let (sender, status) = watch::channel(None);
        tokio::spawn(async move { sender.send(Some(process.wait().await)) });
        let environment = environment::bytes(&environment);
        Ok(Self { pid, gate: Some(File::from(gate)), environment, status })
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Lets the command begin. If it has ended already, its exit code tells.
    pub fn go(&mut self) -> anyhow::Result<()> {
        let Some(mut gate) = self.gate.take() else { return Ok(()) };
        let length = (self.environment.len() as u64).to_le_bytes();
        let written = gate.write_all(&length).and_then(|()| gate.write_all(&self.environment));
        match written {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(error).context("cannot let the command begin")
            }
            _ => Ok(()),
        }
    }

    /// Completes when the command has ended.
    pub fn ended(&self) -> impl Future<Output = ()> + use<> {
        let mut status = self.status.clone();
        async move {
            // The sender goes only after the end.
            let _ = status.wait_for(Option::is_some).await;
        }
    }

    /// Sends it a signal, unless it has ended.
    pub fn signaller(&self) -> impl Fn(Signal) + use<> {
        let pid = nix::unistd::Pid::from_raw(self.pid.0.cast_signed());
        let status = self.status.clone();
        move |signal| {
            if status.borrow().is_none() {
                let _ = kill(pid, signal);
            }
        }
    }

    /// Waits for its end; its exit code, or 128 and the signal that ended it.
    pub async fn exit_code(&self) -> anyhow::Result<u8> {
        self.ended().await;
        let code = match &*self.status.borrow() {
            Some(Ok(status)) => status.code().or_else(|| status.signal().map(|s| BY_SIGNAL + s)),
            Some(Err(error)) => bail!("cannot wait for the command: {error}"),
            None => bail!("cannot wait for the command"),
        };
        Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.gate.is_some() {
            // It waits, and nobody will let it go any more.
            self.signaller()(Signal::SIGKILL);
        }
    }
}

fn give(command: &mut Command, terminal: OwnedFd) -> anyhow::Result<()> {
    let copy = || terminal.try_clone().context("cannot hand on a terminal");
    command.arg("--terminal");
    command.stdin(Stdio::from(copy()?)).stdout(Stdio::from(copy()?)).stderr(Stdio::from(terminal));
    Ok(())
}

fn close_on_exec(fd: &OwnedFd) -> anyhow::Result<()> {
    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC).context("cannot set up a pipe")
}
