//! The functions of Python programs: the eBPF side records which code a thread executes, and where in
//! it; here that becomes names, files and lines.
//!
//! Code is read when it is first seen, and again every second while it is: by then other code may be in
//! its place.

mod code;
mod interleave;
mod lines;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use ttmem_common::python::PythonFrame;

use crate::{
    ledger::call::{Frame, Place},
    target::{
        interpreter::{CodeFields, Frames, Types},
        memory::TargetMemory,
    },
    units::Avma,
};
use code::{Code, NoCode};
pub use interleave::{interleave, is_loop};

/// Code is read again this often while it is seen.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// Code objects that are remembered, and bytes of them.
const MOST_CODES: usize = 1 << 14;
const MOST_BYTES: usize = 16 << 20;
/// Bytes of an instruction.
const INSTRUCTION: i64 = 2;

/// A function whose code is not known.
const UNKNOWN: Frame = Frame { function: None, module: None, place: Place::Python(None) };

/// Names the Python functions of one target.
pub struct Python {
    memory: Box<dyn TargetMemory + Send>,
    frames: Frames,
    fields: CodeFields,
    types: Types,
    codes: HashMap<u64, Known, foldhash::fast::RandomState>,
    /// Bytes of them.
    size: usize,
}

/// A code object.
struct Known {
    /// `None`: it is none, or could not be read.
    code: Option<Code>,
    read: Instant,
}

impl Python {
    /// Of an interpreter whose code objects have these fields and types.
    pub fn new(
        memory: Box<dyn TargetMemory + Send>,
        frames: Frames,
        fields: CodeFields,
        types: Types,
    ) -> Self {
        Self { memory, frames, fields, types, codes: HashMap::default(), size: 0 }
    }

    /// Bytes of memory that it takes, about.
    pub const fn size(&self) -> usize {
        self.size
    }

    /// Forgets what it can find out again.
    pub fn forget(&mut self) {
        self.codes = HashMap::default();
        self.size = 0;
    }

    /// Reads the code of functions, unless it has been read within the last second. `true`: other code
    /// is there than before, and what was derived from that is void.
    pub fn look(&mut self, functions: &[PythonFrame], now: Instant) -> bool {
        let mut has_changed = false;
        for function in functions {
            let at = function.code;
            let before = self.codes.get(&at);
            if before.is_some_and(|known| now.duration_since(known.read) < READ_AGAIN) {
                continue;
            }
            let code =
                match Code::read(&*self.memory, Avma(at), &self.fields, &self.types, self.frames) {
                    Ok(code) => Some(code),
                    // With the process its memory is gone. The code was what it was.
                    Err(NoCode::Unreadable(_)) => before.and_then(|known| known.code.clone()),
                    Err(NoCode::Other(_)) => None,
                };
            let size = code.as_ref().map_or(size_of::<Known>(), Code::size);
            if self.codes.len() >= MOST_CODES || self.size + size > MOST_BYTES {
                self.forget();
                has_changed = true;
            }
            let size_before = self.codes.remove(&at).map(|known| {
                has_changed |= known.code != code;
                known.code.as_ref().map_or(size_of::<Known>(), Code::size)
            });
            self.size = self.size + size - size_before.unwrap_or(0);
            self.codes.insert(at, Known { code, read: now });
        }
        has_changed
    }

    /// The functions that have been looked at, those of each call of the evaluation loop together, all with
    /// the innermost first; and whether the code of each is known. Others have no name.
    pub fn calls(&self, functions: &[PythonFrame]) -> (Vec<Vec<Arc<Frame>>>, bool) {
        let mut calls = Vec::new();
        let mut call = Vec::new();
        let mut are_known = true;
        for function in functions {
            let code = self.codes.get(&function.code).and_then(|known| known.code.as_ref());
            let is_end = match self.frames {
                Frames::Objects => true,
                Frames::Structs(_) => self.is_end(function.code, code),
            };
            match (&self.frames, code) {
                (Frames::Structs(_), _) if is_end => {}
                (Frames::Structs(_), Some(code)) if code.is_filler() => {}
                (_, Some(code)) => call.push(Arc::new(self.frame(code, function))),
                (_, None) => {
                    are_known = false;
                    call.push(Arc::new(UNKNOWN));
                }
            }
            if is_end {
                calls.push(std::mem::take(&mut call));
            }
        }
        if !call.is_empty() {
            calls.push(call);
        }
        (calls, are_known)
    }

    /// Whether a frame is that in which a call of the evaluation loop ends: it executes nothing, or what
    /// is no function's.
    fn is_end(&self, at: u64, code: Option<&Code>) -> bool {
        Avma(at) == self.types.none || code.is_some_and(Code::is_trampoline)
    }

    fn frame(&self, code: &Code, function: &PythonFrame) -> Frame {
        let line = match self.frames {
            Frames::Objects => {
                let [i0, i1, i2, i3, l0, l1, l2, l3] = function.place.to_le_bytes();
                let instruction = i32::from_le_bytes([i0, i1, i2, i3]);
                let traced = i32::from_le_bytes([l0, l1, l2, l3]);
                match u32::try_from(traced) {
                    Ok(line @ 1..) => Some(line),
                    _ => code.lines.at(i64::from(instruction) * INSTRUCTION),
                }
            }
            Frames::Structs(start) => {
                let begin = function.code.wrapping_add(u64::from(start));
                code.lines.at(function.place.wrapping_sub(begin).cast_signed())
            }
        };
        Frame {
            function: Some(Arc::clone(&code.name)),
            module: Some(Arc::clone(&code.file_name)),
            place: Place::Python(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::{
        code::tests::{FIELDS, TYPES, put},
        *,
    };
    use crate::target::memory::{SavedMemory, Unreadable};

    /// A memory that changes under whoever reads it.
    #[derive(Clone, Default)]
    struct Changing(Arc<Mutex<SavedMemory>>);

    impl Changing {
        fn change(&self, change: impl FnOnce(&mut SavedMemory)) {
            change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    impl TargetMemory for Changing {
        fn read(&self, from: Avma, to: &mut [u8]) -> Result<(), Unreadable> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).read(from, to)
        }
    }

    const AT: u64 = 0x1_0000;

    fn function(instruction: i32, line: i32) -> PythonFrame {
        let place = u64::from(instruction.cast_unsigned()) | u64::from(line.cast_unsigned()) << 32;
        PythonFrame { code: AT, place }
    }

    fn python(memory: &Changing, frames: Frames) -> Python {
        Python::new(Box::new(memory.clone()), frames, FIELDS, TYPES)
    }

    /// The one frame of a function.
    fn frame(python: &Python, function: PythonFrame) -> Option<Frame> {
        let (calls, is_known) = python.calls(&[function]);
        let [call] = &*calls else { panic!("{calls:?}") };
        let [frame] = &**call else { panic!("{call:?}") };
        is_known.then(|| Frame::clone(frame))
    }

    #[test]
    fn a_function_has_its_name_file_and_line() {
        let memory = Changing::default();
        memory.change(|memory| put(memory, AT, Frames::Objects, ("/a/model.py", "forward", 40)));
        let mut python = python(&memory, Frames::Objects);
        assert_eq!(frame(&python, function(0, 0)), None, "nobody has looked");
        assert!(!python.look(&[function(0, 0)], Instant::now()));
        let found = frame(&python, function(2, 0)).unwrap();
        assert_eq!(found.function.as_deref(), Some("forward"));
        assert_eq!(found.module.as_deref(), Some("/a/model.py"));
        let line =
            |instruction, traced| frame(&python, function(instruction, traced)).unwrap().place;
        let lines = [line(-1, 0), line(1, 0), line(2, 0), line(2, 77), line(5, 0)];
        assert_eq!(lines, [Some(40), Some(41), Some(43), Some(77), None].map(Place::Python));
    }

    /// In 3.12 and 3.13: where instructions begin in code.
    const START: u32 = 0xc0;

    fn later(code: u64, offset: u64) -> PythonFrame {
        PythonFrame { code, place: code + u64::from(START) + offset }
    }

    #[test]
    fn functions_of_one_call_of_the_loop_are_together() {
        const INNER: u64 = 0x1_0000;
        const OUTER: u64 = 0x2_0000;
        const FILLER: u64 = 0x3_0000;
        const END: u64 = 0x4_0000;
        let memory = Changing::default();
        memory.change(|memory| {
            for (at, file_name, name) in [
                (INNER, "/a/m.py", "inner"),
                (OUTER, "/a/m.py", "outer"),
                (FILLER, "__init__", "__init__"),
                (END, "<shim>", "<interpreter trampoline>"),
            ] {
                put(memory, at, Frames::Structs(START), (file_name, name, 1));
            }
        });
        let mut python = python(&memory, Frames::Structs(START));
        let none = TYPES.none.0;
        let names = |python: &mut Python, codes: &[u64]| {
            let functions: Vec<_> = codes.iter().map(|code| later(*code, 0)).collect();
            python.look(&functions, Instant::now());
            let (calls, are_known) = python.calls(&functions);
            let name = |frame: &Arc<Frame>| frame.function.as_deref().unwrap_or("?").to_owned();
            let names: Vec<Vec<String>> =
                calls.iter().map(|call| call.iter().map(name).collect()).collect();
            (names, are_known)
        };
        let mut are = |codes: &[u64], expected: &[&[&str]], are_known: bool| {
            let (names, known) = names(&mut python, codes);
            assert_eq!(names, expected);
            assert_eq!(known, are_known, "{names:?}");
        };
        let several = [INNER, FILLER, OUTER, END, OUTER, none];
        are(&several, &[&["inner", "outer"], &["outer"]], true);
        // There are more than were recorded.
        are(&[INNER, none, OUTER], &[&["inner"], &["outer"]], true);
        // One is gone.
        are(&[INNER, 0x9_0000, OUTER, none], &[&["inner", "?", "outer"]], false);
        are(&[none, none], &[&[], &[]], true);
    }

    #[test]
    fn an_instruction_is_where_it_points_to() {
        let memory = Changing::default();
        let frames = Frames::Structs(START);
        memory.change(|memory| put(memory, AT, frames, ("/a/model.py", "forward", 40)));
        let mut python = python(&memory, frames);
        python.look(&[later(AT, 0)], Instant::now());
        let line = |function| frame(&python, function).unwrap().place;
        // Four units and one, of the line and the one behind.
        let places = [0, 7, 8, 9, 10].map(|offset| line(later(AT, offset)));
        assert_eq!(places, [Some(40), Some(40), Some(41), Some(41), None].map(Place::Python));
        let before = PythonFrame { code: AT, place: AT + u64::from(START) - 2 };
        assert_eq!(line(before), Place::Python(Some(40)));
    }

    #[test]
    fn other_code_in_its_place_is_seen_within_a_second() {
        let memory = Changing::default();
        memory.change(|memory| put(memory, AT, Frames::Objects, ("/a/model.py", "forward", 40)));
        let mut python = python(&memory, Frames::Objects);
        let start = Instant::now();
        let names = |python: &Python| frame(python, function(0, 0))?.function;
        assert!(!python.look(&[function(0, 0)], start));
        memory.change(|memory| put(memory, AT, Frames::Objects, ("/a/model.py", "backward", 40)));
        assert!(!python.look(&[function(0, 0)], start + READ_AGAIN / 2));
        assert_eq!(names(&python).as_deref(), Some("forward"));
        assert!(python.look(&[function(0, 0)], start + READ_AGAIN));
        assert_eq!(names(&python).as_deref(), Some("backward"));
        memory.change(|memory| *memory = SavedMemory::default());
        assert!(!python.look(&[function(0, 0)], start + READ_AGAIN * 3), "the process has ended");
        assert_eq!(names(&python).as_deref(), Some("backward"));
        memory.change(|memory| memory.add(Avma(AT), vec![0; 128]));
        assert!(python.look(&[function(0, 0)], start + READ_AGAIN * 5));
        assert_eq!(names(&python), None, "something else is there");
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let memory = Changing::default();
        let mut python = python(&memory, Frames::Objects);
        let functions = |range: std::ops::Range<u64>| {
            range.map(|code| PythonFrame { code, place: 0 }).collect::<Vec<_>>()
        };
        let now = Instant::now();
        assert!(!python.look(&functions(0..MOST_CODES as u64), now));
        assert_eq!(python.size(), MOST_CODES * size_of::<Known>());
        let one_more = functions(MOST_CODES as u64..MOST_CODES as u64 + 1);
        assert!(python.look(&one_more, now), "what was derived from the others is void");
        assert_eq!(python.size(), size_of::<Known>());
    }
}
