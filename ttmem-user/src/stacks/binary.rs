//! What is needed of one file with code: its unwind information and the names of its functions.
//!
//! Only what is needed is read, and names one by one when they are asked for: libraries of a
//! target have hundreds of megabytes. The file is read and never mapped, since whoever made it
//! could cut it off meanwhile.
//!
//! Invariant: whatever the bytes are, every function returns; none panics.

use std::{fs::File, ops::Range, os::unix::fs::FileExt as _, sync::Arc};

use gimli::{
    BaseAddresses, EhFrame, EhFrameHdr, EhFrameOffset, EndianSlice, FrameDescriptionEntry,
    LittleEndian, UnwindSection as _,
};
use object::{
    LittleEndian as Little, elf,
    read::{
        ReadRef,
        elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _, SectionTable, Sym as _},
    },
};

use crate::{
    target::bounded::Bounded,
    units::{FileOffset, Svma},
};

type Header = elf::FileHeader64<Little>;

/// Pieces of a file's sections.
pub type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// Names longer than this are cut off.
const LONGEST_NAME: usize = 8192;

/// A file with code.
#[derive(Debug)]
pub struct Binary {
    /// Its path, as the process sees it.
    pub path: Arc<str>,
    file: File,
    /// Where the file's bytes are in memory, as it states it.
    segments: Vec<(Range<u64>, u64)>,
    eh_frame: Vec<u8>,
    eh_frame_hdr: Vec<u8>,
    bases: BaseAddresses,
    /// By address; no two begin at the same.
    functions: Vec<Function>,
}

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
        let bounded = Bounded::new(&file);
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
        let (eh_frame, eh_frame_at) = section(&sections, data, b".eh_frame");
        let (eh_frame_hdr, eh_frame_hdr_at) = section(&sections, data, b".eh_frame_hdr");
        let mut bases =
            BaseAddresses::default().set_eh_frame(eh_frame_at).set_eh_frame_hdr(eh_frame_hdr_at);
        for (name, set) in [
            (&b".text"[..], BaseAddresses::set_text as fn(_, _) -> _),
            (&b".got"[..], BaseAddresses::set_got),
        ] {
            if let Some((_, section)) = sections.section_by_name(Little, name) {
                bases = set(bases, section.sh_addr(Little));
            }
        }
        let functions = functions(&sections, data);
        Ok(Self { path, file, segments, eh_frame, eh_frame_hdr, bases, functions })
    }

    /// Where an offset of the file is in memory, as the file states it.
    pub fn stated(&self, offset: FileOffset) -> Option<Svma> {
        let (file, address) = self.segments.iter().find(|it| it.0.contains(&offset.0))?;
        Some(Svma(address.wrapping_add(offset.0 - file.start)))
    }

    /// The unwind information.
    pub fn eh_frame(&self) -> EhFrame<Slice<'_>> {
        EhFrame::new(&self.eh_frame, LittleEndian)
    }

    /// The entry of the unwind information for an address; `None` if the file has none.
    ///
    /// `EhHdrTable::fde_for_address` does the same for files that can be trusted: where one states
    /// more entries than it has, or one that lies before all of them, it overflows.
    pub fn unwind_entry(&self, at: Svma) -> Option<FrameDescriptionEntry<Slice<'_>>> {
        let index = EhFrameHdr::new(&self.eh_frame_hdr, LittleEndian);
        let index = index.parse(&self.bases, 8).ok()?;
        let table = index.table()?;
        if table.iter(&self.bases).size_hint().1? > self.eh_frame_hdr.len() {
            return None;
        }
        let stated = table.lookup(at.0, &self.bases).ok()?.direct().ok()?;
        let first = index.eh_frame_ptr().direct().ok()?;
        let offset = EhFrameOffset(usize::try_from(stated.checked_sub(first)?).ok()?);
        let frames = self.eh_frame();
        let entry = frames.fde_from_offset(&self.bases, offset, EhFrame::cie_from_offset).ok()?;
        entry.contains(at.0).then_some(entry)
    }

    /// Where its sections are, as it states it.
    pub const fn bases(&self) -> &BaseAddresses {
        &self.bases
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

/// A section's bytes, and where it is in memory; nothing if there is none.
fn section<'data, R: ReadRef<'data>>(
    sections: &SectionTable<'data, Header, R>,
    data: R,
    name: &[u8],
) -> (Vec<u8>, u64) {
    let Some((_, section)) = sections.section_by_name(Little, name) else {
        return (Vec::new(), 0);
    };
    let bytes = section.data(Little, data).unwrap_or_default();
    (bytes.to_vec(), section.sh_addr(Little))
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
impl Binary {
    /// A file that has nothing but these bytes where its unwind information would be.
    pub fn of_unwind_information(eh_frame: Vec<u8>) -> Self {
        Self {
            path: "/x".into(),
            file: tempfile::tempfile().unwrap(),
            segments: Vec::new(),
            eh_frame,
            eh_frame_hdr: Vec::new(),
            bases: BaseAddresses::default(),
            functions: Vec::new(),
        }
    }
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
        stacks::{record::Record, unwind::Unwinder},
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
                };
                for address in addresses {
                    let _ = binary.function(Svma(address));
                    Unwinder::default().step_from(&binary, Svma(address), &record);
                }
            }
        }
    }
}
