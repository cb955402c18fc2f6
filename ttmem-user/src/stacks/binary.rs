//! What is needed of one file with code: its unwind information and the names of its functions.
//!
//! Only what is needed is read, and names one by one when they are asked for: libraries of a
//! target have hundreds of megabytes. The file is read and never mapped, since whoever made it
//! could cut it off meanwhile.
//!
//! Invariant: whatever the bytes are, every function returns; none panics.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt as _, sync::Arc};

use gimli::BaseAddresses;
use object::{
    LittleEndian as Little, elf,
    read::{
        ReadRef,
        elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _, SectionTable, Sym as _},
    },
};

use super::frames::{Entry, Frames, Section};
use crate::{
    target::{
        bounded::Bounded,
        file::{self, Identity},
    },
    units::{FileOffset, Svma},
};

type Header = elf::FileHeader64<Little>;

/// Names longer than this are cut off.
const LONGEST_NAME: usize = 8192;
/// Bytes of a file's headers and tables of symbols that are read: those of the largest library of ttnn
/// 0.81 have a tenth of it. Of a file with more the functions have no names.
const MOST_TABLES: u64 = 32 << 20;

/// A file with code.
#[derive(Debug)]
pub struct Binary {
    /// Its path, as the process sees it.
    pub path: Arc<str>,
    file: File,
    /// Which file it was when it was read, and its size.
    version: Version,
    /// Where the file's bytes are in memory, as it states it.
    segments: Vec<(Range<u64>, u64)>,
    frames: Option<Frames>,
    /// By address; no two begin at the same.
    functions: Vec<Function>,
}

/// A file as it is at a moment.
type Version = (Identity, i64);

/// A function: where it is, and where in the file its name is.
#[derive(Clone, Copy, Debug)]
struct Function {
    start: u64,
    size: u64,
    name: u64,
    /// A local symbol is named only if there is no other.
    is_local: bool,
}

impl Binary {
    /// Reads a file.
    pub fn read(path: Arc<str>, file: File) -> Result<Self, String> {
        let text = |error: object::Error| error.to_string();
        let version = version(&file).map_err(|error| error.to_string())?;
        let bounded = Bounded::of(&file, MOST_TABLES);
        let data = &bounded;
        let header = Header::parse(data).map_err(text)?;
        let endian = header.endian().map_err(text)?;
        if header.e_machine(endian) != elf::EM_X86_64 {
            return Err("it is for another processor".to_owned());
        }
        let programs = header.program_headers(endian, data).map_err(text)?;
        let loaded = programs.iter().filter(|program| program.p_type(endian) == elf::PT_LOAD);
        let segments = loaded.map(|program| {
            let start = program.p_offset(endian);
            (start..start.saturating_add(program.p_filesz(endian)), program.p_vaddr(endian))
        });
        let segments = segments.collect();
        let sections = header.sections(endian, data).map_err(text)?;
        let [entries, index] = [&b".eh_frame"[..], b".eh_frame_hdr"].map(|name| {
            let (_, section) = sections.section_by_name(Little, name)?;
            let start = section.sh_offset(Little);
            let file = start..start.saturating_add(section.sh_size(Little));
            Some(Section { file, address: section.sh_addr(Little) })
        });
        let mut bases = BaseAddresses::default();
        for (name, set) in [
            (&b".text"[..], BaseAddresses::set_text as fn(_, _) -> _),
            (&b".got"[..], BaseAddresses::set_got),
        ] {
            if let Some((_, section)) = sections.section_by_name(Little, name) {
                bases = set(bases, section.sh_addr(Little));
            }
        }
        let frames = entries.zip(index);
        let frames = frames.and_then(|(entries, index)| Frames::new(&file, entries, &index, bases));
        let functions = functions(&sections, data);
        Ok(Self { path, file, version, segments, frames, functions })
    }

    /// Where an offset of the file is in memory, as the file states it.
    pub fn stated(&self, offset: FileOffset) -> Option<Svma> {
        let (file, address) = self.segments.iter().find(|it| it.0.contains(&offset.0))?;
        Some(Svma(address.wrapping_add(offset.0 - file.start)))
    }

    /// The entry of the unwind information for an address; `None` if the file has none.
    pub fn unwind_entry(&self, at: Svma) -> Option<Entry> {
        self.frames.as_ref()?.entry(&self.file, at)
    }

    /// Whether the file is not what it was when it was read.
    pub fn has_changed(&self) -> bool {
        version(&self.file).ok() != Some(self.version)
    }

    /// The file, to be read again.
    pub fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Bytes of memory that it takes, about.
    pub fn size(&self) -> usize {
        let functions = self.functions.len() * size_of::<Function>();
        size_of::<Self>() + functions + self.segments.len() * size_of::<(Range<u64>, u64)>()
    }

    /// The mangled name of the function that an address is in.
    pub fn function(&self, address: Svma) -> Option<Vec<u8>> {
        let after = self.functions.partition_point(|function| function.start <= address.0);
        let function = self.functions.get(after.checked_sub(1)?)?;
        // Of hand-written code the size may be 0: where such a function ends nobody says.
        if address.0 - function.start >= function.size {
            return None;
        }
        self.name(function.name)
    }

    fn name(&self, offset: u64) -> Option<Vec<u8>> {
        let mut name = Vec::new();
        let mut piece = [0; 512];
        while name.len() < LONGEST_NAME {
            let read =
                self.file.read_at(&mut piece, offset.saturating_add(name.len() as u64)).ok()?;
            let end = memchr::memchr(0, &piece[..read]);
            name.extend_from_slice(&piece[..end.unwrap_or(read)]);
            if end.is_some() || read == 0 {
                break;
            }
        }
        (!name.is_empty()).then_some(name)
    }
}

fn version(file: &File) -> io::Result<Version> {
    let stat = rustix::fs::fstat(file)?;
    Ok((file::identity(&stat), stat.st_size))
}

fn functions<'data, R: ReadRef<'data>>(
    sections: &SectionTable<'data, Header, R>,
    data: R,
) -> Vec<Function> {
    let mut functions = Vec::new();
    for kind in [elf::SHT_DYNSYM, elf::SHT_SYMTAB] {
        let Ok(table) = sections.symbols(Little, data, kind) else { continue };
        let Ok(strings) = sections.section(table.string_section()) else { continue };
        let strings = strings.sh_offset(Little);
        let defined = table.iter().filter(|symbol| {
            let is_code = matches!(symbol.st_type(), elf::STT_FUNC | elf::STT_GNU_IFUNC);
            is_code && !symbol.is_undefined(Little) && symbol.st_size(Little) > 0
        });
        functions.extend(defined.map(|symbol| Function {
            start: symbol.st_value(Little),
            size: symbol.st_size(Little),
            name: strings.saturating_add(u64::from(symbol.st_name(Little))),
            is_local: symbol.st_bind() == elf::STB_LOCAL,
        }));
    }
    functions.sort_by_key(|function| (function.start, function.is_local));
    functions.dedup_by_key(|function| function.start);
    functions.shrink_to_fit();
    functions
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::Write as _,
        path::{Path, PathBuf},
        sync::LazyLock,
    };

    use object::{Object as _, ObjectSection as _};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        stacks::{
            record::{PythonFrames, Record},
            unwind::Unwinder,
        },
        target::process::Process,
        units::{Avma, Pid, Tid},
    };

    /// The smallest file with code that this process has mapped.
    fn small_file() -> Vec<u8> {
        let process = Process::open(Pid(std::process::id())).unwrap();
        let maps = process.maps().unwrap();
        let code = maps.iter().filter(|map| map.permissions.execute());
        let files = code.filter_map(|map| map.path().map(Path::to_owned));
        let size = |path: &PathBuf| fs::metadata(path).map_or(u64::MAX, |file| file.len());
        fs::read(files.min_by_key(size).unwrap()).unwrap()
    }

    /// Where a section is in a file.
    fn place(file: &[u8], section: &str) -> Range<usize> {
        let section =
            object::File::parse(file).unwrap().section_by_name(section).unwrap().file_range();
        let (start, length) = section.unwrap();
        let start = usize::try_from(start).unwrap();
        start..start + usize::try_from(length).unwrap()
    }

    fn read(bytes: &[u8]) -> Result<Binary, String> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Binary::read("/x".into(), file)
    }

    #[test]
    fn functions_have_the_names_that_the_file_gives_them() {
        let binary = read(&small_file()).unwrap();
        let named: Vec<Function> =
            binary.functions.iter().copied().filter(|it| binary.name(it.name).is_some()).collect();
        assert!(!named.is_empty());
        assert!(named.iter().all(|it| binary.unwind_entry(Svma(it.start)).is_some()));
        for function in named {
            let name = binary.name(function.name);
            let inside = [function.start, function.start + function.size - 1];
            let next = binary.functions.iter().find(|other| other.start > function.start);
            let is_alone = next.is_none_or(|next| next.start > inside[1]);
            assert_eq!(binary.function(Svma(inside[0])), name);
            assert!(!is_alone || binary.function(Svma(inside[1])) == name);
        }
        assert_eq!(binary.function(Svma(0)), None);
        assert_eq!(binary.function(Svma(u64::MAX)), None);
        assert!(binary.unwind_entry(Svma(0)).is_none());
        assert!(binary.unwind_entry(Svma(u64::MAX)).is_none());
    }

    #[test]
    fn what_is_no_file_of_this_kind_is_refused() {
        let mut other = small_file();
        other[18] = 0xb7;
        for bytes in [&b""[..], b"no ELF", &other[..100], &other] {
            assert!(read(bytes).is_err());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

        /// Headers, tables and unwind information may say anything.
        #[test]
        fn a_damaged_file_is_read_or_refused(
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            where_ in 0..6,
            at: u64,
            stack in proptest::collection::vec(any::<u8>(), 256),
        ) {
            static FILE: LazyLock<(Vec<u8>, [Range<usize>; 2])> = LazyLock::new(|| {
                let file = small_file();
                let unwind = [".eh_frame_hdr", ".eh_frame"].map(|name| place(&file, name));
                (file, unwind)
            });
            let (mut bytes, [index, frames]) = FILE.clone();
            let length = bytes.len();
            let place = match where_ {
                // The header.
                0 => 0..1024.min(length),
                // The section headers, which are at the end.
                1 => length.saturating_sub(2048)..length,
                // What the index says of itself.
                2 => index.start..index.start + 12,
                3 => index,
                4 => frames,
                _ => 0..length,
            };
            let (start, room) = (place.start, place.len());
            for (index, byte) in damage {
                bytes[start + index.index(room)] = byte;
            }
            if let Ok(binary) = read(&bytes) {
                let _ = binary.stated(FileOffset(at));
                let functions = binary.functions.iter().map(|function| function.start);
                let addresses: Vec<u64> = functions.step_by(16).chain([at]).collect();
                let binary = Arc::new(binary);
                let record = Record {
                    time_ns: 1,
                    slot: 0,
                    pid: Pid(1),
                    tid: Tid(1),
                    ip: Avma(at),
                    sp: Avma(0x1000),
                    bp: 0x1040,
                    preserved: [at; 5],
                    stack: &stack,
                    python: PythonFrames::none(),
                };
                for address in addresses {
                    let _ = binary.function(Svma(address));
                    Unwinder::default().step_from(&binary, Svma(address), &record);
                }
            }
        }
    }
}
