//! One ELF image: symbols, bytes by address, relocations, build id.
//!
//! Reads; does not interpret code beyond the stubs of the procedure linkage table.
//! Invariant: whatever the bytes are, parsing and every query return; none panics.

use std::{collections::HashMap, fmt::Write as _, ops::Range};

use iced_x86::{Code, Decoder, DecoderOptions};
use object::{
    LittleEndian, elf,
    read::elf::{FileHeader, ProgramHeader, Rela, SectionHeader, Sym},
};

use crate::units::{Avma, FileOffset, Svma};

type Header = elf::FileHeader64<LittleEndian>;

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// No ELF magic.
    #[error("not an ELF file")]
    NotElf,
    /// A 32-bit ELF file.
    #[error("a 32-bit ELF file; only 64-bit x86-64 is supported")]
    ThirtyTwoBit,
    /// A big-endian ELF file.
    #[error("a big-endian ELF file; only little-endian x86-64 is supported")]
    BigEndian,
    /// Another processor.
    #[error("an ELF file for {name} (machine {machine}); only x86-64 is supported")]
    Machine {
        /// `e_machine`.
        machine: u16,
        /// Its name.
        name: &'static str,
    },
    /// The file ends too early or contradicts itself.
    #[error("a damaged ELF file: {0}")]
    Damaged(String),
}

/// A defined symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Where it is.
    pub address: Svma,
    /// Its size in bytes; 0 if the file does not say.
    pub size: u64,
    /// Whether it is code.
    pub is_function: bool,
}

#[derive(Clone, Debug)]
struct Segment {
    address: u64,
    file: Range<usize>,
    writable: bool,
    executable: bool,
}

/// What the dynamic linker writes into a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlotValue {
    /// The address of a symbol, plus an addend.
    Symbol(String, i64),
    /// An address in this image.
    Address(Svma),
}

/// A parsed ELF file.
pub struct Image<'data> {
    data: Box<dyn AsRef<[u8]> + Send + Sync + 'data>,
    segments: Vec<Segment>,
    symbols: HashMap<Box<str>, Symbol>,
    functions: Vec<(u64, Box<str>)>,
    slots: HashMap<u64, SlotValue>,
    build_id: Option<String>,
}

#[cfg(test)]
impl Image<'_> {
    /// Pretends that the file has a build id.
    pub fn set_build_id(&mut self, build_id: Option<&str>) {
        self.build_id = build_id.map(str::to_owned);
    }
}

impl std::fmt::Debug for Image<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image")
            .field("build_id", &self.build_id)
            .field("symbols", &self.symbols.len())
            .finish_non_exhaustive()
    }
}

fn damaged(error: impl std::fmt::Display) -> ImageError {
    ImageError::Damaged(error.to_string())
}

/// Mappings start at multiples of this.
const PAGE: usize = 4096;
/// Where the identification says 32 or 64 bits.
const CLASS: usize = 4;
/// Where `e_machine` is.
const MACHINE: std::ops::Range<usize> = 18..20;
/// Where the identification says the byte order.
const ENCODING: usize = 5;

const MACHINES: [(u16, &str); 5] = [
    (elf::EM_AARCH64, "aarch64"),
    (elf::EM_ARM, "arm"),
    (elf::EM_386, "i386"),
    (elf::EM_RISCV, "RISC-V"),
    (elf::EM_PPC64, "ppc64"),
];

/// Checks the identification before anything else is read.
fn check_kind(bytes: &[u8]) -> Result<(), ImageError> {
    if bytes.get(..4) != Some(&elf::ELFMAG) {
        return Err(ImageError::NotElf);
    }
    if bytes.get(CLASS) == Some(&elf::ELFCLASS32) {
        return Err(ImageError::ThirtyTwoBit);
    }
    if bytes.get(ENCODING) == Some(&elf::ELFDATA2MSB) {
        return Err(ImageError::BigEndian);
    }
    let Some(&[low, high]) = bytes.get(MACHINE) else {
        return Err(damaged("the file header is cut off"));
    };
    let machine = u16::from_le_bytes([low, high]);
    if machine == elf::EM_X86_64 {
        return Ok(());
    }
    let known = MACHINES.iter().find(|known| known.0 == machine);
    Err(ImageError::Machine { machine, name: known.map_or("another processor", |known| known.1) })
}

impl<'data> Image<'data> {
    /// Parses an ELF file. The owner is kept: bytes, a slice of them, or a mapping.
    pub fn parse(data: impl AsRef<[u8]> + Send + Sync + 'data) -> Result<Image<'data>, ImageError> {
        let mut image = Image {
            data: Box::new(data),
            segments: Vec::new(),
            symbols: HashMap::new(),
            functions: Vec::new(),
            slots: HashMap::new(),
            build_id: None,
        };
        let parts = Parts::read((*image.data).as_ref())?;
        image.segments = parts.segments;
        image.symbols = parts.symbols;
        image.functions = parts.functions;
        image.slots = parts.slots;
        image.build_id = parts.build_id;
        Ok(image)
    }

    fn bytes(&self) -> &[u8] {
        (*self.data).as_ref()
    }

    /// The GNU build id in hex.
    pub fn build_id(&self) -> Option<&str> {
        self.build_id.as_deref()
    }

    /// Number of symbols that it shows.
    pub fn symbol_count(&self) -> usize {
        self.symbols.len()
    }

    /// The symbol of a mangled name, without its version.
    pub fn symbol(&self, name: &str) -> Option<Symbol> {
        self.symbols.get(name).copied()
    }

    /// All symbols whose names start with a prefix, in name order.
    pub fn symbols_with_prefix(&self, prefix: &str) -> Vec<(&str, Symbol)> {
        let mut found: Vec<_> = self
            .symbols
            .iter()
            .filter(|(name, _)| name.starts_with(prefix))
            .map(|(name, symbol)| (&**name, *symbol))
            .collect();
        found.sort_unstable_by_key(|entry| entry.0);
        found
    }

    /// The name of the function that starts at an address.
    pub fn function_at(&self, address: Svma) -> Option<&str> {
        let at = self.functions.binary_search_by_key(&address.0, |entry| entry.0).ok()?;
        self.functions.get(at).map(|entry| &*entry.1)
    }

    fn segment(&self, address: Svma) -> Option<(&Segment, usize)> {
        self.segments.iter().find_map(|segment| {
            let offset = usize::try_from(address.0.checked_sub(segment.address)?).ok()?;
            (offset < segment.file.len()).then_some((segment, offset))
        })
    }

    /// Where an address lies in the file.
    pub fn file_offset(&self, address: Svma) -> Option<FileOffset> {
        let (segment, offset) = self.segment(address)?;
        Some(FileOffset(u64::try_from(segment.file.start + offset).ok()?))
    }

    /// What the loader added to every stated address, if it mapped the code that starts at the
    /// page of file offset `offset` to `start`.
    pub fn load_bias(&self, start: Avma, offset: FileOffset) -> Option<u64> {
        let offset = usize::try_from(offset.0).ok()?;
        let segment =
            self.segments.iter().filter(|segment| segment.executable).find(|segment| {
                let first = segment.file.start & !(PAGE - 1);
                (first..segment.file.end).contains(&offset)
            })?;
        let into = i128::try_from(offset).ok()? - i128::try_from(segment.file.start).ok()?;
        let stated = i128::from(segment.address) + into;
        u64::try_from(i128::from(start.0) - stated).ok()
    }

    /// The file's bytes from an address to the end of its segment.
    pub fn bytes_at(&self, address: Svma) -> Option<&[u8]> {
        let (segment, offset) = self.segment(address)?;
        self.bytes().get(segment.file.start + offset..segment.file.end)
    }

    /// The code from an address on; `None` if it is not executable.
    pub fn code_at(&self, address: Svma) -> Option<&[u8]> {
        self.segment(address).filter(|(segment, _)| segment.executable)?;
        self.bytes_at(address)
    }

    /// A constant of 1, 2, 4 or 8 bytes; `None` if the address is writable or not in the file.
    pub fn constant_at(&self, address: Svma, width: u8) -> Option<u64> {
        self.segment(address).filter(|(segment, _)| !segment.writable)?;
        let bytes = self.bytes_at(address)?.get(..usize::from(width))?;
        let mut value = [0; 8];
        value.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(u64::from_le_bytes(value))
    }

    /// What the dynamic linker writes at an address.
    pub fn slot(&self, address: Svma) -> Option<&SlotValue> {
        self.slots.get(&address.0)
    }

    /// What a vtable slot (or any other relocated word) leads to, if that is in this image.
    pub fn address_in_slot(&self, address: Svma) -> Option<Svma> {
        match self.slot(address)? {
            SlotValue::Address(function) => Some(*function),
            SlotValue::Symbol(name, 0) => Some(self.symbol(name)?.address),
            SlotValue::Symbol(..) => None,
        }
    }

    /// The function that a stub of the procedure linkage table jumps to.
    pub fn stub_target(&self, address: Svma) -> Option<&SlotValue> {
        let code = self.code_at(address)?;
        let mut decoder = Decoder::with_ip(64, code, address.0, DecoderOptions::NONE);
        let mut instruction = decoder.decode();
        // Some linkers also load the relocation's index for the lazy resolver, here or after.
        for skipped in [Code::Endbr64, Code::Mov_r32_imm32] {
            if instruction.code() == skipped {
                instruction = decoder.decode();
            }
        }
        if instruction.code() != Code::Jmp_rm64 || !instruction.is_ip_rel_memory_operand() {
            return None;
        }
        self.slot(Svma(instruction.ip_rel_memory_address()))
    }
}

/// What is taken from the file once.
#[derive(Default)]
struct Parts {
    segments: Vec<Segment>,
    symbols: HashMap<Box<str>, Symbol>,
    functions: Vec<(u64, Box<str>)>,
    slots: HashMap<u64, SlotValue>,
    build_id: Option<String>,
}

impl Parts {
    fn read(bytes: &[u8]) -> Result<Self, ImageError> {
        check_kind(bytes)?;
        let header = Header::parse(bytes).map_err(damaged)?;
        let endian = header.endian().map_err(damaged)?;
        let mut parts = Self::default();
        for program in header.program_headers(endian, bytes).map_err(damaged)? {
            parts.read_segment(program, bytes)?;
        }
        let sections = header.sections(endian, bytes).map_err(damaged)?;
        for kind in [elf::SHT_DYNSYM, elf::SHT_SYMTAB] {
            let table = sections.symbols(endian, bytes, kind).map_err(damaged)?;
            for symbol in table.iter() {
                if let Ok(name) = symbol.name(endian, table.strings()) {
                    parts.add_symbol(symbol, name);
                }
            }
        }
        parts.functions.sort_unstable();
        parts.functions.dedup_by_key(|entry| entry.0);
        for section in sections.iter() {
            if let Ok(Some((relocations, link))) = section.rela(endian, bytes) {
                let Ok(table) = sections.symbol_table_by_index(endian, bytes, link) else {
                    continue;
                };
                for relocation in relocations {
                    parts.add_slot(relocation, |index| {
                        let name = table.symbol(index).ok()?.name(endian, table.strings()).ok()?;
                        Some(plain_name(name)?.to_owned())
                    });
                }
            }
            if let Ok(Some(mut notes)) = section.notes(endian, bytes) {
                while let Ok(Some(note)) = notes.next() {
                    if note.name() == elf::ELF_NOTE_GNU
                        && note.n_type(endian) == elf::NT_GNU_BUILD_ID
                    {
                        parts.build_id = Some(hex(note.desc()));
                    }
                }
            }
        }
        Ok(parts)
    }

    fn read_segment(
        &mut self,
        program: &elf::ProgramHeader64<LittleEndian>,
        bytes: &[u8],
    ) -> Result<(), ImageError> {
        let endian = LittleEndian;
        if program.p_type(endian) != elf::PT_LOAD {
            return Ok(());
        }
        let start = usize::try_from(program.p_offset(endian)).map_err(damaged)?;
        let length = usize::try_from(program.p_filesz(endian)).map_err(damaged)?;
        let file = start..start.saturating_add(length);
        if file.end > bytes.len() {
            return Err(damaged("a segment lies beyond the end of the file"));
        }
        let flags = program.p_flags(endian);
        self.segments.push(Segment {
            address: program.p_vaddr(endian),
            file,
            writable: flags & elf::PF_W != 0,
            executable: flags & elf::PF_X != 0,
        });
        Ok(())
    }

    fn add_symbol(&mut self, symbol: &elf::Sym64<LittleEndian>, name: &[u8]) {
        let endian = LittleEndian;
        let is_function = match symbol.st_type() {
            elf::STT_FUNC => true,
            elf::STT_OBJECT => false,
            _ => return,
        };
        let Some(name) = plain_name(name) else { return };
        // Linkers name their stubs `…$plt` and slots `…$got`; they are no definitions.
        if symbol.is_undefined(endian) || name.is_empty() || name.contains('$') {
            return;
        }
        let address = symbol.st_value(endian);
        let value = Symbol { address: Svma(address), size: symbol.st_size(endian), is_function };
        if is_function {
            self.functions.push((address, name.into()));
        }
        if !is_cold_part(name) {
            self.symbols.entry(name.into()).or_insert(value);
        }
    }

    fn add_slot(
        &mut self,
        relocation: &elf::Rela64<LittleEndian>,
        name: impl Fn(object::SymbolIndex) -> Option<String>,
    ) {
        let endian = LittleEndian;
        let value = match relocation.r_type(endian, false) {
            elf::R_X86_64_RELATIVE => {
                SlotValue::Address(Svma(relocation.r_addend(endian).cast_unsigned()))
            }
            elf::R_X86_64_JUMP_SLOT | elf::R_X86_64_GLOB_DAT | elf::R_X86_64_64 => {
                let Some(index) = relocation.symbol(endian, false) else { return };
                let Some(name) = name(index) else { return };
                SlotValue::Symbol(name, relocation.r_addend(endian))
            }
            _ => return,
        };
        self.slots.insert(relocation.r_offset(endian), value);
    }
}

/// A symbol's name without its version.
fn plain_name(name: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(name).ok()?;
    Some(name.split_once('@').map_or(name, |parts| parts.0))
}

/// Whether the name is that of a function's unlikely part, which compilers put elsewhere: code
/// that the function jumps to, and no function of its own.
pub fn is_cold_part(name: &str) -> bool {
    name.rsplit_once(".cold").is_some_and(|(_, rest)| {
        let number = rest.strip_prefix('.').unwrap_or(rest);
        number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Small ELF files for tests, made of saved pieces of real ones at their own addresses.
#[cfg(test)]
pub mod sample {
    /// A piece: symbol (or "" for none), address, bytes.
    pub type Piece<'a> = (&'a str, u64, &'a [u8]);

    fn put(out: &mut Vec<u8>, numbers: &[(u64, usize)]) {
        for (number, width) in numbers {
            out.extend_from_slice(&number.to_le_bytes()[..*width]);
        }
    }

    /// Bytes from hex digits.
    pub fn hex(digits: &str) -> Vec<u8> {
        let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => byte - b'0',
            _ => (byte | 0x20) - b'a' + 10,
        };
        digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
    }

    /// Builds the file.
    pub fn elf(pieces: &[Piece<'_>]) -> Vec<u8> {
        elf_with_slots(pieces, &[])
    }

    /// Builds the file; the dynamic linker writes addresses of the image to slots. What is named
    /// like a vtable or type information is data.
    pub fn elf_with_slots(pieces: &[Piece<'_>], slots: &[(u64, u64)]) -> Vec<u8> {
        let count = pieces.len() as u64;
        let mut at = 64 + 56 * count;
        let (mut programs, mut body) = (Vec::new(), Vec::new());
        let (mut symbols, mut names) = (vec![0; 24], vec![0]);
        for (name, address, bytes) in pieces {
            let size = bytes.len() as u64;
            let load =
                [(1, 4), (5, 4), (at, 8), (*address, 8), (*address, 8), (size, 8), (size, 8)];
            put(&mut programs, &load);
            put(&mut programs, &[(1, 8)]);
            body.extend_from_slice(bytes);
            at += size;
            if !name.is_empty() {
                let kind = if name.starts_with("_ZT") { 0x11 } else { 0x12 };
                put(&mut symbols, &[(names.len() as u64, 4), (kind, 1), (0, 1), (1, 2)]);
                put(&mut symbols, &[(*address, 8), (size, 8)]);
                names.extend_from_slice(name.as_bytes());
                names.push(0);
            }
        }
        let (symbols_at, symbols_size) = (at, symbols.len() as u64);
        let (names_at, names_size) = (at + symbols_size, names.len() as u64);
        let (slots_at, slots_size) = (names_at + names_size, 24 * slots.len() as u64);
        let sections_at = slots_at + slots_size;
        let relocations: Vec<_> =
            slots.iter().flat_map(|(at, to)| [(*at, 8), (8, 8), (*to, 8)]).collect();
        let mut file = hex("7f454c4602010100 0000000000000000 0300 3e00 01000000");
        put(&mut file, &[(0, 8), (64, 8), (sections_at, 8), (0, 4), (64, 2), (56, 2)]);
        put(&mut file, &[(count, 2), (64, 2), (4, 2), (2, 2)]);
        for part in [programs, body, symbols, names] {
            file.extend_from_slice(&part);
        }
        put(&mut file, &relocations);
        file.extend_from_slice(&[0; 64]);
        let section = |file: &mut Vec<u8>, kind, at, size, link, entry| {
            put(file, &[(0, 4), (kind, 4), (0, 8), (0, 8), (at, 8), (size, 8), (link, 4), (1, 4)]);
            put(file, &[(8, 8), (entry, 8)]);
        };
        section(&mut file, 2, symbols_at, symbols_size, 2, 24);
        section(&mut file, 3, names_at, names_size, 0, 0);
        section(&mut file, 4, slots_at, slots_size, 1, 24);
        file
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file() -> Vec<u8> {
        sample::elf(&[("first", 0x1000, &[0xc3, 0x90]), ("second@@V1", 0x2000, &[0x55])])
    }

    #[test]
    fn finds_symbols_bytes_and_offsets() {
        let file = file();
        let image = Image::parse(file.as_slice()).unwrap();
        let first = image.symbol("first").unwrap();
        assert_eq!((first.address, first.size, first.is_function), (Svma(0x1000), 2, true));
        assert_eq!(image.symbol("second").unwrap().address, Svma(0x2000));
        assert_eq!(image.function_at(Svma(0x2000)), Some("second"));
        assert_eq!(image.code_at(Svma(0x1001)), Some(&[0x90][..]));
        assert_eq!(image.constant_at(Svma(0x1000), 2), Some(0x90c3));
        assert_eq!(image.constant_at(Svma(0x1000), 4), None);
        assert_eq!(image.file_offset(Svma(0x1001)), Some(FileOffset(64 + 2 * 56 + 1)));
        assert_eq!(image.bytes_at(Svma(0x1002)), None);
    }

    #[test]
    fn unlikely_parts_are_no_functions_of_their_own() {
        assert!(is_cold_part("_Z1fv.cold"));
        assert!(is_cold_part("_Z1fv.cold.12"));
        assert!(!is_cold_part("_Z1fv.colder"));
        assert!(!is_cold_part("_Z1fv"));
        let file = sample::elf(&[("f", 0x1000, &[0xc3]), ("f.cold", 0x2000, &[0xc3])]);
        let image = Image::parse(file).unwrap();
        assert_eq!(image.symbols_with_prefix("f").len(), 1);
        assert_eq!(image.function_at(Svma(0x2000)), Some("f.cold"));
    }

    #[test]
    fn says_what_a_file_is_that_it_cannot_use() {
        let parse = |bytes: &[u8]| Image::parse(bytes).err();
        assert_eq!(parse(b"#!/bin/sh"), Some(ImageError::NotElf));
        assert_eq!(parse(b""), Some(ImageError::NotElf));
        let changed = |at: usize, to: u8| {
            let mut file = file();
            file[at] = to;
            Image::parse(file).err()
        };
        assert_eq!(changed(CLASS, 1), Some(ImageError::ThirtyTwoBit));
        assert_eq!(changed(ENCODING, 2), Some(ImageError::BigEndian));
        let arm = ImageError::Machine { machine: elf::EM_AARCH64, name: "aarch64" };
        assert_eq!(changed(MACHINE.start, 183), Some(arm));
        let file = file();
        assert!(matches!(parse(&file[..40]), Some(ImageError::Damaged(_))));
        assert!(matches!(parse(&file[..file.len() - 1]), Some(ImageError::Damaged(_))));
    }

    proptest! {
        #[test]
        fn damaged_files_never_panic(
            flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..40),
            length in any::<prop::sample::Index>(),
            probe in any::<u64>(),
        ) {
            let mut file = file();
            for (at, value) in flips {
                let at = at.index(file.len());
                file[at] = value;
            }
            let keep = length.index(file.len() * 2).min(file.len());
            file.truncate(keep);
            if let Ok(image) = Image::parse(file) {
                for address in [0, 0x1000, 0x2000, probe] {
                    let _ = image.file_offset(Svma(address));
                    let _ = image.stub_target(Svma(address));
                    let _ = image.constant_at(Svma(address), 8);
                }
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut file = b"\x7fELF\x02\x01\x01".to_vec();
            file.extend_from_slice(&bytes);
            let _ = Image::parse(file);
        }
    }
}
