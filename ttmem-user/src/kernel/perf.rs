//! A perf event per probe: for kernels without a dependable `uprobe_multi`.

use std::{num::NonZeroU32, path::Path};

use aya::{
    Ebpf,
    programs::{
        ProgramError, UProbe,
        uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLinkId, UProbeScope},
    },
};

use super::{
    load::{KernelError, PROGRAM},
    multi::Point,
};
use crate::units::Pid;

/// Loads the program if that has not been done.
pub fn load(ebpf: &mut Ebpf) -> Result<(), KernelError> {
    match program(ebpf)?.load() {
        Ok(()) | Err(ProgramError::AlreadyLoaded) => Ok(()),
        Err(error) => Err(KernelError::Object(error.to_string())),
    }
}

/// Attaches to `points` of the file `path` in one process.
pub fn attach(
    ebpf: &mut Ebpf,
    path: &Path,
    points: &[Point],
    pid: Pid,
) -> Result<Vec<UProbeLinkId>, KernelError> {
    let pid = NonZeroU32::new(pid.0).ok_or_else(|| KernelError::Object("pid 0".to_owned()))?;
    let program = program(ebpf)?;
    let mut links = Vec::with_capacity(points.len());
    for (offset, cookie) in points {
        let point = UProbeAttachPoint {
            location: UProbeAttachLocation::AbsoluteOffset(offset.0),
            cookie: Some(*cookie),
        };
        match program.attach(point, path, UProbeScope::OneProcess(pid)) {
            Ok(link) => links.push(link),
            Err(source) => {
                // aya would keep those that are in place until ttmem ends.
                detach(ebpf, links);
                let path = path.to_owned();
                return Err(KernelError::AttachPerf { path, offset: *offset, source });
            }
        }
    }
    Ok(links)
}

/// Takes links out; one that the kernel has already taken away is no concern.
pub fn detach(ebpf: &mut Ebpf, links: Vec<UProbeLinkId>) {
    let Ok(program) = program(ebpf) else { return };
    for link in links {
        let _ = program.detach(link);
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut UProbe, KernelError> {
    ebpf.program_mut(PROGRAM)
        .and_then(|program| <&mut UProbe>::try_from(program).ok())
        .ok_or_else(|| KernelError::Object(format!("no uprobe program {PROGRAM}")))
}
