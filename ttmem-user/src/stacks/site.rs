//! Which frame of a stack is its site.

use std::sync::Arc;

use super::names::without_arguments;
use crate::ledger::call::{Cut, Frame};

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
}
