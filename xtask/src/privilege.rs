//! Whether xtask may do what needs root, and how.

use std::path::Path;
use std::process::Command;

use crate::{paths, run};

/// How a command gets root's rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// xtask runs as root.
    Root,
    /// `sudo` works without a password being asked for.
    Sudo,
    /// Neither.
    None,
}

impl Privilege {
    /// What there is on this machine, now.
    pub fn find() -> Self {
        if is_root() {
            Self::Root
        } else if paths::on_path("sudo").is_some()
            && run::succeeds(Command::new("sudo").args(["-n", "true"]))
        {
            Self::Sudo
        } else {
            Self::None
        }
    }

    /// The command with root's rights, or `None` where there is no way to them.
    pub fn command(self, program: &Path) -> Option<Command> {
        match self {
            Self::Root => Some(Command::new(program)),
            Self::Sudo => {
                let mut command = Command::new("sudo");
                command.arg("-n").arg(program);
                Some(command)
            }
            Self::None => None,
        }
    }
}

fn is_root() -> bool {
    run::capture(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}
