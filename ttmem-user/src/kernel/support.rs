//! What the running kernel can do, for choosing the way to attach and for `ttmem doctor`.

use std::{fmt, path::Path};

use crate::units::Pid;

/// A kernel release, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The oldest kernel with attach cookies, which every probe needs.
pub const OLDEST: KernelVersion = KernelVersion { major: 5, minor: 15 };

/// The oldest kernel whose `uprobe_multi` filters on the process and not on one of its threads
/// (commit 46ba0e49b642, "bpf: fix multi-uprobe PID filtering logic").
pub const MULTI: KernelVersion = KernelVersion { major: 6, minor: 10 };

/// The release of the running kernel; `None` if it cannot be read as numbers.
pub fn running() -> Option<KernelVersion> {
    parse(rustix::system::uname().release().to_str().ok()?)
}

fn parse(release: &str) -> Option<KernelVersion> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?.parse().ok()?;
    Some(KernelVersion { major, minor })
}

/// Whether `uprobe_multi` is there and can be relied on.
pub fn has_dependable_multi() -> bool {
    running().is_some_and(|version| version >= MULTI)
}

/// Why the kernel lets nobody read user memory from eBPF; `None` if it does.
pub fn lockdown() -> Option<String> {
    let text = std::fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    let mode = text.split(['[', ']']).nth(1)?;
    (mode == "confidentiality").then(|| mode.to_owned())
}

/// Whether the kernel was built with uprobes, as far as can be told.
pub fn has_uprobes() -> bool {
    Path::new("/sys/bus/event_source/devices/uprobe").exists()
}

/// Device and inode of this process's pid namespace; `None` if it is the initial one, in which
/// ids need no translation.
pub fn pid_namespace() -> Option<(u64, u64)> {
    /// `PROC_PID_INIT_INO` of include/linux/proc_ns.h.
    const INITIAL: u64 = 0xEFFF_FFFC;
    use std::os::unix::fs::MetadataExt as _;
    let namespace = std::fs::metadata("/proc/self/ns/pid").ok()?;
    (namespace.ino() != INITIAL).then(|| (namespace.dev(), namespace.ino()))
}

/// Whether a process is in a pid namespace inside this process's, which is not the initial one: then
/// the kernel does not say whose a hit is (kernel/bpf/helpers.c: `bpf_get_ns_current_pid_tgid`).
pub fn is_nested(pid: Pid) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let Some((_, own)) = pid_namespace() else { return false };
    let its = std::fs::metadata(format!("/proc/{}/ns/pid", pid.0));
    // One that has ended is another's concern.
    its.is_ok_and(|its| its.ino() != own)
}

/// By how much this process's CLOCK_MONOTONIC differs from the kernel's, as the kernel says it;
/// `None` if it does not.
pub fn clock_offset() -> Option<String> {
    clock_offset_of(&std::fs::read_to_string("/proc/self/timens_offsets").ok()?)
}

fn clock_offset_of(offsets: &str) -> Option<String> {
    let monotonic = offsets.lines().find_map(|line| line.strip_prefix("monotonic"))?;
    let parts: Vec<&str> = monotonic.split_whitespace().collect();
    parts.iter().any(|part| *part != "0").then(|| parts.join(" s, ") + " ns")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_of_its_own_is_seen() {
        let offsets = |monotonic| format!("monotonic  {monotonic}\nboottime   5  0\n");
        assert_eq!(clock_offset_of(&offsets("0 0")), None);
        assert_eq!(clock_offset_of(&offsets("-60 0")).as_deref(), Some("-60 s, 0 ns"));
        assert_eq!(clock_offset_of(&offsets("0 7")).as_deref(), Some("0 s, 7 ns"));
        assert_eq!(clock_offset_of("\n"), None);
    }

    #[test]
    fn releases_of_many_kinds() {
        let version = |major, minor| Some(KernelVersion { major, minor });
        assert_eq!(parse("6.18.44-fc-v657"), version(6, 18));
        assert_eq!(parse("5.15.0-91-generic"), version(5, 15));
        assert_eq!(parse("6.6-rc1"), version(6, 6));
        assert_eq!(parse("linux"), None);
        assert_eq!(parse(""), None);
        assert!(version(6, 9) < Some(MULTI) && version(6, 10) >= Some(MULTI));
    }
}
