//! One target: its code, and what is known of it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    kept::{Stacks, Unwound},
    modules::{self, Modules},
    names::demangled,
    python::{self, Python, interleave},
    record::{PythonEnd, Record},
    unwind::Unwinder,
};
use crate::{
    ledger::call::{CallStack, Cut, Frame, Place, PythonUnknown},
    units::{Avma, Pid},
};

/// Bytes of stacks, frames and names that are remembered until the code changes.
const MOST_REMEMBERED: usize = 32 << 20;
/// Bytes of memory that are taken to turn the stacks of one target into names.
const MOST_BYTES: usize = 128 << 20;
/// What is mapped is looked at again this often while there are stacks: a library may have taken
/// the place of another.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Why nothing is known of an interpreter that is there.
const NOT_FOUND: &str = "no file that is named python or libpython is mapped";

type Random = foldhash::fast::RandomState;

/// A stack by its addresses, and why there are no more; and Python's functions on it.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Recorded {
    addresses: Box<[Avma]>,
    cut: Option<Cut>,
    python: Box<[(u64, u64)]>,
    python_end: PythonEnd,
}

/// The interpreter of a target: what names its functions, or why they are not known. `Ok(None)`: there
/// is none.
pub type Interpreter = Result<Option<Python>, Arc<str>>;

/// Turns the stacks of one target into names.
pub struct Target {
    /// Its slot, which its records carry.
    pub slot: u32,
    /// Its process.
    pub pid: Pid,
    /// Its number among all targets.
    pub serial: u64,
    modules: Modules,
    looked: Option<Instant>,
    unwinder: Unwinder,
    python: Interpreter,
    addresses: Vec<Avma>,
    stacks: HashMap<Recorded, Arc<CallStack>, Random>,
    frames: HashMap<u64, Arc<Frame>, Random>,
    /// Each name once.
    words: HashSet<Arc<str>, Random>,
    /// Bytes of these three.
    remembered: usize,
}

impl Target {
    /// A target of which no stack has been seen.
    pub fn new(serial: u64, slot: u32, pid: Pid, modules: Modules, python: Interpreter) -> Self {
        Self {
            slot,
            pid,
            serial,
            modules,
            looked: None,
            unwinder: Unwinder::default(),
            python,
            addresses: Vec::new(),
            stacks: HashMap::default(),
            frames: HashMap::default(),
            words: HashSet::default(),
            remembered: 0,
        }
    }

    /// The stack of a record; `None` if there are too many different ones.
    pub fn stack(&mut self, record: &Record<'_>, all: &mut Stacks) -> Option<Arc<CallStack>> {
        if self.looked.is_none_or(|then| then.elapsed() >= LOOK_AGAIN) {
            self.look_again();
        }
        let mut cut = self.unwind(record);
        // A library that has come since may be what is there.
        if cut == Some(Cut::NoFile) && self.look_again() {
            cut = self.unwind(record);
        }
        let python = record.python.frames();
        if let Ok(Some(interpreter)) = &mut self.python
            && interpreter.look(python, Instant::now())
        {
            self.forget_names();
        }
        let key = Recorded {
            addresses: Box::from(&*self.addresses),
            cut,
            python: python.iter().map(|function| (function.code, function.place)).collect(),
            python_end: record.python.end,
        };
        if let Some(known) = self.stacks.get(&key) {
            return Some(Arc::clone(known));
        }
        let unwound = self.frames_of(&key, record);
        let stack = all.intern(self.serial, unwound);
        if self.size() > MOST_BYTES {
            self.forget();
        }
        let stack = stack?;
        self.remember(
            size_of::<(Recorded, Arc<CallStack>)>()
                + size_of_val(&*key.addresses)
                + size_of_val(&*key.python),
        );
        self.stacks.insert(key, Arc::clone(&stack));
        Some(stack)
    }

    /// The frames of a stack, with Python's functions where they are known, or why they are not.
    fn frames_of(&mut self, recorded: &Recorded, record: &Record<'_>) -> Unwound {
        let frames: Vec<Arc<Frame>> =
            recorded.addresses.iter().map(|address| self.frame(*address)).collect();
        let (cut, end) = (recorded.cut.clone(), record.python.end);
        let native = |frames: Vec<Arc<Frame>>, python_unknown| Unwound {
            frames: frames.into(),
            cut: cut.clone(),
            beyond_cut: 0,
            python_unknown,
        };
        let calls = frames.iter().filter(|frame| python::is_loop(frame)).count();
        if calls == 0 && record.python.frames().is_empty() {
            return native(frames, None);
        }
        let functions = match &self.python {
            Err(why) => Err(PythonUnknown::Interpreter(Arc::clone(why))),
            Ok(None) => Err(PythonUnknown::Interpreter(NOT_FOUND.into())),
            Ok(Some(_)) if end == PythonEnd::NoThread => Err(PythonUnknown::Thread),
            Ok(Some(_)) if end == PythonEnd::NoInterpreter => Err(PythonUnknown::Unreadable),
            Ok(Some(python)) => Ok(python.calls(record.python.frames())),
        };
        let interleaved = functions.and_then(|(calls, are_known)| {
            let all = interleave(&frames, cut.as_ref(), &calls, end).map_err(|unmatched| {
                log::debug!("{unmatched}");
                PythonUnknown::Unmatched
            })?;
            Ok((all, are_known))
        });
        match interleaved {
            Err(unknown) => native(frames, Some(unknown)),
            Ok((all, are_known)) => Unwound {
                beyond_cut: all.beyond_cut,
                frames: all.frames.into(),
                cut,
                python_unknown: match end {
                    PythonEnd::Unreadable => Some(PythonUnknown::Unreadable),
                    _ if !are_known => Some(PythonUnknown::Unreadable),
                    PythonEnd::Deep => Some(PythonUnknown::Deep),
                    _ => None,
                },
            },
        }
    }

    /// Bytes of memory that it takes, about.
    pub const fn size(&self) -> usize {
        let python = match &self.python {
            Ok(Some(python)) => python.size(),
            _ => 0,
        };
        self.modules.size() + self.unwinder.size() + python + self.remembered
    }

    /// Forgets what it can find out again.
    pub fn forget(&mut self) {
        self.modules.forget();
        self.unwinder.forget();
        if let Ok(Some(python)) = &mut self.python {
            python.forget();
        }
        self.forget_names();
    }

    /// Forgets the names, and whole stacks by their addresses.
    pub fn forget_names(&mut self) {
        (self.stacks, self.frames) = (HashMap::default(), HashMap::default());
        self.words = HashSet::default();
        self.remembered = 0;
    }

    /// There are so many more bytes to be remembered.
    fn remember(&mut self, bytes: usize) {
        if self.remembered + bytes > MOST_REMEMBERED {
            self.forget_names();
        }
        self.remembered += bytes;
    }

    fn unwind(&mut self, record: &Record<'_>) -> Option<Cut> {
        let Self { unwinder, modules, addresses, .. } = self;
        unwinder.unwind(modules, record, addresses)
    }

    /// Looks at what is mapped; `true` if that has changed. What was derived from it is then void.
    fn look_again(&mut self) -> bool {
        self.looked = Some(Instant::now());
        let changed = self.modules.read_again();
        if changed {
            self.unwinder.forget();
            self.forget_names();
        }
        changed
    }

    fn frame(&mut self, address: Avma) -> Arc<Frame> {
        if let Some(known) = self.frames.get(&address.0) {
            return Arc::clone(known);
        }
        let (function, module, offset) = match self.modules.at(address) {
            modules::Place::Code(binary, stated) => {
                let name = binary.function(stated).map(|name| demangled(&name));
                let name = name.map(|name| self.word(&name));
                (name, Some(Arc::clone(&binary.path)), stated.0)
            }
            modules::Place::Unreadable(path, offset) => (None, Some(path), offset.0),
            modules::Place::Nothing => (None, None, address.0),
        };
        let frame = Arc::new(Frame { function, module, place: Place::Code(offset) });
        self.remember(size_of::<(u64, Arc<Frame>)>() + size_of::<Frame>());
        self.frames.insert(address.0, Arc::clone(&frame));
        frame
    }

    fn word(&mut self, word: &str) -> Arc<str> {
        if let Some(known) = self.words.get(word) {
            return Arc::clone(known);
        }
        let shared: Arc<str> = word.into();
        self.remember(size_of::<Arc<str>>() + word.len());
        self.words.insert(Arc::clone(&shared));
        shared
    }
}
