//! `ttmem launch`: what `run` starts its command by.
//!
//! Becomes the user who asked for it, waits until everything is ready, and turns into the
//! command. It has no environment of its own: the command's comes when all is ready.

use std::{
    ffi::CString,
    io::{self, Read as _},
    os::{
        fd::{FromRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::Command,
};

use anyhow::{Context as _, ensure};
use nix::unistd::{Gid, Uid, User, initgroups, setgid, setgroups, setuid};

use super::run::environment::{self, Environment};
use crate::{cli::args::LaunchArgs, stderr::remark};

/// What a shell says of a command that is not there, and of one that cannot be run.
const NOT_FOUND: u8 = 127;
const NOT_RUN: u8 = 126;

/// Runs the command; returns only if that is not possible, with what a shell would return.
pub fn run(args: &LaunchArgs) -> anyhow::Result<u8> {
    if args.terminal {
        take_terminal().context("cannot give the command its terminal")?;
    }
    if let (Some(user), Some(group)) = (args.user, args.group) {
        become_user(Uid::from_raw(user), Gid::from_raw(group))
            .with_context(|| format!("cannot become user {user}"))?;
    }
    let environment = wait_at(args.gate)?;
    let Some((program, arguments)) = args.command.split_first() else {
        anyhow::bail!("there is no command");
    };
    let error = Command::new(program).args(arguments).env_clear().envs(environment).exec();
    remark!("ttmem: cannot run {}: {error}", program.to_string_lossy());
    Ok(if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUN })
}

/// A session of its own, with standard input as its terminal.
fn take_terminal() -> io::Result<()> {
    rustix::process::setsid()?;
    rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
    Ok(())
}

fn become_user(user: Uid, group: Gid) -> anyhow::Result<()> {
    let name = User::from_uid(user)?.map(|user| user.name).unwrap_or_default();
    let name = CString::new(name)?;
    if name.is_empty() {
        // Nobody says which others it has; those of now are root's.
        setgroups(&[group])?;
    } else {
        initgroups(&name, group)?;
    }
    setgid(group)?;
    setuid(user)?;
    Ok(())
}

/// Waits for the command's environment: its length, 8 bytes, and so many. The end without one means
/// that whoever would watch is gone.
fn wait_at(gate: i32) -> anyhow::Result<Environment> {
    #[expect(unsafe_code, reason = "the descriptor was made for this process by its parent")]
    // SAFETY: nobody else in this process knows the descriptor; it is used once.
    let gate = unsafe { OwnedFd::from_raw_fd(gate) };
    let mut gate = std::fs::File::from(gate);
    let mut length = [0; 8];
    gate.read_exact(&mut length).context(GONE)?;
    let mut bytes = Vec::new();
    gate.take(u64::from_le_bytes(length)).read_to_end(&mut bytes).context(GONE)?;
    ensure!(bytes.len() as u64 == u64::from_le_bytes(length), GONE);
    Ok(environment::parse(&bytes))
}

const GONE: &str = "ttmem ended before the command";
