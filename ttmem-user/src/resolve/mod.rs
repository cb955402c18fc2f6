//! Image bytes in, [`plan::AttachPlan`] out. Pure: no process, no I/O.
//!
//! Invariant: no offset is assumed. Each is decoded from the machine code of the image's own
//! functions, or it is left out, with the reason.

mod allocator;
mod buffer;
mod cache;
mod circular;
mod device;
mod failure;
mod field;
mod free_list;
mod per_core;
pub mod plan;
mod probes;
mod prologue;
pub mod python;
mod shard;
pub mod symbolic;

use ttmem_common::{
    layout::{BufferLayout, LayoutTable},
    probe::{PROBES, ProbeId},
};

pub use cache::PlanCache;
pub use failure::BUFFER as FAILED_BUFFER;

use crate::{image::Image, missing::Unresolved};
use field::{Facts, Refusal};
use plan::AttachPlan;

/// The name to look for in an image's string tables before it is parsed as a whole.
pub const MARKER: &str = probes::ALLOCATE;

/// Whether an image contains tt-metal's allocation functions.
pub fn is_tt_metal(image: &Image<'_>) -> bool {
    image.symbol(probes::ALLOCATE).is_some_and(|symbol| symbol.is_function)
}

/// Decodes everything that attaching to an image needs.
pub fn resolve(image: &Image<'_>) -> AttachPlan {
    let mut facts = Facts::default();
    let mut unresolved: Vec<Unresolved> = Vec::new();
    let mut refuse = |probe: &str, reason: Refusal| {
        unresolved.push(Unresolved { probe: probe.to_owned(), reason });
    };
    let (mut buffer, essential) = buffer_layout(image, &mut facts, &mut refuse);
    let (device, failed) = device::resolve(image, &mut facts);
    let pools = allocator::pools(image, &mut facts);
    per_core::count_only_with(&mut buffer, &pools.layouts);
    for (name, reason) in failed.into_iter().chain(pools.failed) {
        refuse(&name, reason);
    }
    let failures = failure::resolve(image, &mut facts);
    for (name, reason) in failures.refused {
        refuse(&name, reason);
    }
    let programs = circular::resolve(image, &mut facts);
    let mut points = Vec::new();
    for probe in PROBES.into_iter().filter(|probe| programs.exists(*probe)) {
        if probe == ProbeId::Failure {
            points.extend_from_slice(&failures.points);
            continue;
        }
        let point = probes::attach_point(image, probe).and_then(|point| match &essential {
            Err(reason) if probe == ProbeId::Allocate => Err(reason.clone()),
            _ => programs.check(probe).map(|()| point),
        });
        match point {
            Ok(point) => points.push(point),
            Err(reason) => refuse(probe.name(), reason),
        }
    }
    let memory = allocator::memory(image, &mut facts, pools.free_lists);
    let memory = match essential {
        Ok(()) => memory,
        Err(reason) => Err(reason),
    };
    AttachPlan {
        points,
        layout: LayoutTable {
            tgid: 0,
            in_use: 0,
            buffer,
            device,
            pools: pools.layouts,
            failure: failures.layout,
            circular: programs.layout,
        },
        memory,
        facts: facts.0,
        unresolved,
    }
}

/// The layout of `Buffer`, and whether what every allocation record needs is in it.
fn buffer_layout(
    image: &Image<'_>,
    facts: &mut Facts,
    refuse: &mut dyn FnMut(&str, Refusal),
) -> (BufferLayout, Result<(), Refusal>) {
    let mut layout = BufferLayout::ABSENT;
    let essential = buffer::home(image).and_then(|home| {
        buffer::essential(&home, facts, &mut layout)?;
        if let Err(reason) = shard::resolve(&home, facts, &mut layout) {
            refuse("Buffer shard fields", reason);
        }
        layout = layout.with_window().ok_or("the fields of a Buffer lie too far apart")?;
        Ok(())
    });
    if essential.is_err() {
        // A layout that is only half known must not be used by halves.
        layout = BufferLayout::ABSENT;
    }
    (layout, essential)
}
