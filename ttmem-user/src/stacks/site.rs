//! Which frames of a stack are its site: a function of the program or of ttnn, and of a Python program
//! also the line that leads to it.

use std::sync::Arc;

use super::{files::Files, names::without_arguments};
use crate::ledger::call::{Cut, Frame, Place};

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

/// Where a program in another language begins: farther out nothing is known of what asked for the buffer.
const BINDINGS: [&str; 2] = ["nanobind::", "pybind11::"];

/// Files of the system: what has no name in them passes calls on.
const SYSTEM: [&str; 7] =
    ["libc.so", "libc-", "libstdc++", "libpthread", "libgcc_s", "libm.so", "ld-linux"];

/// Parts of the names of files that belong to tt-metal or ttnn.
const TT_METAL: [&str; 3] = ["tt_metal", "ttnn", "libtt-umd"];

/// Where a package of Python is that belongs to ttnn: what is in it passes calls on.
const PACKAGE: &str = "ttnn";
/// What it is in: where packages are installed, or its sources.
const AROUND: [&str; 3] = ["site-packages", "dist-packages", "ttnn"];

/// The site of a stack. `beyond`: so many frames at its end come after what was cut off.
pub fn site(
    frames: &[Arc<Frame>],
    cut: Option<&Cut>,
    beyond: usize,
    files: &mut Files,
) -> Option<Arc<str>> {
    let native = native(&frames[..frames.len().saturating_sub(beyond)], cut);
    let Some((file, line)) = line(frames) else { return native };
    let file = files.short(file);
    let line = line.map_or_else(String::new, |line| format!(":{line}"));
    Some(match native {
        Some(native) => format!("{file}{line} {native}").into(),
        None => format!("{file}{line}").into(),
    })
}

/// The file and line of the innermost Python function that is not ttnn's; if all are, of the outermost.
fn line(frames: &[Arc<Frame>]) -> Option<(&Arc<str>, Option<u32>)> {
    let python = frames.iter().filter_map(|frame| match (&frame.module, frame.place) {
        (Some(module), Place::Python(line)) => Some((module, line)),
        _ => None,
    });
    let mut outermost = None;
    for (module, line) in python {
        if !is_ttnn(module) {
            return Some((module, line));
        }
        outermost = Some((module, line));
    }
    outermost
}

/// Whether a file is in ttnn's package.
fn is_ttnn(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    parts.windows(2).any(|pair| AROUND.contains(&pair[0]) && pair[1] == PACKAGE)
}

/// The native part of a site: the innermost function that is not on the way of every allocation, up to where
/// Python, its bindings or the system begin; if all are, the outermost of them. Of code without a name
/// that is neither tt-metal's nor the system's it is the file and the offset. `None` if none has a name,
/// or if it may be behind a cut.
fn native(frames: &[Arc<Frame>], cut: Option<&Cut>) -> Option<Arc<str>> {
    let begins = |name: &str, starts: &[&str]| starts.iter().any(|start| name.starts_with(start));
    // What is probed is in tt-metal's library, whatever that is called.
    let own = frames.first().and_then(|frame| frame.module.as_deref());
    let mut outermost = None;
    for frame in frames {
        let Place::Code(offset) = frame.place else { return outermost.map(Into::into) };
        let Some(function) = frame.function.as_deref() else {
            let module = frame.module.as_deref()?;
            let file = module.rsplit_once('/').map_or(module, |(_, file)| file);
            let is_tt_metal =
                own == Some(module) || TT_METAL.iter().any(|part| file.contains(part));
            if is_tt_metal || begins(file, &SYSTEM) {
                continue;
            }
            return Some(format!("{file}+{offset:#x}").into());
        };
        if is_start(function) || is_python(function) || begins(function, &BINDINGS) {
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

/// Whether a function is where a program starts.
fn is_start(name: &str) -> bool {
    name == "_start" || name.starts_with("__libc_start")
}

/// Whether a function is one that CPython exports: `PyObject_Call`, `_PyEval_EvalFrameDefault`,
/// `Py_BytesMain`. Of other people's names some begin alike, as `Pyramid::load` does.
fn is_python(name: &str) -> bool {
    let name = name.strip_prefix('_').unwrap_or(name);
    let Some((kind, _)) = name.strip_prefix("Py").and_then(|rest| rest.split_once('_')) else {
        return false;
    };
    let is_word = kind.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_word && !kind.starts_with(|first: char| !first.is_ascii_uppercase()) && !name.contains("::")
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
            let (function, module, place) =
                match (function.strip_prefix('@'), function.find(".py:")) {
                    (Some(module), _) => (None, module, Place::Code(0x12)),
                    (None, Some(end)) => {
                        let (module, line) = function.split_at(end + 3);
                        (Some("f".into()), module, Place::Python(line[1..].parse().ok()))
                    }
                    _ => (Some(Arc::from(*function)), "/lib/libtt_metal.so", Place::Code(0x12)),
                };
            Arc::new(Frame { function, module: Some(module.into()), place })
        };
        functions.iter().map(frame).collect()
    }

    fn site_of(functions: &[&str]) -> Option<String> {
        site(&frames(functions), None, 0, &mut Files::default()).map(|site| site.to_string())
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
        let unnamed = ["@/x/_ttnncpp.so", "@/lib/libc.so.6", "load_weights<std::x>", "main"];
        assert_eq!(site_behind(&unnamed).unwrap(), "load_weights<…>");
    }

    #[test]
    fn if_all_are_on_the_way_it_is_the_outermost() {
        let direct = ["tt::tt_metal::to_device", "nanobind::detail::call", "ttnn::other", "main"];
        assert_eq!(site_behind(&direct).unwrap(), "tt::tt_metal::to_device");
        assert_eq!(site_behind(&[]).unwrap(), ALLOCATOR[2]);
        assert_eq!(site_of(&["@/lib/libtt_metal.so", "_start"]), None);
        assert_eq!(site_of(&[]), None);
    }

    #[test]
    fn what_a_cut_may_hide_is_not_made_up() {
        let cut = |functions: &[&str]| native(&frames(functions), Some(&Cut::Copied));
        assert_eq!(cut(&ALLOCATOR), None);
        assert_eq!(cut(&["tt::tt_metal::x", "ttnn::zeros"]).as_deref(), Some("ttnn::zeros"));
        assert_eq!(cut(&["tt::tt_metal::x", "_PyEval_Vector"]).as_deref(), Some("tt::tt_metal::x"));
    }

    #[test]
    fn python_is_known_by_its_own_names_alone() {
        for name in ["PyObject_Call", "_PyEval_EvalFrameDefault", "Py_BytesMain", "_Py_x"] {
            assert_eq!(site_behind(&[name, "main"]).unwrap(), ALLOCATOR[2], "{name}");
        }
        for name in ["Pyramid::load", "PyTorchBridge::alloc", "Pyramid_load", "PyBridge::a_b"] {
            assert_eq!(site_behind(&[name, "main"]).unwrap(), name);
        }
        assert_eq!(site_behind(&["_start_workers", "main"]).unwrap(), "_start_workers");
    }

    #[test]
    fn of_a_python_program_the_line_comes_first() {
        let ops = [
            "ttnn::zeros",
            "/x/site-packages/ttnn/decorators.py:9",
            "call",
            "/a/m.py:42",
            "/a/n.py:7",
        ];
        assert_eq!(site_behind(&ops).unwrap(), "m.py:42 ttnn::zeros");
        let own = ["ttnn::zeros", "/src/ttnn/ttnn/a.py:9", "/src/ttnn/ttnn/b.py:3", "_start"];
        assert_eq!(site_behind(&own).unwrap(), "b.py:3 ttnn::zeros", "all are ttnn's");
        let model = ["tt::tt_metal::x", "/home/ttnn/model.py:1"];
        assert_eq!(site_behind(&model).unwrap(), "model.py:1 tt::tt_metal::x", "a user's name");
        let no_line = ["ttnn::add", "/a/m.py:?"];
        assert_eq!(site_behind(&no_line).unwrap(), "m.py ttnn::add");
    }

    #[test]
    fn a_line_beyond_a_cut_is_known_and_what_was_cut_off_is_not() {
        let beyond = |functions: &[&str], beyond| {
            let frames = frames(functions);
            site(&frames, Some(&Cut::Copied), beyond, &mut Files::default()).unwrap().to_string()
        };
        assert_eq!(beyond(&["tt::tt_metal::x", "/a/m.py:3"], 1), "m.py:3");
        assert_eq!(beyond(&["tt::tt_metal::x", "/a/m.py:3"], 0), "m.py:3 tt::tt_metal::x");
        assert_eq!(beyond(&["ttnn::add", "/a/m.py:3"], 1), "m.py:3 ttnn::add");
    }

    #[test]
    fn code_without_a_name_is_not_passed_over() {
        let unnamed = site_behind(&["@/opt/app/libmodel.so", "main"]);
        assert_eq!(unnamed.unwrap(), "libmodel.so+0x12");
        let own = site_of(&["@/x/renamed.so", ALLOCATOR[1], "@/x/renamed.so", "run"]);
        assert_eq!(own.unwrap(), "run", "tt-metal's own library, whatever it is called");
    }
}
