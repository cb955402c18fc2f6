//! Who called: the user behind `sudo`, and that user's environment.

use std::{
    collections::HashMap,
    env,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
};

use nix::unistd::{Uid, User};

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
    pub environment: Option<HashMap<OsString, OsString>>,
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
    pub fn command_environment(&self) -> HashMap<OsString, OsString> {
        if let Some(environment) = &self.environment {
            return environment.clone();
        }
        let mut environment: HashMap<OsString, OsString> = env::vars_os().collect();
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

fn environment_of_sudo() -> Option<HashMap<OsString, OsString>> {
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
            return Some(parse(&bytes));
        }
    }
    None
}

fn parse(bytes: &[u8]) -> HashMap<OsString, OsString> {
    bytes
        .split(|byte| *byte == 0)
        .filter_map(|entry| {
            let at = entry.iter().position(|byte| *byte == b'=')?;
            let text = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
            Some((text(&entry[..at]), text(&entry[at + 1..])))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_is_taken_apart_at_the_first_equals_sign() {
        let environment = parse(b"A=1\0B=x=y\0\0broken\0C=\0");
        let value = |name: &str| environment.get(OsStr::new(name)).and_then(|v| v.to_str());
        assert_eq!(environment.len(), 3);
        assert_eq!((value("A"), value("B"), value("C")), (Some("1"), Some("x=y"), Some("")));
    }
}
