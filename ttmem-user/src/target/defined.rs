//! Whether a file defines a symbol. Reads little of it: most files do not even mention the one that is
//! looked for.

use std::fs::File;

use memchr::memmem;
use object::{
    LittleEndian, elf,
    read::elf::{FileHeader as _, SectionHeader as _, Sym as _},
};

use super::bounded::Bounded;

/// Why a file is not the one that is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// It does not define the symbol.
    Without,
    /// To tell would take more memory than a file is worth.
    TooLarge,
}

/// Whether a file defines a symbol, as far as so many bytes of it tell.
pub fn defines(file: File, symbol: &str, most: u64) -> Result<(), Other> {
    let file = Bounded::of(file, most);
    if has(&file, symbol.as_bytes()).is_ok_and(|has| has) {
        return Ok(());
    }
    Err(if file.is_exceeded() { Other::TooLarge } else { Other::Without })
}

fn has(file: &Bounded<File>, marker: &[u8]) -> object::Result<bool> {
    let header = elf::FileHeader64::<LittleEndian>::parse(file)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, file)?;
    for kind in [elf::SHT_DYNSYM, elf::SHT_SYMTAB] {
        let Ok(table) = sections.symbols(endian, file, kind) else { continue };
        let Ok(strings) = sections.section(table.string_section()) else { continue };
        let Ok(strings) = strings.data(endian, file) else { continue };
        // Names are compared where they are and never read one by one: each may be as long as the file.
        if memmem::find(strings, marker).is_some()
            && table.iter().any(|symbol| {
                symbol.is_definition(endian) && is_it(strings, symbol.st_name(endian), marker)
            })
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the name at a place is the symbol's.
fn is_it(strings: &[u8], at: u32, marker: &[u8]) -> bool {
    let name = strings.get(at as usize..).unwrap_or_default();
    name.strip_prefix(marker).is_some_and(|rest| rest.first() == Some(&0))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::target::file::MOST_BYTES;

    const MARKER: &str = "the_symbol";

    #[test]
    fn what_is_no_elf_defines_nothing() {
        let file = File::open("/proc/self/maps").unwrap();
        assert_eq!(defines(file, MARKER, MOST_BYTES), Err(Other::Without));
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
        assert_eq!(defines(claims(4096), MARKER, MOST_BYTES), Err(Other::Without));
        assert_eq!(defines(claims(8 << 30), MARKER, MOST_BYTES), Err(Other::TooLarge));
    }

    #[test]
    fn a_name_is_compared_where_it_is() {
        let marker = MARKER.as_bytes();
        let strings = [b"\0x", marker, b"\0", marker, b"x\0", marker].concat();
        let step = u32::try_from(marker.len() + 1).unwrap();
        let is_it = |at| is_it(&strings, at, marker);
        assert_eq!([is_it(2), is_it(1), is_it(3), is_it(u32::MAX)], [true, false, false, false]);
        assert!(!is_it(2 + step), "a longer name");
        assert!(!is_it(2 + 2 * step + 1), "one without end");
    }
}
