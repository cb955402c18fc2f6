//! One `uprobe_multi` link for all probes (Linux ≥ 6.6), which aya 0.14 cannot make.
//!
//! aya makes a perf event and a link for each function; detaching those takes about a tenth of a
//! second each, also when the agent is killed. One link attaches and detaches all at once. The
//! program is loaded a second time, on aya's maps, with the attach type that such a link wants.
#![expect(unsafe_code, reason = "bpf(2) and its unions")]

use std::{
    collections::{HashMap, HashSet},
    ffi::CString,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use aya_obj::generated::{
    bpf_attach_type::BPF_TRACE_UPROBE_MULTI, bpf_attr, bpf_cmd, bpf_prog_type::BPF_PROG_TYPE_KPROBE,
};

use super::load::{KernelError, PROGRAM};
use crate::units::{FileOffset, Pid};

/// A point of a link: where, and what the program is told.
pub type Point = (FileOffset, u64);

fn bpf(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<OwnedFd> {
    // SAFETY: `attr` is a whole `bpf_attr`; the pointers in it are valid during the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            std::ptr::from_mut(attr),
            size_of::<bpf_attr>(),
        )
    };
    match i32::try_from(result) {
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

fn empty_attr() -> bpf_attr {
    // SAFETY: all-zero is what the kernel takes for "not set".
    unsafe { std::mem::zeroed() }
}

fn map_data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data) | Map::PerCpuArray(data) | Map::RingBuf(data) | Map::LruHashMap(data) => {
            Some(data)
        }
        _ => None,
    }
}

/// Loads the program for `uprobe_multi` links, on the maps that aya has created.
pub fn load(ebpf: &Ebpf, object: &[u8]) -> Result<OwnedFd, KernelError> {
    let broken = |what: String| KernelError::Object(what);
    let mut object = aya_obj::Object::parse(object).map_err(|e| broken(e.to_string()))?;
    let maps: HashMap<String, aya_obj::Map> = object.maps.drain().collect();
    let mut relocations = Vec::new();
    for (name, map) in &maps {
        let data = ebpf
            .map(name)
            .and_then(map_data)
            .ok_or_else(|| broken(format!("map {name} is missing or of an unexpected kind")))?;
        relocations.push((name.as_str(), data.fd().as_fd().as_raw_fd(), map));
    }
    let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    object.relocate_maps(relocations.into_iter(), &text).map_err(|e| broken(e.to_string()))?;
    object.relocate_calls(&text).map_err(|e| broken(e.to_string()))?;
    let program =
        object.programs.get(PROGRAM).ok_or_else(|| broken(format!("no program {PROGRAM}")))?;
    let function = object
        .functions
        .get(&program.function_key())
        .ok_or_else(|| broken(format!("no code of {PROGRAM}")))?;

    let mut attr = empty_attr();
    // SAFETY: this is the union member of BPF_PROG_LOAD; all of it is initialised.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.prog_type = BPF_PROG_TYPE_KPROBE as u32;
    load.expected_attach_type = BPF_TRACE_UPROBE_MULTI as u32;
    load.insns = function.instructions.as_ptr() as u64;
    load.insn_cnt = u32::try_from(function.instructions.len()).unwrap_or(u32::MAX);
    load.license = program.license.as_ptr() as u64;
    for (to, from) in load.prog_name.iter_mut().take(15).zip(PROGRAM.bytes()) {
        *to = from.cast_signed();
    }
    bpf(bpf_cmd::BPF_PROG_LOAD, &mut attr).map_err(|source| {
        let what = "the uprobe_multi program";
        match verifier_log(&mut attr) {
            Some(log) => KernelError::Verifier { what, source, log },
            None if source.kind() == io::ErrorKind::PermissionDenied => KernelError::NotAllowed,
            None => KernelError::Load { what, source },
        }
    })
}

/// Loads once more, to be told why not. That log is long: nobody pays for it who does not need it.
fn verifier_log(attr: &mut bpf_attr) -> Option<String> {
    let mut log = vec![0_u8; 1 << 20];
    // SAFETY: as in `load`.
    let load = unsafe { &mut attr.__bindgen_anon_3 };
    load.log_buf = log.as_mut_ptr() as u64;
    load.log_size = 1 << 20;
    load.log_level = 1;
    let _ = bpf(bpf_cmd::BPF_PROG_LOAD, attr);
    let end = log.iter().position(|&byte| byte == 0)?;
    let text = String::from_utf8_lossy(&log[..end]).into_owned();
    (!text.is_empty()).then_some(text)
}

/// Attaches to `points` of the file `path` in one process. Closing the descriptor detaches.
pub fn attach(
    program: BorrowedFd<'_>,
    path: &Path,
    points: &[Point],
    pid: Pid,
) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let (offsets, cookies): (Vec<u64>, Vec<u64>) =
        points.iter().map(|(offset, cookie)| (offset.0, *cookie)).unzip();
    let mut attr = empty_attr();
    // SAFETY: this is the union member of BPF_LINK_CREATE; all of it is initialised.
    let create = unsafe { &mut attr.link_create };
    create.__bindgen_anon_1.prog_fd = program.as_raw_fd().cast_unsigned();
    create.attach_type = BPF_TRACE_UPROBE_MULTI as u32;
    // SAFETY: this is the union member that the attach type selects.
    let multi = unsafe { &mut create.__bindgen_anon_3.uprobe_multi };
    multi.path = path.as_ptr() as u64;
    multi.offsets = offsets.as_ptr() as u64;
    multi.cookies = cookies.as_ptr() as u64;
    multi.cnt = u32::try_from(points.len()).unwrap_or(u32::MAX);
    multi.pid = pid.0;
    bpf(bpf_cmd::BPF_LINK_CREATE, &mut attr)
}
