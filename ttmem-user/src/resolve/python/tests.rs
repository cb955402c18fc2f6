//! Functions of CPython 3.10 as compilers made them, whole and damaged.

use proptest::prelude::*;

use super::*;
use crate::image::sample;

/// Where the samples have the runtime's state, which is not in the file, and the type of code with its table of fields.
const RUNTIME: u64 = 0x3a_8660;
const CODE_TYPE: u64 = 0x37_9b20;
const MEMBERS: u64 = 0x37_9860;
const NAMES: u64 = 0x2d_0000;
/// Where code finds the address of the runtime's state, in each of the files.
const RUNTIME_SLOTS: [u64; 3] = [0x37_3d30, 0x54_3d00, 0x4e_acb0];

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

/// Those of `libpython3.12.so` and `libpython3.13.so`.
const FUNCTIONS_3_12: [(&str, u64, &str); 6] = [
    (
        "PyThreadState_GetFrame",
        0x2d_7380,
        "488b4738488b384885ff743d807f46017418488b07486390b0000000488d8450c0000000483947387216488b\
             47304885c0741d8b1083c20174028910c30f1f00488b7f084885ff75c331c0c30f1f40004883ec08e8b7f0fc\
             ff4885c074128b1083c201740289104883c408c30f1f4000e8bb33e3ff31c0ebee",
    ),
    (
        "PyFrame_GetLasti",
        0x19_65c0,
        "488b4718488b08488b4038488d91c00000004829d04889c248d1fa85d248c7c2ffffffff480f48c2c3",
    ),
    (
        "PyThreadState_SetAsyncExc",
        0x2d_7410,
        "415541544989fc554889f5534883ec0866488d3dc8ca2600666648e8b011e3ff4c8b2dc9c82600be01000000\
             498b7d20488b00488b5810e89444e3ff488b5b484885db74124c39a3880000007422488b5b084885db75ee49\
             8b7d20e8f00ae3ff4883c40831c05b5d415c415dc30f1f004c8ba3800000004885ed740b8b450083c0017403\
             8945004889ab80000000498b7d20e8b90ae3ff4d85e47412498b042485c0780a4883e801498904247422488b\
             7b10e85938e3ff4883c408b8010000005b5d415c415dc3660f1f8400000000004c89e7e85831e3ffebd4",
    ),
    ("PyThreadState_Next", 0x2d_78b0, "488b4708c3"),
    ("PyInterpreterState_ThreadHead", 0x2d_7830, "488b4748c3"),
    ("PyInterpreterState_Main", 0x2d_7760, "488b0599c52600488b4030c3"),
];
const FUNCTIONS_3_13: [(&str, u64, &str); 6] = [
    (
        "PyThreadState_GetFrame",
        0x29_2e80,
        "488b7f484885ff74400fb647463c03742f3c017418488b07486390b8000000488d8450c80000004839473872\
             13488b47304885c0741a8b1083c20174028910c3488b7f084885ff75c031c0c30f1f40004883ec08e8178afc\
             ff4885c074128b1083c201740289104883c408c30f1f4000e85b74dfff31c0ebee",
    ),
    (
        "PyFrame_GetLasti",
        0x11_7060,
        "488b4718488b08488b4038488d91c80000004829d04889c248d1fa85d248c7c2ffffffff480f48c2c3",
    ),
    (
        "PyThreadState_SetAsyncExc",
        0x29_3270,
        "41554989fd4154554889f5534883ec0866488d3d387c2500666648e8a050dfff4c8b25197a2500ba01000000\
             488b00488b581031c0f0410fb09424700200000f85b5000000488b9bb01c00004885db74124c39ab98000000\
             7436488b5b084885db75eeb80100000031d2f0410fb09424700200000f85a100000031c04883c4085b5d415c\
             415dc3660f1f8400000000004885ed740b8b450083c00174038945004887ab90000000b80100000031d2f041\
             0fb094247002000075524885ed7412488b450085c0780a4883e80148894500741ff048834b1808b801000000\
             4883c4085b5d415c415dc3660f1f8400000000004889efe8786edfffebd7498dbc2470020000e8f9d4ffffe9\
             39ffffff498dbc2470020000e8475adfffeb9f498dbc2470020000e8385adfff31c0e94dffffff",
    ),
    ("PyThreadState_Next", 0x29_3c60, "488b4708c3"),
    ("PyInterpreterState_ThreadHead", 0x29_3c50, "488b87b01c0000c3"),
    ("PyInterpreterState_Main", 0x29_3b00, "488b05a9712500488b8080020000c3"),
];

/// Of those of 3.12 some as clang makes them, in `libpython3.12.so` of python-build-standalone.
const BY_CLANG: [(&str, &str); 2] = [
    (
        "PyThreadState_GetFrame",
        "50488b4738488b384885ff745131c090807f46017426488b0f486391b0000000488d0c514881c1c0000000483\
         94f38730b488b7f084885ff75d659c3488b47304885c0750ae80614fdff4885c0740a8b08ffc174e5890859c3\
         e8b287e5ff31c059c3",
    ),
    (
        "PyFrame_GetLasti",
        "488b4718488b4838482b084881c140ffffff89ca83e2fe480fbae120b8ffffffff0f43c2c3",
    ),
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
    file_of(None, functions, fields)
}

/// The same, of a version that says so.
fn file_of(
    version: Option<u32>,
    functions: &[(&str, u64, &str)],
    fields: &[(&str, u64, u64)],
) -> Vec<u8> {
    let code: Vec<_> =
        functions.iter().map(|(name, at, hex)| (*name, *at, sample::hex(hex))).collect();
    let (mut table, mut names) = (Vec::new(), Vec::new());
    let mut slots = vec![(CODE_TYPE + 8, RUNTIME), (CODE_TYPE + 240, MEMBERS)];
    slots.extend(RUNTIME_SLOTS.map(|slot| (slot, RUNTIME)));
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
        ("_Py_NoneStruct", 0x38_0000, vec![0; 8]),
        ("", MEMBERS, table),
        ("", NAMES, names),
    ];
    let slot_data = RUNTIME_SLOTS.map(|slot| ("", slot, vec![0; 8]));
    let version =
        version.map(|version| ("Py_Version", 0x38_1000, u64::from(version).to_le_bytes().to_vec()));
    let pieces: Vec<sample::Piece<'_>> = code
        .iter()
        .chain(&data)
        .chain(&slot_data)
        .chain(&version)
        .map(|(name, at, bytes)| (*name, *at, &bytes[..]))
        .collect();
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
        frame_in: None,
        back: 0x18,
        code: 0x20,
        place: 0x60,
        frames: Frames::Objects,
        of_code: Code { file_name: 104, name: 112, first_line: 40, line_table: 120 },
        types: Types {
            code: Svma(CODE_TYPE),
            text: Svma(0x39_1c60),
            bytes: Svma(0x37_8720),
            none: Svma(0x38_0000),
        },
    };
    assert_eq!(found, expected);
}

#[test]
fn an_interpreter_that_is_linked_into_its_program_is_the_same() {
    // mov rax, [rip + …] at the state itself, and not at a slot.
    let direct = with("PyInterpreterState_Main", "488b05a1211b00c3").unwrap();
    assert_eq!(direct, resolved(&FUNCTIONS, &FIELDS).unwrap());
}

#[test]
fn later_frames_are_structs() {
    const FIELDS: [(&str, u64, u64); 5] = [
        ("co_name", OBJECT, 120),
        ("co_qualname", OBJECT, 128),
        ("co_filename", OBJECT, 112),
        ("co_firstlineno", INT, 68),
        ("co_linetable", OBJECT, 136),
    ];
    let of = |version, functions: &[(&str, u64, &str)]| {
        resolve(&Image::parse(file_of(Some(version), functions, &FIELDS)).unwrap())
    };
    let expected = Interpreter {
        main: Svma(RUNTIME + 0x30),
        threads: 0x48,
        ident: 0x88,
        frame: 0x38,
        frame_in: Some(0),
        back: 8,
        code: 0,
        place: 0x38,
        frames: Frames::Structs(0xc0),
        of_code: Code { file_name: 112, name: 128, first_line: 68, line_table: 136 },
        ..resolved(&FUNCTIONS, &super::tests::FIELDS).unwrap()
    };
    assert_eq!(of(0x030c_01f0, &FUNCTIONS_3_12).unwrap(), expected);
    let by_clang = FUNCTIONS_3_12.map(|(name, at, hex)| {
        let other = BY_CLANG.iter().find(|(other, _)| *other == name);
        (name, at, other.map_or(hex, |(_, hex)| *hex))
    });
    assert_eq!(of(0x030c_0af0, &by_clang).unwrap(), expected);
    // The same, but that instructions would begin at 0x40.
    let hex = BY_CLANG[1].1.replace("4881c140ffffff", "4881c1c0ffffff");
    let amid = by_clang
        .map(|(name, at, code)| (name, at, if name == "PyFrame_GetLasti" { &*hex } else { code }));
    let refusal = of(0x030c_0af0, &amid).unwrap_err();
    assert!(refusal.contains("at 0x40"), "{refusal}");
    let expected = Interpreter {
        main: Svma(RUNTIME + 0x280),
        threads: 0x1cb0,
        ident: 0x98,
        frame: 0x48,
        frame_in: None,
        frames: Frames::Structs(0xc8),
        ..expected
    };
    assert_eq!(of(0x030d_00f0, &FUNCTIONS_3_13).unwrap(), expected);
    for (version, name) in [(0x030b_07f0, "3.11"), (0x030e_00f0, "3.14"), (0x0400_00f0, "4.0")] {
        let refusal = of(version, &FUNCTIONS_3_13).unwrap_err();
        assert!(refusal.contains(name) && refusal.contains("understood are"), "{refusal}");
    }
}

/// 3.9 has another table of lines, and 3.8 not all of the functions.
#[test]
fn what_is_older_is_called_so() {
    let fields: Vec<_> = FIELDS.into_iter().filter(|field| field.0 != "co_linetable").collect();
    for functions in [&FUNCTIONS[..], &FUNCTIONS[3..]] {
        let refusal = resolved(functions, &fields).unwrap_err();
        assert!(refusal.starts_with("it is older than Python 3.10"), "{refusal}");
        assert!(refusal.contains("understood are"), "{refusal}");
    }
}

#[test]
fn what_lies_otherwise_is_refused() {
    let later = with("PyFrame_GetCode", "488b4720488b400048830001c3").unwrap_err();
    assert!(later.contains("PyFrame_GetCode returns"), "{later}");
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
    assert!(without("co_filename").contains("co_filename"));
    let functions = &FUNCTIONS[1..];
    assert!(resolved(functions, &FIELDS).unwrap_err().contains("PyFrame_GetBack"));
    let kinds = FIELDS.map(|(name, _, offset)| (name, INT, offset));
    assert!(resolved(&FUNCTIONS, &kinds).is_err());
}

proptest! {
    #[test]
    fn a_damaged_file_is_read_or_refused(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        is_later: bool,
    ) {
        let mut bytes = if is_later {
            file_of(Some(0x030c_01f0), &FUNCTIONS_3_12, &FIELDS)
        } else {
            file(&FUNCTIONS, &FIELDS)
        };
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(image) = Image::parse(bytes) {
            let _ = resolve(&image);
        }
    }
}
