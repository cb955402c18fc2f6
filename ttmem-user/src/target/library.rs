//! Finds the file with tt-metal's allocator among all that a process has mapped.
//!
//! By symbol, never by name: tt-xla ships a copy of its own, old wheels have it in `_ttnncpp.so`,
//! and a program may be linked statically. The file may have been deleted or replaced since.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io,
    ops::Range,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use super::{
    bounded::Bounded,
    file::{self, Found, Identity},
    maps::MemoryMap,
    process::{Process, ProcessError},
};
use crate::{
    image::{Image, ImageError},
    resolve,
    units::{Avma, FileOffset, Pid},
};
use memchr::memmem;
use object::{
    LittleEndian, elf,
    read::elf::{FileHeader as _, SectionHeader as _, Sym as _},
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

/// Why a file is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Other {
    /// It does not define tt-metal's allocator.
    Without,
    /// To tell would take more memory than a file is worth.
    TooLarge,
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
        let checked = defines_tt_metal(opened);
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

/// Whether a file defines the symbol. Reads little of it: most files do not even mention it.
fn defines_tt_metal(file: File) -> Result<(), Other> {
    let file = Bounded::new(file);
    if has_marker(&file).is_ok_and(|has| has) {
        return Ok(());
    }
    Err(if file.is_exceeded() { Other::TooLarge } else { Other::Without })
}

fn has_marker(file: &Bounded<File>) -> object::Result<bool> {
    let header = elf::FileHeader64::<LittleEndian>::parse(file)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, file)?;
    for kind in [elf::SHT_DYNSYM, elf::SHT_SYMTAB] {
        let Ok(table) = sections.symbols(endian, file, kind) else { continue };
        let Ok(strings) = sections.section(table.string_section()) else { continue };
        let Ok(strings) = strings.data(endian, file) else { continue };
        // Names are compared where they are and never read one by one: each may be as long as the file.
        if mentions(strings)
            && table.iter().any(|symbol| {
                symbol.is_definition(endian) && is_marker(strings, symbol.st_name(endian))
            })
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn mentions(strings: &[u8]) -> bool {
    memmem::find(strings, resolve::MARKER.as_bytes()).is_some()
}

/// Whether the name at a place is the symbol's.
fn is_marker(strings: &[u8], at: u32) -> bool {
    let name = strings.get(at as usize..).unwrap_or_default();
    name.strip_prefix(resolve::MARKER.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

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
    fn what_is_no_elf_defines_nothing() {
        let file = File::open("/proc/self/maps").unwrap();
        assert_eq!(defines_tt_metal(file), Err(Other::Without));
    }

    /// The smallest file that says it has symbols, and how many bytes of names.
    fn claims(bytes: u64) -> File {
        let mut file = tempfile::tempfile().unwrap();
        let mut header = vec![0; 64 + 4 * 64];
        header[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
        for (at, value) in
            [(16, 3_u8), (18, 62), (20, 1), (40, 64), (52, 64), (58, 64), (60, 4), (62, 2)]
        {
            header[at] = value;
        }
        let mut section = |index: usize, kind: u8, offset: u64, size: u64| {
            let at = 64 + 64 * index;
            header[at] = [0, 1, 9, 19][index];
            header[at + 4] = kind;
            header[at + 24..at + 32].copy_from_slice(&offset.to_le_bytes());
            header[at + 32..at + 40].copy_from_slice(&size.to_le_bytes());
        };
        section(1, 3, 4096, bytes);
        section(2, 3, 320, 27);
        section(3, 11, 0, 0);
        // Whose names they are.
        header[64 + 64 * 3 + 40] = 1;
        file.write_all(&header).unwrap();
        file.write_all(b"\0.dynstr\0.shstrtab\0.dynsym\0").unwrap();
        file.set_len(4096 + bytes).unwrap();
        file
    }

    #[test]
    fn names_without_end_are_not_read() {
        assert_eq!(defines_tt_metal(claims(4096)), Err(Other::Without));
        assert_eq!(defines_tt_metal(claims(8 << 30)), Err(Other::TooLarge));
    }

    #[test]
    fn a_name_is_compared_where_it_is() {
        let marker = resolve::MARKER.as_bytes();
        let strings = [b"\0x", marker, b"\0", marker, b"x\0", marker].concat();
        let step = u32::try_from(marker.len() + 1).unwrap();
        let is_it = |at| is_marker(&strings, at);
        assert_eq!([is_it(2), is_it(1), is_it(3), is_it(u32::MAX)], [true, false, false, false]);
        assert!(!is_it(2 + step), "a longer name");
        assert!(!is_it(2 + 2 * step + 1), "one without end");
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
