//! Finds the file with tt-metal's allocator among all that a process has mapped.
//!
//! By symbol, never by name: tt-xla ships a copy of its own, old wheels have it in `_ttnncpp.so`,
//! and a program may be linked statically. The file may have been deleted or replaced since.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    ops::Range,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{
    maps::MemoryMap,
    process::{Process, ProcessError},
};
use crate::{
    image::{Image, ImageError},
    resolve,
    units::{Avma, FileOffset, Pid},
};
use memchr::memmem;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, read::ReadCache};

/// A process's tt-metal library.
#[derive(Debug)]
pub struct Library {
    /// Its path as the process sees it.
    pub path: PathBuf,
    /// A path by which this process can open the very file.
    pub open_path: PathBuf,
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
         GraphTracker::track_allocate; with --wait ttmem waits until it loads the library"
    )]
    NotThere {
        /// The process.
        pid: Pid,
        /// Its command line.
        command: String,
        /// How many files were looked at.
        files: usize,
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
struct Candidate {
    path: PathBuf,
    open_path: PathBuf,
    start: Avma,
    offset: FileOffset,
}

/// Finds libraries, and remembers which files are none: processes share most of their files.
#[derive(Debug, Default)]
pub struct Finder {
    others: HashSet<FileIdentity>,
}

/// Names a file as it is now: device, inode, time of the last change (seconds, nanoseconds).
type FileIdentity = (u64, u64, i64, i64);

impl Finder {
    /// Finds the library of a process.
    pub fn find(&mut self, process: &Process) -> Result<Library, LibraryError> {
        let candidates = candidates(process, &process.maps()?);
        let files = candidates.len();
        let mut found: Option<Library> = None;
        for candidate in candidates {
            if !self.could_be(&candidate.open_path) {
                continue;
            }
            let Some(library) = examine(process, candidate)? else { continue };
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
        })
    }

    /// Whether the file at a path, as the process sees it, defines tt-metal's allocator.
    pub fn is_tt_metal(&mut self, pid: Pid, path: &Path) -> bool {
        self.could_be(&seen_by(pid, path))
    }

    /// Whether it is known not to.
    pub fn is_known_other(&self, pid: Pid, path: &Path) -> bool {
        identity(&seen_by(pid, path)).is_some_and(|identity| self.others.contains(&identity))
    }

    fn could_be(&mut self, path: &Path) -> bool {
        let identity = identity(path);
        if identity.is_some_and(|identity| self.others.contains(&identity)) {
            return false;
        }
        let is_it = defines_tt_metal(path);
        if !is_it {
            self.others.extend(identity);
        }
        is_it
    }
}

fn identity(path: &Path) -> Option<FileIdentity> {
    let file = fs::metadata(path).ok()?;
    Some((file.dev(), file.ino(), file.ctime(), file.ctime_nsec()))
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

/// Each file once, by its first mapping of code.
fn candidates(process: &Process, maps: &[MemoryMap]) -> Vec<Candidate> {
    let mut seen = HashSet::new();
    maps.iter()
        .filter(|map| map.permissions.execute() && map.inode != 0)
        .filter_map(|map| {
            let path = map.path()?;
            if !seen.insert((map.device, map.inode)) {
                return None;
            }
            Some(Candidate {
                open_path: open_path(process, map, path),
                path: path.to_owned(),
                start: Avma(map.addresses.start),
                offset: FileOffset(map.offset),
            })
        })
        .collect()
}

/// A path to the file that is mapped, not to what may have taken its place.
fn open_path(process: &Process, map: &MemoryMap, path: &Path) -> PathBuf {
    let visible = process.proc_path("root").join(path.strip_prefix("/").unwrap_or(path));
    // The device is not compared: overlay and btrfs show another one in the mappings.
    if fs::metadata(&visible).is_ok_and(|file| file.ino() == map.inode) {
        return visible;
    }
    let Range { start, end } = map.addresses;
    process.proc_path("map_files").join(format!("{start:x}-{end:x}"))
}

/// `None` if the file does not define tt-metal's allocator after all.
fn examine(process: &Process, candidate: Candidate) -> Result<Option<Library>, LibraryError> {
    let bytes = fs::read(&candidate.open_path).map_err(|source| LibraryError::Unreadable {
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
        .load_bias(candidate.start, candidate.offset)
        .ok_or_else(|| broken(ImageError::Damaged("its mapping fits no segment".to_owned())))?;
    Ok(Some(Library { path: candidate.path, open_path: candidate.open_path, bias, image }))
}

/// Whether a file defines the symbol. Reads little of it: most files do not even mention it.
fn defines_tt_metal(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let cache = ReadCache::new(file);
    let Ok(elf) = object::File::parse(&cache) else { return false };
    let mentions = |section: &str| {
        elf.section_by_name(section)
            .and_then(|section| section.data().ok())
            .is_some_and(|strings| memmem::find(strings, resolve::MARKER.as_bytes()).is_some())
    };
    let is_it = |symbol: object::Symbol<'_, '_, _>| {
        symbol.is_definition() && symbol.name_bytes() == Ok(resolve::MARKER.as_bytes())
    };
    (mentions(".dynstr") && elf.dynamic_symbols().any(is_it))
        || (mentions(".strtab") && elf.symbols().any(is_it))
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
        assert!(error.to_string().contains("--wait"));
    }

    #[test]
    fn a_long_command_line_is_cut() {
        assert_eq!(shortened("python x.py"), "python x.py");
        let long = shortened(&"ä".repeat(100));
        assert_eq!(long.chars().count(), 61);
        assert!(long.ends_with('…'));
    }

    #[test]
    fn what_is_no_elf_defines_nothing() {
        assert!(!defines_tt_metal(Path::new("/proc/self/maps")));
        assert!(!defines_tt_metal(Path::new("/nonexistent")));
    }
}
