//! The directory of shared files: where it is, what is refused, how a file gets its place.
//!
//! A file appears complete and with its rights, by a rename: nobody sees it half made. Nothing
//! here ever follows a link that somebody has put in its place.

use std::{
    env, io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, FileType, FlockOperation, Mode, OFlags, Stat, flock, fstat, mkdirat, openat,
        renameat, statat, unlinkat,
    },
    io::Errno,
    process::geteuid,
};

/// Where the agent of the system puts its files.
pub const SYSTEM: &str = "/run/ttmem";

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// There is no usual place.
    #[error("XDG_RUNTIME_DIR is not set, so there is no place for tables: use --table-dir")]
    NoPlace,
    /// It cannot be made or opened.
    #[error("cannot use {path} for tables: {source}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Others could put files of their own into it.
    #[error(
        "cannot use {path} for tables: {why}, so others could plant files there: use --table-dir"
    )]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Something else is where a file belongs.
    #[error("{path} is no file of ttmem ({what}): it is left alone; remove it, or use --table-dir")]
    Planted {
        /// What is there.
        path: PathBuf,
        /// What kind of thing it is.
        what: String,
    },
}

/// A directory that only this user can put files into.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    path: PathBuf,
    uid: u32,
}

/// Where tables go by default: of the system for root, of the user for others.
pub fn usual() -> Result<PathBuf, DirectoryError> {
    if geteuid().is_root() { Ok(SYSTEM.into()) } else { of_user().ok_or(DirectoryError::NoPlace) }
}

/// Where a reader looks, if it is not told.
pub fn usual_for_readers() -> Vec<PathBuf> {
    let mut places = vec![PathBuf::from(SYSTEM)];
    places.extend(of_user());
    places
}

fn of_user() -> Option<PathBuf> {
    let runtime = env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty())?;
    Some(Path::new(&runtime).join("ttmem"))
}

impl Directory {
    /// Opens it for writing; makes it if it is missing.
    pub fn create(path: &Path) -> Result<Self, DirectoryError> {
        let io = |source: Errno| DirectoryError::Io { path: path.into(), source: source.into() };
        let here = rustix::fs::CWD;
        match mkdirat(here, path, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(io(error)),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match openat(here, path, flags, Mode::empty()) {
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let why = "it is a link, or no directory".to_owned();
                return Err(DirectoryError::Unsafe { path: path.into(), why });
            }
            other => other.map_err(io)?,
        };
        let stat = fstat(&fd).map_err(io)?;
        let uid = geteuid().as_raw();
        if let Some(why) = unsafe_because(&stat, uid) {
            return Err(DirectoryError::Unsafe { path: path.into(), why });
        }
        Ok(Self { fd, path: path.into(), uid })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its path as this process can use it, however long the other one is: a socket's address
    /// has room for 107 bytes.
    pub fn short_path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd()).into()
    }

    /// Has other agents wait while files get their places.
    pub fn lock(&self) -> Result<OwnedFd, DirectoryError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = self.attempt(openat(&self.fd, ".lock", flags, Mode::from_raw_mode(0o600)))?;
        self.attempt(flock(lock.as_fd(), FlockOperation::LockExclusive))?;
        Ok(lock)
    }

    /// Makes a new file of the given size, with all its memory. It gets its place by [`place`].
    ///
    /// [`place`]: Self::place
    pub fn new_file(&self, name: &str, bytes: u64) -> Result<OwnedFd, DirectoryError> {
        self.remove_if_there(name)?;
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self.attempt(openat(&self.fd, name, flags, Mode::from_raw_mode(0o600)))?;
        // With all its memory: a store into a page that cannot be had would end the agent.
        let flags = rustix::fs::FallocateFlags::empty();
        self.attempt(rustix::fs::fallocate(&file, flags, 0, bytes))?;
        Ok(file)
    }

    /// Gives a file its name, in place of an older one. What is no file of ours is left alone.
    pub fn place(&self, from: &str, name: &str, kind: FileType) -> Result<(), DirectoryError> {
        if let Some(stat) = self.look(name)? {
            self.check_ours(name, &stat, kind)?;
        }
        self.attempt(renameat(&self.fd, from, &self.fd, name))
    }

    /// Opens a file of ours to read it; `None` if there is none.
    pub fn open_ours(&self, name: &str) -> Result<Option<OwnedFd>, DirectoryError> {
        let Some(stat) = self.look(name)? else { return Ok(None) };
        self.check_ours(name, &stat, FileType::RegularFile)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        self.attempt(openat(&self.fd, name, flags, Mode::empty())).map(Some)
    }

    /// Takes a name away if it still stands for the file that was placed under it.
    pub fn remove(&self, name: &str, inode: u64) {
        if self.look(name).is_ok_and(|stat| stat.is_some_and(|stat| stat.st_ino == inode)) {
            // Somebody may have been faster.
            let _ = unlinkat(&self.fd, name, AtFlags::empty());
        }
    }

    /// The inode of what has a name now.
    pub fn inode(&self, name: &str) -> Result<u64, DirectoryError> {
        let stat = self.attempt(statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW))?;
        Ok(stat.st_ino)
    }

    /// Names of all that is in it.
    pub fn names(&self) -> Result<Vec<String>, DirectoryError> {
        let entries = self.attempt(rustix::fs::Dir::read_from(&self.fd))?;
        let names = entries.filter_map(|entry| Some(entry.ok()?.file_name().to_str().ok()?.into()));
        Ok(names.collect())
    }

    fn remove_if_there(&self, name: &str) -> Result<(), DirectoryError> {
        match unlinkat(&self.fd, name, AtFlags::empty()) {
            Err(Errno::NOENT) => Ok(()),
            other => self.attempt(other),
        }
    }

    fn look(&self, name: &str) -> Result<Option<Stat>, DirectoryError> {
        match statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(None),
            other => self.attempt(other).map(Some),
        }
    }

    fn check_ours(&self, name: &str, stat: &Stat, kind: FileType) -> Result<(), DirectoryError> {
        let found = FileType::from_raw_mode(stat.st_mode);
        let what = if found != kind {
            format!("{found:?}").to_lowercase()
        } else if stat.st_uid != self.uid {
            format!("it belongs to user {}", stat.st_uid)
        } else {
            return Ok(());
        };
        Err(DirectoryError::Planted { path: self.path.join(name), what })
    }

    fn attempt<T>(&self, result: rustix::io::Result<T>) -> Result<T, DirectoryError> {
        result.map_err(|error| DirectoryError::Io { path: self.path.clone(), source: error.into() })
    }
}

fn unsafe_because(stat: &Stat, uid: u32) -> Option<String> {
    if stat.st_uid != uid {
        return Some(format!("it belongs to user {}", stat.st_uid));
    }
    (stat.st_mode & 0o022 != 0).then(|| "others may write to it".to_owned())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        let outer = tempfile::tempdir().expect("a directory");
        let path = outer.path().join("ttmem");
        drop(Directory::create(&path).expect("made"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("opened up");
        let refused = Directory::create(&path).expect_err("refused").to_string();
        assert!(refused.contains("others may write to it"), "{refused}");
    }

    #[test]
    fn a_link_is_not_followed() {
        let outer = tempfile::tempdir().expect("a directory");
        let path = outer.path().join("ttmem");
        std::os::unix::fs::symlink("/etc", &path).expect("a link");
        assert!(matches!(Directory::create(&path), Err(DirectoryError::Unsafe { .. })));
        fs::remove_file(&path).expect("removed");
        let directory = Directory::create(&path).expect("made");
        let victim = outer.path().join("victim");
        fs::write(&victim, "as it was").expect("written");
        std::os::unix::fs::symlink(&victim, path.join("7.table")).expect("a link");
        drop(directory.new_file("new", 4096).expect("a file"));
        let refused = directory.place("new", "7.table", FileType::RegularFile);
        assert!(matches!(refused, Err(DirectoryError::Planted { .. })), "{refused:?}");
        assert_eq!(fs::read_to_string(&victim).expect("read"), "as it was");
    }

    #[test]
    fn a_name_is_only_taken_away_from_its_own_file() {
        let outer = tempfile::tempdir().expect("a directory");
        let directory = Directory::create(&outer.path().join("x")).expect("made");
        let place = || {
            drop(directory.new_file("new", 64).expect("a file"));
            directory.place("new", "7.table", FileType::RegularFile).expect("placed");
            directory.inode("7.table").expect("there")
        };
        let first = place();
        let _kept = directory.open_ours("7.table").expect("ours");
        let second = place();
        directory.remove("7.table", first);
        assert_eq!(directory.inode("7.table").expect("still there"), second);
        directory.remove("7.table", second);
        assert!(directory.names().expect("read").iter().all(|name| name != "7.table"));
    }
}
