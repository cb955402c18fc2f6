//! Buffers with an address of their own on each core, in versions that have such.
//!
//! Three things are decoded: the flag of such a buffer; how many cores have an address, which is the
//! number of elements of the map of these addresses; and the free lists of the single banks, which
//! say how much all such buffers take together.
//!
//! Left out: the addresses themselves. What lies where on which core is not followed.
//!
//! Invariant: without the flag nothing is known of sharded buffers; without the count such buffers
//! are known to be there, and what they take is not.

use ttmem_common::layout::{ABSENT, BUFFER_TYPES, BufferLayout, Chain, PoolLayout};

use super::{
    buffer::Home,
    field::{Facts, Field, Refusal, agreed, paths, returned, returned_field},
    plan::CoreListsLayout,
    symbolic::{
        exec::{Executor, Path, Target},
        expr::{Expr, Op, Value, base_and_offset, constant, untruncated, walk},
    },
};
use crate::{event::BufferType, image::Image};

const IS_PER_CORE: &str =
    "_ZN2tt8tt_metal12experimental19per_core_allocation22is_per_core_allocationERKNS0_6BufferE";
/// Returns the map by reference.
const ADDRESSES: &str =
    "_ZN2tt8tt_metal12experimental19per_core_allocation22get_per_core_addressesERKNS0_6BufferE";
/// Looks one core up in the map; its parameter of the core follows.
const ADDRESS: &str =
    "_ZN2tt8tt_metal12experimental19per_core_allocation20get_per_core_addressERKNS0_6BufferEN";
/// What says of one bank, by the number of its list, what is free.
const STATISTICS: &str =
    "_ZNK2tt8tt_metal11BankManager14get_statisticsEN4ttsl10StrongTypeIjNS0_14AllocatorIDTagEEE";
const ALLOCATE: &str = "_ZN2tt8tt_metal11BankManager15allocate_bufferE";
/// Computes the bytes of a block: of size, page size, banks, and alignment.
const SPREAD: &str = "_ZN2tt8tt_metal6detail26calculate_bank_size_spreadE";
/// Bytes of a buffer, and of its pages, to call it with.
const BLOCK: u64 = 0x3000;
const PAGE: u64 = 0x30;
const INLINE: [&str; 1] = ["_ZNK2tt8tt_metal6Buffer4implEv"];
/// `std::unordered_map`: where its number of elements is, in every libstdc++ since GCC 5.
const MAP_COUNT: u32 = 0x18;
/// `std::unordered_map`: where its number of buckets is.
const MAP_BUCKETS: u32 = 0x8;

/// Decodes the flag and the count.
pub fn resolve(
    home: &Home<'_, '_>,
    facts: &mut Facts,
    layout: &mut BufferLayout,
) -> Result<(), Refusal> {
    let Some(flag) = flag(home, facts)? else { return Ok(()) };
    layout.per_core = flag;
    match count(home, flag) {
        Ok(offset) => {
            layout.core_count = offset;
            let from = "get_per_core_addresses, get_per_core_address";
            facts.note("Buffer::core_count", &format!("+{offset:#x}"), from);
        }
        Err(reason) => {
            facts.note("Buffer::core_count", &format!("absent: {reason}"), "per_core_allocation");
        }
    }
    Ok(())
}

/// The flag of such buffers; `None` in versions without such.
fn flag(home: &Home<'_, '_>, facts: &mut Facts) -> Result<Option<u32>, Refusal> {
    if home.image.symbol(IS_PER_CORE).is_none() {
        return Ok(None);
    }
    let executor = Executor::new(home.image).inline(&INLINE);
    let field = returned_field(home.image, &executor, IS_PER_CORE, 0)?;
    let offset = home.offset(&field, 1);
    let offset = offset.ok_or_else(|| format!("{IS_PER_CORE} returns {field}"))?;
    facts.note("Buffer::per_core", &format!("+{offset:#x}"), "is_per_core_allocation");
    Ok(Some(offset))
}

/// Where the map begins is what one function returns; that it is one, and of such buffers, is shown
/// by the other, which looks a core up.
fn count(home: &Home<'_, '_>, flag: u32) -> Result<u32, Refusal> {
    let executor = Executor::new(home.image).inline(&INLINE);
    let value = returned(&paths(home.image, &executor, ADDRESSES)?, ADDRESSES)?;
    let map = place_of(home, &value)
        .ok_or_else(|| format!("get_per_core_addresses() returns {value}"))?;
    let found = home.image.symbols_with_prefix(ADDRESS);
    let [(name, _)] = *found else {
        return Err(format!("there are {} functions get_per_core_address()", found.len()));
    };
    let found = paths(home.image, &executor, name)?;
    let reads = |offset: Option<u32>, width| {
        let loads = found.iter().flat_map(|path: &Path| &path.loads);
        offset.is_some() && loads.into_iter().any(|load| home.offset_of(load, width) == offset)
    };
    let count = map.checked_add(MAP_COUNT);
    match count.filter(|at| at % 8 == 0) {
        Some(at)
            if reads(count, 8)
                && reads(map.checked_add(MAP_BUCKETS), 8)
                && reads(Some(flag), 1) =>
        {
            Ok(at)
        }
        _ => Err(format!("get_per_core_address() looks up no map at +{map:#x}")),
    }
}

/// The offset of what an expression points to, in the object that holds a buffer's fields.
fn place_of(home: &Home<'_, '_>, value: &Value) -> Option<u32> {
    let (base, offset) = base_and_offset(value);
    let is_home = if home.implementation == ABSENT {
        **base == Expr::Arg(0)
    } else {
        Field::of(base, 0)? == Field { steps: vec![home.implementation], width: 8 }
    };
    u32::try_from(offset).ok().filter(|_| is_home)
}

/// What the managers of all pools round pages up to: with hybrid allocators that is more in L1 than
/// what buffers round them up to.
pub fn manager_alignments(
    image: &Image<'_>,
    facts: &mut Facts,
    layouts: &mut [PoolLayout; BUFFER_TYPES],
    free_lists: &[Chain; BUFFER_TYPES],
) {
    match manager_alignment(image) {
        Ok(offset) => {
            for (layout, list) in layouts.iter_mut().zip(free_lists) {
                let manager = list.steps().first().filter(|_| list.steps().len() > 1);
                let chain = manager.and_then(|manager| Chain::new(&[*manager, offset], 4));
                layout.manager_alignment = chain.unwrap_or(Chain::ABSENT);
            }
            let place = format!("+{offset:#x}");
            facts.note("BankManager alignment", &place, "BankManager::allocate_buffer");
        }
        Err(reason) => {
            let reason = format!("absent: {reason}");
            facts.note("BankManager alignment", &reason, "BankManager::allocate_buffer");
        }
    }
}

/// The one 4-byte field of the manager by which its function divides, or with which it multiplies,
/// what it passes on: the size of a block is a number of pages, each rounded up to the alignment.
fn manager_alignment(image: &Image<'_>) -> Result<u32, Refusal> {
    let found = image.symbols_with_prefix(ALLOCATE);
    let [(name, _)] = *found else {
        return Err(format!("there are {} functions allocate_buffer()", found.len()));
    };
    // As called for that many bytes in such pages, without shards: else there are too many paths.
    let executor = Executor::new(image)
        .argument(1, &constant(BLOCK))
        .argument(2, &constant(PAGE))
        .argument(5, &constant(0));
    let found = paths(image, &executor, name)?;
    let mut factors = Vec::new();
    for call in found.iter().flat_map(Path::calls) {
        // Some versions keep the computation in a function of its own.
        if matches!(&call.target, Target::Named(name) if name.starts_with(SPREAD)) {
            factors.extend(own_number(&call.arguments[3]));
        }
        call.arguments.iter().for_each(|argument| {
            walk(argument, &mut |part| {
                if let Expr::Binary(op @ (Op::Mul | Op::Div | Op::Rem), left, right) = &**part {
                    let left = (*op == Op::Mul).then_some(left);
                    factors.extend(left.into_iter().chain([right]).filter_map(own_number));
                }
            });
        });
    }
    agreed("what the manager rounds pages up to", factors)
}

/// The 4-byte field of argument 0 that an expression is.
fn own_number(value: &Value) -> Option<u32> {
    let field = Field::of(untruncated(value), 0).filter(|field| field.width == 4)?;
    match *field.steps {
        [offset] => Some(offset),
        _ => None,
    }
}

/// What a core's block is rounded up to has to be known for its bytes to be: else the cores are not
/// counted.
pub const fn count_only_with(layout: &mut BufferLayout, pools: &[PoolLayout; BUFFER_TYPES]) {
    if !pools[BufferType::L1.index()].manager_alignment.exists() {
        layout.core_count = ABSENT;
    }
}

/// The free lists of an allocator's single banks; `free_list` leads to the one that all banks share.
pub fn lists(
    image: &Image<'_>,
    facts: &mut Facts,
    free_list: &Chain,
) -> Result<CoreListsLayout, Refusal> {
    let found = paths(image, &Executor::new(image), STATISTICS)?;
    let vectors = found.iter().flat_map(|path| path.loads.iter().filter_map(element));
    let vector = agreed("the vector of free lists", vectors)?;
    let limits = found.iter().flat_map(|path| &path.conditions).filter_map(|condition| {
        let (left, right) = (untruncated(&condition.left), untruncated(&condition.right));
        match (&**left, &**right) {
            (Expr::Arg(2), _) => of_manager(right, 4),
            (_, Expr::Arg(2)) => of_manager(left, 4),
            _ => None,
        }
    });
    let count = agreed("the number of free lists", limits)?;
    let [manager @ .., at, 0] = free_list.steps() else {
        return Err("the free list that all banks share is not the first".into());
    };
    if manager.is_empty() || *at != vector {
        return Err(format!("the free lists are at +{vector:#x}, and at +{at:#x}"));
    }
    let chain = |last, width| {
        let chain = Chain::new(&[manager, &[last]].concat(), width);
        chain.ok_or("the way to the free lists is too long")
    };
    let layout = CoreListsLayout { lists: chain(vector, 8)?, count: chain(count, 4)? };
    let places = format!("+{vector:#x}, their number +{count:#x}");
    facts.note("BankManager free lists", &places, "BankManager::get_statistics");
    Ok(layout)
}

/// The vector of `vector[id]`: its offset in the manager.
fn element(load: &Value) -> Option<u32> {
    let Expr::Load { address, width: 8 } = &**load else { return None };
    let Expr::Binary(Op::Add, base, scaled) = &**address else { return None };
    let Expr::Binary(Op::Mul, index, scale) = &**scaled else { return None };
    (**scale == Expr::Const(8) && **untruncated(index) == Expr::Arg(2)).then_some(())?;
    of_manager(base, 8)
}

/// The offset of a field of the manager. Argument 0 is where the result goes.
fn of_manager(value: &Value, width: u8) -> Option<u32> {
    let field = Field::of(value, 1).filter(|field| field.width == width)?;
    match *field.steps {
        [offset] => Some(offset),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
