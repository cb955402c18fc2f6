//! What called for the buffer at the cursor, as lines.

use super::{Overlay, State};
use crate::ledger::call::{Call, CallStack, Frame};

impl State {
    /// Opens what called for the buffer at the cursor; `false`: there is no such buffer, or it is
    /// not recorded.
    pub(super) fn open_stack(&mut self) -> bool {
        let (Some(calls), Some(row)) = (&self.calls, self.buffers.selected()) else { return false };
        let mut found = Vec::new();
        calls.look(self.chosen, &mut |known| {
            found = lines(&known.call(row.tid, row.allocated_ns, row.pre_attach));
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

/// Two lines for each frame: its function, and where that is. Of a path the end is what tells.
fn of_stack(stack: &CallStack) -> Vec<String> {
    let frame = |frame: &Frame| {
        let function = frame.function.as_deref().unwrap_or("a function without a name");
        let module = frame.module.as_deref().unwrap_or("no file");
        let module = module.rsplit('/').next().unwrap_or(module);
        [function.to_owned(), format!("    {module} {:#x}", frame.offset)]
    };
    let mut lines: Vec<String> = stack.frames.iter().flat_map(|it| frame(it)).collect();
    lines.extend(stack.cut.iter().map(|cut| format!("… {cut}")));
    lines
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ledger::call::{Cut, Unknown};

    #[test]
    fn each_frame_says_what_and_where_and_a_cut_why() {
        let frame = |function: Option<&str>, module: Option<&str>, offset| {
            let (function, module) = (function.map(Arc::from), module.map(Arc::from));
            Arc::new(Frame { function, module, offset })
        };
        let frames = [frame(Some("a::b"), Some("/lib/x.so"), 16), frame(None, None, 255)];
        let (frames, cut) = (frames.into(), Some(Cut::NoFile));
        let stack = Call::Known(Arc::new(CallStack { frames, site: None, cut }));
        let expected = [
            "a::b",
            "    x.so 0x10",
            "a function without a name",
            "    no file 0xff",
            "… the last frame is in no file",
        ];
        assert_eq!(lines(&stack), expected);
        let unknown = Call::Unknown(Unknown::BeforeAttach);
        assert_eq!(lines(&unknown), ["not known: allocated before the attach"]);
    }
}
