//! What is taken from an ELF file once: segments, symbols, relocations, build id.
//!
//! Invariant: whatever the bytes are, parsing returns soon; it never panics. A few bytes can claim to
//! be a million names that are each as long as the file, so what is read of a file is bounded.

use std::{collections::HashMap, fmt::Write as _};

use object::{
    LittleEndian, elf,
    read::elf::{FileHeader, ProgramHeader, Rela, SectionHeader, SectionTable, Sym, SymbolTable},
};

use super::{
    ImageError, Segment, Symbol,
    budget::Budget,
    is_cold_part,
    names::{Name, Symbols},
};
use crate::units::Svma;

type Header = elf::FileHeader64<LittleEndian>;

/// Names longer than this are no names: the longest of ttnn 0.81 has 2,475 bytes.
const LONGEST_NAME: usize = 32 << 10;
/// More segments than any linker makes: an address is looked for in one after the other.
const MOST_SEGMENTS: usize = 256;
/// More sections than any linker makes of a library: each of them may ask for a look at all.
const MOST_SECTIONS: usize = 4096;
/// What an entry of a table counts for beside its name: about what it takes when it is kept.
const ENTRY: usize = 64;
/// A build id longer than this is none.
const LONGEST_BUILD_ID: usize = 64;

fn damaged(error: impl std::fmt::Display) -> ImageError {
    ImageError::Damaged(error.to_string())
}

/// Where the identification says 32 or 64 bits.
pub(super) const CLASS: usize = 4;
/// Where `e_machine` is.
pub(super) const MACHINE: std::ops::Range<usize> = 18..20;
/// Where the identification says the byte order.
pub(super) const ENCODING: usize = 5;

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

/// What the dynamic linker writes into a slot.
#[derive(Clone, Copy, Debug)]
pub(super) enum Slot {
    /// The address of a symbol, plus an addend.
    Symbol(Name, i64),
    /// An address in this image.
    Address(Svma),
}

/// Slots by their address.
pub(super) type Slots = HashMap<u64, Slot, foldhash::fast::RandomState>;

/// What is taken from the file once.
#[derive(Default)]
pub(super) struct Parts {
    pub segments: Vec<Segment>,
    pub symbols: Symbols,
    pub functions: Vec<(u64, Name)>,
    pub slots: Slots,
    pub build_id: Option<String>,
}

impl Parts {
    /// Reads a file, unless that takes more than the budget.
    pub fn read(bytes: &[u8], budget: &mut Budget) -> Result<Self, ImageError> {
        check_kind(bytes)?;
        let header = Header::parse(bytes).map_err(damaged)?;
        let endian = header.endian().map_err(damaged)?;
        let mut parts = Self::default();
        for program in header.program_headers(endian, bytes).map_err(damaged)? {
            parts.read_segment(program, bytes)?;
        }
        let sections = header.sections(endian, bytes).map_err(damaged)?;
        if sections.len() > MOST_SECTIONS {
            return Err(damaged("it has too many sections"));
        }
        for kind in [elf::SHT_DYNSYM, elf::SHT_SYMTAB] {
            let table = sections.symbols(endian, bytes, kind).map_err(damaged)?;
            budget.take_each(table.len(), ENTRY)?;
            let strings = Strings::of(&table, &sections, bytes);
            for symbol in table.iter() {
                if let Some(name) = strings.name(symbol.st_name(endian), budget)? {
                    parts.add_symbol(symbol, name, bytes);
                }
            }
        }
        parts.order_functions(bytes);
        for section in sections.iter() {
            if let Ok(Some((relocations, link))) = section.rela(endian, bytes) {
                let Ok(table) = sections.symbol_table_by_index(endian, bytes, link) else {
                    continue;
                };
                budget.take_each(relocations.len(), ENTRY)?;
                let strings = Strings::of(&table, &sections, bytes);
                for relocation in relocations {
                    parts.add_slot(relocation, |index| {
                        let Ok(symbol) = table.symbol(index) else { return Ok(None) };
                        let name = strings.name(symbol.st_name(endian), budget)?;
                        Ok(name.and_then(|name| Name::in_file(plain_name(name)?, bytes)))
                    })?;
                }
            }
            if let Ok(Some(mut notes)) = section.notes(endian, bytes) {
                budget.take_each(section.data(endian, bytes).map_or(0, <[u8]>::len), 1)?;
                while let Ok(Some(note)) = notes.next() {
                    if note.name() == elf::ELF_NOTE_GNU
                        && note.n_type(endian) == elf::NT_GNU_BUILD_ID
                        && note.desc().len() <= LONGEST_BUILD_ID
                    {
                        parts.build_id = Some(hex(note.desc()));
                    }
                }
            }
        }
        Ok(parts)
    }

    /// Sorts the functions by address, and keeps of each address the one whose name comes first.
    fn order_functions(&mut self, bytes: &[u8]) {
        // Not by name: of many long ones at one address each would be read over and over.
        self.functions.sort_unstable_by_key(|entry| entry.0);
        self.functions.dedup_by(|later, first| {
            let is_same = later.0 == first.0;
            if is_same && later.1.of(bytes) < first.1.of(bytes) {
                *first = *later;
            }
            is_same
        });
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
        if self.segments.len() >= MOST_SEGMENTS {
            return Err(damaged("it has too many segments"));
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

    fn add_symbol(&mut self, symbol: &elf::Sym64<LittleEndian>, name: &[u8], file: &[u8]) {
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
        let Some(place) = Name::in_file(name, file) else { return };
        if is_function {
            self.functions.push((address, place));
        }
        if !is_cold_part(name) {
            self.symbols.add(place, value, file);
        }
    }

    fn add_slot(
        &mut self,
        relocation: &elf::Rela64<LittleEndian>,
        name: impl FnOnce(object::SymbolIndex) -> Result<Option<Name>, ImageError>,
    ) -> Result<(), ImageError> {
        let endian = LittleEndian;
        let value = match relocation.r_type(endian, false) {
            elf::R_X86_64_RELATIVE => {
                Slot::Address(Svma(relocation.r_addend(endian).cast_unsigned()))
            }
            elf::R_X86_64_JUMP_SLOT | elf::R_X86_64_GLOB_DAT | elf::R_X86_64_64 => {
                let Some(index) = relocation.symbol(endian, false) else { return Ok(()) };
                let Some(name) = name(index)? else { return Ok(()) };
                Slot::Symbol(name, relocation.r_addend(endian))
            }
            _ => return Ok(()),
        };
        self.slots.insert(relocation.r_offset(endian), value);
        Ok(())
    }
}

/// The names of a table of symbols.
struct Strings<'data>(&'data [u8]);

impl<'data> Strings<'data> {
    fn of(
        table: &SymbolTable<'data, Header>,
        sections: &SectionTable<'data, Header>,
        bytes: &'data [u8],
    ) -> Self {
        let section = sections.section(table.string_section()).ok();
        let data = section.and_then(|section| section.data(LittleEndian, bytes).ok());
        Self(data.unwrap_or_default())
    }

    /// The name at a place; `None` if there is none, or it is too long.
    fn name(&self, at: u32, budget: &mut Budget) -> Result<Option<&'data [u8]>, ImageError> {
        let rest = self.0.get(at as usize..).unwrap_or_default();
        let rest = rest.get(..=LONGEST_NAME).unwrap_or(rest);
        let end = memchr::memchr(0, rest);
        budget.take_each(end.unwrap_or(rest.len()), 1)?;
        Ok(end.map(|end| &rest[..end]))
    }
}

/// A symbol's name without its version.
fn plain_name(name: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(name).ok()?;
    Some(name.split_once('@').map_or(name, |parts| parts.0))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
