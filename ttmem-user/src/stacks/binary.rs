//! What is needed of one file with code: its unwind information and the names of its functions.
//!
//! Only what is needed is read, and names one by one when they are asked for: libraries of a
//! target have hundreds of megabytes. The file is read and never mapped, since whoever made it
//! could cut it off meanwhile.
//!
//! Invariant: whatever the bytes are, every function returns; none panics.

use std::{fs::File, ops::Range, os::unix::fs::FileExt as _, sync::Arc};

use gimli::{BaseAddresses, EhFrame, EhFrameHdr, EndianSlice, LittleEndian, ParsedEhFrameHdr};
use object::{
    LittleEndian as Little, elf,
    read::{
        ReadCache, ReadRef,
        elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _, SectionTable, Sym as _},
    },
};

use crate::units::{FileOffset, Svma};

type Header = elf::FileHeader64<Little>;
/// Sections larger than this are not read; those of the largest libraries are a tenth of it.
const MOST_BYTES: u64 = 1 << 30;

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
        let cache = ReadCache::new(&file);
        let data = &cache;
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
        drop(cache);
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

    /// Its index; `None` if there is none.
    pub fn eh_frame_hdr(&self) -> Option<ParsedEhFrameHdr<Slice<'_>>> {
        EhFrameHdr::new(&self.eh_frame_hdr, LittleEndian).parse(&self.bases, 8).ok()
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
            let read = self.file.read_at(&mut piece, offset + name.len() as u64).ok()?;
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
    let found = sections.section_by_name(Little, name);
    let Some((_, section)) = found.filter(|it| it.1.sh_size(Little) <= MOST_BYTES) else {
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
        let too_large = |section: &elf::SectionHeader64<Little>| {
            section.sh_type(Little) == kind && section.sh_size(Little) > MOST_BYTES
        };
        if sections.iter().any(too_large) {
            continue;
        }
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
