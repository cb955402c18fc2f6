//! Functions of CPython 3.10 as compilers made them, whole and damaged.

use proptest::prelude::*;

use super::*;
use crate::image::sample;

/// Where the samples have the runtime's state, which is not in the file, and the type of code with its table of fields.
const RUNTIME: u64 = 0x3a_8660;
const CODE_TYPE: u64 = 0x37_9b20;
const MEMBERS: u64 = 0x37_9860;
const NAMES: u64 = 0x2d_0000;
/// Where code finds the address of the runtime's state.
const RUNTIME_SLOT: u64 = 0x37_3d30;

/// The functions of `libpython3.10.so`, made by gcc.
const FUNCTIONS: [(&str, u64, &str); 8] = [
    ("PyFrame_GetBack", 0xe_1d50, "488b47184885c0740448830001c3"),
    ("PyFrame_GetCode", 0xe_1d40, "488b472048830001c3"),
    ("PyThreadState_GetFrame", 0x1f_63f0, "488b47184885c0740448830001c3"),
    ("PyThreadState_Next", 0x1f_6640, "488b4708c3"),
    ("PyInterpreterState_ThreadHead", 0x1f_65b0, "488b4708c3"),
    (
        "PyFrame_GetLineNumber",
        0xe_1360,
        "8b476485c07409c30f1f8400000000008b4760488b7f208d3400e9f124f8ff",
    ),
    (
        "PyThreadState_SetAsyncExc",
        0x1f_6410,
        "415541544989fc554889f5be01000000534883ec084c8b2d04d91700498b8538020000498b7d18488b5810e8\
         e0e1e6ff488b5b084885db74674c39a3b000000075ee4c8ba3a80000004885ed740548834500014889aba800\
         0000498b7d18e87daae6ff4d85e4740749832c24017421488b7b10e838d6e6ff4883c408b8010000005b5d41\
         5c415dc30f1f8400000000004c89e7e878cfe6ffebd5660f1f440000498b7d18e837aae6ff4883c40831c05b\
         5d415c415dc3",
    ),
    ("PyInterpreterState_Main", 0x1f_64e0, "488b0549d81700488b4028c3"),
];

const FIELDS: [(&str, u64, u64); 5] = [
    ("co_argcount", INT, 16),
    ("co_filename", OBJECT, 104),
    ("co_name", OBJECT, 112),
    ("co_firstlineno", INT, 40),
    ("co_linetable", OBJECT, 120),
];

/// A file with these functions and fields.
fn file(functions: &[(&str, u64, &str)], fields: &[(&str, u64, u64)]) -> Vec<u8> {
    let code: Vec<_> =
        functions.iter().map(|(name, at, hex)| (*name, *at, sample::hex(hex))).collect();
    let (mut table, mut names) = (Vec::new(), Vec::new());
    let mut slots =
        vec![(RUNTIME_SLOT, RUNTIME), (CODE_TYPE + 8, RUNTIME), (CODE_TYPE + 240, MEMBERS)];
    for (number, (name, kind, offset)) in fields.iter().enumerate() {
        slots.push((MEMBERS + number as u64 * MEMBER_BYTES, NAMES + names.len() as u64));
        names.extend_from_slice(name.as_bytes());
        names.push(0);
        for word in [0, *kind, *offset, 1, 0] {
            table.extend_from_slice(&word.to_le_bytes());
        }
    }
    let data = [
        ("PyCode_Type", CODE_TYPE, vec![0; 408]),
        ("PyUnicode_Type", 0x39_1c60, vec![0; 8]),
        ("PyBytes_Type", 0x37_8720, vec![0; 8]),
        ("", MEMBERS, table),
        ("", NAMES, names),
        ("", RUNTIME_SLOT, vec![0; 8]),
    ];
    let pieces: Vec<sample::Piece<'_>> =
        code.iter().chain(&data).map(|(name, at, bytes)| (*name, *at, &bytes[..])).collect();
    sample::elf_with_slots(&pieces, &slots)
}

fn resolved(
    functions: &[(&str, u64, &str)],
    fields: &[(&str, u64, u64)],
) -> Result<Interpreter, Refusal> {
    resolve(&Image::parse(file(functions, fields)).unwrap())
}

/// The same, with one function made in another way.
fn with(name: &str, hex: &str) -> Result<Interpreter, Refusal> {
    let other =
        |(known, at, code)| if known == name { (known, at, hex) } else { (known, at, code) };
    resolved(&FUNCTIONS.map(other), &FIELDS)
}

#[test]
fn all_fields_are_found() {
    let found = resolved(&FUNCTIONS, &FIELDS).unwrap();
    let expected = Interpreter {
        main: Svma(RUNTIME + 0x28),
        threads: 8,
        next: 8,
        ident: 0xb0,
        frame: 0x18,
        back: 0x18,
        code: 0x20,
        place: 0x60,
        of_code: Code { file_name: 104, name: 112, first_line: 40, line_table: 120 },
        types: Types { code: Svma(CODE_TYPE), text: Svma(0x39_1c60), bytes: Svma(0x37_8720) },
    };
    assert_eq!(found, expected);
    assert!(is_interpreter(&Image::parse(file(&FUNCTIONS, &FIELDS)).unwrap()));
}

#[test]
fn an_interpreter_that_is_linked_into_its_program_is_the_same() {
    // mov rax, [rip + …] at the state itself, and not at a slot.
    let direct = with("PyInterpreterState_Main", "488b05a1211b00c3").unwrap();
    assert_eq!(direct, resolved(&FUNCTIONS, &FIELDS).unwrap());
}

#[test]
fn what_lies_otherwise_is_refused() {
    let later = with("PyFrame_GetCode", "488b4720488b400048830001c3").unwrap_err();
    assert!(later.contains("only Python 3.10"), "{later}");
    let odd = with(
        "PyFrame_GetLineNumber",
        "8b476885c07409c30f1f8400000000008b4760488b7f208d3400e9f124f8ff",
    )
    .unwrap_err();
    assert!(odd.contains("one word"), "{odd}");
    let without = |name: &str| {
        let fields: Vec<_> = FIELDS.into_iter().filter(|field| field.0 != name).collect();
        resolved(&FUNCTIONS, &fields).unwrap_err()
    };
    assert!(without("co_linetable").contains("co_linetable"), "3.9 has another table");
    let functions = &FUNCTIONS[1..];
    assert!(resolved(functions, &FIELDS).unwrap_err().contains("PyFrame_GetBack"));
    let kinds = FIELDS.map(|(name, _, offset)| (name, INT, offset));
    assert!(resolved(&FUNCTIONS, &kinds).is_err());
}

proptest! {
    #[test]
    fn a_damaged_file_is_read_or_refused(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
    ) {
        let mut bytes = file(&FUNCTIONS, &FIELDS);
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(image) = Image::parse(bytes) {
            let _ = resolve(&image);
        }
    }
}
