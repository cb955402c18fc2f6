//! Who called: the user behind `sudo`, and that user's environment.

use std::env;

use nix::unistd::{Uid, User};

use super::environment::{self, Environment};

/// How far up sudo is looked for: it may run its command through a process of its own.
const LEVELS: usize = 3;

/// The user behind sudo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoker {
    /// User id.
    pub user: u32,
    /// Group id.
    pub group: u32,
    /// The environment in which sudo was called; `None` if it cannot be read.
    pub environment: Option<Environment>,
}

impl Invoker {
    /// The user behind sudo; `None` if this program was not called through it.
    pub fn find() -> Option<Self> {
        let number = |name| env::var(name).ok()?.parse::<u32>().ok();
        let user = number("SUDO_UID").filter(|user| *user != 0)?;
        if !Uid::effective().is_root() {
            return None;
        }
        let group = number("SUDO_GID")?;
        Some(Self { user, group, environment: environment_of_sudo() })
    }

    /// The environment for a command of this user: the one in which sudo was called or, if it
    /// cannot be read, ours with what sudo has changed set right.
    pub fn command_environment(&self) -> Environment {
        if let Some(of_sudo) = &self.environment {
            return of_sudo.clone();
        }
        let mut environment: Environment = env::vars_os().collect();
        if let Ok(Some(user)) = User::from_uid(Uid::from_raw(self.user)) {
            environment.insert("HOME".into(), user.dir.into_os_string());
            environment.insert("SHELL".into(), user.shell.into_os_string());
            for name in ["USER", "LOGNAME"] {
                environment.insert(name.into(), user.name.clone().into());
            }
        }
        environment
    }
}

fn environment_of_sudo() -> Option<Environment> {
    let mut process = procfs::process::Process::myself().ok()?;
    for _ in 0..LEVELS {
        let parent = process.stat().ok()?.ppid;
        process = procfs::process::Process::new(parent).ok()?;
        let is_sudo = process.stat().ok()?.comm == "sudo";
        let above = || procfs::process::Process::new(process.stat().ok()?.ppid).ok();
        // sudo's own child, which waits for the command, is called sudo as well.
        let is_last = above().and_then(|above| above.stat().ok()).is_none_or(|s| s.comm != "sudo");
        if is_sudo && is_last {
            let bytes = std::fs::read(format!("/proc/{parent}/environ")).ok()?;
            return Some(environment::parse(&bytes));
        }
    }
    None
}
