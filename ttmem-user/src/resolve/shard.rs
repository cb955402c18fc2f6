//! How a sharded buffer's pages lie on its cores: the fields that its size per bank follows from.
//!
//! `num_dev_pages()` computes, for a sharded layout, either (shard height / page height) × (shard
//! width / page width) × cores, or ceil(shards / cores) × pages of a shard × cores. The operands
//! of these two formulas are the fields; the flags that choose between them are the conditions.

use ttmem_common::layout::{ABSENT, BufferLayout, FIRST_SHARDED};

use super::{
    buffer::Home,
    field::{Facts, Refusal, agreed, paths, returned_field},
    symbolic::{
        exec::{Executor, Outcome, Path},
        expr::{Condition, Expr, Op, Relation, Value, untruncated, walk},
    },
};

const NUM_CORES: &str = "_ZNK2tt8tt_metal6Buffer9num_coresEv";
const NUM_DEV_PAGES: &str = "_ZNK2tt8tt_metal6Buffer13num_dev_pagesEv";
const IS_PER_CORE: &str =
    "_ZN2tt8tt_metal12experimental19per_core_allocation22is_per_core_allocationERKNS0_6BufferE";
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
    layout.per_core = per_core(home, facts)?;
    layout.last_sharded = last;
    note(&fields, facts, layout);
    Ok(())
}

/// The flag of buffers that have an address of their own on each core, in versions with such.
fn per_core(home: &Home<'_, '_>, facts: &mut Facts) -> Result<u32, Refusal> {
    if home.image.symbol(IS_PER_CORE).is_none() {
        return Ok(ABSENT);
    }
    let executor = Executor::new(home.image).inline(&["_ZNK2tt8tt_metal6Buffer4implEv"]);
    let field = returned_field(home.image, &executor, IS_PER_CORE, 0)?;
    let offset = home.offset(&field, 1);
    let offset = offset.ok_or_else(|| format!("{IS_PER_CORE} returns {field}"))?;
    facts.note("Buffer::per_core", &format!("+{offset:#x}"), "is_per_core_allocation");
    Ok(offset)
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
mod tests {
    use ttmem_common::layout::ABSENT;

    use super::*;
    use crate::image::{Image, sample};

    /// `Buffer::num_dev_pages() const`, 0.78.0, at 0xb68c90.
    const NUM_DEV_PAGES_V78: &str = "538b472483c0fe83f804737180bf98000000010f85890000008bb78800000031dbb90000000085f674098b47 \
         7831d2f7f689c18bb78c00000085f674098b477c31d2f7f689c30fafd980bfc0010000010f859c000000488b \
         8728010000488b8fb8010000482b872001000048c1f8044839c1480f42c10fafd889d85bc3488b4f584885c9 \
         7466488b47184889c24809ca48c1ea20746c31d248f7f14889c389d85bc380bfc0010000000f848800000048 \
         8b8f20010000488b9f280100004839d9744a488b87b80100004889de4829ce48c1fe044801f048ffc84889c2 \
         4809f248c1ea20742b31d248f7f6eb2831db89d85bc34883c760e8a539b7ff0fafd889d85bc331d2f7f189c3 \
         89d85bc331c0eb0431d2f7f60faf87b00100004829cb48c1fb04488b8fb80100004839d9480f42d90fafd889 \
         d85bc3e83475b6ff";
    /// `Buffer::num_dev_pages() const`, 0.81.1, at 0xc75d70.
    const NUM_DEV_PAGES_V81: &str = "53488b7f108b471483c0fe83f804736b80bf88000000010f85830000008b777831dbb90000000085f674098b \
         476831d2f7f689c18b777c85f674098b476c31d2f7f689c30fafd980bfb0010000010f859c000000488b8718 \
         010000488b8fa8010000482b871001000048c1f8044839c1480f42c10fafd889d85bc3488b4f484885c97466 \
         488b47084889c24809ca48c1ea20746c31d248f7f14889c389d85bc380bfb0010000000f8488000000488b8f \
         10010000488b9f180100004839d9744a488b87a80100004889de4829ce48c1fe044801f048ffc84889c24809 \
         f248c1ea20742b31d248f7f6eb2831db89d85bc34883c750e87798b1ff0fafd889d85bc331d2f7f189c389d8 \
         5bc331c0eb0431d2f7f60faf87a00100004829cb48c1fb04488b8fa80100004839d9480f42d90fafd889d85b \
         c3e866bfb0ff";
    /// `Buffer::num_cores() const`, 0.81.1, at 0xc75c50.
    const NUM_CORES_V81: &str = "53488b7f108b471483c0fe83f803773a48bb000000000100000080bfb0010000017530488b8718010000488b \
         8fa8010000482b871001000048c1f8044839c1480f42c189c04809d85bc331db89c04809d85bc34883c750e8 \
         349ab1ff89c04809d85bc3";

    /// `Buffer::num_cores() const`, 0.78.0, at 0xb68b80.
    const NUM_CORES_V78: &str = "538b472483c0fe83f803773a48bb000000000100000080bfc0010000017530488b8728010000488b8fb80100 \
         00482b872001000048c1f8044839c1480f42c189c04809d85bc331db89c04809d85bc34883c760e8583bb7ff \
         89c04809d85bc3";

    /// `Buffer::num_dev_pages() const` as g++ 12 makes it, at 0xb7d0.
    const NUM_DEV_PAGES_GCC: &str = "488b4f108b412483e80283f8030f87bd0000005380b9a0000000000fb6b148010000754c4084f60f84ce0000 \
         00488bb100010000488b91f800000031c04839d6742a488bb9400100004829d631d248c1fe04488d4437ff48 \
         f7f6480faf81380100004839f7480f47fe0fafc75bc366908bb98c00000085ff740c8b818000000031d2f7f7 \
         89c78b999000000085db740f8b818400000031d2f7f30fafc789c34084f6744c488b8140010000488b910001 \
         0000482b91f800000048c1fa044839c2480f46c20fafc35bc30f1f8000000000488b716031c04885f6740d48 \
         8b411831d248f7f6c30f1f00c30f1f8000000000488d7968e8f7cbffffebc9488d3d96580000e859cdffff";
    /// `Buffer::num_cores() const` as g++ 12 makes it, at 0xb760.
    const NUM_CORES_GCC: &str = "4883ec18488b7f1031d28b472483e80283f803773280bf4801000000743a488b9740010000488b8700010000 \
         482b87f800000048c1f8044839d0480f47c289442408ba010000008854240c488b4424084883c418c30f1f00 \
         4883c768e8ffccffffebdb";

    /// `Buffer::num_dev_pages() const`, 0.66.0, at 0x6c0ed0.
    const NUM_DEV_PAGES_V66: &str = "538b472483c0fe83f803737180bf98000000010f85890000008bb78800000031dbb90000000085f674098b47 \
         7831d2f7f689c18bb78c00000085f674098b477c31d2f7f689c30fafd980bfb8010000010f859c000000488b \
         8728010000488b8fb0010000482b872001000048c1f8044839c1480f42c10fafd889d85bc3488b4f584885c9 \
         7466488b47184889c24809ca48c1ea20746c31d248f7f14889c389d85bc380bfb8010000000f848800000048 \
         8b8f20010000488b9f280100004839d9744a488b87b00100004889de4829ce48c1fe044801f048ffc84889c2 \
         4809f248c1ea20742b31d248f7f6eb2831db89d85bc34883c760e8b5cadaff0fafd889d85bc331d2f7f189c3 \
         89d85bc331c0eb0431d2f7f60faf87a8010000488b97b00100004829cb48c1fb044839da480f42da0fafd889 \
         d85bc3e8c46cdaff";
    /// `Buffer::num_cores() const`, 0.66.0, at 0x6c0dc0.
    const NUM_CORES_V66: &str = "538b472483c0fe83f802773a48bb000000000100000080bfb8010000017530488b8728010000488b8fb00100 \
         00482b872001000048c1f8044839c1480f42c189c04809d85bc331db89c04809d85bc34883c760e868ccdaff \
         89c04809d85bc3";

    /// `Buffer::num_dev_pages() const`, 0.62.2, at 0x1a2820.
    const NUM_DEV_PAGES_V62: &str = "554156538b472483c0fe83f803734d488d5f6080bfa80000000175638bb79800000031edb90000000085f674 \
         098b477831d2f7f689c18bb79c00000085f674098b477c31d2f7f689c50fafe94889dfe82c50f6ff0fafc55b \
         415e5dc3488b4f584885c97460488b47184889c24809ca48c1ea20747a31d248f7f15b415e5dc380bfd80100 \
         00007470488d87c00000004989fe4889c7e8a64cf6ff418b4e2483c1fe83f90277524c89f24180bea8000000 \
         0175194889df4889c3e8c24ff6ff89c14889d8eb2231c05b415e5dc380bad8010000007423488b8a48010000 \
         482b8a4001000048c1e9040fafc15b415e5dc331d2f7f15b415e5dc3e84307f6ff";
    /// `Buffer::num_cores() const`, 0.62.2, at 0x1a26f0.
    const NUM_CORES_V62: &str = "538b472483c0fe83f802772380bfa800000001752348bb00000000010000004883c760e88851f6ff89c04809 \
         d85bc331db89c04809d85bc380bfd801000000742348bb0000000001000000488b8748010000482b87400100 \
         0048c1e80489c04809d85bc3e80709f6ff";
    /// `BufferDistributionSpec::max_num_dev_pages_per_core() const`, 0.62.2.
    const PER_CORE_V62: &str = "488b8f88000000482b8f80000000742b48c1f904488b87100100004801c848ffc84889c24809ca48c1ea2074 \
         1931d248f7f1480faf8708010000c331c0480faf8708010000c331d2f7f1480faf8708010000c3";

    /// `Buffer::num_dev_pages() const`, 0.60.1, at 0xeb4210.
    const NUM_DEV_PAGES_V60: &str = "554156538b472483c0fe83f803734d488d5f6080bfa80000000175638bb79800000031edb90000000085f674 \
         098b477831d2f7f689c18bb79c00000085f674098b477c31d2f7f689c50fafe94889dfe82ca04aff0fafc55b \
         415e5dc3488b4f584885c97460488b47184889c24809ca48c1ea20747a31d248f7f15b415e5dc380bf600100 \
         00007470488d87c00000004989fe4889c7e876d64aff418b4e2483c1fe83f90277524c89f24180bea8000000 \
         0175194889df4889c3e8c29f4aff89c14889d8eb2231c05b415e5dc380ba60010000007423488b8a50010000 \
         482b8a4801000048c1e9040fafc15b415e5dc331d2f7f15b415e5dc3e893c04aff";
    /// `Buffer::num_cores() const`, 0.60.1, at 0xeb40e0.
    const NUM_CORES_V60: &str = "538b472483c0fe83f802772380bfa800000001752348bb00000000010000004883c760e888a14aff89c04809 \
         d85bc331db89c04809d85bc380bf6001000000742348bb0000000001000000488b8750010000482b87480100 \
         0048c1e80489c04809d85bc3e857c24aff";
    /// Goes round for ever; that of 0.60.1 goes round once per dimension.
    const LOOP: &str = "ebfe";

    /// `CoreRangeSet::num_cores`, or the stub that leads there.
    const CORES: &str = "_ZNK2tt8tt_metal12CoreRangeSet9num_coresEv";
    const THROW: &str = "_ZSt27__throw_bad_optional_accessv";
    const PER_CORE: &str = "_ZNK2tt8tt_metal22BufferDistributionSpec26max_num_dev_pages_per_coreEv";

    /// Where one version has its functions: num_dev_pages, num_cores, and the two callees.
    struct Version {
        at: [u64; 4],
        num_cores: &'static str,
        /// Where the pages per core are counted, if in a function of its own.
        per_core: Option<(u64, &'static str)>,
        implementation: u32,
        memory_layout: u32,
    }

    const V81: Version = Version {
        at: [0xc7_5d70, 0xc7_5c50, 0x78_f6e0, 0x78_1e10],
        num_cores: NUM_CORES_V81,
        per_core: None,
        implementation: 0x10,
        memory_layout: 0x14,
    };
    const V78: Version = Version {
        at: [0xb6_8c90, 0xb6_8b80, 0x6d_c730, 0x6d_0300],
        num_cores: NUM_CORES_V78,
        per_core: None,
        implementation: ABSENT,
        memory_layout: 0x24,
    };

    const GCC: Version = Version {
        at: [0xb7d0, 0xb760, 0x84c0, 0x8630],
        num_cores: NUM_CORES_GCC,
        per_core: None,
        implementation: 0x10,
        memory_layout: 0x24,
    };

    const V66: Version = Version {
        at: [0x6c_0ed0, 0x6c_0dc0, 0x46_da80, 0x46_7cd0],
        num_cores: NUM_CORES_V66,
        per_core: None,
        implementation: ABSENT,
        memory_layout: 0x24,
    };
    const V62: Version = Version {
        at: [0x1a_2820, 0x1a_26f0, 0x10_78a0, 0x10_3060],
        num_cores: NUM_CORES_V62,
        per_core: Some((0x10_7560, PER_CORE_V62)),
        implementation: ABSENT,
        memory_layout: 0x24,
    };
    const V60: Version = Version {
        at: [0xeb_4210, 0xeb_40e0, 0x35_e290, 0x36_03a0],
        num_cores: NUM_CORES_V60,
        per_core: Some((0x36_1920, LOOP)),
        implementation: ABSENT,
        memory_layout: 0x24,
    };

    fn decode(code: &[u8], version: &Version) -> Result<BufferLayout, Refusal> {
        let [pages, cores, core_range_set, throw] = version.at;
        let num_cores = sample::hex(version.num_cores);
        let per_core = version.per_core.map(|(at, code)| (at, sample::hex(code)));
        let mut pieces = vec![
            (NUM_DEV_PAGES, pages, code),
            (NUM_CORES, cores, &*num_cores),
            (CORES, core_range_set, &[0xc3]),
            (THROW, throw, &[0xc3]),
        ];
        pieces.extend(per_core.as_ref().map(|(at, code)| (PER_CORE, *at, &**code)));
        let image = Image::parse(sample::elf(&pieces)).map_err(|error| error.to_string())?;
        let mut layout =
            BufferLayout { memory_layout: version.memory_layout, ..BufferLayout::ABSENT };
        let home = Home { image: &image, implementation: version.implementation };
        resolve(&home, &mut Facts::default(), &mut layout)?;
        Ok(layout)
    }

    fn shard_fields(layout: &BufferLayout) -> [u32; 8] {
        [
            layout.shard_spec_present,
            layout.shard_shape,
            layout.page_shape,
            layout.distribution_present,
            layout.cores_begin,
            layout.cores_end,
            layout.shard_count,
            layout.shard_pages,
        ]
    }

    #[test]
    fn decodes_the_fields_behind_a_pointer() {
        let code = sample::hex(NUM_DEV_PAGES_V81);
        let layout = decode(&code, &V81).unwrap();
        let expected = [0x88, 0x68, 0x78, 0x1b0, 0x110, 0x118, 0x1a8, 0x1a0];
        assert_eq!(shard_fields(&layout), expected);
    }

    #[test]
    fn decodes_the_fields_inside_the_buffer() {
        let code = sample::hex(NUM_DEV_PAGES_V78);
        let layout = decode(&code, &V78).unwrap();
        let expected = [0x98, 0x78, 0x88, 0x1c0, 0x120, 0x128, 0x1b8, 0x1b0];
        assert_eq!(shard_fields(&layout), expected);
    }

    #[test]
    fn decodes_versions_with_fewer_sharded_layouts() {
        let layout = decode(&sample::hex(NUM_DEV_PAGES_V66), &V66).unwrap();
        let expected = [0x98, 0x78, 0x88, 0x1b8, 0x120, 0x128, 0x1b0, 0x1a8];
        assert_eq!((shard_fields(&layout), layout.last_sharded), (expected, 4));
        let layout = decode(&sample::hex(NUM_DEV_PAGES_V62), &V62).unwrap();
        let expected = [0xa8, 0x78, 0x98, 0x1d8, 0x140, 0x148, 0x1d0, 0x1c8];
        assert_eq!((shard_fields(&layout), layout.last_sharded), (expected, 4));
        let layout = decode(&sample::hex(NUM_DEV_PAGES_V81), &V81).unwrap();
        assert_eq!(layout.last_sharded, 5);
        // The two functions have to agree on the range.
        let code = sample::hex(NUM_DEV_PAGES_V66);
        let of_v78 = Version { num_cores: NUM_CORES_V78, ..V66 };
        let refusal = decode(&code, &of_v78).unwrap_err();
        assert_eq!(refusal, "num_cores() and num_dev_pages() disagree on what is sharded");
    }

    #[test]
    fn a_shard_spec_is_decoded_where_a_distribution_is_not() {
        let code = sample::hex(NUM_DEV_PAGES_V60);
        let layout = decode(&code, &V60).unwrap();
        let expected = [0xa8, 0x78, 0x98, ABSENT, ABSENT, ABSENT, ABSENT, ABSENT];
        assert_eq!((shard_fields(&layout), layout.last_sharded), (expected, 4));
        // Whatever one byte is changed to, no other flag is taken for that of the shard spec.
        let mut refused = 0;
        for at in 0..code.len() {
            for change in [0x01, 0x08, 0x40, 0xff] {
                let mut changed = code.clone();
                changed[at] ^= change;
                let Ok(layout) = decode(&changed, &V60) else {
                    refused += 1;
                    continue;
                };
                assert_eq!(layout.shard_spec_present, 0xa8, "byte {at} ^ {change:#x}");
            }
        }
        assert!(refused > code.len(), "only {refused} changes were refused");
    }

    #[test]
    fn what_is_not_understood_of_a_shard_spec_is_refused() {
        // The product with the cores becomes an endless loop: imul eax,ebp → jmp to itself.
        let mut code = sample::hex(NUM_DEV_PAGES_V62);
        let product = code.windows(3).position(|bytes| bytes == [0x0f, 0xaf, 0xc5]).unwrap();
        code[product..product + 2].copy_from_slice(&[0xeb, 0xfe]);
        let refusal = decode(&code, &V62).unwrap_err();
        assert_eq!(refusal, "shapes was not found");
        // So does the way of an interleaved buffer: test rcx,rcx → jmp to itself.
        let mut code = sample::hex(NUM_DEV_PAGES_V62);
        let pages = code.windows(3).position(|bytes| bytes == [0x48, 0x85, 0xc9]).unwrap();
        code[pages..pages + 2].copy_from_slice(&[0xeb, 0xfe]);
        let refusal = decode(&code, &V62).unwrap_err();
        assert!(refusal.starts_with("num_dev_pages() was not understood"), "{refusal}");
    }

    #[test]
    fn decodes_what_gcc_makes() {
        let code = sample::hex(NUM_DEV_PAGES_GCC);
        let layout = decode(&code, &GCC).unwrap();
        let expected = [0xa0, 0x80, 0x8c, 0x148, 0xf8, 0x100, 0x140, 0x138];
        assert_eq!(shard_fields(&layout), expected);
        // A page height of 0 makes the product 0; that another field is 0 does not.
        let mut changed = code;
        let test = changed.windows(4).position(|bytes| bytes == [0x85, 0xff, 0x74, 0x0c]).unwrap();
        changed[test + 1] = 0xc0;
        let refusal = decode(&changed, &GCC).unwrap_err();
        assert!(refusal.contains("a formula that is not known"), "{refusal}");
    }

    #[test]
    fn finds_the_layout_by_its_range_check() {
        let code = sample::hex(NUM_CORES_V81);
        let file = sample::elf(&[(NUM_CORES, 0xc7_5c50, &code), (CORES, 0x78_f6e0, &[0xc3])]);
        let image = Image::parse(file).unwrap();
        let home = Home { image: &image, implementation: 0x10 };
        let mut facts = Facts::default();
        assert_eq!(layout_field(&home, &mut facts), Ok(0x14));
        assert_eq!(facts.0[0].value, "2..=5");
        let elsewhere = Home { image: &image, implementation: 0x18 };
        assert!(layout_field(&elsewhere, &mut facts).is_err());
    }

    /// Whatever one byte is changed to: it is refused, or the fields still fit together.
    #[test]
    fn a_changed_byte_is_refused_or_still_makes_sense() {
        let code = sample::hex(NUM_DEV_PAGES_V81);
        let original = decode(&code, &V81).unwrap();
        let mut refused = 0;
        for at in 0..code.len() {
            for change in [0x01, 0x08, 0x40, 0xff] {
                let mut changed = code.clone();
                changed[at] ^= change;
                let Ok(layout) = decode(&changed, &V81) else {
                    refused += 1;
                    continue;
                };
                // A field that is read in one place only may move; those that several places
                // read must not.
                assert_eq!(layout.cores_begin, original.cores_begin, "byte {at} ^ {change:#x}");
                assert_eq!(layout.shard_count, original.shard_count, "byte {at} ^ {change:#x}");
                assert_eq!(layout.cores_end, original.cores_end, "byte {at} ^ {change:#x}");
            }
        }
        assert!(refused > code.len(), "only {refused} changes were refused");
    }
}
