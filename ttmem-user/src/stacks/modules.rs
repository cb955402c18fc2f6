//! What a target has mapped as code, read again while it runs.
//!
//! The right to do so is checked when it is opened; what is mapped later is opened through the
//! target's root directory, as far as everybody may read it.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{self, Read as _, Seek as _},
    ops::Range,
    os::fd::OwnedFd,
    path::Path,
    sync::Arc,
};

use super::binary::Binary;
use crate::{
    target::{
        file, maps,
        process::{Process, ProcessError},
    },
    units::{Avma, FileOffset, Svma},
};

/// Files of one target that are kept open from the attach on until they are needed, first those that
/// can be opened in no other way by then. With those below, all targets together stay below the 8,192
/// descriptors that the service may have.
const MOST_OPEN: usize = 32;

/// Files whose code is known at a time; each is open.
const MOST_BINARIES: usize = 64;

/// Names a file: device numbers, inode.
type FileId = (u32, u32, u64);

/// A target's code.
#[derive(Debug)]
pub struct Modules {
    maps: File,
    root: Option<OwnedFd>,
    opened: HashMap<FileId, Opened>,
    mapped: Vec<Mapped>,
    binaries: HashMap<FileId, Known>,
    /// Bytes that they take.
    size: usize,
}

/// A file that is kept open.
#[derive(Debug)]
struct Opened {
    file: File,
    /// It may not be possible to open it again.
    is_only_way: bool,
}

/// What is known of a file.
#[derive(Debug)]
struct Known {
    /// Its path if it cannot be read.
    binary: Result<Arc<Binary>, Arc<str>>,
    is_only_way: bool,
}

/// A mapping of code.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapped {
    addresses: Range<u64>,
    offset: u64,
    file: FileId,
    path: Arc<Path>,
}

/// What is at an address.
#[derive(Clone, Debug)]
pub enum Place {
    /// Code of a file.
    Code(Arc<Binary>, Svma),
    /// The same, of a file that cannot be read.
    Unreadable(Arc<str>, FileOffset),
    /// No code of a file.
    Nothing,
}

impl Modules {
    /// Opens what is needed of a process.
    pub fn open(process: &Process) -> Result<Self, ProcessError> {
        let maps = process.open_proc("maps")?;
        let mut modules = Self {
            maps,
            root: file::root(process).ok(),
            opened: HashMap::new(),
            mapped: Vec::new(),
            binaries: HashMap::new(),
            size: 0,
        };
        modules.read_again();
        modules.open_all(process);
        Ok(modules)
    }

    /// Looks what is mapped now, and whether the files are what they were; `true` if any of that has
    /// changed. What a process that has ended had mapped is as it was.
    pub fn read_again(&mut self) -> bool {
        let rewritten = self.forget_files(Binary::has_changed);
        let Ok(mapped) = self.read() else { return rewritten };
        if mapped.is_empty() || mapped == self.mapped {
            return rewritten;
        }
        self.mapped = mapped;
        true
    }

    /// Forgets what it knows of files; they are read again when they are needed.
    pub fn forget(&mut self) {
        self.binaries.retain(|_, known| known.binary.is_ok());
        self.forget_files(|_| true);
    }

    /// Bytes of memory that it takes, about.
    pub const fn size(&self) -> usize {
        self.size
    }

    /// Forgets what it knows of some files; whether there are any.
    fn forget_files(&mut self, which: impl Fn(&Binary) -> bool) -> bool {
        let Self { opened, binaries, size, .. } = self;
        let before = binaries.len();
        binaries.retain(|id, known| {
            let Ok(binary) = known.binary.as_ref() else { return true };
            if !which(binary) {
                return true;
            }
            *size -= binary.size();
            // By its path there may be another one, or no right to open it.
            if known.is_only_way
                && let Ok(file) = binary.file()
            {
                opened.insert(*id, Opened { file, is_only_way: true });
            }
            false
        });
        binaries.len() < before
    }

    fn read(&mut self) -> io::Result<Vec<Mapped>> {
        let mut text = Vec::new();
        self.maps.rewind()?;
        self.maps.read_to_end(&mut text)?;
        let mut paths: HashSet<Arc<Path>> = HashSet::new();
        let maps = maps::parse(&text)?;
        let code = maps.iter().filter(|map| map.permissions.execute() && map.inode != 0);
        let code = code.filter_map(|map| {
            let path = map.path()?;
            let path = paths.get(path).cloned().unwrap_or_else(|| {
                let path: Arc<Path> = path.into();
                paths.insert(Arc::clone(&path));
                path
            });
            Some(Mapped {
                addresses: map.addresses.clone(),
                offset: map.offset,
                file: (map.device.0, map.device.1, map.inode),
                path,
            })
        });
        let mut code: Vec<Mapped> = code.collect();
        code.sort_by_key(|mapped| mapped.addresses.start);
        Ok(code)
    }

    /// Opens files that are mapped, while that is allowed; also those that have been deleted or replaced
    /// since. First those that nobody could open later.
    fn open_all(&mut self, process: &Process) {
        let mut seen = HashSet::new();
        let files = self.mapped.iter().filter(|mapped| seen.insert(mapped.file));
        let is_for_all = |mapped: &Mapped| {
            let root = self.root.as_ref();
            root.is_some_and(|root| file::is_for_all(root, &mapped.path, mapped.file.2))
        };
        let (others, only): (Vec<&Mapped>, Vec<&Mapped>) =
            files.partition(|mapped| is_for_all(mapped));
        let both = only.iter().map(|it| (it, true)).chain(others.iter().map(|it| (it, false)));
        for (mapped, is_only_way) in both {
            if self.opened.len() >= MOST_OPEN {
                return;
            }
            let of_mapping = || {
                let entry = process.map_file(&mapped.addresses);
                file::find_mapped(&entry)?.open()
            };
            if let Ok(file) = open(self.root.as_ref(), mapped).or_else(|_| of_mapping()) {
                self.opened.insert(mapped.file, Opened { file, is_only_way });
            }
        }
    }

    /// Whether an address is in code of a file, as far as is known.
    pub fn is_mapped(&self, address: Avma) -> bool {
        self.find(address).is_some()
    }

    /// What is at an address, as far as is known.
    pub fn at(&mut self, address: Avma) -> Place {
        let Some(mapped) = self.find(address).cloned() else { return Place::Nothing };
        let offset = FileOffset((address.0 - mapped.addresses.start).wrapping_add(mapped.offset));
        if self.binaries.len() >= MOST_BINARIES && !self.binaries.contains_key(&mapped.file) {
            self.forget();
            self.binaries.clear();
        }
        let Self { opened, root, binaries, size, .. } = self;
        let known = binaries.entry(mapped.file).or_insert_with(|| {
            let path = shown(&mapped.path);
            let (file, is_only_way) = match opened.remove(&mapped.file) {
                Some(Opened { file, is_only_way }) => (Ok(file), is_only_way),
                None => (open(root.as_ref(), &mapped), false),
            };
            let binary = file
                .map_err(|error| error.to_string())
                .and_then(|file| Binary::read(Arc::clone(&path), file))
                .map(Arc::new)
                .map_err(|error| {
                    log::debug!("{path}: {error}");
                    path
                });
            *size += binary.as_ref().map_or(0, |binary| binary.size());
            Known { binary, is_only_way }
        });
        match &known.binary {
            Ok(binary) => match binary.stated(offset) {
                Some(stated) => Place::Code(Arc::clone(binary), stated),
                None => Place::Unreadable(Arc::clone(&binary.path), offset),
            },
            Err(path) => Place::Unreadable(Arc::clone(path), offset),
        }
    }

    fn find(&self, address: Avma) -> Option<&Mapped> {
        let after = self.mapped.partition_point(|it| it.addresses.start <= address.0);
        self.mapped.get(after.checked_sub(1)?).filter(|it| it.addresses.contains(&address.0))
    }
}

/// A path as it is shown: a name may hold the end of a line.
fn shown(path: &Path) -> Arc<str> {
    path.to_string_lossy().replace('\n', " ").into()
}

/// Opens the file that is mapped, and nothing that may have taken its place.
fn open(root: Option<&OwnedFd>, mapped: &Mapped) -> io::Result<File> {
    let root = root.ok_or(io::ErrorKind::NotFound)?;
    file::find(root, &mapped.path, Some(mapped.file.2))?.open()
}

#[cfg(test)]
mod tests {
    #![expect(unsafe_code, reason = "loads a library, to see that it is found")]

    use std::{io::Write as _, os::unix::fs::MetadataExt as _};

    use super::*;
    use crate::units::Pid;

    #[test]
    fn a_library_that_is_loaded_later_is_found_when_it_is_looked_for() {
        let process = Process::open(Pid(std::process::id())).unwrap();
        let mut modules = Modules::open(&process).unwrap();
        // SAFETY: a library of the C library, which does nothing when it is loaded.
        let library = unsafe { libc::dlopen(c"libresolv.so.2".as_ptr(), libc::RTLD_NOW) };
        assert!(!library.is_null());
        // SAFETY: the library is loaded and stays so.
        let function = unsafe { libc::dlsym(library, c"ns_initparse".as_ptr()) };
        let function = Avma(function as u64);
        assert!(!modules.is_mapped(function));
        assert!(matches!(modules.at(function), Place::Nothing));
        assert!(modules.read_again());
        let Place::Code(binary, stated) = modules.at(function) else { panic!("no code there") };
        assert!(binary.path.contains("libresolv"), "{}", binary.path);
        assert_eq!(binary.function(stated).as_deref(), Some(&b"ns_initparse"[..]));
        assert!(!modules.read_again(), "nothing has changed since");
    }

    /// A process with one file that is mapped, as far as its modules are concerned.
    fn with_one_file(file: &tempfile::NamedTempFile, is_only_way: bool) -> Modules {
        let metadata = file.as_file().metadata().unwrap();
        let mut maps = tempfile::tempfile().unwrap();
        let (inode, path) = (metadata.ino(), file.path().display());
        writeln!(maps, "1000-100000 r-xp 00000000 00:01 {inode} {path}").unwrap();
        let opened = Opened { file: file.reopen().unwrap(), is_only_way };
        let mut modules = Modules {
            maps,
            root: file::root_at(Path::new("/")).ok(),
            opened: HashMap::from([((0, 1, inode), opened)]),
            mapped: Vec::new(),
            binaries: HashMap::new(),
            size: 0,
        };
        assert!(modules.read_again());
        modules
    }

    /// A file with code.
    fn program() -> Vec<u8> {
        std::fs::read("/proc/self/exe").unwrap()
    }

    #[test]
    fn a_file_that_is_rewritten_in_its_place_is_read_again() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&program()).unwrap();
        let mut modules = with_one_file(&file, false);
        let at = Avma(0x1000);
        assert!(matches!(modules.at(at), Place::Code(..)));
        assert!(!modules.read_again(), "nothing has changed since");
        let size = modules.size();
        assert!(size > 0);
        std::fs::write(file.path(), b"no program any more").unwrap();
        assert!(modules.read_again());
        assert!(matches!(modules.at(at), Place::Unreadable(..)));
        assert_eq!(modules.size(), 0);
    }

    #[test]
    fn what_is_forgotten_is_read_again_also_where_it_cannot_be_opened_again() {
        for is_only_way in [true, false] {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(&program()).unwrap();
            let mut modules = with_one_file(&file, is_only_way);
            let at = Avma(0x1000);
            assert!(matches!(modules.at(at), Place::Code(..)));
            assert!(modules.opened.is_empty(), "what is known needs no second descriptor");
            file.close().unwrap();
            modules.forget();
            assert_eq!((modules.size(), modules.opened.len()), (0, usize::from(is_only_way)));
            assert_eq!(matches!(modules.at(at), Place::Code(..)), is_only_way);
        }
    }

    #[test]
    fn few_files_are_open_at_a_time() {
        let process = Process::open(Pid(std::process::id())).unwrap();
        let modules = Modules::open(&process).unwrap();
        assert!(!modules.opened.is_empty() && modules.opened.len() <= MOST_OPEN);
        let deleted = modules.opened.values().filter(|opened| opened.is_only_way);
        assert!(deleted.count() < modules.mapped.len());
    }

    #[test]
    fn another_file_in_the_place_of_the_mapped_one_is_not_taken_for_it() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"something").unwrap();
        let root = file::root_at(Path::new("/")).unwrap();
        let inode = file.as_file().metadata().unwrap().ino();
        let path: Arc<Path> = file.path().into();
        let mapped = |inode| Mapped {
            addresses: 0..1,
            offset: 0,
            file: (0, 0, inode),
            path: Arc::clone(&path),
        };
        assert!(open(Some(&root), &mapped(inode)).is_ok());
        assert!(open(Some(&root), &mapped(inode + 1)).is_err());
        assert!(open(None, &mapped(inode)).is_err());
    }
}
