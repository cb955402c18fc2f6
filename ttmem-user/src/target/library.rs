//! Finds the file with tt-metal's allocator among all that a process has mapped.
//!
//! By symbol, never by name: tt-xla ships a copy of its own, old wheels have it in `_ttnncpp.so`,
//! and a program may be linked statically. The file may have been deleted or replaced since.

use std::{
    collections::{HashMap, HashSet},
    io,
    ops::Range,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use super::{
    defined::{Other, defines},
    file::{self, Found, Identity, MOST_BYTES},
    maps::MemoryMap,
    process::{Process, ProcessError},
};
use crate::{
    image::{Image, ImageError},
    resolve,
    units::{Avma, FileOffset, Pid},
};

/// A process's tt-metal library.
#[derive(Debug)]
pub struct Library {
    /// Its path as the process sees it.
    pub path: PathBuf,
    /// A path by which this process can open the very file.
    pub open_path: PathBuf,
    /// Which file it is.
    pub file: Identity,
    /// What the loader added to the addresses in the file.
    pub bias: u64,
    /// The parsed file.
    pub image: Image<'static>,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// The process.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// No file has the symbol.
    #[error(
        "process {pid} ({command}) has no tt-metal: none of its {files} mapped files defines \
         GraphTracker::track_allocate{}",
        too_large.as_deref().map_or_else(String::new, not_looked_into)
    )]
    NotThere {
        /// The process.
        pid: Pid,
        /// Its command line.
        command: String,
        /// How many files were looked at.
        files: usize,
        /// One that is too large to look into.
        too_large: Option<PathBuf>,
    },
    /// More than one file has it.
    #[error(
        "process {pid} has two tt-metal libraries, {} and {}: ttmem cannot tell whose buffers are whose",
        first.display(), second.display()
    )]
    Two {
        /// The process.
        pid: Pid,
        /// One.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A file could not be read.
    #[error("cannot read {} of process {pid}: {source}", path.display())]
    Unreadable {
        /// The process.
        pid: Pid,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is no usable ELF file.
    #[error("{} is not usable: {source}", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: ImageError,
    },
}

/// One file with code that a process has mapped.
pub struct Candidate {
    /// Its path as the process sees it.
    pub path: PathBuf,
    inode: u64,
    /// Its first mapping of code, and what of the file that begins with.
    pub addresses: Range<u64>,
    /// See there.
    pub offset: FileOffset,
}

/// Finds libraries, and remembers which files are none: processes share most of their files.
#[derive(Debug, Default)]
pub struct Finder {
    others: HashMap<Identity, Other>,
}

impl Finder {
    /// Finds the library of a process.
    pub fn find(&mut self, process: &Process) -> Result<Library, LibraryError> {
        let candidates = candidates(&process.maps()?);
        let files = candidates.len();
        let root = file::root(process).ok();
        let mut found: Option<Library> = None;
        let mut too_large = None;
        for candidate in candidates {
            // A file that there is no descriptor for may be the library: the process is not without.
            let unreadable = |source| LibraryError::Unreadable {
                pid: process.pid(),
                path: candidate.path.clone(),
                source,
            };
            let located = locate(process, root.as_ref(), &candidate);
            let Some((file, open_path)) = unless_for_want(located).map_err(unreadable)? else {
                continue;
            };
            match self.check(&file).map_err(unreadable)? {
                Ok(()) => {}
                Err(Other::Without) => continue,
                Err(Other::TooLarge) => {
                    too_large.get_or_insert(candidate.path);
                    continue;
                }
            }
            let Some(library) = examine(process, candidate, &file, open_path)? else { continue };
            if let Some(first) = found {
                return Err(LibraryError::Two {
                    pid: process.pid(),
                    first: first.path,
                    second: library.path,
                });
            }
            found = Some(library);
        }
        found.ok_or_else(|| LibraryError::NotThere {
            pid: process.pid(),
            command: shortened(&process.command()),
            files,
            too_large,
        })
    }

    /// Whether the file at a path, as the process sees it, may define tt-metal's allocator: it does, or
    /// there is not enough of something to look.
    pub fn may_be_tt_metal(&mut self, pid: Pid, path: &Path) -> bool {
        let root = file::root_at(&seen_by(pid, Path::new("")));
        let file = root.and_then(|root| file::find(root, path, None));
        match unless_for_want(file) {
            Ok(file) => file.is_some_and(|file| self.check(&file).map_or(true, |it| it.is_ok())),
            Err(_) => true,
        }
    }

    /// Whether it is known not to.
    pub fn is_known_other(&self, pid: Pid, path: &Path) -> bool {
        let there = rustix::fs::stat(seen_by(pid, path));
        there.is_ok_and(|there| self.others.contains_key(&file::identity(&there)))
    }

    /// Whether a file could be it, or why not.
    fn check(&mut self, file: &Found) -> io::Result<Result<(), Other>> {
        let identity = file.identity();
        if let Some(other) = self.others.get(&identity) {
            return Ok(Err(*other));
        }
        // Not remembered: another time it may be possible.
        let Some(opened) = unless_for_want(file.open())? else { return Ok(Err(Other::Without)) };
        let checked = defines(opened, resolve::MARKER, MOST_BYTES);
        if let Err(other) = checked {
            self.others.insert(identity, other);
        }
        Ok(checked)
    }
}

/// What there is; `None`: nothing that could be opened, however much there was of everything.
fn unless_for_want<T>(opened: io::Result<T>) -> io::Result<Option<T>> {
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(error) if file::is_for_want(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

/// A path by which the file can be opened that a process sees at `path`.
fn seen_by(pid: Pid, path: &Path) -> PathBuf {
    Path::new("/proc")
        .join(pid.to_string())
        .join("root")
        .join(path.strip_prefix("/").unwrap_or(path))
}

/// A command line may hold a whole program.
fn shortened(command: &str) -> String {
    const LONGEST: usize = 60;
    match command.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &command[..end]),
        None => command.to_owned(),
    }
}

fn not_looked_into(path: &Path) -> String {
    format!(", as far as they were looked into: the tables of {} are too large", path.display())
}

/// Each file once, by its first mapping of code.
pub fn candidates(maps: &[MemoryMap]) -> Vec<Candidate> {
    let mut seen = HashSet::new();
    maps.iter()
        .filter(|map| map.permissions.execute() && map.inode != 0)
        .filter_map(|map| {
            let path = map.path()?;
            if !seen.insert((map.device, map.inode)) {
                return None;
            }
            Some(Candidate {
                path: path.to_owned(),
                inode: map.inode,
                addresses: map.addresses.clone(),
                offset: FileOffset(map.offset),
            })
        })
        .collect()
}

/// The file that is mapped, not what may have taken its place, and a path to it.
pub fn locate(
    process: &Process,
    root: Option<&OwnedFd>,
    candidate: &Candidate,
) -> io::Result<(Found, PathBuf)> {
    let Candidate { path, inode, addresses, .. } = candidate;
    let visible = root.and_then(|root| file::find(root, path, Some(*inode)).ok());
    if let Some(found) = visible {
        return Ok((found, seen_by(process.pid(), path)));
    }
    let entry = process.map_file(addresses);
    Ok((file::find_mapped(&entry)?, entry))
}

/// `None` if the file does not define tt-metal's allocator after all.
fn examine(
    process: &Process,
    candidate: Candidate,
    file: &Found,
    open_path: PathBuf,
) -> Result<Option<Library>, LibraryError> {
    let bytes = file.read().map_err(|source| LibraryError::Unreadable {
        pid: process.pid(),
        path: candidate.path.clone(),
        source,
    })?;
    let broken = |source| LibraryError::Image { path: candidate.path.clone(), source };
    let image = Image::parse(bytes).map_err(broken)?;
    if !resolve::is_tt_metal(&image) {
        return Ok(None);
    }
    let bias = image
        .load_bias(Avma(candidate.addresses.start), candidate.offset)
        .ok_or_else(|| broken(ImageError::Damaged("its mapping fits no segment".to_owned())))?;
    let file = file.identity();
    Ok(Some(Library { path: candidate.path, open_path, file, bias, image }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_tt_metal_says_what_was_looked_for() {
        let process = Process::open(Pid(std::process::id())).unwrap();
        let mut finder = Finder::default();
        let error = finder.find(&process).unwrap_err();
        assert!(!finder.others.is_empty(), "they are not looked into again");
        let again = finder.find(&process).unwrap_err();
        assert_eq!(again.to_string(), error.to_string());
        assert!(matches!(error, LibraryError::NotThere { files: 1.., .. }), "{error}");
        assert!(error.to_string().contains("GraphTracker::track_allocate"));
        assert!(!error.to_string().contains("--wait"));
    }

    #[test]
    fn a_long_command_line_is_cut() {
        assert_eq!(shortened("python x.py"), "python x.py");
        let long = shortened(&"ä".repeat(100));
        assert_eq!(long.chars().count(), 61);
        assert!(long.ends_with('…'));
    }

    #[test]
    fn what_there_is_no_descriptor_for_is_not_passed_over() {
        let failed = |errno: rustix::io::Errno| unless_for_want(Err::<(), _>(errno.into()));
        assert!(failed(rustix::io::Errno::MFILE).is_err());
        assert!(matches!(failed(rustix::io::Errno::NOENT), Ok(None)));
        assert!(matches!(failed(rustix::io::Errno::ACCESS), Ok(None)));
        assert!(matches!(unless_for_want(Ok(())), Ok(Some(()))));
    }

    #[test]
    fn a_file_that_is_too_large_to_look_into_is_named() {
        let error = LibraryError::NotThere {
            pid: Pid(1),
            command: "x".to_owned(),
            files: 2,
            too_large: Some("/a.so".into()),
        };
        assert!(error.to_string().contains("looked into: the tables of /a.so"), "{error}");
    }

    #[test]
    fn a_pipe_in_the_place_of_a_mapped_file_stops_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.so");
        let mode = rustix::fs::Mode::RWXU;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let pid = Pid(std::process::id());
        assert!(!Finder::default().may_be_tt_metal(pid, &path));
        let own = std::env::current_exe().unwrap();
        let mut finder = Finder::default();
        assert!(!finder.may_be_tt_metal(pid, &own) && finder.is_known_other(pid, &own));
    }
}
