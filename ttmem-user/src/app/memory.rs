//! What starting and parsing a library leave behind: nothing, as far as the system can tell.
#![expect(unsafe_code, reason = "mallopt(3), malloc_trim(3) and madvise(2) have no safe wrappers")]

use procfs::process::{MMPermissions, MMapPath, MemoryMap, Process};
use rustix::mm::{Advice, madvise};

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
    let Ok(maps) = Process::myself().and_then(|process| process.smaps()) else { return };
    for map in maps.into_iter().filter(is_only_file) {
        let (start, end) = map.address;
        let len = usize::try_from(end - start).unwrap_or(0);
        // SAFETY: a private mapping that nobody may write to, and no page of which differs from the
        // file: what is dropped reads the same when it is read again.
        let _ = unsafe { madvise(start as *mut _, len, Advice::LinuxDontNeed) };
    }
}

/// Whether a mapping shows a file as it is. What the dynamic linker has relocated is not so, though
/// it may not be written to any more.
fn is_only_file(map: &MemoryMap) -> bool {
    let private = map.perms.contains(MMPermissions::PRIVATE);
    let constant = private && !map.perms.contains(MMPermissions::WRITE);
    constant
        && matches!(map.pathname, MMapPath::Path(_))
        && map.extension.map.get("Anonymous") == Some(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory of this process that is not on its own heap or stacks, in bytes.
    fn of_files() -> u64 {
        let maps = Process::myself().unwrap().smaps().unwrap();
        maps.iter().filter(|map| is_only_file(map)).map(|map| map.extension.map["Rss"]).sum()
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
