//! Call stacks as a viewer wants them: numbers that look like addresses, and what each of them is.
//!
//! A stack is looked up when its allocation is told, and so it is for who comes late; nothing is
//! kept of it in the mirror. What has not been unwound by then has none.

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;

use super::encoder;
use crate::{
    ledger::call::{CallStack, Calls, Frame, Place},
    units::Tid,
};

/// Frames look like addresses from here on, 16 bytes apart.
const FRAMES: u64 = 0x7473_0000_0000;
/// And functions from here on.
const FUNCTIONS: u64 = 0x7466_0000_0000;

/// What a viewer has been told of the stacks of one target.
#[derive(Debug, Default)]
pub struct Stacks {
    /// Where they are looked up, and the target's serial; `None`: they are not recorded.
    calls: Option<(Arc<dyn Calls>, u64)>,
    /// By the address of a stack, which is kept.
    told: HashMap<usize, Told, RandomState>,
    frames: Numbered<Arc<Frame>>,
    functions: Numbered<String>,
}

#[derive(Debug)]
struct Told {
    _stack: Arc<CallStack>,
    addresses: Box<[u64]>,
}

/// Different things, by number.
#[derive(Debug)]
struct Numbered<T> {
    all: Vec<T>,
    numbers: HashMap<T, usize, RandomState>,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self { all: Vec::new(), numbers: HashMap::default() }
    }
}

impl<T: Clone + Eq + std::hash::Hash> Numbered<T> {
    fn number(&mut self, thing: &T) -> usize {
        let next = self.all.len();
        let number = *self.numbers.entry(thing.clone()).or_insert(next);
        if number == next {
            self.all.push(thing.clone());
        }
        number
    }

    fn at(&self, address: u64, first: u64) -> Option<&T> {
        let number = address.checked_sub(first).filter(|offset| offset.is_multiple_of(16))? / 16;
        self.all.get(usize::try_from(number).ok()?)
    }
}

const fn address(first: u64, number: usize) -> u64 {
    first + (number as u64) * 16
}

impl Stacks {
    /// Of the target with this serial.
    pub fn new(calls: Option<Arc<dyn Calls>>, serial: u64) -> Self {
        Self { calls: calls.map(|calls| (calls, serial)), ..Self::default() }
    }

    /// Waits until the stacks of what has happened so far have been unwound, but not for ever.
    pub async fn catch_up(&self) {
        if let Some((calls, _)) = &self.calls {
            let calls = Arc::clone(calls);
            // If it cannot be waited for, stacks are missing, and nothing else.
            let _ = tokio::task::spawn_blocking(move || calls.catch_up()).await;
        }
    }

    /// The stack of an allocation, the innermost frame first; empty if it is not known. `time_ns` 0:
    /// nor is the allocation.
    pub fn of(&mut self, time_ns: u64, tid: Tid) -> &[u64] {
        let Some((calls, serial)) = self.calls.as_ref().filter(|_| time_ns > 0) else {
            return &[];
        };
        let mut found = None;
        calls.look(*serial, &mut |known| found = known.stack(time_ns, tid).cloned());
        let Some(stack) = found else { return &[] };
        let key = Arc::as_ptr(&stack).addr();
        if !self.told.contains_key(&key) {
            let number = |frame: &Arc<Frame>| address(FRAMES, self.frames.number(frame));
            let addresses = stack.frames.iter().map(number).collect();
            self.told.insert(key, Told { _stack: stack, addresses });
        }
        self.told.get(&key).map_or(&[], |told| &told.addresses)
    }

    /// What is at an address: its image, and the function there; `None` if nothing that was told is.
    pub fn at(&mut self, asked: u64) -> Option<(String, encoder::Frame)> {
        if let Some(name) = self.functions.at(asked, FUNCTIONS) {
            let (function, file) = (name.clone(), String::new());
            return Some((
                String::new(),
                encoder::Frame { function, file, line: 0, symbol: asked },
            ));
        }
        let frame = Arc::clone(self.frames.at(asked, FRAMES)?);
        let module = frame.module.as_deref().unwrap_or("[unknown]");
        let image = module.rsplit('/').next().unwrap_or(module).to_owned();
        // Where in the file if the line is not known.
        let (file, line, unnamed) = match frame.place {
            Place::Code(offset) => (format!("{module}+{offset:#x}"), 0, format!("{offset:#x}")),
            Place::Python(line) => (module.to_owned(), line.unwrap_or(0), String::new()),
        };
        let function = frame.function.as_deref().map_or(unnamed, str::to_owned);
        let symbol = address(FUNCTIONS, self.functions.number(&function));
        Some((image, encoder::Frame { function, file, line, symbol }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::calls::Known;

    #[test]
    fn frames_are_told_apart_and_answered_for() {
        let mut stacks = Stacks::new(Some(Arc::new(Known::new())), 1);
        let of = |stacks: &mut Stacks, half_seconds: u64| {
            stacks.of(half_seconds * 500_000_000, Tid(1)).to_vec()
        };
        let zeros = of(&mut stacks, 3);
        let add = of(&mut stacks, 1);
        assert_eq!(zeros.len(), 3);
        assert_eq!((zeros[0], zeros[2]), (add[0], add[2]), "the same frame is the same number");
        assert_ne!(zeros[1], add[1]);
        assert_eq!(of(&mut stacks, 6), zeros);
        assert!(of(&mut stacks, 2).is_empty() && of(&mut stacks, 0).is_empty());
        let (image, frame) = stacks.at(zeros[1]).unwrap();
        assert_eq!((image.as_str(), frame.function.as_str()), ("_ttnncpp.so", "ttnn::zeros"));
        assert_eq!(frame.file, "/lib/_ttnncpp.so+0xca53d3");
        assert_eq!(stacks.at(frame.symbol).unwrap().1.function, "ttnn::zeros");
        for unknown in [0, FRAMES - 16, zeros[1] + 1, add[1] + 16, FUNCTIONS + 160, u64::MAX] {
            assert_eq!(stacks.at(unknown), None, "{unknown:#x}");
        }
    }

    #[test]
    fn without_stacks_there_are_none() {
        assert!(Stacks::default().of(1, Tid(1)).is_empty());
    }
}
