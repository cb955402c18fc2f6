//! The directory of shared files: where it is, what is refused, how a file gets its place.
//!
//! A file appears complete and with its rights, by a rename: nobody sees it half made. Nothing
//! here ever follows a link that somebody has put in its place.

use std::{
    env, io, iter,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::net::UnixListener,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{
        AtFlags, FileType, FlockOperation, Mode, OFlags, Stat, fchmod, flock, fstat, mkdirat,
        openat, renameat, statat, unlinkat,
    },
    io::Errno,
    process::geteuid,
};

/// What the name of a directory begins with in which an agent makes sockets; its process id follows.
pub(super) const PRIVATE: &str = ".private-";

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

/// Where a reader looks, if it is not told: where TTMEM_TABLE_DIR says, which agents do not heed.
pub fn usual_for_readers() -> Vec<PathBuf> {
    let chosen = env::var_os("TTMEM_TABLE_DIR").filter(|path| !path.is_empty());
    places_for_readers(chosen.map(PathBuf::from), of_user())
}

fn places_for_readers(chosen: Option<PathBuf>, of_user: Option<PathBuf>) -> Vec<PathBuf> {
    match chosen {
        Some(place) => vec![place],
        None => iter::once(PathBuf::from(SYSTEM)).chain(of_user).collect(),
    }
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
        let mode = Mode::from_raw_mode(0o755);
        let is_new = match mkdirat(here, path, mode) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(io(error)),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match openat(here, path, flags, Mode::empty()) {
            Err(Errno::NOTDIR | Errno::LOOP) => {
                let why = "it is a link, or no directory".to_owned();
                return Err(DirectoryError::Unsafe { path: path.into(), why });
            }
            other => other.map_err(io)?,
        };
        if is_new {
            // The umask may have taken from it; each file has rights of its own.
            fchmod(&fd, mode).map_err(io)?;
        }
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
    fn short_path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd()).into()
    }

    /// Has other agents wait while files get their places.
    pub fn lock(&self) -> Result<OwnedFd, DirectoryError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = self.attempt(openat(&self.fd, ".lock", flags, Mode::from_raw_mode(0o600)))?;
        self.attempt(flock(lock.as_fd(), FlockOperation::LockExclusive))?;
        Ok(lock)
    }

    /// Makes a new file of the given size, with all its memory. It gets its place by [`place`]; if it
    /// does not get it, it goes.
    ///
    /// [`place`]: Self::place
    pub fn new_file<T, E: From<DirectoryError>>(
        &self,
        name: &str,
        bytes: u64,
        place: impl FnOnce(OwnedFd) -> Result<T, E>,
    ) -> Result<T, E> {
        let placed = self.empty_file(name, bytes).map_err(E::from).and_then(place);
        if placed.is_err() {
            // What stops it from going has been said already.
            let _ = unlinkat(&self.fd, name, AtFlags::empty());
        }
        placed
    }

    fn empty_file(&self, name: &str, bytes: u64) -> Result<OwnedFd, DirectoryError> {
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
    pub fn place(
        self: &Arc<Self>,
        from: &str,
        name: &str,
        kind: FileType,
    ) -> Result<Placed, DirectoryError> {
        if let Some(stat) = self.look(name)? {
            self.check_ours(name, &stat, kind)?;
        }
        let inode = self.attempt(statat(&self.fd, from, AtFlags::SYMLINK_NOFOLLOW))?.st_ino;
        self.attempt(renameat(&self.fd, from, &self.fd, name))?;
        Ok(Placed { directory: Arc::clone(self), name: name.to_owned(), inode })
    }

    /// Makes a socket that accepts those `grant`ed, and gives it its name.
    pub fn place_socket(
        self: &Arc<Self>,
        name: &str,
        grant: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<(UnixListener, Placed), DirectoryError> {
        // In a directory that nobody else may search, until it has its rights.
        let private = format!("{PRIVATE}{}", std::process::id());
        let within = format!("{private}/{name}");
        let _lock = self.lock()?;
        match mkdirat(&self.fd, &private, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return self.attempt(Err(error)),
        }
        let path = self.short_path().join(&within);
        let io = |source| DirectoryError::Io { path: self.path.join(name), source };
        let make = || {
            self.remove_if_there(&within)?;
            let listener = UnixListener::bind(&path).map_err(io)?;
            grant(&path).map_err(io)?;
            Ok((listener, self.place(&within, name, FileType::Socket)?))
        };
        let placed = make();
        // If it has got its place it is not there any more.
        let _ = unlinkat(&self.fd, &within, AtFlags::empty());
        // Another socket may be on its way through it.
        let _ = unlinkat(&self.fd, &private, AtFlags::REMOVEDIR);
        placed
    }

    /// The path of a file, as this process can use it.
    pub fn short_path_of(&self, name: &str) -> PathBuf {
        self.short_path().join(name)
    }

    /// Opens a file of ours to read it; `None` if there is none.
    pub fn open_ours(&self, name: &str) -> Result<Option<OwnedFd>, DirectoryError> {
        self.open_with(name, OFlags::RDONLY)
    }

    /// The same, to write to it, too.
    pub(super) fn open_ours_to_write(&self, name: &str) -> Result<Option<OwnedFd>, DirectoryError> {
        self.open_with(name, OFlags::RDWR)
    }

    fn open_with(&self, name: &str, access: OFlags) -> Result<Option<OwnedFd>, DirectoryError> {
        let Some(stat) = self.look(name)? else { return Ok(None) };
        self.check_ours(name, &stat, FileType::RegularFile)?;
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        self.attempt(openat(&self.fd, name, flags, Mode::empty())).map(Some)
    }

    /// Takes what nobody uses any more away: `is_left` says so of a name.
    pub fn sweep(&self, is_left: impl Fn(&str) -> bool) -> Result<(), DirectoryError> {
        let _lock = self.lock()?;
        for name in self.names()?.iter().filter(|name| is_left(name)) {
            // Never what is not ours, and never what is in use by its name alone.
            let Some(stat) = self.look(name)?.filter(|stat| stat.st_uid == self.uid) else {
                continue;
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                self.remove_directory(name);
            } else {
                let _ = unlinkat(&self.fd, name.as_str(), AtFlags::empty());
            }
        }
        Ok(())
    }

    /// With the files in it. What cannot be removed stays.
    fn remove_directory(&self, name: &str) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(fd) = openat(&self.fd, name, flags, Mode::empty()) else { return };
        for entry in rustix::fs::Dir::read_from(&fd).into_iter().flatten().flatten() {
            let _ = unlinkat(&fd, entry.file_name(), AtFlags::empty());
        }
        let _ = unlinkat(&self.fd, name, AtFlags::REMOVEDIR);
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

/// A file under the name that it was given. Dropping it takes the name away, if it still stands
/// for that file.
#[derive(Debug)]
pub struct Placed {
    directory: Arc<Directory>,
    name: String,
    inode: u64,
}

impl Drop for Placed {
    fn drop(&mut self) {
        let found = self.directory.look(&self.name);
        if found.is_ok_and(|stat| stat.is_some_and(|stat| stat.st_ino == self.inode)) {
            // Somebody may have been faster.
            let _ = unlinkat(&self.directory.fd, self.name.as_str(), AtFlags::empty());
        }
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
    fn readers_look_where_the_environment_says_and_nowhere_else_then() {
        let own = || Some(PathBuf::from("/run/user/7/ttmem"));
        let places = |chosen: Option<&str>| places_for_readers(chosen.map(Into::into), own());
        assert_eq!(places(Some("/tables")), [Path::new("/tables")]);
        assert_eq!(places(None), [Path::new(SYSTEM), Path::new("/run/user/7/ttmem")]);
        assert_eq!(places_for_readers(None, None), [Path::new(SYSTEM)]);
    }

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
        let directory = Arc::new(Directory::create(&path).expect("made"));
        let victim = outer.path().join("victim");
        fs::write(&victim, "as it was").expect("written");
        std::os::unix::fs::symlink(&victim, path.join("7.table")).expect("a link");
        let refused = directory
            .new_file("new", 4096, |_| directory.place("new", "7.table", FileType::RegularFile));
        assert!(!path.join("new").exists(), "nothing is left");
        assert!(matches!(refused, Err(DirectoryError::Planted { .. })), "{refused:?}");
        assert_eq!(fs::read_to_string(&victim).expect("read"), "as it was");
    }

    #[test]
    fn a_name_is_only_taken_away_from_its_own_file() {
        let outer = tempfile::tempdir().expect("a directory");
        let directory = Arc::new(Directory::create(&outer.path().join("x")).expect("made"));
        let place = || {
            let placed = directory.new_file("new", 64, |file| {
                Ok::<_, DirectoryError>((
                    file,
                    directory.place("new", "7.table", FileType::RegularFile)?,
                ))
            });
            placed.expect("placed")
        };
        let is_there = || directory.open_ours("7.table").expect("ours").is_some();
        let (_kept_open, first) = place();
        let (_, second) = place();
        drop(first);
        assert!(is_there(), "it is another file's name now");
        drop(second);
        assert!(!is_there());
    }

    #[test]
    fn a_socket_appears_with_its_rights() {
        use std::os::unix::net::UnixStream;
        let outer = tempfile::tempdir().expect("a directory");
        // A longer path than a socket's address has room for.
        let path = outer.path().join("x".repeat(120));
        let directory = Arc::new(Directory::create(&path).expect("made"));
        let rights = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o660));
        let (listener, placed) = directory.place_socket("7.sock", rights).expect("placed");
        let mode = fs::metadata(path.join("7.sock")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        UnixStream::connect(directory.short_path_of("7.sock")).expect("connected");
        listener.accept().expect("accepted");
        drop(placed);
        let refused = directory.place_socket("8.sock", |_| Err(io::ErrorKind::Other.into()));
        assert!(refused.is_err());
        let left: Vec<_> = directory.names().expect("read");
        assert!(
            !left.iter().any(|name| name.contains("sock") || name.contains("private")),
            "{left:?}"
        );
    }
}
