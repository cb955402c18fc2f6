//! Puts Python's functions where they belong in a stack.
//!
//! CPython executes one or, from 3.11 on, several functions in each call of its evaluation loop. That
//! call's frame is replaced by theirs.

use std::sync::Arc;

use crate::{
    ledger::call::{Cut, Frame},
    stacks::record::PythonEnd,
};

/// The evaluation loop.
const LOOP: &str = "_PyEval_EvalFrameDefault";

/// Whether a frame is a call of the evaluation loop.
pub fn is_loop(frame: &Frame) -> bool {
    frame.function.as_deref() == Some(LOOP)
}

/// The interpreter's calls are not those of the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{seen} calls of Python's evaluation loop on the stack, where the interpreter has {known}")]
pub struct Unmatched {
    seen: usize,
    known: usize,
}

/// The frames of a stack, and how many at their end are known without it.
#[derive(Debug, PartialEq, Eq)]
pub struct Interleaved {
    /// The innermost first.
    pub frames: Vec<Arc<Frame>>,
    /// They come after what was cut off.
    pub beyond_cut: usize,
}

/// Puts the functions of each call of the loop in the place of its frame; all have the innermost first.
/// What is known of them beyond a cut comes last.
pub fn interleave(
    frames: &[Arc<Frame>],
    cut: Option<&Cut>,
    calls: &[Vec<Arc<Frame>>],
    end: PythonEnd,
) -> Result<Interleaved, Unmatched> {
    let seen = frames.iter().filter(|frame| is_loop(frame)).count();
    let known = calls.len();
    let fits = match (cut, end) {
        (None, PythonEnd::Whole) => seen == known,
        (Some(_), PythonEnd::Whole) => seen <= known,
        (None, _) => seen >= known,
        (Some(_), _) => true,
    };
    if !fits {
        return Err(Unmatched { seen, known });
    }
    let mut rest = calls.iter();
    let mut all = Vec::with_capacity(frames.len());
    for frame in frames {
        match is_loop(frame).then(|| rest.next()).flatten() {
            Some(functions) => all.extend_from_slice(functions),
            None => all.push(Arc::clone(frame)),
        }
    }
    let before = all.len();
    all.extend(rest.flatten().cloned());
    Ok(Interleaved { beyond_cut: all.len() - before, frames: all })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::call::Place;

    fn frames(names: &[&str]) -> Vec<Arc<Frame>> {
        let frame = |name: &&str| {
            let place = match name.strip_suffix(".py") {
                Some(_) => Place::Python(Some(1)),
                None => Place::Code(1),
            };
            Arc::new(Frame { function: Some((*name).into()), module: None, place })
        };
        names.iter().map(frame).collect()
    }

    /// Functions of one call of the loop are in one text.
    fn put(
        native: &[&str],
        cut: Option<&Cut>,
        python: &[&str],
        end: PythonEnd,
    ) -> Result<(Vec<String>, usize), Unmatched> {
        let split = |call: &&str| frames(&call.split(' ').collect::<Vec<_>>());
        let calls: Vec<Vec<Arc<Frame>>> = python.iter().map(split).collect();
        let all = interleave(&frames(native), cut, &calls, end)?;
        let names = all.frames.iter().map(|frame| frame.function.as_deref().unwrap().to_owned());
        Ok((names.collect(), all.beyond_cut))
    }

    const NATIVE: [&str; 6] = ["alloc", LOOP, "call", LOOP, "Py_RunMain", "_start"];

    fn is(put: Result<(Vec<String>, usize), Unmatched>, names: &[&str], beyond_cut: usize) {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(put.unwrap(), (names, beyond_cut));
    }

    #[test]
    fn each_function_is_where_its_call_of_the_loop_is() {
        let whole = put(&NATIVE, None, &["f.py", "m.py"], PythonEnd::Whole);
        is(whole, &["alloc", "f.py", "call", "m.py", "Py_RunMain", "_start"], 0);
        let several = put(&NATIVE, None, &["f.py g.py", "m.py"], PythonEnd::Whole);
        is(several, &["alloc", "f.py", "g.py", "call", "m.py", "Py_RunMain", "_start"], 0);
        let deep = put(&NATIVE, None, &["f.py"], PythonEnd::Deep);
        is(deep, &["alloc", "f.py", "call", LOOP, "Py_RunMain", "_start"], 0);
        is(put(&["alloc"], None, &[], PythonEnd::Whole), &["alloc"], 0);
    }

    #[test]
    fn what_is_beyond_a_cut_comes_last() {
        let cut = Some(&Cut::Copied);
        let all = ["f.py", "g.py h.py", "m.py"];
        let known = put(&NATIVE[..3], cut, &all, PythonEnd::Whole);
        is(known, &["alloc", "f.py", "call", "g.py", "h.py", "m.py"], 3);
        let deep = put(&NATIVE[..4], cut, &all[..1], PythonEnd::Deep);
        is(deep, &["alloc", "f.py", "call", LOOP], 0);
    }

    #[test]
    fn functions_that_do_not_fit_are_left_out() {
        for (native, cut, python, end) in [
            (&NATIVE[..], None, &["f.py"][..], PythonEnd::Whole),
            (&NATIVE, None, &["f.py", "g.py", "m.py"], PythonEnd::Whole),
            (&NATIVE, None, &["f.py", "g.py", "h.py"], PythonEnd::Deep),
            (&NATIVE, Some(&Cut::Copied), &["f.py"], PythonEnd::Whole),
        ] {
            let unmatched = put(native, cut, python, end);
            assert_eq!(unmatched, Err(Unmatched { seen: 2, known: python.len() }));
        }
    }
}
