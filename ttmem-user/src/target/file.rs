//! Files that a process has mapped, opened by somebody with more rights than whoever put them there.
//!
//! Under the name of a mapped file there may be anything by now: a pipe at which an open waits for
//! good, a device that does something when it is opened, a link to one. So it is looked at first,
//! without being opened, and then that very file is opened, if it is a plain one.

use std::{
    fs::File,
    io::{self, Read as _},
    os::{
        fd::{AsFd, AsRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags, Stat, fstat, open, openat2},
    io::Errno,
};

use super::process::Process;

/// Files and parts of files larger than this are not read: the largest libraries have a third of it.
/// A file of a few bytes may claim any length.
pub const MOST_BYTES: u64 = 1 << 30;

/// Names a file as it is now: device, inode, time of the last change (seconds, nanoseconds).
pub type Identity = (u64, u64, i64, i64);

/// A plain file, not opened yet.
#[derive(Debug)]
pub struct Found {
    /// Leads to the file, and cannot be read from.
    place: OwnedFd,
    stat: Stat,
}

/// Opens a process's root directory, to find files in it.
pub fn root(process: &Process) -> io::Result<OwnedFd> {
    root_at(&process.proc_path("root"))
}

/// The same by the path to it.
pub fn root_at(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(open(path, flags, Mode::empty())?)
}

/// Finds a file by its path below a root. `inode`: which one it has to be, if that is known.
///
/// The kernel names mapped files without links: where there is one now, something else has taken
/// the place.
pub fn find(root: impl AsFd, path: &Path, inode: Option<u64>) -> io::Result<Found> {
    let path = path.strip_prefix("/").unwrap_or(path);
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let path = path.as_os_str().as_bytes();
    Found::at(openat2(root, path, flags, Mode::empty(), resolve)?, inode)
}

/// Finds the file of a mapping by its entry in `/proc/PID/map_files`, which leads to it also if it
/// has been replaced.
pub fn find_mapped(entry: &Path) -> io::Result<Found> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    Found::at(open(entry, flags, Mode::empty())?, None)
}

/// Whether somebody without rights can open a file by its path below a root, as far as its mode and
/// those of the directories on the way tell.
pub fn is_for_all(root: impl AsFd, path: &Path, inode: u64) -> bool {
    let path = path.strip_prefix("/").unwrap_or(path);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let is_open = |directory: &Path| {
        let directory = Path::new(".").join(directory);
        let directory = openat2(&root, directory, flags, Mode::empty(), resolve);
        directory.and_then(fstat).is_ok_and(|stat| stat.st_mode & Mode::XOTH.bits() != 0)
    };
    let is_readable = |found: Found| found.stat.st_mode & Mode::ROTH.bits() != 0;
    find(&root, path, Some(inode)).is_ok_and(is_readable) && path.ancestors().skip(1).all(is_open)
}

/// Whether an error says that there was not enough of something, and nothing of the file.
pub fn is_for_want(error: &io::Error) -> bool {
    const FOR_WANT: [Errno; 3] = [Errno::MFILE, Errno::NFILE, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|error| FOR_WANT.contains(&error))
}

impl Found {
    fn at(place: OwnedFd, inode: Option<u64>) -> io::Result<Self> {
        let stat = fstat(&place)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("it is no plain file"));
        }
        // The device is not compared: overlay and btrfs show another one in the mappings.
        if inode.is_some_and(|inode| inode != stat.st_ino) {
            return Err(io::Error::other("another file is there now"));
        }
        Ok(Self { place, stat })
    }

    /// Which file it is.
    pub fn identity(&self) -> Identity {
        identity(&self.stat)
    }

    /// Opens it for reading.
    pub fn open(&self) -> io::Result<File> {
        // Not blocking: whoever holds a lease of the file could have it wait.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let path = format!("/proc/self/fd/{}", self.place.as_raw_fd());
        Ok(File::from(open(path, flags, Mode::empty())?))
    }

    /// Reads it, unless it is too large.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let too_large = |bytes: u64| {
            io::Error::other(format!("it has {bytes} bytes, and at most {MOST_BYTES} are read"))
        };
        let stated = u64::try_from(self.stat.st_size).unwrap_or(u64::MAX);
        if stated > MOST_BYTES {
            return Err(too_large(stated));
        }
        let mut bytes = Vec::new();
        let room = usize::try_from(stated).unwrap_or(0);
        bytes.try_reserve_exact(room).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // It may grow meanwhile.
        self.open()?.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
        let read = bytes.len() as u64;
        if read > MOST_BYTES { Err(too_large(read)) } else { Ok(bytes) }
    }
}

/// Which file it is that was looked at.
pub fn identity(stat: &Stat) -> Identity {
    (stat.st_dev, stat.st_ino, stat.st_ctime, stat.st_ctime_nsec.try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
        path::PathBuf,
    };

    use rustix::fs::{CWD, mknodat};
    use tempfile::TempDir;

    use super::*;

    fn directory() -> (TempDir, OwnedFd, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let root = root_at(Path::new("/")).unwrap();
        let file = directory.path().join("file");
        fs::write(&file, b"something").unwrap();
        (directory, root, file)
    }

    #[test]
    fn a_plain_file_is_read() {
        let (_directory, root, file) = directory();
        let inode = fs::metadata(&file).unwrap().ino();
        let found = find(&root, &file, Some(inode)).unwrap();
        assert_eq!(found.read().unwrap(), b"something");
        assert_eq!(found.identity().1, inode);
        // What takes its place later is not it.
        fs::rename(&file, file.with_extension("old")).unwrap();
        fs::write(&file, b"another").unwrap();
        assert_eq!(found.read().unwrap(), b"something");
        assert!(find(&root, &file, Some(inode)).is_err());
        assert!(find(&root, &file, None).is_ok());
    }

    #[test]
    fn nothing_else_is_opened() {
        let (directory, root, file) = directory();
        let at = |name: &str| directory.path().join(name);
        // With a link of the target's own an open would leave its root.
        symlink(&file, at("link")).unwrap();
        symlink(directory.path(), at("links")).unwrap();
        mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for name in ["link", "links/file", "pipe", "socket", ".", "none"] {
            assert!(find(&root, &at(name), None).is_err(), "{name}");
        }
        assert!(find(&root, Path::new("/dev/null"), None).is_err());
        let below = root_at(directory.path()).unwrap();
        assert!(find(&below, Path::new("/file"), None).is_ok());
        assert!(find(&below, Path::new("/../../../../etc/passwd"), None).is_err());
    }

    #[test]
    fn who_may_read_a_file_by_its_path_is_told_by_all_on_the_way() {
        let (directory, root, file) = directory();
        let inode = fs::metadata(&file).unwrap().ino();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(directory.path(), 0o711);
        mode(&file, 0o644);
        assert!(is_for_all(&root, &file, inode));
        assert!(!is_for_all(&root, &file, inode + 1));
        mode(&file, 0o640);
        assert!(!is_for_all(&root, &file, inode));
        mode(&file, 0o604);
        mode(directory.path(), 0o710);
        assert!(!is_for_all(&root, &file, inode));
    }

    #[test]
    fn want_of_descriptors_is_no_property_of_a_file() {
        let error = |errno: Errno| io::Error::from(errno);
        assert!(is_for_want(&error(Errno::MFILE)) && is_for_want(&error(Errno::NFILE)));
        assert!(!is_for_want(&error(Errno::NOENT)) && !is_for_want(&error(Errno::ACCESS)));
    }

    #[test]
    fn what_is_too_large_is_not_read() {
        let (_directory, root, file) = directory();
        fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(MOST_BYTES + 1).unwrap();
        let error = find(&root, &file, None).unwrap().read().unwrap_err();
        assert_eq!(error.to_string(), "it has 1073741825 bytes, and at most 1073741824 are read");
    }
}
