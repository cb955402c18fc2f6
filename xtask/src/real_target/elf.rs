//! One tiny RISC-V program as an ELF file, for the stand-in compiler to hand out.
//!
//! It has what tt-metal's kernel loader asks of a program: a text segment at the entry address
//! with a relocation section, a data segment in the core's local memory, and the symbols that
//! mark the end of the exported text.

const TEXT: u32 = 0x5000;
/// The core's local memory.
const DATA: u32 = 0xffb0_0000;
/// `ret`
const RETURN: u32 = 0x0000_8067;
/// A relocation that asks for nothing (`R_RISCV_RELAX`).
const RELAX: u32 = 51;

const HEADER: usize = 52;
const PROGRAM_HEADER: usize = 32;
const SECTION_HEADER: u16 = 40;

/// A section with the fields of its header that differ from zero.
#[derive(Default)]
struct Section {
    name: &'static str,
    kind: u32,
    flags: u32,
    address: u32,
    body: Vec<u8>,
    link: u32,
    info: u32,
    entry: u32,
    offset: u32,
}

/// The whole file.
pub fn tiny_program() -> Vec<u8> {
    let mut sections = sections();
    let mut names = vec![0];
    let name_offsets: Vec<u32> = sections.iter().map(|s| append(&mut names, s.name)).collect();
    if let Some(last) = sections.last_mut() {
        last.body = names;
    }
    let mut file = vec![0; HEADER + 2 * PROGRAM_HEADER];
    for section in &mut sections {
        pad(&mut file);
        section.offset = size(&file);
        file.extend_from_slice(&section.body);
    }
    pad(&mut file);
    let table = size(&file);
    words(&mut file, &[0; 10]);
    for (section, name) in sections.iter().zip(&name_offsets) {
        let Section { kind, flags, address, offset, link, info, entry, .. } = *section;
        let length = size(&section.body);
        words(&mut file, &[*name, kind, flags, address, offset, length, link, info, 4, entry]);
    }
    let head = head(table, &sections);
    file[..head.len()].copy_from_slice(&head);
    file
}

/// All but the empty first section, in the order of their numbers from 1; the names come last.
fn sections() -> Vec<Section> {
    let text = RETURN.to_le_bytes().repeat(4);
    let end = TEXT + size(&text);
    let mut strings = vec![0];
    let mut symbols = vec![0; 16];
    // Value, binding and type: `_start` is a function, the others are plain marks.
    for (name, value, length, kind) in [
        ("_start", TEXT, end - TEXT, 0x12_u8),
        ("__fw_export_end_text", end, 0, 0x10),
        ("__fw_export_text_end", end, 0, 0x10),
        ("__kernel_data_lma", end, 0, 0x10),
    ] {
        let name = append(&mut strings, name);
        words(&mut symbols, &[name, value, length]);
        symbols.extend_from_slice(&[kind, 0, 1, 0]);
    }
    let mut relocation = Vec::new();
    words(&mut relocation, &[TEXT, RELAX, 0]);
    let data = vec![0; 16];
    vec![
        Section {
            name: ".text",
            kind: 1,
            flags: 6,
            address: TEXT,
            body: text,
            ..Section::default()
        },
        Section {
            name: ".data",
            kind: 1,
            flags: 3,
            address: DATA,
            body: data,
            ..Section::default()
        },
        Section {
            name: ".symtab",
            kind: 2,
            body: symbols,
            link: 4,
            info: 1,
            entry: 16,
            ..Section::default()
        },
        Section { name: ".strtab", kind: 3, body: strings, ..Section::default() },
        Section {
            name: ".rela.text",
            kind: 4,
            flags: 0x40,
            body: relocation,
            link: 3,
            info: 1,
            entry: 12,
            ..Section::default()
        },
        Section { name: ".shstrtab", kind: 3, ..Section::default() },
    ]
}

/// The file's header and the two segments.
fn head(section_table: u32, sections: &[Section]) -> Vec<u8> {
    let mut head = b"\x7fELF\x01\x01\x01".to_vec();
    head.resize(16, 0);
    halves(&mut head, &[2, 243]);
    words(&mut head, &[1, TEXT, 52, section_table, 0]);
    let count = u16::try_from(sections.len()).unwrap_or(0);
    halves(&mut head, &[52, 32, 2, SECTION_HEADER, count + 1, count]);
    let (text, data) = (&sections[0], &sections[1]);
    let length = size(&text.body);
    words(&mut head, &[1, text.offset, TEXT, TEXT, length, length, 5, 4]);
    // The data is loaded behind the text and copied to its place by the start code.
    let behind = TEXT + length;
    let length = size(&data.body);
    words(&mut head, &[1, data.offset, DATA, behind, length, length, 6, 4]);
    head
}

fn append(table: &mut Vec<u8>, name: &str) -> u32 {
    let offset = size(table);
    table.extend_from_slice(name.as_bytes());
    table.push(0);
    offset
}

fn pad(file: &mut Vec<u8>) {
    file.resize(file.len().next_multiple_of(16), 0);
}

fn size(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

fn words(out: &mut Vec<u8>, values: &[u32]) {
    out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

fn halves(out: &mut Vec<u8>, values: &[u16]) {
    out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(file: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(file[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn is_a_riscv_program() {
        let file = tiny_program();
        assert_eq!(&file[..7], b"\x7fELF\x01\x01\x01");
        assert_eq!(&file[16..20], &[2, 0, 243, 0]);
        assert_eq!(word(&file, 24), TEXT);
    }

    #[test]
    fn segments_lie_in_the_file() {
        let file = tiny_program();
        for header in [HEADER, HEADER + PROGRAM_HEADER] {
            let (offset, length) = (word(&file, header + 4), word(&file, header + 16));
            assert!((offset + length) as usize <= file.len());
            assert_eq!(length, 16);
        }
        assert_eq!(word(&file, word(&file, HEADER + 4) as usize), RETURN);
    }

    #[test]
    fn section_table_ends_the_file() {
        let file = tiny_program();
        let table = word(&file, 32) as usize;
        assert_eq!(table + 7 * usize::from(SECTION_HEADER), file.len());
        let names = table + 6 * usize::from(SECTION_HEADER);
        let offset = word(&file, names + 16) as usize;
        assert_eq!(&file[offset..offset + 7], b"\0.text\0");
    }
}
