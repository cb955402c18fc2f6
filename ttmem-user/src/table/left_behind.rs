//! Files of a ttmem that was killed before it could take them away.

use super::{
    agent::Identity,
    directory::{Directory, DirectoryError},
    reader::living_writer,
};

/// Takes them away. What is no file of ttmem, and what a living one uses, stays.
pub fn sweep(directory: &Directory) -> Result<(), DirectoryError> {
    directory.sweep(|name| is_left(directory, name))
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
        sweep(&directory).expect("swept");
        for name in dead {
            assert!(!path.join(name).exists(), "{name}");
        }
        for name in kept {
            assert!(path.join(name).exists(), "{name}");
        }
    }
}
