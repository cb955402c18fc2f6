//! Finds the interpreter of a process, and where it keeps what its threads execute.

use ttmem_common::{
    layout::ABSENT,
    python::{MOST_OF_FRAME, MOST_OF_THREAD, PythonLayout},
};

pub use crate::resolve::python::{Code as CodeFields, Frames};

use super::{
    defined::defines,
    file,
    library::{Candidate, candidates, locate},
    memory::{LiveMemory, TargetMemory as _},
    process::Process,
};
use crate::{
    image::Image,
    resolve::python::{self, Interpreter},
    units::{Avma, Svma},
};

/// The interpreter of a process.
#[derive(Debug)]
pub struct Found {
    /// For the eBPF side.
    pub layout: PythonLayout,
    /// The process's memory.
    pub memory: LiveMemory,
    /// What frames say.
    pub frames: Frames,
    /// The fields of code objects.
    pub code: CodeFields,
    /// The types of objects.
    pub types: Types,
}

/// Where type objects are.
#[derive(Clone, Copy, Debug)]
pub struct Types {
    /// Of code.
    pub code: Avma,
    /// Of texts.
    pub text: Avma,
    /// Of bytes.
    pub bytes: Avma,
    /// The object `None`.
    pub none: Avma,
}

/// Finds the interpreter of a process; `Ok(None)`: it has none.
pub fn find(process: &Process) -> Result<Option<Found>, String> {
    let Some((image, bias)) = mapped(process)? else { return Ok(None) };
    let interpreter = python::resolve(&image)?;
    drop(image);
    let memory = LiveMemory::open(process).map_err(|error| error.to_string())?;
    let at = |stated: Svma| Avma(stated.0.wrapping_add(bias));
    let main = memory.pointer(at(interpreter.main)).map_err(|error| error.to_string())?;
    if main.0 == 0 {
        return Err("it has not started yet".to_owned());
    }
    let layout = layout(&interpreter, main)?;
    let types = Types {
        code: at(interpreter.types.code),
        text: at(interpreter.types.text),
        bytes: at(interpreter.types.bytes),
        none: at(interpreter.types.none),
    };
    let Interpreter { frames, of_code: code, .. } = interpreter;
    Ok(Some(Found { layout, memory, frames, code, types }))
}

/// Files of such a name that are looked into: one has the program, one the library.
const MOST_FILES: usize = 8;
/// Larger ones are none: debug information and all they have a fifth of it.
const MOST_BYTES: u64 = 256 << 20;

/// The file of the interpreter, and what the loader added to its addresses.
fn mapped(process: &Process) -> Result<Option<(Image<'static>, u64)>, String> {
    let maps = process.maps().map_err(|error| error.to_string())?;
    let root = file::root(process).ok();
    let is_named = |candidate: &Candidate| {
        let name = candidate.path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("python") || name.starts_with("libpython")
    };
    for candidate in candidates(&maps).into_iter().filter(is_named).take(MOST_FILES) {
        let unreadable = |error| format!("{}: {error}", candidate.path.display());
        let (found, _) = locate(process, root.as_ref(), &candidate).map_err(unreadable)?;
        let file = found.open().map_err(unreadable)?;
        let is_too_large = file.metadata().is_ok_and(|metadata| metadata.len() > MOST_BYTES);
        if is_too_large || defines(file, python::MARKER, MOST_BYTES).is_err() {
            continue;
        }
        let bytes = found.read().map_err(unreadable)?;
        let Ok(image) = Image::parse(bytes) else { continue };
        let bias = image
            .load_bias(Avma(candidate.addresses.start), candidate.offset)
            .ok_or_else(|| format!("{}: its mapping fits no segment", candidate.path.display()))?;
        return Ok(Some((image, bias)));
    }
    Ok(None)
}

/// What the eBPF side has to know, if it can do with it.
fn layout(interpreter: &Interpreter, main: Avma) -> Result<PythonLayout, String> {
    let Interpreter { threads, next, ident, frame, frame_in, back, code, place, .. } = *interpreter;
    let len = |fields: [u32; 3], most: u32| {
        let end = fields.into_iter().max().and_then(|last| last.checked_add(8));
        let fits = fields.iter().all(|offset| offset % 8 == 0);
        end.filter(|end| *end <= most && fits)
            .ok_or_else(|| "its fields are not where the eBPF side can read them".to_owned())
    };
    Ok(PythonLayout {
        threads: main.plus(threads.into()).0,
        thread_len: len([next, ident, frame], MOST_OF_THREAD)?,
        frame_len: len([back, code, place], MOST_OF_FRAME)?,
        next,
        ident,
        frame,
        frame_in: frame_in.unwrap_or(ABSENT),
        back,
        code,
        place,
        reserved: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::python::{Code, Types};

    fn interpreter() -> Interpreter {
        let types = Types { code: Svma(1), text: Svma(2), bytes: Svma(3), none: Svma(4) };
        let of_code = Code { file_name: 104, name: 112, first_line: 40, line_table: 120 };
        let main = Svma(8);
        let (threads, next, ident, frame, back, code, place) = (8, 8, 176, 24, 24, 32, 96);
        let (frame_in, frames) = (None, Frames::Objects);
        Interpreter {
            main,
            threads,
            next,
            ident,
            frame,
            frame_in,
            back,
            code,
            place,
            frames,
            of_code,
            types,
        }
    }

    #[test]
    fn no_more_is_read_than_holds_the_fields() {
        let layout = layout(&interpreter(), Avma(0x1000)).unwrap();
        assert_eq!((layout.threads, layout.thread_len, layout.frame_len), (0x1008, 184, 104));
    }

    #[test]
    fn fields_that_the_ebpf_side_could_not_read_are_refused() {
        let far = Interpreter { ident: MOST_OF_THREAD, ..interpreter() };
        assert!(layout(&far, Avma(0)).is_err());
        let odd = Interpreter { place: 100, ..interpreter() };
        assert!(layout(&odd, Avma(0)).is_err());
        let last = Interpreter { place: MOST_OF_FRAME - 8, ..interpreter() };
        assert_eq!(layout(&last, Avma(0)).unwrap().frame_len, MOST_OF_FRAME);
    }
}
