//! Puts probes into targets and takes them out again.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use aya::{
    Ebpf,
    maps::{Array, MapData},
    programs::uprobe::UProbeLinkId,
};
use ttmem_common::{layout::LayoutTable, probe::cookie, python::PythonLayout};
use zerocopy::{FromZeros as _, Immutable, IntoBytes};

use super::{KernelError, multi, perf};
use crate::{resolve::plan::AttachPoint, units::Pid};

/// The part of the eBPF side that attaches.
pub struct Attacher {
    ebpf: Ebpf,
    /// The program for `uprobe_multi` links; `None`: use perf events.
    multi: Option<OwnedFd>,
}

/// The live attachment to one target.
#[must_use = "dropping it leaves perf events in place until the program ends"]
pub enum Link {
    /// One `uprobe_multi` link; closing it detaches.
    Multi(OwnedFd),
    /// aya's links.
    Perf(Vec<UProbeLinkId>),
}

impl Attacher {
    pub(super) fn new(ebpf: Ebpf, multi: Option<OwnedFd>) -> Self {
        Self { ebpf, multi }
    }

    /// Whether each probe is a perf event.
    pub fn is_by_perf_events(&self) -> bool {
        self.multi.is_none()
    }

    /// Tells the eBPF side the layout of the target in `slot`.
    pub fn set_layout(&mut self, slot: u32, layout: &LayoutTable) -> Result<(), KernelError> {
        const LEN: usize = size_of::<LayoutTable>();
        self.set::<_, LEN>("LAYOUTS", slot, layout)
    }

    /// Tells the eBPF side where the interpreter of the target in `slot` keeps its frames.
    pub fn set_python(&mut self, slot: u32, layout: &PythonLayout) -> Result<(), KernelError> {
        const LEN: usize = size_of::<PythonLayout>();
        self.set::<_, LEN>("PYTHON", slot, layout)
    }

    fn set<T: IntoBytes + Immutable, const LEN: usize>(
        &mut self,
        name: &'static str,
        slot: u32,
        value: &T,
    ) -> Result<(), KernelError> {
        let refused = |error: aya::maps::MapError| KernelError::Object(error.to_string());
        let mut bytes = [0_u8; LEN];
        bytes.copy_from_slice(value.as_bytes());
        let map =
            self.ebpf.map_mut(name).ok_or_else(|| KernelError::Object(format!("no map {name}")))?;
        let mut layouts: Array<&mut MapData, [u8; LEN]> = Array::try_from(map).map_err(refused)?;
        layouts.set(slot, bytes, 0).map_err(refused)
    }

    /// Marks a slot as unused.
    pub fn clear_layout(&mut self, slot: u32) -> Result<(), KernelError> {
        self.set_layout(slot, &LayoutTable::new_zeroed())
    }

    /// Attaches the probes of a plan to one process, in their order.
    pub fn attach(
        &mut self,
        path: &Path,
        pid: Pid,
        slot: u32,
        points: &[AttachPoint],
    ) -> Result<Link, KernelError> {
        let points: Vec<multi::Point> =
            points.iter().map(|point| (point.offset, cookie(slot, point.probe))).collect();
        match &self.multi {
            Some(program) => multi::attach(program.as_fd(), path, &points, pid)
                .map(Link::Multi)
                .map_err(|source| match source.kind() {
                    io::ErrorKind::PermissionDenied => KernelError::NotAllowed,
                    _ => KernelError::AttachMulti {
                        path: path.to_owned(),
                        points: points.len(),
                        source,
                    },
                }),
            None => perf::attach(&mut self.ebpf, path, &points, pid).map(Link::Perf),
        }
    }

    /// Takes the probes of a link out.
    pub fn detach(&mut self, link: Link) {
        match link {
            Link::Multi(fd) => drop(fd),
            Link::Perf(links) => perf::detach(&mut self.ebpf, links),
        }
    }

    /// Passes the eBPF side's diagnostics on to the log; returns what to poll for more.
    pub fn logger<L: log::Log + 'static>(
        &mut self,
        to: &'static L,
    ) -> Result<aya_log::EbpfLogger<&'static L>, KernelError> {
        aya_log::EbpfLogger::init_with_logger(&mut self.ebpf, to)
            .map_err(|error| KernelError::Object(format!("its log: {error}")))
    }
}
