//! One xtask at a time in a workspace: two would pull each other's set-up away, such as a venv that one
//! makes anew while the other installs into it.
//!
//! The kernel lets go of the lock with the process, however that ends. No child inherits it: what is
//! started here may outlive xtask.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::paths;

/// The lock, held.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes the workspace's lock; `None` if a process that this one comes of has it.
pub fn take() -> Result<Option<Lock>> {
    fs::create_dir_all(paths::notes())
        .with_context(|| format!("cannot make {}", paths::notes().display()))?;
    take_at(&paths::notes().join("lock"))
}

fn take_at(path: &Path) -> Result<Option<Lock>> {
    let context = || format!("cannot lock {}", path.display());
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let mut file = options.open(path).with_context(context)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            file.set_len(0).with_context(context)?;
            write!(file, "{}", std::process::id()).with_context(context)?;
            Ok(Some(Lock { _file: file }))
        }
        Err(Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder).with_context(context)?;
            // It has the lock, and has not written yet.
            let Ok(holder) = holder.parse() else { bail!("another xtask is running") };
            if comes_of(std::process::id(), holder) {
                return Ok(None);
            }
            bail!("another xtask is running (pid {holder})")
        }
        Err(error) => Err(error).with_context(context),
    }
}

/// Whether a process is one that `ancestor` has started, or that such a one has started.
fn comes_of(mut pid: u32, ancestor: u32) -> bool {
    while let Some(parent) = parent_of(pid) {
        if parent == ancestor {
            return true;
        }
        pid = parent;
    }
    false
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind its name, which may hold anything, and its state.
    let parent = stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()?;
    (parent != 0).then_some(parent)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::{Command, Stdio};

    use super::*;

    fn file(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("ttmem-lock-{name}-{}", std::process::id()))
    }

    #[test]
    fn a_second_one_is_told_who_has_it() {
        let file = file("second");
        let held = take_at(&file).unwrap().expect("the lock");
        let error = take_at(&file).unwrap_err().to_string();
        assert_eq!(error, format!("another xtask is running (pid {})", std::process::id()));
        drop(held);
        assert!(take_at(&file).unwrap().is_some());
        fs::remove_file(file).unwrap();
    }

    #[test]
    fn who_comes_of_its_holder_goes_on() {
        let file = file("nested");
        let held = take_at(&file).unwrap();
        // As if its parent had it: that one has started this process, or whoever did.
        fs::write(&file, std::os::unix::process::parent_id().to_string()).unwrap();
        assert!(take_at(&file).unwrap().is_none());
        drop(held);
        fs::remove_file(file).unwrap();
    }

    #[test]
    fn what_it_has_started_does_not_keep_it() {
        let file = file("outlived");
        let held = take_at(&file).unwrap();
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        drop(held);
        assert!(take_at(&file).unwrap().is_some());
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
        fs::remove_file(file).unwrap();
    }
}
