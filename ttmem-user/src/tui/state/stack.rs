//! What called for the buffer or failed allocation at the cursor, as lines.

use super::{Overlay, State};
use crate::{
    ledger::call::{Call, CallStack, Frame, Place},
    tui::Tab,
    units::Tid,
};

/// What is asked about: its thread and time, and whether it was there before the attach.
type Asked = (Option<Tid>, Option<u64>, bool);

impl State {
    /// The buffer that the cursor is on.
    pub(super) fn buffer_at_cursor(&self) -> Option<Asked> {
        match self.tab {
            Tab::Buffers => {
                let row = self.buffers.selected()?;
                Some((row.tid, row.allocated_ns, row.pre_attach))
            }
            Tab::Failures if self.failures.open.is_some() => {
                let buffer = self.failures.live.selected()?;
                Some((buffer.tid, buffer.allocated_ns, buffer.pre_attach))
            }
            _ => None,
        }
    }

    /// Opens what called for the failed allocation that is open or at the cursor, or for the buffer.
    pub(super) fn open_call_stack(&mut self) {
        let failed = (self.tab == Tab::Failures).then(|| self.failures.chosen()).flatten();
        let failed = failed.map(|failure| (Some(failure.tid), Some(failure.time_ns), false));
        let asked = failed.or_else(|| self.buffer_at_cursor());
        if asked.is_some() && !self.open_stack(asked) {
            self.notice =
                Some("call stacks are not recorded: start ttmem with --stacks".to_owned());
        }
    }

    /// Opens what called for something; `false`: nothing is asked about, or it is not recorded.
    pub(super) fn open_stack(&mut self, asked: Option<Asked>) -> bool {
        let (Some(calls), Some((tid, time_ns, is_older))) = (&self.calls, asked) else {
            return false;
        };
        let mut found = Vec::new();
        calls.look(self.chosen, &mut |known| {
            found = lines(&known.call(tid, time_ns, is_older));
        });
        self.stack = found;
        self.overlay = Overlay::Stack;
        self.overlay_offset = 0;
        true
    }
}

fn lines(call: &Call) -> Vec<String> {
    match call {
        Call::Unknown(why) => vec![format!("not known: {}", why.name())],
        Call::Known(stack) => of_stack(stack),
    }
}

/// Python's functions, a line for each; then two for each frame: its function, and where that is. Of a
/// path the end is what tells.
fn of_stack(stack: &CallStack) -> Vec<String> {
    let mut lines: Vec<String> = stack.frames.iter().filter_map(|it| python(it)).collect();
    if !lines.is_empty() {
        lines.push(String::new());
    }
    let (before, beyond) =
        stack.frames.split_at(stack.frames.len().saturating_sub(stack.beyond_cut));
    lines.extend(before.iter().flat_map(|it| frame(it)));
    lines.extend(stack.cut.iter().map(|cut| format!("… {cut}")));
    lines.extend(beyond.iter().flat_map(|it| frame(it)));
    lines.extend(stack.python_unknown.iter().map(|why| format!("… {why}")));
    lines
}

fn frame(frame: &Frame) -> [String; 2] {
    [function(frame).to_owned(), format!("    {}", place(frame))]
}

/// The line of a Python function, and its name.
fn python(frame: &Frame) -> Option<String> {
    matches!(frame.place, Place::Python(_)).then(|| format!("{} {}", place(frame), function(frame)))
}

fn function(frame: &Frame) -> &str {
    frame.function.as_deref().unwrap_or("a function without a name")
}

fn place(frame: &Frame) -> String {
    let module = frame.module.as_deref().unwrap_or("no file");
    let module = module.rsplit('/').next().unwrap_or(module);
    match frame.place {
        Place::Code(offset) => format!("{module} {offset:#x}"),
        Place::Python(Some(line)) => format!("{module}:{line}"),
        Place::Python(None) => module.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ledger::call::{Cut, PythonUnknown, Unknown};

    #[test]
    fn each_frame_says_what_and_where_and_a_cut_why() {
        let frame = |function: Option<&str>, module: Option<&str>, place| {
            let (function, module) = (function.map(Arc::from), module.map(Arc::from));
            Arc::new(Frame { function, module, place })
        };
        let frames = [
            frame(Some("f"), Some("/x/m.py"), Place::Python(Some(7))),
            frame(Some("a::b"), Some("/lib/x.so"), Place::Code(16)),
            frame(None, None, Place::Code(255)),
        ];
        let (frames, cut) = (frames.into(), Some(Cut::NoFile));
        let stack = Call::Known(Arc::new(CallStack {
            frames,
            site: None,
            cut,
            beyond_cut: 0,
            python_unknown: None,
        }));
        let expected = [
            "m.py:7 f",
            "",
            "f",
            "    m.py:7",
            "a::b",
            "    x.so 0x10",
            "a function without a name",
            "    no file 0xff",
            "… the last frame is in no file",
        ];
        assert_eq!(lines(&stack), expected);
        let frames =
            [frame(None, None, Place::Code(1)), frame(Some("f"), None, Place::Python(None))];
        let (frames, cut) = (frames.into(), Some(Cut::Copied));
        let unknown = Some(PythonUnknown::Deep);
        let beyond = CallStack { frames, site: None, cut, beyond_cut: 1, python_unknown: unknown };
        let expected = [
            "no file f",
            "",
            "a function without a name",
            "    no file 0x1",
            "… the copied bytes of the stack end there",
            "f",
            "    no file",
            "… there are more Python functions than are kept",
        ];
        assert_eq!(lines(&Call::Known(Arc::new(beyond))), expected);
        let unknown = Call::Unknown(Unknown::BeforeAttach);
        assert_eq!(lines(&unknown), ["not known: allocated before the attach"]);
    }
}
