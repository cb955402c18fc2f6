//! How a sharded buffer's pages lie on its cores: the fields that its size per bank follows from.
//!
//! `num_dev_pages()` computes, for a sharded layout, either (shard height / page height) × (shard
//! width / page width) × cores, or ceil(shards / cores) × pages of a shard × cores. The operands
//! of these two formulas are the fields; the flags that choose between them are the conditions.

use ttmem_common::layout::{BufferLayout, FIRST_SHARDED};

use super::{
    buffer::Home,
    field::{Facts, Refusal, agreed, paths},
    per_core,
    symbolic::{
        exec::{Executor, Outcome, Path},
        expr::{Condition, Expr, Op, Relation, Value, untruncated, walk},
    },
};

const NUM_CORES: &str = "_ZNK2tt8tt_metal6Buffer9num_coresEv";
const NUM_DEV_PAGES: &str = "_ZNK2tt8tt_metal6Buffer13num_dev_pagesEv";
/// Parts of the formulas that some versions keep in functions of their own.
const INLINE: [&str; 1] = ["_ZNK2tt8tt_metal22BufferDistributionSpec"];

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
        Expr::Binary(Op::Add, left, right) => terms(left, found).wrapping_add(terms(right, found)),
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
    let adjacent =
        height.0.checked_add(4) == Some(width.0) && height.1.checked_add(4) == Some(width.1);
    adjacent.then_some(height)
}

/// Whether a value is 0 on a path: it is found to be, or a factor of it.
fn is_zero(path: &Path, value: &Value) -> bool {
    let found = |value: &Value| {
        path.conditions.iter().any(|condition| {
            condition.relation == Relation::Equal
                && condition.left == *value
                && *condition.right == Expr::Const(0)
        })
    };
    match &**value {
        Expr::Const(number) => *number == 0,
        Expr::Low(_, inner) => is_zero(path, inner),
        Expr::Binary(Op::Mul, left, right) => is_zero(path, left) || is_zero(path, right),
        _ => found(value),
    }
}

/// The layouts that a function takes for sharded: offset of the layout, first, last.
fn sharded_range(home: &Home<'_, '_>, paths: &[Path]) -> Result<(u32, u32, u32), Refusal> {
    let ranges = paths.iter().filter_map(|path| range(home, path.conditions.first()?));
    agreed("the sharded layouts", ranges.map(|range| (range.0, range.1, range.2)))
}

/// Whether a path is one of a sharded buffer: only those where the layout is in range count.
fn is_sharded(home: &Home<'_, '_>, path: &Path) -> bool {
    let mut ranges = path.conditions.iter().filter_map(|condition| range(home, condition));
    // A path that takes one flag for neither 0 nor 1, or for both, is never taken.
    let (set, clear) = flags(home, path);
    let possible = !set.iter().any(|flag| clear.contains(flag));
    // The layout is compared more than once if parts are inlined; it is always the same one.
    possible && ranges.next().is_some_and(|range| range.3) && ranges.all(|range| range.3)
}

/// The operands of the two formulas, and the flags that choose.
#[derive(Debug, PartialEq, Eq)]
struct Formulas {
    spec: u32,
    shard_shape: u32,
    page_shape: u32,
    /// Or why what it computes was not understood; then nothing is known of buffers without a
    /// shard spec.
    distribution: Result<Distribution, &'static str>,
}

/// The operands of `ceil(shards / cores) × pages`, and the flag that says that they are there.
#[derive(Debug, PartialEq, Eq)]
struct Distribution {
    present: u32,
    begin: u32,
    end: u32,
    count: u32,
    pages: u32,
}

/// Every sharded path of a function, and what it returns.
fn sharded_paths<'p>(home: &Home<'_, '_>, paths: &'p [Path]) -> Vec<(&'p Path, &'p Value)> {
    let returning = paths.iter().filter_map(|path| match &path.outcome {
        Outcome::Return(value) => Some((path, value)),
        _ => None,
    });
    returning.filter(|(path, _)| is_sharded(home, path)).collect()
}

fn formulas(home: &Home<'_, '_>, paths: &[(&Path, &Value)]) -> Result<Formulas, Refusal> {
    let (mut by_spec, mut by_distribution) = (Vec::new(), Vec::new());
    for (path, value) in paths {
        let (set, clear) = flags(home, path);
        if let Some(shapes) = shapes(home, value) {
            by_spec.push((shapes, set));
        } else if let Some(parts) = distribution(home, value) {
            by_distribution.push((parts, (set, clear)));
        } else if !is_zero(path, value) {
            return Err(format!("num_dev_pages() has a formula that is not known: {value}"));
        }
    }
    let (count, begin, end, pages) = agreed("shards", by_distribution.iter().map(|path| path.0))?;
    let (shard_shape, page_shape) = agreed("shapes", by_spec.iter().map(|path| path.0))?;
    let chosen = agreed("the distribution's flags", by_distribution.into_iter().map(|it| it.1))?;
    let ([present], [spec]) = (&*chosen.0, &*chosen.1) else {
        return Err(format!("the distribution depends on {:x?}, not {:x?}", chosen.0, chosen.1));
    };
    let (spec, present) = (*spec, *present);
    if !by_spec.iter().all(|(_, set)| set.contains(&spec)) {
        return Err("the shapes are used without the flag of the shard spec".into());
    }
    let distribution = Ok(Distribution { present, begin, end, count, pages });
    Ok(Formulas { spec, shard_shape, page_shape, distribution })
}

/// The formula of buffers with a shard spec alone, where the other one is a loop that was not
/// followed to its end: whatever was not understood has to be of buffers without a shard spec.
fn formula_of_spec(
    home: &Home<'_, '_>,
    paths: &[Path],
    why: &'static str,
) -> Result<Formulas, Refusal> {
    let by_spec = sharded_paths(home, paths).into_iter().filter_map(|(path, value)| {
        shapes(home, value).map(|shapes| (shapes, flags(home, path).0))
    });
    let ((shard_shape, page_shape), set) = agreed("shapes", by_spec)?;
    let [spec] = *set else { return Err(format!("the shapes depend on {set:x?}")) };
    for path in paths.iter().filter(|path| !flags(home, path).1.contains(&spec)) {
        match &path.outcome {
            Outcome::Unknown(why) => {
                return Err(format!("num_dev_pages() was not understood: {why}"));
            }
            Outcome::Return(value)
                if is_sharded(home, path)
                    && shapes(home, value).is_none()
                    && !is_zero(path, value) =>
            {
                return Err(format!("num_dev_pages() has a formula that is not known: {value}"));
            }
            _ => {}
        }
    }
    Ok(Formulas { spec, shard_shape, page_shape, distribution: Err(why) })
}

/// Whatever else the paths read has to be among the decoded fields.
fn check(
    home: &Home<'_, '_>,
    fields: &Formulas,
    paths: &[(&Path, &Value)],
    layout_at: u32,
) -> Result<(), Refusal> {
    let &Formulas { spec, shard_shape, page_shape, ref distribution } = fields;
    let (words, flag) = match distribution {
        Ok(Distribution { present, begin, end, count, pages }) => {
            let aligned = [begin, count, pages].iter().all(|at| *at % 8 == 0);
            if begin.checked_add(8) != Some(*end) || !aligned {
                return Err(format!("no vector of cores from +{begin:#x} to +{end:#x}"));
            }
            (vec![*begin, *end, *count, *pages], Some(*present))
        }
        Err(_) => (Vec::new(), None),
    };
    let pages = distribution.as_ref().ok().map(|distribution| distribution.pages);
    let shapes = [shard_shape, shard_shape + 4, page_shape, page_shape + 4];
    let known = |at: u32, width: u8| match width {
        8 => words.contains(&at),
        4 => shapes.contains(&at) || at == layout_at || Some(at) == pages,
        _ => at == spec || Some(at) == flag,
    };
    let mut strange = None;
    for (path, value) in paths {
        if distribution.is_err() && flags(home, path).1.contains(&spec) {
            continue;
        }
        let sides = path.conditions.iter().flat_map(|it| [&it.left, &it.right]);
        for value in sides.chain([*value]) {
            walk(value, &mut |part| {
                for width in [1, 4, 8] {
                    let at = home.offset_of(part, width);
                    strange = strange.or(at.filter(|at| !known(*at, width)));
                }
            });
        }
    }
    match strange {
        Some(at) => Err(format!("a sharded buffer's pages also depend on +{at:#x}")),
        None => Ok(()),
    }
}

/// Fills in the fields that a sharded buffer's size per bank needs.
pub fn resolve(
    home: &Home<'_, '_>,
    facts: &mut Facts,
    layout: &mut BufferLayout,
) -> Result<(), Refusal> {
    let executor = Executor::new(home.image).inline(&INLINE);
    let found = paths(home.image, &executor, NUM_DEV_PAGES)?;
    let range @ (at, first, last) = sharded_range(home, &found)?;
    if first != FIRST_SHARDED || last < first {
        return Err(format!("sharded layouts are {first}..={last}, expected {FIRST_SHARDED}..=N"));
    }
    if at != layout.memory_layout {
        return Err(format!("num_dev_pages() finds the layout at +{at:#x}"));
    }
    let unknown = found.iter().find_map(|path| match &path.outcome {
        Outcome::Unknown(why) => Some(*why),
        _ => None,
    });
    let fields = match unknown {
        None => formulas(home, &sharded_paths(home, &found))?,
        Some(why) => formula_of_spec(home, &found, why)?,
    };
    check(home, &fields, &sharded_paths(home, &found), at)?;
    // The number of cores divides what num_dev_pages() multiplies: it has to be the same.
    let cores = paths(home.image, &executor, NUM_CORES)?;
    if sharded_range(home, &cores)? != range {
        return Err("num_cores() and num_dev_pages() disagree on what is sharded".into());
    }
    check(home, &fields, &sharded_paths(home, &cores), at)?;
    per_core::resolve(home, facts, layout)?;
    layout.last_sharded = last;
    note(&fields, facts, layout);
    Ok(())
}

/// Enters the fields into the layout.
fn note(fields: &Formulas, facts: &mut Facts, layout: &mut BufferLayout) {
    let mut enter = |name: &str, offset: u32, place: &mut u32| {
        *place = offset;
        facts.note(&format!("Buffer::{name}"), &format!("+{offset:#x}"), "num_dev_pages");
    };
    enter("shard_spec_present", fields.spec, &mut layout.shard_spec_present);
    enter("shard_shape", fields.shard_shape, &mut layout.shard_shape);
    enter("page_shape", fields.page_shape, &mut layout.page_shape);
    match &fields.distribution {
        Ok(distribution) => {
            enter("distribution_present", distribution.present, &mut layout.distribution_present);
            enter("cores_begin", distribution.begin, &mut layout.cores_begin);
            enter("cores_end", distribution.end, &mut layout.cores_end);
            enter("shard_count", distribution.count, &mut layout.shard_count);
            enter("shard_pages", distribution.pages, &mut layout.shard_pages);
        }
        Err(why) => {
            let reason = format!("absent: its pages per core were not understood: {why}");
            facts.note("Buffer distribution spec", &reason, "num_dev_pages");
        }
    }
}

#[cfg(test)]
mod tests;
