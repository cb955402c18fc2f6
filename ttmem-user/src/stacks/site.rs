//! Which frame of a stack is its site, and each different stack once.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::names::without_arguments;
use crate::ledger::call::{CallStack, Cut, Frame, Site};

/// Different stacks that are kept.
pub const MOST_STACKS: usize = 1 << 16;

/// What every allocation goes through: namespaces and functions whose names begin so. Of tt-metal all
/// that deals with buffers and tensors as such, of the rest what only passes calls on.
const ON_THE_WAY: [&str; 9] = [
    "tt::tt_metal::",
    "tt::stl::",
    "ttsl::",
    "std::",
    "ttnn::Tensor::",
    "ttnn::create_device_tensor",
    "ttnn::device_operation::",
    // The same, where its name takes newer rules of mangling than can be undone.
    "_ZN4ttnn16device_operation",
    "ttnn::prim::",
];

/// Where a program in another language, or the system, begins: farther out nothing is known of what
/// asked for the buffer.
const OUTSIDE: [&str; 6] = ["nanobind::", "pybind11::", "_Py", "Py", "__libc_start", "_start"];

/// The site of a stack: of what is inside of [`OUTSIDE`] the innermost function that is not on the
/// way of every allocation; if all are, the outermost of them. `None` if none has a name, or if it
/// may be behind a cut.
pub fn site(frames: &[Arc<Frame>], cut: Option<&Cut>) -> Option<Arc<str>> {
    let named = frames.iter().filter_map(|frame| frame.function.as_deref());
    let begins = |name: &str, starts: &[&str]| starts.iter().any(|start| name.starts_with(start));
    let mut outermost = None;
    for function in named {
        if begins(function, &OUTSIDE) {
            return outermost.map(Into::into);
        }
        let name = without_arguments(function);
        if !begins(&name, &ON_THE_WAY) && !is_inner_part(&name) {
            return Some(name.into());
        }
        outermost = Some(name);
    }
    outermost.filter(|_| cut.is_none()).map(Into::into)
}

/// Whether a function is a part of another that has a name for others to use.
fn is_inner_part(name: &str) -> bool {
    let name = name.strip_suffix("<…>").unwrap_or(name);
    let (around, own) = name.rsplit_once("::").unwrap_or(("", name));
    let is_detail = |part: &str| part == "detail" || part.ends_with("_detail");
    own.ends_with("_impl") || own == "create_output_tensors" || around.split("::").any(is_detail)
}

/// The different stacks, and their sites.
#[derive(Debug, Default)]
pub struct Stacks {
    known: HashSet<Arc<CallStack>, foldhash::fast::RandomState>,
    sites: HashMap<Arc<str>, u32>,
}

impl Stacks {
    /// The stack with these frames; `None` if there are too many others.
    pub fn intern(
        &mut self,
        frames: Box<[Arc<Frame>]>,
        cut: Option<Cut>,
    ) -> Option<Arc<CallStack>> {
        let site = site(&frames, cut.as_ref()).map(|name| self.numbered(name));
        let stack = CallStack { frames, site, cut };
        if let Some(known) = self.known.get(&stack) {
            return Some(Arc::clone(known));
        }
        if self.known.len() >= MOST_STACKS {
            return None;
        }
        let stack = Arc::new(stack);
        self.known.insert(Arc::clone(&stack));
        Some(stack)
    }

    fn numbered(&mut self, name: Arc<str>) -> Site {
        let next = u32::try_from(self.sites.len()).unwrap_or(u32::MAX);
        // A stack that is not kept leaves its site behind; of these there are no more than names.
        let number = *self.sites.entry(Arc::clone(&name)).or_insert(next);
        Site { number, name }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.known.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(functions: &[&str]) -> Box<[Arc<Frame>]> {
        let frame = |function: &&str| {
            let function = (!function.is_empty()).then(|| Arc::from(*function));
            Arc::new(Frame { function, module: None, offset: 0 })
        };
        functions.iter().map(frame).collect()
    }

    fn site_of(functions: &[&str]) -> Option<String> {
        site(&frames(functions), None).map(|site| site.to_string())
    }

    const ALLOCATOR: [&str; 3] = [
        "tt::tt_metal::GraphTracker::track_allocate",
        "tt::tt_metal::BufferImpl::create",
        "tt::tt_metal::distributed::MeshBuffer::create",
    ];

    fn site_behind(functions: &[&str]) -> Option<String> {
        site_of(&[&ALLOCATOR, functions].concat())
    }

    #[test]
    fn the_site_is_the_innermost_function_that_is_not_on_the_way() {
        let zeros = ["ttnn::Tensor::to_device", "ttnn::full_impl<float>", "ttnn::zeros", "main"];
        assert_eq!(site_behind(&zeros).unwrap(), "ttnn::zeros");
        let add = [
            "ttnn::create_device_tensor",
            "ttnn::operations::binary_ng::BinaryNgDeviceOperation::create_output_tensors",
            "_ZN4ttnn16device_operation6detail6launchITkNS0_22DeviceOperationConceptE",
            "ttnn::prim::binary_ng",
            "ttnn::detail::invoke_binary_ng_impl<ttnn::Tensor>",
            "ttnn::add",
        ];
        assert_eq!(site_behind(&add).unwrap(), "ttnn::add");
        assert_eq!(site_behind(&["", "load_weights<std::x>", "main"]).unwrap(), "load_weights<…>");
    }

    #[test]
    fn if_all_are_on_the_way_it_is_the_outermost() {
        let direct = ["tt::tt_metal::to_device", "nanobind::detail::call", "ttnn::other", "main"];
        assert_eq!(site_behind(&direct).unwrap(), "tt::tt_metal::to_device");
        assert_eq!(site_behind(&[]).unwrap(), ALLOCATOR[2]);
        assert_eq!(site_of(&["", "_start"]), None);
        assert_eq!(site_of(&[]), None);
    }

    #[test]
    fn what_a_cut_may_hide_is_not_made_up() {
        let cut = |functions: &[&str]| site(&frames(functions), Some(&Cut::Copied));
        assert_eq!(cut(&ALLOCATOR), None);
        assert_eq!(cut(&["tt::tt_metal::x", "ttnn::zeros"]).as_deref(), Some("ttnn::zeros"));
        assert_eq!(cut(&["tt::tt_metal::x", "_PyEval"]).as_deref(), Some("tt::tt_metal::x"));
    }

    #[test]
    fn each_different_stack_is_kept_once_and_only_so_many() {
        let mut stacks = Stacks::default();
        let mut add = |function: &str, cut| stacks.intern(frames(&[function]), cut);
        let first = add("a", None).unwrap();
        assert!(Arc::ptr_eq(&first, &add("a", None).unwrap()));
        assert!(!Arc::ptr_eq(&first, &add("a", Some(Cut::Deep)).unwrap()));
        for number in 2..MOST_STACKS {
            assert!(add(&number.to_string(), None).is_some());
        }
        assert_eq!(add("one more", None), None);
        assert!(Arc::ptr_eq(&first, &add("a", None).unwrap()), "what is known still is");
        assert_eq!(stacks.len(), MOST_STACKS);
    }
}
