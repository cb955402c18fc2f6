//! What starting and parsing a library leave behind: nothing, as far as the system can tell.
#![expect(unsafe_code, reason = "mallopt(3), malloc_trim(3) and madvise(2) have no safe wrappers")]

use std::fs;

use rustix::mm::{Advice, madvise};

use crate::target::maps::{MemoryMap, parse_line};

/// What this process has mapped, and how much of it is in memory.
const OWN_MAPPINGS: &str = "/proc/self/smaps";

/// Has the allocator keep little of what is free. To be called before there is a second thread.
///
/// A library of tt-metal is parsed into some tens of megabytes, once. By default the allocator then
/// takes such sizes for the usual ones, and keeps a pool for each thread that cannot be trimmed.
pub fn be_frugal() {
    #[cfg(target_env = "gnu")]
    // SAFETY: they only set numbers; no other thread uses the allocator yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 256 << 10);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 256 << 10);
    }
}

/// Gives the memory back that is free, and the pages of program files that may not be needed again:
/// the loader, the parser, the decoder. Those that are come back from the page cache.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it may be called at any time, by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
    // Where it cannot be told which pages those are, they stay.
    let Ok(maps) = fs::read(OWN_MAPPINGS) else { return };
    for (map, changed) in mappings_with(&maps, b"Anonymous:") {
        if !is_only_file(&map, changed) {
            continue;
        }
        let start = map.addresses.start;
        let len = usize::try_from(map.addresses.end - start).unwrap_or(0);
        // SAFETY: a private mapping that nobody may write to, and no page of which differs from the
        // file: what is dropped reads the same when it is read again.
        let _ = unsafe { madvise(start as *mut _, len, Advice::LinuxDontNeed) };
    }
}

/// Whether a mapping shows a file as it is: nothing has `changed`. What the dynamic linker has
/// relocated is not so, though it may not be written to any more.
fn is_only_file(map: &MemoryMap, changed: Option<u64>) -> bool {
    let can = map.permissions;
    !can.shared() && !can.write() && map.path().is_some() && changed == Some(0)
}

/// The mappings of `/proc/PID/smaps`, each with one of the figures below it, KiB.
fn mappings_with(smaps: &[u8], figure: &[u8]) -> Vec<(MemoryMap, Option<u64>)> {
    let mut maps: Vec<(MemoryMap, Option<u64>)> = Vec::new();
    for line in smaps.split(|byte| *byte == b'\n') {
        if let Some(map) = parse_line(line) {
            maps.push((map, None));
        } else if let (Some(value), Some((_, last))) = (line.strip_prefix(figure), maps.last_mut())
        {
            let value = std::str::from_utf8(value).ok().and_then(|value| value.strip_suffix("kB"));
            *last = value.and_then(|value| value.trim().parse().ok());
        }
    }
    maps
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory of this process that is not on its own heap or stacks, in bytes.
    fn of_files() -> u64 {
        let maps = fs::read(OWN_MAPPINGS).unwrap();
        let maps =
            mappings_with(&maps, b"Anonymous:").into_iter().zip(mappings_with(&maps, b"Rss:"));
        maps.filter(|((map, changed), _)| is_only_file(map, *changed))
            .map(|(_, (_, resident))| resident.unwrap() << 10)
            .sum()
    }

    #[test]
    fn what_is_given_back_comes_again() {
        // The tests beside this one run on meanwhile, and fetch theirs again.
        let before = of_files();
        give_back();
        let after = of_files();
        assert!(after < before, "{after} of {before} bytes");
        assert_eq!(format!("{:>4}", 7), "   7", "it runs on");
    }
}
