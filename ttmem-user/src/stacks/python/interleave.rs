//! Puts Python's functions where they belong in a stack.
//!
//! CPython 3.10 executes each Python function in one call of its evaluation loop. That call's frame is
//! replaced by the function's.

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

/// The functions do not fit the calls of the evaluation loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{calls} calls of Python's evaluation loop for {functions} functions")]
pub struct Unmatched {
    calls: usize,
    functions: usize,
}

/// The frames of a stack with Python's functions, both with the innermost first. What is known of them
/// beyond a cut comes last.
pub fn interleave(
    frames: &[Arc<Frame>],
    cut: Option<&Cut>,
    functions: &[Arc<Frame>],
    end: PythonEnd,
) -> Result<Vec<Arc<Frame>>, Unmatched> {
    let calls = frames.iter().filter(|frame| is_loop(frame)).count();
    let fits = match (cut, end) {
        (None, PythonEnd::Whole) => calls == functions.len(),
        (Some(_), PythonEnd::Whole) => calls <= functions.len(),
        (None, _) => calls >= functions.len(),
        (Some(_), _) => true,
    };
    if !fits {
        return Err(Unmatched { calls, functions: functions.len() });
    }
    let mut frames = frames.to_vec();
    let mut rest = functions.iter();
    for frame in frames.iter_mut().filter(|frame| is_loop(frame)) {
        let Some(function) = rest.next() else { break };
        *frame = Arc::clone(function);
    }
    frames.extend(rest.cloned());
    Ok(frames)
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

    fn put(
        native: &[&str],
        cut: Option<&Cut>,
        python: &[&str],
        end: PythonEnd,
    ) -> Result<Vec<String>, Unmatched> {
        let all = interleave(&frames(native), cut, &frames(python), end)?;
        Ok(all.iter().map(|frame| frame.function.as_deref().unwrap().to_owned()).collect())
    }

    const NATIVE: [&str; 6] = ["alloc", LOOP, "call", LOOP, "Py_RunMain", "_start"];

    #[test]
    fn each_function_is_where_its_call_of_the_loop_is() {
        let whole = put(&NATIVE, None, &["f.py", "m.py"], PythonEnd::Whole).unwrap();
        assert_eq!(whole, ["alloc", "f.py", "call", "m.py", "Py_RunMain", "_start"]);
        let deep = put(&NATIVE, None, &["f.py"], PythonEnd::Deep).unwrap();
        assert_eq!(deep, ["alloc", "f.py", "call", LOOP, "Py_RunMain", "_start"]);
        assert_eq!(put(&["alloc"], None, &[], PythonEnd::Whole).unwrap(), ["alloc"]);
    }

    #[test]
    fn what_is_beyond_a_cut_comes_last() {
        let cut = Some(&Cut::Copied);
        let all = ["f.py", "g.py", "m.py"];
        let known = put(&NATIVE[..3], cut, &all, PythonEnd::Whole).unwrap();
        assert_eq!(known, ["alloc", "f.py", "call", "g.py", "m.py"]);
        let deep = put(&NATIVE[..4], cut, &all[..1], PythonEnd::Deep).unwrap();
        assert_eq!(deep, ["alloc", "f.py", "call", LOOP]);
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
            assert_eq!(unmatched, Err(Unmatched { calls: 2, functions: python.len() }));
        }
    }
}
