//! Who called: the user behind `sudo`, and that user's environment.

use std::env;

use nix::unistd::{Pid, Uid, User};

use super::environment::{self, Environment};

/// The user behind sudo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invoker {
    /// User id.
    pub user: u32,
    /// Group id.
    pub group: u32,
    /// The environment in which sudo was called; `None` if it cannot be read, or if sudo has started
    /// something else that started this program, such as a shell.
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

    /// The environment for a command of this user: the one in which sudo was called or else ours, in
    /// which a shell's user may have set something, with what names root there set right.
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

/// The environment in which sudo was called, if it is sudo that has started this program.
fn environment_of_sudo() -> Option<Environment> {
    let parent = Pid::parent();
    let environment = environment_if_sudo(parent.as_raw())?;
    // If it has ended meanwhile, its id may have become that of a process of anybody.
    (Pid::parent() == parent).then_some(environment)
}

/// The environment that a process began with, if it is sudo. Where sudo runs its command through a
/// process of its own, that is a copy of the one that was called, with the same beginning.
fn environment_if_sudo(pid: i32) -> Option<Environment> {
    let process = procfs::process::Process::new(pid).ok()?;
    if process.stat().ok()?.comm != "sudo" {
        return None;
    }
    let bytes = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    Some(environment::parse(&bytes))
}

#[cfg(test)]
mod tests {
    use std::{
        ffi::OsStr,
        io::{BufRead as _, BufReader, Write as _},
        os::unix::fs::symlink,
        process::{Child, Command, Stdio},
    };

    use super::*;

    /// A process of this name that runs until its standard input is closed.
    fn process_called(name: &str) -> Child {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join(name);
        symlink("/bin/cat", &program).unwrap();
        let mut command = Command::new(&program);
        command.env_clear().env("WHOSE", "the caller's").stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        // Once it answers, it is what it is called.
        child.stdin.as_mut().unwrap().write_all(b"there\n").unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        child
    }

    #[test]
    fn only_sudo_itself_is_asked_for_its_environment() {
        for (name, expected) in [("sudo", Some("the caller's")), ("bash", None)] {
            let mut child = process_called(name);
            let environment = environment_if_sudo(child.id().cast_signed());
            let whose = environment.and_then(|it| it.get(OsStr::new("WHOSE")).cloned());
            assert_eq!(whose.as_deref(), expected.map(OsStr::new), "{name}");
            drop(child.stdin.take());
            child.wait().unwrap();
        }
    }

    #[test]
    fn in_a_shell_of_sudo_the_shells_environment_counts_and_the_users_home() {
        let invoker = Invoker { user: 0, group: 0, environment: None };
        let root = User::from_uid(Uid::from_raw(0)).unwrap().unwrap();
        let environment = invoker.command_environment();
        assert_eq!(environment.get(OsStr::new("HOME")), Some(&root.dir.into_os_string()));
        assert_eq!(environment.get(OsStr::new("PATH")), env::var_os("PATH").as_ref());
    }
}
