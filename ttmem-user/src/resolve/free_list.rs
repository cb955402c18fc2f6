//! What a free list knows beyond its table of allocated blocks: where its bank begins, and which
//! of all its blocks are free.
//!
//! Leaves out how a block is searched for: whether a request fits does not depend on it.
//!
//! Invariant: without these fields less is shown, and nothing else becomes wrong; so what is not
//! decoded is noted as a fact, and not as something unresolved.

use ttmem_common::layout::{BUFFER_TYPES, Chain, PoolLayout};

use super::{
    buffer::own_write,
    field::{Facts, Field, Refusal, agreed, paths},
    plan::BlockFlagsLayout,
    symbolic::{
        exec::{Event, Executor, Outcome, Path},
        expr::{Condition, Expr, Op, Relation, Value, base_and_offset},
    },
};
use crate::image::Image;

const CONSTRUCTOR: &str = "_ZN2tt8tt_metal9allocator11FreeListOptC1Emmmm";
const SHRINK: &str = "_ZN2tt8tt_metal9allocator11FreeListOpt11shrink_sizeEmb";
const RESET: &str = "_ZN2tt8tt_metal9allocator11FreeListOpt10reset_sizeEv";
const STATISTICS: &str = "_ZNK2tt8tt_metal9allocator11FreeListOpt14get_statisticsEv";
/// `Statistics`: where its allocated bytes are, after the bytes of the whole bank.
const STATISTICS_ALLOCATED: i64 = 8;

/// Adds to every pool whose free list is known where its bank begins.
pub fn bases(
    image: &Image<'_>,
    facts: &mut Facts,
    layouts: &mut [PoolLayout; BUFFER_TYPES],
    free_lists: &[Chain; BUFFER_TYPES],
) {
    let found = base(image).and_then(|base| Ok((base, shrunk(image)?)));
    let (base, shrunk) = match found {
        Ok(found) => found,
        Err(reason) => {
            facts.note("FreeListOpt start", &format!("absent: {reason}"), "FreeListOpt");
            return;
        }
    };
    facts.note("FreeListOpt::start", &format!("+{base:#x}"), "FreeListOpt's constructor");
    facts.note("FreeListOpt::shrunk", &format!("+{shrunk:#x}"), "FreeListOpt::reset_size");
    for (layout, list) in layouts.iter_mut().zip(free_lists).filter(|(_, list)| list.exists()) {
        // The size must be a field of that very list.
        let owner = layout.bank_size.steps().split_last().map(|(_, owner)| owner);
        if owner == Some(list.steps()) {
            (layout.base, layout.shrunk) = (base, shrunk);
        }
    }
}

/// The constructor stores the base address, its second argument.
fn base(image: &Image<'_>) -> Result<u32, Refusal> {
    let constructors = image.symbols_with_prefix(CONSTRUCTOR);
    let [(_, constructor), ..] = *constructors else {
        return Err("there is no constructor of FreeListOpt".into());
    };
    let built = Executor::new(image).run(constructor.address);
    let stores = built.iter().filter_map(|path| {
        path.events.iter().filter_map(own_write).find_map(|(offset, width, value)| {
            (width == 8 && **value == Expr::Arg(2)).then_some(offset)
        })
    });
    agreed("where FreeListOpt's constructor stores the base", stores)
}

/// How far the allocator has given the start of its bank away: `reset_size()` has nothing to do
/// where it is 0, and `shrink_size()` adds to it what it takes from the size.
fn shrunk(image: &Image<'_>) -> Result<u32, Refusal> {
    let found = paths(image, &Executor::new(image), RESET)?;
    let nothing_to_do = found.iter().filter_map(|path| {
        let idle = path.events.is_empty() && matches!(path.outcome, Outcome::Return(_));
        let [condition] = &*path.conditions else { return None };
        if !idle || condition.relation != Relation::Equal || *condition.right != Expr::Const(0) {
            return None;
        }
        own_word(&condition.left, 0)
    });
    let shrunk = agreed("what reset_size() looks at first", nothing_to_do)?;
    let sums = paths(image, &Executor::new(image), SHRINK)?;
    let grown = sums.iter().flat_map(|path| &path.events).filter_map(|event| {
        let (offset, 8, value) = own_write(event)? else { return None };
        let Expr::Binary(Op::Add, left, right) = &**value else { return None };
        let by_argument = **left == Expr::Arg(1) || **right == Expr::Arg(1);
        let from_itself = [left, right].iter().any(|side| own_word(side, 0) == Some(offset));
        (by_argument && from_itself).then_some(offset)
    });
    match agreed("what shrink_size() adds to", grown)? {
        same if same == shrunk => Ok(shrunk),
        other => Err(format!("shrink_size() adds to +{other:#x}, not to +{shrunk:#x}")),
    }
}

/// `*(argument + offset)`, 8 bytes.
fn own_word(value: &Value, root: u8) -> Option<u32> {
    match Field::of(value, root)? {
        Field { steps, width: 8 } if steps.len() == 1 => steps.first().copied(),
        _ => None,
    }
}

/// The vector of `get_statistics()`'s object of which a value is the first element.
fn first_element(value: &Value, bytes: u8) -> Option<u32> {
    let Expr::Load { address, width } = &**value else { return None };
    let (begin, offset) = base_and_offset(address);
    (*width == bytes && offset == 0).then_some(())?;
    own_word(begin, 1)
}

/// What a path requires of the first block's flags, in the order in which it looks at them.
fn flags_of_first(path: &Path) -> Vec<(u32, bool)> {
    let flag = |condition: &Condition| {
        let set = match condition.relation {
            Relation::Equal => false,
            Relation::NotEqual => true,
            _ => return None,
        };
        (*condition.right == Expr::Const(0)).then_some(())?;
        Some((first_element(&condition.left, 1)?, set))
    };
    path.conditions.iter().filter_map(flag).collect()
}

/// What a path writes as the number of allocated bytes.
fn allocated_bytes(path: &Path) -> Option<&Value> {
    path.events.iter().rev().find_map(|event| {
        let Event::Write { address, width: 8, value } = event else { return None };
        let (base, offset) = base_and_offset(address);
        (**base == Expr::Arg(0) && offset == STATISTICS_ALLOCATED).then_some(value)
    })
}

/// What two paths over a bank of one block say: one that counts it as allocated, and why.
fn flags_of_paths(found: &[Path], sizes: u32) -> Result<(u32, u32), Refusal> {
    let mut places = Vec::new();
    for path in found.iter().filter(|path| matches!(path.outcome, Outcome::Return(_))) {
        let Some(bytes) = allocated_bytes(path) else { continue };
        if first_element(bytes, 8) != Some(sizes) {
            continue;
        }
        match *flags_of_first(path) {
            [(exists, true), (allocated, true)] => places.push((exists, allocated)),
            ref other => return Err(format!("{STATISTICS} counts a block where {other:x?}")),
        }
    }
    let (exists, allocated) = agreed("which blocks get_statistics() counts", places)?;
    let is_free = [(exists, true), (allocated, false)];
    let is_none = [(exists, false)];
    for (flags, what) in [(&is_free[..], "a free block"), (&is_none, "no block")] {
        let mut others = found.iter().filter(|path| flags_of_first(path).starts_with(flags));
        let counts = |path: &Path| {
            allocated_bytes(path).is_some_and(|bytes| first_element(bytes, 8) == Some(sizes))
        };
        let other = others.next().ok_or_else(|| format!("{STATISTICS} never meets {what}"))?;
        if counts(other) || others.any(counts) {
            return Err(format!("{STATISTICS} counts {what} as allocated"));
        }
    }
    Ok((exists, allocated))
}

/// The vector whose length is the number of blocks: of its begin and its end both are read, of
/// the others the begin alone.
fn addresses(found: &[Path], others: &[u32]) -> Result<u32, Refusal> {
    let mut read: Vec<u32> =
        found.iter().flat_map(|path| &path.loads).filter_map(|load| own_word(load, 1)).collect();
    read.sort_unstable();
    read.dedup();
    let vectors = read.iter().copied().filter(|begin| {
        let is_whole = begin.checked_add(8).is_some_and(|end| read.contains(&end));
        is_whole && !others.contains(begin) && !others.contains(&(begin + 8))
    });
    agreed("the vector of block addresses", vectors)
}

/// The blocks that are free, from the function that adds them up.
fn decode(image: &Image<'_>, sizes: u32) -> Result<BlockFlagsLayout, Refusal> {
    let found = paths(image, &Executor::new(image), STATISTICS)?;
    let (exists, allocated) = flags_of_paths(&found, sizes)?;
    let addresses = addresses(&found, &[sizes, exists, allocated])?;
    Ok(BlockFlagsLayout { addresses, exists, allocated })
}

/// Where the flags of all blocks are, if that can be decoded; noted as facts either way.
pub fn flags(image: &Image<'_>, facts: &mut Facts, sizes: u32) -> Option<BlockFlagsLayout> {
    const FROM: &str = "FreeListOpt::get_statistics";
    match decode(image, sizes) {
        Ok(flags) => {
            for (name, offset) in [
                ("addresses", flags.addresses),
                ("exists", flags.exists),
                ("allocated", flags.allocated),
            ] {
                facts.note(&format!("FreeListOpt::{name}"), &format!("+{offset:#x}"), FROM);
            }
            Some(flags)
        }
        Err(reason) => {
            facts.note("FreeListOpt flags", &format!("absent: {reason}"), FROM);
            None
        }
    }
}

#[cfg(test)]
mod tests;
