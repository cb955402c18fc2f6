//! Whether a test has the machine to itself, where it watches whatever there is, or what it looks at
//! would be changed by another ttmem.
//!
//! Who is about to end, such as what the test before has killed, is waited for.

use std::{
    ffi::OsStr,
    fs,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::ttmem::readable_within;

/// How long who is about to end may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Commands that attach to processes.
const ATTACHES: [&str; 3] = ["attach", "run", "serve"];

/// Fails, with the reason, where another ttmem attaches to processes.
pub fn no_other_ttmem() -> Result<(), String> {
    let is_ttmem = |process: &Path| {
        let program = fs::read_link(process.join("exe")).ok()?;
        let typed = fs::read(process.join("cmdline")).ok()?;
        attaches(program.as_os_str(), &typed).then(|| "is a ttmem of somebody else".to_owned())
    };
    nobody(PATIENCE, is_ttmem)
}

/// Fails, with the reason, where another ttmem, or a process with tt-metal, is on this machine.
pub fn nobody_else() -> Result<(), String> {
    no_other_ttmem()?;
    nobody(PATIENCE, |process: &Path| {
        let maps = fs::read_to_string(process.join("maps")).ok()?;
        has_tt_metal(&maps).then(|| "has tt-metal".to_owned())
    })
}

fn attaches(program: &OsStr, typed: &[u8]) -> bool {
    let name = Path::new(program).file_name().unwrap_or_default().as_bytes();
    let command = typed.split(|byte| *byte == 0).nth(1).unwrap_or_default();
    (name == b"ttmem" || name == b"ttmem (deleted)")
        && ATTACHES.iter().any(|it| it.as_bytes() == command)
}

fn has_tt_metal(maps: &str) -> bool {
    maps.lines().any(|line| line.contains("/libtt_metal"))
}

/// Looks at every process; whoever is not gone after a while is the reason.
fn nobody(
    patience: Duration,
    what_is_wrong: impl Fn(&Path) -> Option<String>,
) -> Result<(), String> {
    let mut found: Vec<(String, Option<OwnedFd>)> = Vec::new();
    for entry in fs::read_dir("/proc").map_err(|error| format!("/proc: {error}"))?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        // Opened first: what is looked at then is this process, or none.
        let pidfd = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        if let Some(why) = what_is_wrong(&entry.path()) {
            found.push((format!("process {pid} {why}"), pidfd));
        }
    }
    let deadline = Instant::now() + patience;
    for (reason, pidfd) in found {
        let left = deadline.saturating_duration_since(Instant::now());
        if pidfd.is_some_and(|pidfd| readable_within(pidfd, left).is_err()) {
            return Err(format!("{reason}: this test has to have the machine to itself"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::sharing::Service;

    #[test]
    fn who_attaches_is_told_from_who_reads() {
        let is_one = |program: &str, typed: &[u8]| attaches(OsStr::new(program), typed);
        assert!(is_one("/usr/bin/ttmem", b"ttmem\0serve\0"));
        assert!(is_one("/x/ttmem (deleted)", b"./ttmem\0attach\0--all\0"));
        assert!(!is_one("/usr/bin/ttmem", b"ttmem\0watch\0"));
        assert!(!is_one("/usr/bin/vi", b"ttmem\0serve\0") && !is_one("/usr/bin/ttmem", b""));
        assert!(has_tt_metal("7f00-7f01 r-xp 00000000 08:01 1 /x/lib/libtt_metal.so\n"));
        assert!(!has_tt_metal("7f00-7f01 r-xp 00000000 08:01 1 /x/lib/libc.so.6\n"));
    }

    #[test]
    fn who_stays_is_the_reason_and_who_goes_is_not() {
        let mut command = Command::new("cat");
        let mut stays = Service(command.stdin(Stdio::piped()).spawn().unwrap());
        let own = format!("/proc/{}", stays.0.id());
        let is_it = |process: &Path| (process == Path::new(&own)).then(|| "is it".to_owned());
        let said = nobody(Duration::ZERO, is_it).unwrap_err();
        assert!(said.starts_with(&format!("process {} is it", stays.0.id())), "{said}");
        // Its end, which is not waited for here: it is there as a dead one.
        drop(stays.0.stdin.take());
        assert_eq!(nobody(PATIENCE, is_it), Ok(()));
    }
}
