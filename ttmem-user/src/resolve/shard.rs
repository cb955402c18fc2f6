//! How a sharded buffer's pages lie on its cores: the fields that its size per bank follows from.
//!
//! `num_dev_pages()` computes, for a sharded layout, either (shard height / page height) × (shard
//! width / page width) × cores, or ceil(shards / cores) × pages of a shard × cores. The operands
//! of these two formulas are the fields; the flags that choose between them are the conditions.

use ttmem_common::layout::BufferLayout;

use super::{
    buffer::Home,
    field::{Facts, Refusal, agreed, paths},
    symbolic::{
        exec::{Executor, Outcome, Path},
        expr::{Condition, Expr, Op, Relation, Value, untruncated, walk},
    },
};

const NUM_CORES: &str = "_ZNK2tt8tt_metal6Buffer9num_coresEv";
const NUM_DEV_PAGES: &str = "_ZNK2tt8tt_metal6Buffer13num_dev_pagesEv";
/// Parts of the formulas that some versions keep in functions of their own.
const INLINE: [&str; 1] = ["_ZNK2tt8tt_metal22BufferDistributionSpec"];
/// Layouts 0 and 1 are interleaved and single bank; what follows is sharded.
const FIRST_SHARDED: u32 = 2;
const LAST_SHARDED: u32 = 5;

/// A condition `layout - first <= last - first`, or its opposite: (offset, first, last, holds).
fn range(home: &Home<'_, '_>, condition: &Condition) -> Option<(u32, u32, u32, bool)> {
    let Expr::Binary(Op::Add, field, minus) = &**untruncated(&condition.left) else { return None };
    let (Expr::Const(minus), Expr::Const(limit)) = (&**minus, &*condition.right) else {
        return None;
    };
    let offset = home.offset_of(field, 4)?;
    let first = u32::try_from(*minus & 0xffff_ffff).ok()?.wrapping_neg();
    let limit = u32::try_from(*limit).ok()?;
    let (most, holds) = match condition.relation {
        Relation::BelowEqual => (limit, true),
        Relation::Below => (limit.checked_sub(1)?, true),
        Relation::Above => (limit, false),
        Relation::AboveEqual => (limit.checked_sub(1)?, false),
        _ => return None,
    };
    Some((offset, first, first.checked_add(most)?, holds))
}

/// The layout field, from the range check of `num_cores()`.
pub fn layout_field(home: &Home<'_, '_>, facts: &mut Facts) -> Result<u32, Refusal> {
    let found = paths(home.image, &Executor::new(home.image).inline(&INLINE), NUM_CORES)?;
    let ranges = found.iter().filter_map(|path| range(home, path.conditions.first()?));
    let (offset, first, last) =
        agreed("the layout's range", ranges.map(|range| (range.0, range.1, range.2)))?;
    facts.note("Buffer sharded layouts", &format!("{first}..={last}"), "num_cores");
    Ok(offset)
}

/// The flags that a path found set, and those it found clear.
fn flags(home: &Home<'_, '_>, path: &Path) -> (Vec<u32>, Vec<u32>) {
    let (mut set, mut clear) = (Vec::new(), Vec::new());
    for condition in &path.conditions {
        let Some(offset) = home.offset_of(&condition.left, 1) else { continue };
        match (condition.relation, &*condition.right) {
            (Relation::Equal, Expr::Const(1)) | (Relation::NotEqual, Expr::Const(0)) => {
                set.push(offset);
            }
            (Relation::Equal, Expr::Const(0)) | (Relation::NotEqual, Expr::Const(1)) => {
                clear.push(offset);
            }
            _ => {}
        }
    }
    for flags in [&mut set, &mut clear] {
        flags.sort_unstable();
        flags.dedup();
    }
    (set, clear)
}

/// Splits a sum into its terms and its constant.
fn terms<'v>(sum: &'v Value, found: &mut Vec<&'v Value>) -> u64 {
    match &**untruncated(sum) {
        Expr::Binary(Op::Add, left, right) => {
            terms(left, found).wrapping_add(terms(right, found))
        }
        Expr::Const(number) => *number,
        _ => {
            found.push(untruncated(sum));
            0
        }
    }
}

/// `(end - begin) / 16`: the offsets of begin and end.
fn core_count(home: &Home<'_, '_>, value: &Value) -> Option<(u32, u32)> {
    let Expr::Binary(Op::Sar | Op::Shr, bytes, by) = &**untruncated(value) else { return None };
    let Expr::Binary(Op::Sub, end, begin) = &**bytes else { return None };
    (**by == Expr::Const(4)).then_some(())?;
    Some((home.offset_of(begin, 8)?, home.offset_of(end, 8)?))
}

/// `ceil(shards / cores)`: the offsets of shard count, begin and end of the cores.
fn shards_per_core(home: &Home<'_, '_>, value: &Value) -> Option<(u32, u32, u32)> {
    let Expr::Binary(Op::Div, sum, cores) = &**untruncated(value) else { return None };
    let (begin, end) = core_count(home, cores)?;
    let mut summands = Vec::new();
    let rest = terms(sum, &mut summands);
    let [a, b] = *summands else { return None };
    // The short form of the division computes with 32 bits, minus 1 included.
    (rest == u64::MAX || rest == u64::from(u32::MAX)).then_some(())?;
    let count = if core_count(home, a) == Some((begin, end)) { b } else { a };
    let other = if core_count(home, a) == Some((begin, end)) { a } else { b };
    (core_count(home, other) == Some((begin, end))).then_some(())?;
    Some((home.offset_of(count, 8)?, begin, end))
}

/// (shard count, begin, end, pages of a shard) of `ceil(shards / cores) × pages`.
fn distribution(home: &Home<'_, '_>, value: &Value) -> Option<(u32, u32, u32, u32)> {
    let mut found = None;
    walk(value, &mut |part| {
        let Expr::Binary(Op::Mul, left, right) = &**part else { return };
        for (left, right) in [(left, right), (right, left)] {
            let pages = untruncated(right);
            let pages = home.offset_of(pages, 4).or_else(|| home.offset_of(pages, 8));
            if let (Some((count, begin, end)), Some(pages)) = (shards_per_core(home, left), pages) {
                found = Some((count, begin, end, pages));
            }
        }
    });
    found
}

/// (shard shape, page shape) of `(height / height) × (width / width)`.
fn shapes(home: &Home<'_, '_>, value: &Value) -> Option<(u32, u32)> {
    let mut quotients = Vec::new();
    walk(value, &mut |part| {
        let Expr::Binary(Op::Div, shard, page) = &**part else { return };
        if let (Some(shard), Some(page)) = (home.offset_of(shard, 4), home.offset_of(page, 4)) {
            quotients.push((shard, page));
        }
    });
    quotients.sort_unstable();
    quotients.dedup();
    let [height, width] = *quotients else { return None };
    let adjacent = height.0.checked_add(4) == Some(width.0) && height.1.checked_add(4) == Some(width.1);
    adjacent.then_some(height)
}

/// A sharded path's return value: only those where the layout is in range count.
fn sharded<'p>(home: &Home<'_, '_>, path: &'p Path) -> Option<&'p Value> {
    let Outcome::Return(value) = &path.outcome else { return None };
    let mut ranges = path.conditions.iter().filter_map(|condition| range(home, condition));
    let (_, first, last, holds) = ranges.next()?;
    // A path that takes one flag for neither 0 nor 1, or for both, is never taken.
    let (set, clear) = flags(home, path);
    let possible = !set.iter().any(|flag| clear.contains(flag));
    (possible && holds && first == FIRST_SHARDED && last == LAST_SHARDED).then_some(value)
}

/// Fills in the fields that a sharded buffer's size per bank needs.
pub fn resolve(
    home: &Home<'_, '_>,
    facts: &mut Facts,
    layout: &mut BufferLayout,
) -> Result<(), Refusal> {
    let found = paths(home.image, &Executor::new(home.image).inline(&INLINE), NUM_DEV_PAGES)?;
    if let Some(Outcome::Unknown(why)) =
        found.iter().map(|path| &path.outcome).find(|end| matches!(end, Outcome::Unknown(_)))
    {
        return Err(format!("num_dev_pages() was not understood: {why}"));
    }
    let ranges = found.iter().filter_map(|path| range(home, path.conditions.first()?));
    let (first, last) = agreed("the sharded layouts", ranges.map(|range| (range.1, range.2)))?;
    if (first, last) != (FIRST_SHARDED, LAST_SHARDED) {
        return Err(format!("sharded layouts are {first}..={last}, expected 2..=5"));
    }
    let (mut by_spec, mut by_distribution, mut neither) = (Vec::new(), Vec::new(), Vec::new());
    for path in &found {
        let Some(value) = sharded(home, path) else { continue };
        if let Some(shapes) = shapes(home, value) {
            by_spec.push((shapes, flags(home, path)));
        } else if let Some(parts) = distribution(home, value) {
            by_distribution.push((parts, flags(home, path)));
        } else if **value != Expr::Const(0) {
            neither.push(value);
        }
    }
    if let Some(value) = neither.first() {
        return Err(format!("num_dev_pages() has a formula that is not known: {value}"));
    }
    let (count, begin, end, pages) = agreed("shards", by_distribution.iter().map(|path| path.0))?;
    let (shard_shape, page_shape) = agreed("shapes", by_spec.iter().map(|path| path.0))?;
    let chosen = by_distribution.iter().map(|(_, (set, clear))| (set.clone(), clear.clone()));
    let (set, clear) = agreed("the flags of the distribution", chosen)?;
    let ([distribution], [spec]) = (&*set, &*clear) else {
        return Err(format!("the distribution depends on flags {set:x?}, not {clear:x?}"));
    };
    if !by_spec.iter().all(|(_, (set, _))| set.contains(spec)) {
        return Err("the shapes are used without the flag of the shard spec".into());
    }
    (layout.shard_spec_present, layout.distribution_present) = (*spec, *distribution);
    (layout.shard_shape, layout.page_shape) = (shard_shape, page_shape);
    (layout.cores_begin, layout.cores_end) = (begin, end);
    (layout.shard_count, layout.shard_pages) = (count, pages);
    for (name, offset) in [
        ("shard_spec_present", *spec),
        ("distribution_present", *distribution),
        ("shard_shape", shard_shape),
        ("page_shape", page_shape),
        ("cores_begin", begin),
        ("cores_end", end),
        ("shard_count", count),
        ("shard_pages", pages),
    ] {
        facts.note(&format!("Buffer::{name}"), &format!("+{offset:#x}"), "num_dev_pages");
    }
    Ok(())
}
