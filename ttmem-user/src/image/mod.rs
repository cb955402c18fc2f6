//! One ELF image: symbols, bytes by address, relocations, build id.
//!
//! Reads; does not interpret code beyond the stubs of the procedure linkage table.
//! Invariant: whatever the bytes are, parsing and every query return soon; none panics.

mod budget;
mod names;
mod parse;

use std::ops::Range;

use iced_x86::{Code, Decoder, DecoderOptions};

use crate::units::{Avma, FileOffset, Svma};
use budget::Budget;
use names::{Name, Symbols};
use parse::{Parts, Slots};

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
    /// It has more than anybody's library.
    #[error("an ELF file with more symbols, names and relocations than are read")]
    TooMuch,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotValue<'a> {
    /// The address of a symbol, plus an addend.
    Symbol(&'a str, i64),
    /// An address in this image.
    Address(Svma),
}

/// A parsed ELF file.
pub struct Image<'data> {
    data: Box<dyn AsRef<[u8]> + Send + Sync + 'data>,
    segments: Vec<Segment>,
    symbols: Symbols,
    functions: Vec<(u64, Name)>,
    slots: Slots,
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

/// Mappings start at multiples of this.
const PAGE: usize = 4096;
impl<'data> Image<'data> {
    /// Parses an ELF file. The owner is kept: bytes, a slice of them, or a mapping.
    pub fn parse(data: impl AsRef<[u8]> + Send + Sync + 'data) -> Result<Image<'data>, ImageError> {
        let mut image = Image {
            data: Box::new(data),
            segments: Vec::new(),
            symbols: Symbols::default(),
            functions: Vec::new(),
            slots: Slots::default(),
            build_id: None,
        };
        let parts = Parts::read((*image.data).as_ref(), &mut Budget::of_a_file())?;
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
        self.symbols.get(name, self.bytes())
    }

    /// All symbols whose names start with a prefix, in name order.
    pub fn symbols_with_prefix(&self, prefix: &str) -> Vec<(&str, Symbol)> {
        let all = self.symbols.iter().map(|(name, symbol)| (name.of(self.bytes()), symbol));
        let mut found: Vec<_> = all.filter(|(name, _)| name.starts_with(prefix)).collect();
        found.sort_unstable_by_key(|entry| entry.0);
        found
    }

    /// The name of the function that starts at an address.
    pub fn function_at(&self, address: Svma) -> Option<&str> {
        let at = self.functions.binary_search_by_key(&address.0, |entry| entry.0).ok()?;
        self.functions.get(at).map(|entry| entry.1.of(self.bytes()))
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
    pub fn slot(&self, address: Svma) -> Option<SlotValue<'_>> {
        Some(match *self.slots.get(&address.0)? {
            parse::Slot::Symbol(name, addend) => SlotValue::Symbol(name.of(self.bytes()), addend),
            parse::Slot::Address(address) => SlotValue::Address(address),
        })
    }

    /// What a vtable slot (or any other relocated word) leads to, if that is in this image.
    pub fn address_in_slot(&self, address: Svma) -> Option<Svma> {
        match self.slot(address)? {
            SlotValue::Address(function) => Some(function),
            SlotValue::Symbol(name, 0) => Some(self.symbol(name)?.address),
            SlotValue::Symbol(..) => None,
        }
    }

    /// The function that a stub of the procedure linkage table jumps to.
    pub fn stub_target(&self, address: Svma) -> Option<SlotValue<'_>> {
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

/// Whether the name is that of a function's unlikely part, which compilers put elsewhere: code
/// that the function jumps to, and no function of its own.
pub fn is_cold_part(name: &str) -> bool {
    name.rsplit_once(".cold").is_some_and(|(_, rest)| {
        let number = rest.strip_prefix('.').unwrap_or(rest);
        number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

#[cfg(test)]
pub mod sample;
#[cfg(test)]
mod tests;
