//! How a range of cores is kept, and where an allocator of circular buffers keeps its own.

use iced_x86::{Decoder, DecoderOptions, FlowControl};

use super::super::{
    field::{Refusal, agreed, paths},
    symbolic::{
        exec::{Call, Executor, Outcome, Path, Target},
        expr::{Condition, Expr, Relation, Value, base_and_offset, walk},
        returns,
    },
};
use crate::{image::Image, units::Svma};

/// The offsets of (end, start) on both axes that the eBPF side takes for granted.
const AXES: [(i64, i64); 2] = [(0x10, 0), (0x18, 8)];

/// Refuses a `CoreRange` that is not start x, start y, end x, end y of 8 bytes each.
///
/// Two ranges intersect if on both axes each ends no earlier than the other starts: each
/// comparison shows an end of one and the start of the other.
pub fn check(image: &Image<'_>, name: &str) -> Result<(), Refusal> {
    let mut axes = Vec::new();
    for path in paths(image, &Executor::new(image), name)? {
        let Outcome::Return(value) = &path.outcome else {
            return Err(format!("{name} was not understood"));
        };
        let mut note = |condition: &Condition| axes.extend(comparison(condition));
        path.conditions.iter().for_each(&mut note);
        walk(value, &mut |part| {
            if let Expr::Truth(condition) = &**part {
                note(condition);
            }
        });
    }
    axes.sort_unstable();
    axes.dedup();
    let expected: Vec<Comparison> =
        [true, false].iter().flat_map(|&own| AXES.map(|(end, start)| (own, end, start))).collect();
    let mut sorted = expected;
    sorted.sort_unstable();
    if axes == sorted {
        Ok(())
    } else {
        Err(format!("{name} compares {axes:x?}: a range of cores is not as expected"))
    }
}

/// Whether the end is argument 0's (else argument 1's), and the offsets of end and start.
type Comparison = (bool, i64, i64);

fn comparison(condition: &Condition) -> Option<Comparison> {
    let (left, right) = (operand(&condition.left)?, operand(&condition.right)?);
    // "left is the end": left >= right, or its opposite.
    let left_is_end = match condition.relation {
        Relation::AboveEqual | Relation::Below => true,
        Relation::BelowEqual | Relation::Above => false,
        _ => return None,
    };
    let (end, start) = if left_is_end { (left, right) } else { (right, left) };
    (condition.width == 8 && end.0 != start.0).then_some((end.0 == 0, end.1, start.1))
}

/// Argument and offset of an 8-byte field of an argument.
fn operand(value: &Value) -> Option<(u8, i64)> {
    let Expr::Load { address, width: 8 } = &**value else { return None };
    let (base, offset) = base_and_offset(address);
    match **base {
        Expr::Arg(argument) => Some((argument, offset)),
        _ => None,
    }
}

/// Instructions of a function that are looked at; the longest seen has some 800.
const MAX_INSTRUCTIONS: usize = 4000;

/// Where an allocator keeps its range of cores: `caller` passes it to `intersects`, and then the
/// allocator itself to `mark`.
///
/// The way there from the caller's entry is too long to follow, so it is followed from the block
/// that calls `intersects`, whatever the registers hold there.
pub fn of_allocator(
    image: &Image<'_>,
    caller: &str,
    intersects: &str,
    mark: &str,
) -> Result<u32, Refusal> {
    let executor = Executor::new(image);
    let offsets = blocks_calling(image, caller, intersects).into_iter().flat_map(|block| {
        executor.run(block).into_iter().filter_map(|path| range_offset(&path, intersects, mark))
    });
    let offset = agreed(&format!("what {caller} passes to mark_address"), offsets)?;
    u32::try_from(offset).map_err(|_| format!("{caller} passes an allocator at {offset:#x}"))
}

/// On a path that asks whether a range intersects and then marks: range minus allocator.
fn range_offset(path: &Path, intersects: &str, mark: &str) -> Option<i64> {
    let is = |call: &Call, name: &str| matches!(&call.target, Target::Named(n) if **n == *name);
    let marked = path.calls().find(|call| is(call, mark))?;
    // The last one asked: the allocators before it were passed over.
    let asked = path
        .calls()
        .take_while(|call| call.number < marked.number)
        .filter(|call| is(call, intersects))
        .last()?;
    let (allocator, at) = base_and_offset(&marked.arguments[0]);
    asked.arguments[..2].iter().find_map(|range| {
        let (base, offset) = base_and_offset(range);
        (base == allocator).then(|| offset - at)
    })
}

/// The beginnings of the blocks of a function that call another.
fn blocks_calling(image: &Image<'_>, function: &str, callee: &str) -> Vec<Svma> {
    let Some(symbol) = image.symbol(function) else { return Vec::new() };
    let Some(code) = image.code_at(symbol.address) else { return Vec::new() };
    let size = usize::try_from(symbol.size).map_or(code.len(), |size| size.min(code.len()));
    let decoder = Decoder::with_ip(64, &code[..size], symbol.address.0, DecoderOptions::NONE);
    let mut begin = symbol.address.0;
    let mut blocks = Vec::new();
    for instruction in decoder.into_iter().take(MAX_INSTRUCTIONS) {
        let is_call = instruction.flow_control() == FlowControl::Call;
        let target = Svma(instruction.near_branch_target());
        if is_call && returns::name_of(image, target) == Some(callee) {
            blocks.push(Svma(begin));
        }
        if instruction.flow_control() != FlowControl::Next {
            begin = instruction.next_ip();
        }
    }
    blocks
}
