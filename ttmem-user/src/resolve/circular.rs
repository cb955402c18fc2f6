//! Circular and dataflow buffers: which functions tell of them, and how to read their cores.
//!
//! Leaves out versions without dataflow buffers: what is not there is not missing.
//!
//! Invariant: what the eBPF side takes for granted of a range of cores
//! ([`RANGE_BYTES`]) is checked against this library's own code, or nothing is read.

mod range;

use ttmem_common::{
    layout::{CircularLayout, RANGE_BYTES},
    probe::ProbeId,
};

use super::{
    field::{Facts, Field, Refusal, paths, returned, returned_field},
    symbolic::{
        exec::Executor,
        expr::{Expr, Op, untruncated},
    },
};
use crate::image::Image;

/// `track_allocate_cb`, up to its parameters.
const CIRCULAR: &str = "_ZN2tt8tt_metal12GraphTracker17track_allocate_cbE";
/// Its parameters (cores, address, size, globally allocated, device), with the namespace that
/// `CoreRange` and `CoreRangeSet` are in: they moved in 0.64.
const PARAMETERS: [(&str, Namespace); 2] = [
    (
        "RKNS0_12CoreRangeSetEmmbPKNS0_7IDeviceE",
        Namespace {
            count: "_ZNK2tt8tt_metal12CoreRangeSet4sizeEv",
            intersects: "_ZNK2tt8tt_metal9CoreRange10intersectsERKS1_",
        },
    ),
    (
        "RK12CoreRangeSetmmbPKNS0_7IDeviceE",
        Namespace {
            count: "_ZNK12CoreRangeSet4sizeEv",
            intersects: "_ZNK9CoreRange10intersectsERKS_",
        },
    ),
];
const CONTEXT: &str =
    "_ZN2tt8tt_metal6detail11ProgramImpl25allocate_circular_buffersEPKNS0_7IDeviceE";
const DATAFLOW_CONTEXT: &str =
    "_ZN2tt8tt_metal6detail11ProgramImpl25allocate_dataflow_buffersEPKNS0_7IDeviceE";
const MARK: &str = "_ZN2tt8tt_metal6detail11ProgramImpl23CircularBufferAllocator12mark_addressEmmm";
const PROGRAM_END: &str = "_ZN2tt8tt_metal6detail11ProgramImplD2Ev";
const DISPATCH: &str = "_ZN2tt8tt_metal12GraphTracker13track_programEPNS0_7ProgramEPKNS0_7IDeviceE";
/// An accessor of `Program` that asks its `ProgramImpl`.
const ASKS_IMPLEMENTATION: &str = "_ZNK2tt8tt_metal7Program14get_runtime_idEv";

/// Names of the functions that show how ranges of cores are kept.
#[derive(Clone, Copy, Debug)]
struct Namespace {
    /// `CoreRangeSet::size()`.
    count: &'static str,
    /// `CoreRange::intersects(const CoreRange&)`.
    intersects: &'static str,
}

/// The symbol of a probe of this family.
pub fn symbol_of(image: &Image<'_>, probe: ProbeId) -> Result<String, Refusal> {
    Ok(match probe {
        ProbeId::CircularContext => CONTEXT.to_owned(),
        ProbeId::DataflowContext => DATAFLOW_CONTEXT.to_owned(),
        ProbeId::Dataflow => MARK.to_owned(),
        ProbeId::ProgramEnd => PROGRAM_END.to_owned(),
        ProbeId::Dispatch => DISPATCH.to_owned(),
        _ => format!("{CIRCULAR}{}", parameters(image)?.0),
    })
}

fn parameters(image: &Image<'_>) -> Result<(&'static str, Namespace), Refusal> {
    let known = PARAMETERS
        .into_iter()
        .find(|(parameters, _)| image.symbol(&format!("{CIRCULAR}{parameters}")).is_some());
    known.ok_or_else(|| match image.symbols_with_prefix(CIRCULAR).first() {
        Some((name, _)) => format!("{name} has parameters that are not known"),
        None => "there is no GraphTracker::track_allocate_cb(…)".into(),
    })
}

/// What was decoded, and why each probe may not be used.
pub struct Circular {
    /// For the eBPF side.
    pub layout: CircularLayout,
    has_dataflow: bool,
    cores: Result<(), Refusal>,
    dataflow: Result<(), Refusal>,
    dispatch: Result<(), Refusal>,
}

impl Circular {
    /// Whether this version has what a probe observes.
    pub const fn exists(&self, probe: ProbeId) -> bool {
        self.has_dataflow || !matches!(probe, ProbeId::DataflowContext | ProbeId::Dataflow)
    }

    /// Refuses a probe whose record could not be filled.
    pub fn check(&self, probe: ProbeId) -> Result<(), Refusal> {
        match probe {
            ProbeId::Circular => self.cores.clone(),
            ProbeId::Dataflow => self.cores.clone().and(self.dataflow.clone()),
            ProbeId::Dispatch => self.dispatch.clone(),
            _ => Ok(()),
        }
    }
}

/// Decodes the layout.
pub fn resolve(image: &Image<'_>, facts: &mut Facts) -> Circular {
    let mut layout = CircularLayout::ABSENT;
    let has_dataflow = image.symbol(DATAFLOW_CONTEXT).is_some();
    let namespace = parameters(image).map(|(_, namespace)| namespace);
    let cores = namespace.clone().and_then(|namespace| {
        let vector = ranges(image, namespace.count)?;
        range::check(image, namespace.intersects)?;
        (layout.ranges_begin, layout.ranges_end) = vector;
        let [begin, end] = [vector.0, vector.1];
        facts.note("CoreRangeSet ranges", &format!("+{begin:#x}..+{end:#x}"), namespace.count);
        facts.note("CoreRange", &"start x, y, end x, y of 8 bytes each", namespace.intersects);
        Ok(())
    });
    let dataflow = namespace.and_then(|namespace| {
        if has_dataflow {
            layout.allocator_range =
                range::of_allocator(image, DATAFLOW_CONTEXT, namespace.intersects, MARK)?;
            let offset = format!("+{:#x}", layout.allocator_range);
            facts.note("CircularBufferAllocator cores", &offset, DATAFLOW_CONTEXT);
        }
        Ok(())
    });
    let dispatch = implementation(image).map(|offset| {
        layout.program_implementation = offset;
        facts.note("Program implementation", &format!("+{offset:#x}"), ASKS_IMPLEMENTATION);
    });
    Circular { layout, has_dataflow, cores, dataflow, dispatch }
}

/// Begin and end of the vector of ranges, from `size()`: `(end - begin) / 32`.
fn ranges(image: &Image<'_>, name: &str) -> Result<(u32, u32), Refusal> {
    let value = returned(&paths(image, &Executor::new(image), name)?, name)?;
    let vector = || {
        let Expr::Binary(Op::Sar | Op::Shr, bytes, by) = &**untruncated(&value) else {
            return None;
        };
        let Expr::Binary(Op::Sub, end, begin) = &**bytes else { return None };
        let offset = |value| match Field::of(value, 0)? {
            Field { steps, width: 8 } if steps.len() == 1 => Some(steps[0]),
            _ => None,
        };
        let fits = **by == Expr::Const(u64::from(RANGE_BYTES.trailing_zeros()));
        Some((offset(begin)?, offset(end)?)).filter(|_| fits)
    };
    vector().ok_or_else(|| format!("{name} is no number of {RANGE_BYTES}-byte ranges, but {value}"))
}

/// Where `Program` keeps its `ProgramImpl*`.
fn implementation(image: &Image<'_>) -> Result<u32, Refusal> {
    let field = returned_field(image, &Executor::new(image), ASKS_IMPLEMENTATION, 0)?;
    match *field.steps {
        [pointer, _] => Ok(pointer),
        _ => Err(format!("{ASKS_IMPLEMENTATION} returns {field}")),
    }
}

#[cfg(test)]
mod tests;
