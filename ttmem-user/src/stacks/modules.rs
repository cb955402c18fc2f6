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

/// Files of one target that are kept open from the attach on until they are needed.
const MOST_OPEN: usize = 256;

/// Files whose code is known at a time.
const MOST_BINARIES: usize = 1024;

/// Names a file: device numbers, inode.
type FileId = (u32, u32, u64);

/// A target's code.
#[derive(Debug)]
pub struct Modules {
    maps: File,
    root: Option<OwnedFd>,
    opened: HashMap<FileId, File>,
    mapped: Vec<Mapped>,
    binaries: HashMap<FileId, Result<Arc<Binary>, Arc<str>>>,
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
        };
        modules.read_again();
        modules.open_all(process);
        Ok(modules)
    }

    /// Looks what is mapped now; `true` if that has changed. What a process that has ended had
    /// mapped is as it was.
    pub fn read_again(&mut self) -> bool {
        let Ok(mapped) = self.read() else { return false };
        if mapped.is_empty() || mapped == self.mapped {
            return false;
        }
        self.mapped = mapped;
        true
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

    /// Opens every file that is mapped, while that is allowed; also those that have been deleted or
    /// replaced since.
    fn open_all(&mut self, process: &Process) {
        for mapped in &self.mapped {
            if self.opened.len() >= MOST_OPEN || self.opened.contains_key(&mapped.file) {
                continue;
            }
            let of_mapping = || {
                let entry = process.map_file(&mapped.addresses);
                file::find_mapped(&entry)?.open()
            };
            if let Ok(file) = open(self.root.as_ref(), mapped).or_else(|_| of_mapping()) {
                self.opened.insert(mapped.file, file);
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
        let Self { opened, root, binaries, .. } = self;
        if binaries.len() >= MOST_BINARIES && !binaries.contains_key(&mapped.file) {
            binaries.clear();
        }
        let binary = binaries.entry(mapped.file).or_insert_with(|| {
            let file = opened.remove(&mapped.file);
            let path = shown(&mapped.path);
            file.map_or_else(|| open(root.as_ref(), &mapped), Ok)
                .map_err(|error| error.to_string())
                .and_then(|file| Binary::read(Arc::clone(&path), file))
                .map(Arc::new)
                .map_err(|error| {
                    log::debug!("{path}: {error}");
                    path
                })
        });
        match binary {
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
