//! What called for a buffer, as far as that is known.
//!
//! The ledger knows nothing of it: who unwinds the stacks fills it in where a buffer is shown, by
//! the buffer's thread and the time of its allocation.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Serialize, Serializer, ser::SerializeMap as _};

use crate::units::Tid;

/// A function that was being executed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// Its name, demangled, without parameters; `None` if the file has no symbol there.
    pub function: Option<Arc<str>>,
    /// The file that it is in, as the process sees it; `None` if it is in none.
    pub module: Option<Arc<str>>,
    /// Where in the file.
    pub place: Place,
}

/// Where in its file a function was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// As the file states addresses; in a caller an address inside of the call. Without a file the
    /// address in the process.
    Code(u64),
    /// The line of a Python function; `None`: the instruction has none.
    Python(Option<u32>),
}

impl Serialize for Frame {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (offset, line) = match self.place {
            Place::Code(offset) => (Some(offset), None),
            Place::Python(line) => (None, line),
        };
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("function", &self.function)?;
        map.serialize_entry("module", &self.module)?;
        map.serialize_entry("offset", &offset)?;
        map.serialize_entry("line", &line)?;
        map.end()
    }
}

/// A call stack. Each frame follows from unwind information; none is guessed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CallStack {
    /// The innermost frame first.
    pub frames: Box<[Arc<Frame>]>,
    /// The site: what called for the buffer, outside of what every allocation goes through. `None`
    /// if no such frame is known.
    pub site: Option<Site>,
    /// Why the outermost frame is not that of a thread's start; `None` if it is.
    pub cut: Option<Cut>,
    /// So many frames at the end come after what was cut off: Python's functions are known without it.
    pub beyond_cut: usize,
    /// Why functions of Python are not known, if it leads through any.
    pub python_unknown: Option<PythonUnknown>,
}

/// A site.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Site {
    /// Tells it from the others: they are numbered from 0 on.
    pub number: u32,
    /// The line of a Python program, and the function's name, without what templates are made for.
    pub name: Arc<str>,
}

/// Why a stack could not be unwound to its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Cut {
    /// The bytes that were copied of the stack end there.
    Copied,
    /// There are more frames than are kept.
    Deep,
    /// The last frame is in no file: code made at run time.
    NoFile,
    /// The file of the last frame could not be read.
    Unreadable(Arc<str>),
    /// It has no unwind information there that says where its caller is.
    NoUnwindInfo(Arc<str>),
}

impl Cut {
    /// Name of the kind, as it is counted.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Copied => "copied_bytes_end",
            Self::Deep => "too_many_frames",
            Self::NoFile => "code_in_no_file",
            Self::Unreadable(_) => "unreadable_file",
            Self::NoUnwindInfo(_) => "no_unwind_information",
        }
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Copied => f.write_str("the copied bytes of the stack end there"),
            Self::Deep => f.write_str("there are more frames than are kept"),
            Self::NoFile => f.write_str("the last frame is in no file"),
            Self::Unreadable(module) => write!(f, "{module} cannot be read"),
            Self::NoUnwindInfo(module) => write!(f, "{module} has no unwind information there"),
        }
    }
}

/// Why functions of Python are not known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PythonUnknown {
    /// Those that the interpreter has do not fit the stack.
    Unmatched,
    /// The thread was not found.
    Thread,
    /// What the interpreter has could not be read.
    Unreadable,
    /// There are more than are kept.
    Deep,
    /// The interpreter was not found, or is not understood.
    Interpreter(Arc<str>),
}

impl PythonUnknown {
    /// Name of the kind, as it is counted.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Unmatched => "functions_do_not_fit_the_stack",
            Self::Thread => "thread_not_found",
            Self::Unreadable => "unreadable",
            Self::Deep => "too_many_functions",
            Self::Interpreter(_) => "interpreter_not_understood",
        }
    }
}

impl fmt::Display for PythonUnknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unmatched => f.write_str("Python's functions do not fit the stack"),
            Self::Thread => f.write_str("Python's main interpreter has no such thread"),
            Self::Unreadable => f.write_str("Python's functions could not be read"),
            Self::Deep => f.write_str("there are more Python functions than are kept"),
            Self::Interpreter(why) => write!(f, "Python's functions are not known: {why}"),
        }
    }
}

/// What has become of the stacks of one target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StackCounts {
    /// Stacks that arrived.
    pub seen: u64,
    /// Stacks that could not be delivered, of all targets: their ring buffer was full.
    pub lost: u64,
    /// Of those seen, the ones that could not be unwound to the end, by reason.
    pub cut: BTreeMap<&'static str, u64>,
    /// Of those seen, the ones that there was no room for.
    pub not_kept: u64,
    /// Of those seen that lead through Python, the ones with unknown functions of it, by reason.
    pub python_unknown: BTreeMap<&'static str, u64>,
    /// Allocations whose stack is kept now: of what is live, and some others.
    pub kept: u64,
    /// Different stacks, of all targets.
    pub different: u64,
}

/// What is known of the call that a buffer comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// All of the stack that could be unwound.
    Known(Arc<CallStack>),
    /// Nothing.
    Unknown(Unknown),
}

/// Why nothing is known of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// The buffer is older than the attach.
    BeforeAttach,
    /// Its allocation was not seen.
    NotSeen,
    /// The stack has not arrived.
    NotArrived,
    /// It was lost: a later one of its thread has arrived.
    Lost,
    /// It has not arrived; some stacks were lost, and this may be one of them.
    MaybeLost,
    /// There are more stacks than are kept.
    NotKept,
}

impl Unknown {
    /// As people say it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BeforeAttach => "allocated before the attach",
            Self::NotSeen => "the allocation was not seen",
            Self::NotArrived => "the stack has not arrived yet",
            Self::Lost => "the stack was lost",
            Self::MaybeLost => "the stack was lost, or has not arrived yet",
            Self::NotKept => "there are more stacks than are kept",
        }
    }
}

impl Call {
    /// The site, if it is known.
    pub fn site(&self) -> Option<&Arc<str>> {
        match self {
            Self::Known(stack) => stack.site.as_ref().map(|site| &site.name),
            Self::Unknown(_) => None,
        }
    }
}

impl Serialize for Call {
    /// To be flattened into the buffer's own fields.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (stack, unknown) = match self {
            Self::Known(stack) => (Some(stack), None),
            Self::Unknown(why) => (None, Some(why.name())),
        };
        let mut map = serializer.serialize_map(Some(6))?;
        map.serialize_entry("site", &self.site())?;
        map.serialize_entry("stack", &stack.map(|stack| &stack.frames))?;
        let cut = stack.and_then(|stack| stack.cut.as_ref());
        map.serialize_entry("stack_cut", &cut.map(ToString::to_string))?;
        map.serialize_entry("frames_beyond_cut", &stack.map(|stack| stack.beyond_cut))?;
        let python = stack.and_then(|stack| stack.python_unknown.as_ref());
        map.serialize_entry("python_unknown", &python.map(ToString::to_string))?;
        map.serialize_entry("stack_unknown", &unknown)?;
        map.end()
    }
}

/// Where it is looked up what called for buffers.
pub trait Calls: fmt::Debug + Send + Sync {
    /// Looks at what is known of a target; quickly, since nothing is added meanwhile.
    fn look(&self, serial: u64, look: &mut dyn FnMut(&dyn Lookup));

    /// Waits until what has arrived so far has been taken in, but not for ever.
    fn catch_up(&self);

    /// What has become of the stacks of a target.
    fn counts(&self, serial: u64) -> Option<StackCounts>;
}

/// What is known of one target.
pub trait Lookup {
    /// The stack of what a thread allocated at a time.
    fn stack(&self, allocated_ns: u64, tid: Tid) -> Option<&Arc<CallStack>>;

    /// What is known of the call that a buffer comes from.
    fn call(&self, tid: Option<Tid>, allocated_ns: Option<u64>, pre_attach: bool) -> Call;

    /// All sites, by number.
    fn sites(&self) -> &[Arc<str>];
}
