//! Files of a ttmem that was killed before it could take them away.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::atomic::Ordering,
};

use ttmem_common::table::{header, state};

use super::{
    agent::Identity,
    directory::{Directory, DirectoryError, PRIVATE},
    reader::{Table, living_writer},
};
use crate::words::Words;

/// Takes them away. What is no file of ttmem, and what a living one uses, stays.
pub fn sweep(directory: &Directory) -> Result<(), DirectoryError> {
    directory.sweep(|name| {
        let is_left = is_left(directory, name);
        if is_left {
            disown(directory, name);
        }
        is_left
    })
}

/// Says in the table of a ttmem that was killed that nobody writes it any more. Its last heartbeat may
/// still look fresh, and who has it mapped would take its numbers for those of the next ttmem.
pub(super) fn disown(directory: &Directory, name: &str) {
    // What cannot be opened, or is none of this version, nobody reads as one.
    let Ok(Some(file)) = directory.open_ours_to_write(name) else { return };
    if let Some(words) = abandoned(directory, name, &file) {
        let at = |offset: usize| u32::try_from(offset / 8).unwrap_or(u32::MAX);
        let state_word = words.long(at(header::STATE));
        if u64::from_le(state_word.load(Ordering::Relaxed)) <= state::RUNNING {
            state_word.store(state::UNWATCHED.to_le(), Ordering::Release);
        }
    }
}

/// The header of a table whose writer is dead, to be written to.
fn abandoned(directory: &Directory, name: &str, file: &OwnedFd) -> Option<Words> {
    let agent = Table::of_file(file, directory.path().join(name)).ok()?.agent();
    if agent == Identity::own() || agent.is_alive() {
        return None;
    }
    Words::map(file.as_fd(), usize::try_from(header::LAST_BYTE).ok()?).ok()
}

fn is_left(directory: &Directory, name: &str) -> bool {
    if let Some((pid, "table" | "sock")) = name.split_once('.') {
        // A socket goes with the table beside it.
        return pid.parse::<u32>().is_ok()
            && living_writer(directory, &format!("{pid}.table")).is_ok_and(|it| it.is_none());
    }
    // Half made, by the agent in its name.
    let half_made = name.strip_prefix(".new-").and_then(|rest| rest.split('-').next());
    half_made
        .or_else(|| name.strip_prefix(PRIVATE))
        .and_then(|agent| agent.parse().ok())
        .is_some_and(|agent| Identity::of(agent).is_none())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_what_is_ours_and_dead_goes() {
        let outer = tempfile::tempdir().expect("a directory");
        let path = outer.path().join("tables");
        let directory = Directory::create(&path).expect("made");
        let own = std::process::id();
        let dead = ["7.table", "7.sock", ".new-4194304-7.table"];
        let kept = ["notes.txt", "x.table", "7.table.old", &format!(".new-{own}-7.table")];
        for name in dead.iter().chain(&kept) {
            fs::write(path.join(name), "left behind").expect("written");
        }
        let private = [path.join(".private-4194304"), path.join(format!(".private-{own}"))];
        for private in &private {
            fs::create_dir(private).expect("made");
            fs::write(private.join("7.sock"), "left behind").expect("written");
        }
        sweep(&directory).expect("swept");
        assert!(!private[0].exists() && private[1].join("7.sock").exists());
        for name in dead {
            assert!(!path.join(name).exists(), "{name}");
        }
        for name in kept {
            assert!(path.join(name).exists(), "{name}");
        }
    }
}
