//! Small ELF files for tests, made of saved pieces of real ones at their own addresses.

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
        let load = [(1, 4), (5, 4), (at, 8), (*address, 8), (*address, 8), (size, 8), (size, 8)];
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
    assemble(count, &[programs, body].concat(), &symbols, &names, slots)
}

/// Builds a file with nothing but functions, all at one address, whose names begin at places of `names`.
pub fn elf_of_functions(names: &[u8], at: impl Iterator<Item = u32>) -> Vec<u8> {
    let mut symbols = vec![0; 24];
    for name in at {
        put(&mut symbols, &[(name.into(), 4), (0x12, 1), (0, 1), (1, 2), (0x1000, 8), (1, 8)]);
    }
    assemble(0, &[], &symbols, names, &[])
}

/// Puts it together: what follows the header, which begins with so many program headers, and sections.
fn assemble(
    count: u64,
    body: &[u8],
    symbols: &[u8],
    names: &[u8],
    slots: &[(u64, u64)],
) -> Vec<u8> {
    let at = 64 + body.len() as u64;
    let (symbols_at, symbols_size) = (at, symbols.len() as u64);
    let (names_at, names_size) = (at + symbols_size, names.len() as u64);
    let (slots_at, slots_size) = (names_at + names_size, 24 * slots.len() as u64);
    let sections_at = slots_at + slots_size;
    let relocations: Vec<_> =
        slots.iter().flat_map(|(at, to)| [(*at, 8), (8, 8), (*to, 8)]).collect();
    let mut file = hex("7f454c4602010100 0000000000000000 0300 3e00 01000000");
    put(&mut file, &[(0, 8), (64, 8), (sections_at, 8), (0, 4), (64, 2), (56, 2)]);
    put(&mut file, &[(count, 2), (64, 2), (4, 2), (2, 2)]);
    for part in [body, symbols, names] {
        file.extend_from_slice(part);
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
