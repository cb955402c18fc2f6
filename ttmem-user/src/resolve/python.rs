//! Where CPython keeps what its threads execute.
//!
//! By the functions that it has for others to ask, and the table that shows the fields of code objects
//! to Python. The frames of 3.10 are objects; from 3.11 on there is such an object only where somebody
//! asks for it, and frames are structs of the interpreter's own.

use super::{
    field::{Field, Refusal, agreed, paths, returned, returned_field},
    symbolic::{
        exec::{Executor, Outcome, Path},
        expr::{Expr, Op, Relation, Value, base_and_offset, untruncated, walk},
    },
};
use crate::{image::Image, units::Svma};

/// A function that an interpreter has.
pub const MARKER: &str = "PyInterpreterState_Main";

/// What an interpreter's file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interpreter {
    /// Where the pointer to the main interpreter is.
    pub main: Svma,
    /// Of an interpreter: its first thread.
    pub threads: u32,
    /// Of a thread: the next one.
    pub next: u32,
    /// Of a thread: its `pthread_t`.
    pub ident: u32,
    /// Of a thread: its innermost frame, or what that is in.
    pub frame: u32,
    /// Of what it is in: the frame.
    pub frame_in: Option<u32>,
    /// Of a frame: its caller's.
    pub back: u32,
    /// Of a frame: its code.
    pub code: u32,
    /// Of a frame: where in its code it is, 8 bytes.
    pub place: u32,
    /// What these say.
    pub frames: Frames,
    /// Of code: its fields.
    pub of_code: Code,
    /// Objects that tell what others are.
    pub types: Types,
}

/// What a frame's place is, and how frames and calls of the evaluation loop belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frames {
    /// 3.10: how many instructions precede the last one, 4 bytes; and behind it the line if the frame is
    /// traced, else 0, 4 bytes. Each has a call of its own.
    Objects,
    /// 3.12 and 3.13: the address of the instruction. Instructions begin so many bytes behind the code
    /// object's begin. Behind those of one call comes one that is no function's.
    Structs(u32),
}

/// Fields of a code object; all but the first line, which has 4 bytes, are pointers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// The file that it is from.
    pub file_name: u32,
    /// The function's name; from 3.11 on the one that says what it is in.
    pub name: u32,
    /// Its first line.
    pub first_line: u32,
    /// The lines of its instructions.
    pub line_table: u32,
}

impl Code {
    /// Where the last of the fields ends.
    fn end(&self) -> u32 {
        let fields = [self.file_name, self.name, self.first_line, self.line_table];
        fields.into_iter().max().map_or(0, |last| last.saturating_add(8))
    }
}

/// Type objects, and the one object that is nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Types {
    /// Of code.
    pub code: Svma,
    /// Of texts.
    pub text: Svma,
    /// Of bytes.
    pub bytes: Svma,
    /// The object `None`.
    pub none: Svma,
}

/// The versions whose frames are known.
const KNOWN: &str = "understood are 3.10, 3.12 and 3.13";

/// Decodes what is needed to name the Python functions of a thread.
pub fn resolve(image: &Image<'_>) -> Result<Interpreter, Refusal> {
    let executor = Executor::new(image);
    let symbol = |name: &str| {
        let found = image.symbol(name).map(|symbol| symbol.address);
        found.ok_or_else(|| format!("it has no {name}"))
    };
    let types = Types {
        code: symbol("PyCode_Type")?,
        text: symbol("PyUnicode_Type")?,
        bytes: symbol("PyBytes_Type")?,
        none: symbol("_Py_NoneStruct")?,
    };
    let is_later = match version(image) {
        None => false,
        Some((3, 12 | 13)) => true,
        Some((major, minor)) => return Err(format!("it is Python {major}.{minor}; {KNOWN}")),
    };
    let older = || format!("it is older than Python 3.10; {KNOWN}");
    let of_code = code(image, types.code)?.ok_or_else(older)?;
    let chain = if is_later { structs(image, &executor)? } else { objects(image, &executor)? };
    if let Frames::Structs(start) = chain.frames
        && start < of_code.end()
    {
        return Err(format!("instructions would begin amid a code object's fields, at {start:#x}"));
    }
    Ok(Interpreter {
        main: main(image, &executor)?,
        threads: field(image, &executor, "PyInterpreterState_ThreadHead")?,
        next: field(image, &executor, "PyThreadState_Next")?,
        ident: ident(image, &executor)?,
        frame: chain.frame,
        frame_in: chain.frame_in,
        back: chain.back,
        code: chain.code,
        place: chain.place,
        frames: chain.frames,
        of_code,
        types,
    })
}

/// The pointer that a function returns, of the object that it is given.
fn field(image: &Image<'_>, executor: &Executor<'_>, name: &str) -> Result<u32, Refusal> {
    let field = returned_field(image, executor, name, 0)?;
    match *field.steps {
        [offset] if field.width == 8 => Ok(offset),
        _ => Err(format!("{name} returns {field}")),
    }
}

/// How a thread leads to its frames, and these to each other.
struct FrameChain {
    frame: u32,
    frame_in: Option<u32>,
    back: u32,
    code: u32,
    place: u32,
    frames: Frames,
}

/// The frames of 3.10.
fn objects(image: &Image<'_>, executor: &Executor<'_>) -> Result<FrameChain, Refusal> {
    Ok(FrameChain {
        frame: field(image, executor, "PyThreadState_GetFrame")?,
        frame_in: None,
        back: field(image, executor, "PyFrame_GetBack")?,
        code: field(image, executor, "PyFrame_GetCode")?,
        place: place(image, executor)?,
        frames: Frames::Objects,
    })
}

/// The frames of later versions.
fn structs(image: &Image<'_>, executor: &Executor<'_>) -> Result<FrameChain, Refusal> {
    let (code, place, start) = instruction(image, executor)?;
    // It looks from frame to frame for one that is worth an object, by where each is in its code.
    let name = "PyThreadState_GetFrame";
    let mut found: Vec<Vec<u32>> = Vec::new();
    for load in paths(image, executor, name)?.iter().flat_map(|path| &path.loads) {
        if let Some(Field { mut steps, width: 8 }) = Field::of(load, 0)
            && steps.pop() == Some(place)
            && !steps.is_empty()
            && !found.contains(&steps)
        {
            found.push(steps);
        }
    }
    found.sort_by_key(Vec::len);
    let odd = || format!("{name} looks at {found:x?}");
    let [first, second] = &*found else { return Err(odd()) };
    let (frame, frame_in) = match **first {
        [frame] => (frame, None),
        [frame, inner] => (frame, Some(inner)),
        _ => return Err(odd()),
    };
    let back = match second.split_last() {
        Some((back, before)) if before == first => *back,
        _ => return Err(odd()),
    };
    Ok(FrameChain { frame, frame_in, back, code, place, frames: Frames::Structs(start) })
}

/// Of a frame: its code, and where it is in it; and where in a code object its instructions begin.
fn instruction(image: &Image<'_>, executor: &Executor<'_>) -> Result<(u32, u32, u32), Refusal> {
    let name = "PyFrame_GetLasti";
    let mut found = Vec::new();
    for path in paths(image, executor, name)? {
        let Outcome::Return(value) = &path.outcome else { continue };
        walk(value, &mut |part| found.extend(difference(part)));
    }
    agreed(&format!("what {name} subtracts"), found)
}

/// Two fields of a frame and an offset, from `place - (code + offset)`, or `place - code - offset` as some
/// compilers have it; a difference of the fields alone is a part of that.
fn difference(value: &Value) -> Option<(u32, u32, u32)> {
    let (difference, behind) = base_and_offset(value);
    let Expr::Binary(Op::Sub, place, begin) = &**difference else { return None };
    let (code, start) = base_and_offset(begin);
    let start = start.checked_sub(behind).filter(|start| *start != 0)?;
    let (place, code) = (Field::of(place, 0)?, Field::of(code, 0)?);
    match (&*place.steps, &*code.steps) {
        ([frame, place], [same, code]) if frame == same => {
            Some((*code, *place, u32::try_from(start).ok()?))
        }
        _ => None,
    }
}

/// The version of an interpreter that says so: since 3.11 each does.
fn version(image: &Image<'_>) -> Option<(u64, u64)> {
    let version = image.constant_at(image.symbol("Py_Version")?.address, 8)?;
    Some((version >> 24 & 0xff, version >> 16 & 0xff))
}

/// Where the pointer to the main interpreter is.
fn main(image: &Image<'_>, executor: &Executor<'_>) -> Result<Svma, Refusal> {
    let name = MARKER;
    let value = returned(&paths(image, executor, name)?, name)?;
    match &*value {
        Expr::Load { address, width: 8 } => match **address {
            Expr::Const(address) => Ok(Svma(address)),
            _ => Err(format!("{name} returns {value}")),
        },
        _ => Err(format!("{name} returns {value}")),
    }
}

/// The field of a thread that is compared with the identity of the one that is looked for.
fn ident(image: &Image<'_>, executor: &Executor<'_>) -> Result<u32, Refusal> {
    let name = "PyThreadState_SetAsyncExc";
    let paths = paths(image, executor, name)?;
    let compared = paths.iter().flat_map(|path| &path.conditions).filter_map(|condition| {
        let is_equality = matches!(condition.relation, Relation::Equal | Relation::NotEqual);
        let ((Expr::Load { address: field, width: 8 }, Expr::Arg(0))
        | (Expr::Arg(0), Expr::Load { address: field, width: 8 })) =
            (&*condition.left, &*condition.right)
        else {
            return None;
        };
        is_equality.then(|| u32::try_from(base_and_offset(field).1).ok()).flatten()
    });
    agreed(&format!("what {name} compares with the thread"), compared)
}

/// The fields of a frame that say where in its code it is: the last instruction, and the line if it is
/// traced.
fn place(image: &Image<'_>, executor: &Executor<'_>) -> Result<u32, Refusal> {
    let name = "PyFrame_GetLineNumber";
    let paths = paths(image, executor, name)?;
    let line = agreed(
        &format!("the line that {name} returns"),
        paths.iter().filter_map(|path| match &path.outcome {
            Outcome::Return(value) => own_half(untruncated(value)),
            _ => None,
        }),
    )?;
    let instructions = paths.iter().flat_map(halves).filter(|offset| *offset != line);
    let instruction = agreed(&format!("what else {name} looks at"), instructions)?;
    if instruction % 8 != 0 || instruction + 4 != line {
        return Err(format!("{name}: a frame's instruction and line are not one word"));
    }
    Ok(instruction)
}

/// The fields of 4 bytes of the first argument that a path looks at.
fn halves(path: &Path) -> Vec<u32> {
    path.loads.iter().filter_map(own_half).collect()
}

/// The offset of a field of 4 bytes of the first argument.
fn own_half(value: &Value) -> Option<u32> {
    let mut found = None;
    walk(value, &mut |part| {
        if let Expr::Load { address, width: 4 } = &**part
            && let (base, offset) = base_and_offset(address)
            && **base == Expr::Arg(0)
        {
            found = u32::try_from(offset).ok();
        }
    });
    found
}

/// Bytes of a type object in which the pointer to its fields may be.
const TYPE_BYTES: u64 = 512;
/// Bytes of an entry of that table: name, kind, offset, flags, text.
const MEMBER_BYTES: u64 = 40;
/// Fields that a type may show.
const MOST_MEMBERS: u64 = 64;
/// Kinds of fields, from `Include/structmember.h`: a number of 4 bytes, a pointer to an object.
const INT: u64 = 1;
const OBJECT: u64 = 6;

/// The fields of code objects, as its type shows them to Python; `None`: their lines are not as since 3.10.
fn code(image: &Image<'_>, code_type: Svma) -> Result<Option<Code>, Refusal> {
    let tables = (0..TYPE_BYTES / 8)
        .filter_map(|word| image.address_in_slot(Svma(code_type.0.checked_add(word * 8)?)));
    for table in tables {
        let field = |name: &str, kind| member(image, table, name, kind);
        if field("co_name", OBJECT).is_none() {
            continue;
        }
        let wanted = |name: &str, kind| {
            field(name, kind).ok_or_else(|| format!("PyCode_Type shows no {name}"))
        };
        let Some(line_table) = field("co_linetable", OBJECT) else { return Ok(None) };
        return Ok(Some(Code {
            file_name: wanted("co_filename", OBJECT)?,
            name: field("co_qualname", OBJECT).map_or_else(|| wanted("co_name", OBJECT), Ok)?,
            first_line: wanted("co_firstlineno", INT)?,
            line_table,
        }));
    }
    Err("PyCode_Type shows no fields".to_owned())
}

/// Offset of the field with a name and kind in a table of fields.
fn member(image: &Image<'_>, table: Svma, name: &str, kind: u64) -> Option<u32> {
    for number in 0..MOST_MEMBERS {
        let entry = Svma(table.0.checked_add(number * MEMBER_BYTES)?);
        let text = image.bytes_at(image.address_in_slot(entry)?)?;
        if text.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0)) {
            let bytes = image.bytes_at(entry)?;
            let word = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
            return (word(8)? & 0xffff_ffff == kind).then(|| u32::try_from(word(16)?).ok())?;
        }
    }
    None
}

#[cfg(test)]
mod tests;
