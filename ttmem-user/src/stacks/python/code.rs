//! Reads code objects, and the texts that they refer to.
//!
//! Layouts that every extension module is compiled with: `Include/cpython/unicodeobject.h` and
//! `Include/cpython/bytesobject.h` of CPython 3.10, 3.12 and 3.13. Each object has to have the type that it should.
//!
//! Invariant: whatever the memory holds, no more is read than the constants below allow.

use std::sync::Arc;

use super::lines::{Lines, Table};
use crate::{
    target::{
        interpreter::{CodeFields, Frames, Types},
        memory::{TargetMemory, Unreadable},
    },
    units::Avma,
};

/// The function that a code object is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    /// Its file, as Python names it.
    pub file_name: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// The lines of its instructions.
    pub lines: Lines,
}

/// Why there is no code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCode {
    /// The memory is not there.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// What is there is something else.
    #[error("{0} is no object of the expected kind")]
    Other(Avma),
}

/// The file of code that the interpreter makes.
const FILLER: &str = "<shim>";
/// Where an object's type is.
const TYPE: u64 = 8;
/// Where the length of a text or of bytes is.
const LENGTH: u64 = 16;
/// Where bytes begin.
const BYTES: u64 = 32;
/// Where a text's kind is.
const STATE: u64 = 32;
/// Where its characters begin if it has only those of ASCII, and if it has others; before 3.12 there was
/// a pointer in front.
const CHARACTERS: [u64; 2] = [40, 56];
const OLD_CHARACTERS: [u64; 2] = [48, 72];
/// Bits of the kind: the characters are in the object itself; they are all of ASCII.
const IS_COMPACT: u32 = 1 << 5;
const IS_ASCII: u32 = 1 << 6;

/// Characters of a text: of a path there can be no more.
const LONGEST_TEXT: u64 = 4096;
/// Bytes of a table of lines.
const LONGEST_TABLE: u64 = 1 << 18;

impl Code {
    /// Reads the code object at an address.
    pub fn read(
        memory: &dyn TargetMemory,
        at: Avma,
        fields: &CodeFields,
        types: &Types,
        frames: Frames,
    ) -> Result<Self, NoCode> {
        check(memory, at, types.code)?;
        let field = |offset: u32| at.plus(offset.into());
        let (lines, characters) = match frames {
            Frames::Objects => (Table::Pairs, OLD_CHARACTERS),
            Frames::Structs(_) => (Table::Entries, CHARACTERS),
        };
        let text = |offset| text(memory, memory.pointer(field(offset))?, types.text, characters);
        let first_line = memory.half(field(fields.first_line))?;
        let table = memory.pointer(field(fields.line_table))?;
        Ok(Self {
            file_name: text(fields.file_name)?,
            name: text(fields.name)?,
            lines: Lines::new(lines, first_line, bytes(memory, table, types.bytes)?),
        })
    }

    /// Whether it is what a call of the evaluation loop ends with, in 3.12.
    pub fn is_trampoline(&self) -> bool {
        &*self.file_name == FILLER && &*self.name == "<interpreter trampoline>"
    }

    /// Whether the interpreter has made it for its own purposes: it stands between functions.
    pub fn is_filler(&self) -> bool {
        const INIT: &str = "__init__";
        &*self.file_name == FILLER || (&*self.file_name == INIT && &*self.name == INIT)
    }

    /// Bytes of memory that it takes, about.
    pub fn size(&self) -> usize {
        2 * size_of::<Self>() + self.file_name.len() + self.name.len() + self.lines.size()
    }
}

/// Makes sure that an object is of a type.
fn check(memory: &dyn TargetMemory, object: Avma, expected: Avma) -> Result<(), NoCode> {
    if memory.pointer(object.plus(TYPE))? == expected { Ok(()) } else { Err(NoCode::Other(object)) }
}

fn length(memory: &dyn TargetMemory, object: Avma, most: u64) -> Result<usize, NoCode> {
    let length = memory.word(object.plus(LENGTH))?;
    usize::try_from(length).ok().filter(|_| length <= most).ok_or(NoCode::Other(object))
}

fn bytes(memory: &dyn TargetMemory, object: Avma, expected: Avma) -> Result<Box<[u8]>, NoCode> {
    check(memory, object, expected)?;
    let mut bytes = vec![0; length(memory, object, LONGEST_TABLE)?];
    memory.read(object.plus(BYTES), &mut bytes)?;
    Ok(bytes.into())
}

fn text(
    memory: &dyn TargetMemory,
    object: Avma,
    expected: Avma,
    [ascii, others]: [u64; 2],
) -> Result<Arc<str>, NoCode> {
    check(memory, object, expected)?;
    let length = length(memory, object, LONGEST_TEXT)?;
    let state = memory.half(object.plus(STATE))?;
    if state & IS_COMPACT == 0 {
        return Err(NoCode::Other(object));
    }
    let width = match state >> 2 & 7 {
        kind @ (1 | 2 | 4) => kind as usize,
        _ => return Err(NoCode::Other(object)),
    };
    let begin = if state & IS_ASCII == 0 { others } else { ascii };
    let mut bytes = vec![0; length * width];
    memory.read(object.plus(begin), &mut bytes)?;
    let characters = bytes.chunks_exact(width).map(|bytes| {
        let mut number = [0; 4];
        number[..width].copy_from_slice(bytes);
        // A lone surrogate stands for a byte of a file name that is no text.
        let character = char::from_u32(u32::from_le_bytes(number));
        let character = character.unwrap_or(char::REPLACEMENT_CHARACTER);
        // It is shown on terminals.
        if character.is_control() { ' ' } else { character }
    });
    Ok(characters.collect::<String>().into())
}

#[cfg(test)]
pub mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::target::memory::SavedMemory;

    /// As in Python 3.10.
    pub const FIELDS: CodeFields =
        CodeFields { file_name: 104, name: 112, first_line: 40, line_table: 120 };
    pub const TYPES: Types =
        Types { code: Avma(0x10), text: Avma(0x20), bytes: Avma(0x30), none: Avma(0x40) };

    /// A text of characters of so many bytes.
    fn text_object(text: &str, width: usize, frames: Frames) -> Vec<u8> {
        let is_ascii = text.is_ascii() && width == 1;
        let state =
            (width as u64) << 2 | u64::from(IS_COMPACT | if is_ascii { IS_ASCII } else { 0 });
        let head = [1, TYPES.text.0, text.chars().count() as u64, 7, state, 0, 0, 0, 0];
        let head = match (frames, is_ascii) {
            (Frames::Objects, true) => &head[..6],
            (Frames::Objects, false) => &head,
            (Frames::Structs(_), true) => &head[..5],
            (Frames::Structs(_), false) => &head[..7],
        };
        let mut bytes: Vec<u8> = head.iter().flat_map(|word| word.to_le_bytes()).collect();
        for character in text.chars() {
            bytes.extend_from_slice(&u32::from(character).to_le_bytes()[..width]);
        }
        bytes
    }

    fn bytes_object(bytes: &[u8]) -> Vec<u8> {
        let head = [1, TYPES.bytes.0, bytes.len() as u64, 7].map(u64::to_le_bytes);
        [head.as_flattened(), bytes].concat()
    }

    /// Puts a code object into a memory.
    pub fn put(
        memory: &mut SavedMemory,
        at: u64,
        frames: Frames,
        (file_name, name, first_line): (&str, &str, u32),
    ) {
        let width = |text: &str| match text.chars().max() {
            Some('\u{100}'..='\u{ffff}') => 2,
            Some('\u{10000}'..) => 4,
            _ => 1,
        };
        // The first 4 bytes of code are one line on, the next 6 two more; or the first 8 are of the first
        // line, the next 2 of the one behind.
        let table: &[u8] = match frames {
            Frames::Objects => &[4, 1, 6, 2],
            Frames::Structs(_) => &[0xeb, 0, 0xd8, 0, 0],
        };
        let mut code = vec![0; 128];
        let mut set = |offset: u32, word: u64| {
            code[offset as usize..][..8].copy_from_slice(&word.to_le_bytes());
        };
        set(8, TYPES.code.0);
        set(FIELDS.first_line, first_line.into());
        for (offset, object, field) in [
            (0x1000, text_object(file_name, width(file_name), frames), FIELDS.file_name),
            (0x4000, text_object(name, width(name), frames), FIELDS.name),
            (0x8000, bytes_object(table), FIELDS.line_table),
        ] {
            set(field, at + offset);
            memory.add(Avma(at + offset), object);
        }
        memory.add(Avma(at), code);
    }

    fn read(memory: &SavedMemory, at: u64) -> Result<Code, NoCode> {
        Code::read(memory, Avma(at), &FIELDS, &TYPES, Frames::Objects)
    }

    #[test]
    fn code_says_its_file_name_and_lines() {
        for (file_name, name) in
            [("/a/model.py", "forward"), ("/ä/m.py", "größe"), ("/a", "Ω"), ("/😀.py", "<lambda>")]
        {
            let mut memory = SavedMemory::default();
            put(&mut memory, 0x1_0000, Frames::Objects, (file_name, name, 40));
            let code = read(&memory, 0x1_0000).unwrap();
            assert_eq!((&*code.file_name, &*code.name), (file_name, name));
            assert_eq!(
                [0, 3, 4, 9, 10].map(|offset| code.lines.at(offset)),
                [Some(41), Some(41), Some(43), Some(43), None]
            );
        }
    }

    #[test]
    fn a_name_controls_no_terminal() {
        let mut memory = SavedMemory::default();
        put(&mut memory, 0x1_0000, Frames::Objects, ("/a\nb", "\u{1b}[2J", 1));
        let code = read(&memory, 0x1_0000).unwrap();
        assert_eq!((&*code.file_name, &*code.name), ("/a b", " [2J"));
    }

    #[test]
    fn what_is_something_else_is_refused() {
        let mut memory = SavedMemory::default();
        put(&mut memory, 0x1_0000, Frames::Objects, ("/a", "f", 1));
        assert!(matches!(read(&memory, 0x1_1000), Err(NoCode::Other(_))), "a text");
        assert!(matches!(read(&memory, 0x9_0000), Err(NoCode::Unreadable(_))));
        let long = "x".repeat(4097);
        put(&mut memory, 0x2_0000, Frames::Objects, ("/a", &long, 1));
        assert_eq!(read(&memory, 0x2_0000), Err(NoCode::Other(Avma(0x2_4000))));
        let mut odd = text_object("f", 1, Frames::Objects);
        odd[32] &= !0x20;
        let mut memory = SavedMemory::default();
        memory.add(Avma(0x10), odd);
        assert_eq!(
            text(&memory, Avma(0x10), TYPES.text, CHARACTERS),
            Err(NoCode::Other(Avma(0x10)))
        );
    }

    proptest! {
        #[test]
        fn any_memory_is_read_or_refused(
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        ) {
            let mut memory = SavedMemory::default();
            let mut object = text_object("name", 1, Frames::Objects);
            for (at, byte) in damage {
                let at = at.index(object.len());
                object[at] = byte;
            }
            memory.add(Avma(0x1000), object);
            let _ = text(&memory, Avma(0x1000), TYPES.text, OLD_CHARACTERS);
            let _ = bytes(&memory, Avma(0x1000), TYPES.text);
        }
    }
}
