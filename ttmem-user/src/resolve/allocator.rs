//! What an allocator knows: its banks, its live buffers, its table of allocated blocks.

use ttmem_common::layout::{ABSENT, BUFFER_TYPES, Chain, PoolLayout};

use super::{
    buffer::own_write,
    device,
    field::{Facts, Field, Refusal, agreed, paths, returned},
    free_list, per_core,
    plan::{BlockTableLayout, MemoryLayout},
    probes,
    symbolic::{
        exec::{Executor, Outcome, Path},
        expr::{Expr, Op, Relation, Value, base_and_offset, constant},
    },
};
use crate::{event::BufferType, image::Image, units::Svma};

/// A pool of which nothing is known.
pub const UNKNOWN: PoolLayout = PoolLayout {
    banks: Chain::ABSENT,
    alignment: Chain::ABSENT,
    manager_alignment: Chain::ABSENT,
    bank_size: Chain::ABSENT,
    block_minimum: Chain::ABSENT,
    block_unit: Chain::ABSENT,
    base: ABSENT,
    shrunk: ABSENT,
};

/// The functions of `BankManager` that `AllocatorImpl` forwards to.
const INLINE: [&str; 2] =
    ["_ZNK2tt8tt_metal11BankManager9num_banksEv", "_ZNK2tt8tt_metal11BankManager9bank_sizeEv"];
/// `std::unordered_set`: where its number of elements is, in every libstdc++ since GCC 5.
const SET_COUNT: u32 = 0x18;
/// `std::unordered_set`: where its number of buckets is.
const SET_BUCKETS: u32 = 0x8;

/// What an allocator function says of one buffer type; `Ok(None)`: it throws.
fn of_type(
    image: &Image<'_>,
    name: &str,
    kind: BufferType,
    width: u8,
) -> Result<Option<Field>, Refusal> {
    let number = u32::from(kind as u8);
    let executor = Executor::new(image).inline(&INLINE);
    // The type comes by reference or by value.
    let executor = if name.ends_with("RKNS0_10BufferTypeE") {
        executor.pointee(1, number)
    } else {
        executor.argument(1, &constant(number.into()))
    };
    let found = paths(image, &executor, name)?;
    if !found.is_empty() && found.iter().all(|path| path.outcome == Outcome::Throws) {
        return Ok(None);
    }
    let value = returned(&found, name)?;
    match Field::of(&value, 0) {
        Some(field) if field.width == width => Ok(Some(field)),
        _ => Err(format!("{name} returns {value} for {}", kind.name())),
    }
}

/// The object that a bank's size is a field of: the bank's allocation algorithm.
fn owner_of(field: &Field) -> Option<Field> {
    let steps = field.steps.split_last()?.1.to_vec();
    (!steps.is_empty()).then_some(Field { steps, width: 8 })
}

/// The geometry of every buffer type, and the path to its free list.
pub struct Pools {
    /// By buffer type.
    pub layouts: [PoolLayout; BUFFER_TYPES],
    /// `AllocatorImpl` → `FreeListOpt*`, by buffer type.
    pub free_lists: [Chain; BUFFER_TYPES],
    /// What was not decoded.
    pub failed: Vec<(String, Refusal)>,
}

/// Decodes the geometry of every buffer type.
pub fn pools(image: &Image<'_>, facts: &mut Facts) -> Pools {
    let mut pools = Pools {
        layouts: [UNKNOWN; BUFFER_TYPES],
        free_lists: [Chain::ABSENT; BUFFER_TYPES],
        failed: Vec::new(),
    };
    let class = probes::allocator_class(image).unwrap_or("13AllocatorImpl");
    let function = |rest: &str| format!("_ZNK2tt8tt_metal{class}{rest}");
    let banks = function("13get_num_banksERKNS0_10BufferTypeE");
    let alignment = function("13get_alignmentENS0_10BufferTypeE");
    let bank_size = function("13get_bank_sizeERKNS0_10BufferTypeE");
    for kind in BufferType::ALL {
        let layout = &mut pools.layouts[kind.index()];
        for (what, name, width, place) in [
            ("banks", &banks, 4, &mut layout.banks),
            ("alignment", &alignment, 4, &mut layout.alignment),
            ("bank size", &bank_size, 8, &mut layout.bank_size),
        ] {
            let title = format!("AllocatorImpl {} {what}", kind.name());
            let found = of_type(image, name, kind, width);
            let chain = found.and_then(|field| {
                let Some(field) = field else {
                    facts.note(&title, &"absent: the allocator throws for this type", name);
                    return Ok(Chain::ABSENT);
                };
                if width == 8
                    && let Some(owner) = owner_of(&field)
                {
                    pools.free_lists[kind.index()] = owner.chain()?;
                }
                let chain = field.chain()?;
                facts.note(&title, &field, name);
                Ok(chain)
            });
            *place = chain.unwrap_or_else(|reason| {
                pools.failed.push((title, reason));
                Chain::ABSENT
            });
        }
    }
    if let Err(reason) = blocks_of_pools(image, facts, &mut pools) {
        pools.failed.push(("FreeListOpt block size".into(), reason));
    }
    per_core::manager_alignments(image, facts, &mut pools.layouts, &pools.free_lists);
    free_list::bases(image, facts, &mut pools.layouts, &pools.free_lists);
    pools
}

/// Adds the sizes of blocks to every pool whose free list is known.
fn blocks_of_pools(image: &Image<'_>, facts: &mut Facts, pools: &mut Pools) -> Result<(), Refusal> {
    let units = units(image)?;
    for (name, offset) in [("minimum", units.minimum), ("unit", units.unit)] {
        let name = format!("FreeListOpt::{name}");
        facts.note(&name, &format!("+{offset:#x}"), "FreeListOpt's constructor, allocate");
    }
    for (layout, list) in pools.layouts.iter_mut().zip(&pools.free_lists) {
        if !list.exists() {
            continue;
        }
        if layout.bank_size.steps().last() != Some(&units.size) {
            return Err("the constructor stores the size elsewhere than it is read".into());
        }
        let field = |offset| Chain::new(&[list.steps(), &[offset]].concat(), 8);
        let too_long = || Refusal::from("the way to a free list is too long");
        layout.block_minimum = field(units.minimum).ok_or_else(too_long)?;
        layout.block_unit = field(units.unit).ok_or_else(too_long)?;
    }
    Ok(())
}

/// What `FreeListOpt` keeps of what it was made with.
struct Units {
    size: u32,
    minimum: u32,
    unit: u32,
}

/// The constructor stores (size, base, least bytes of a block, what they are rounded up to); the
/// last two are what `allocate()` reads.
fn units(image: &Image<'_>) -> Result<Units, Refusal> {
    let constructor = image
        .symbols_with_prefix("_ZN2tt8tt_metal9allocator11FreeListOptC1Emmmm")
        .first()
        .map(|(_, symbol)| symbol.address)
        .ok_or("there is no constructor of FreeListOpt")?;
    let built = Executor::new(image).run(constructor);
    let stored = |argument: u8| {
        let stores = built.iter().filter_map(|path| {
            path.events.iter().filter_map(own_write).find_map(|(offset, width, value)| {
                (width == 8 && **value == Expr::Arg(argument)).then_some(offset)
            })
        });
        agreed(&format!("where FreeListOpt's constructor stores argument {argument}"), stores)
    };
    let units = Units { size: stored(1)?, minimum: stored(3)?, unit: stored(4)? };
    let name = "_ZN2tt8tt_metal9allocator11FreeListOpt8allocateEmbm";
    for path in paths(image, &Executor::new(image), name)? {
        let read: Vec<u32> = path.loads.iter().filter_map(own_pointer).collect();
        if !read.contains(&units.minimum) || !read.contains(&units.unit) {
            return Err(format!("{name} does not read what the constructor stored"));
        }
    }
    Ok(units)
}

/// The set of live buffers: its element count is what `get_num_allocated_buffers()` returns, and
/// `get_allocated_buffers()` copies the set.
fn live_set(image: &Image<'_>) -> Result<u32, Refusal> {
    let class = probes::allocator_class(image).ok_or("there is no allocator")?;
    let name = format!("_ZNK2tt8tt_metal{class}25get_num_allocated_buffersEv");
    let value = returned(&paths(image, &Executor::new(image), &name)?, &name)?;
    let field = Field::of(&value, 0).filter(|field| field.width == 8);
    let set = match field.as_ref().map(|field| &*field.steps) {
        Some([count]) => count.checked_sub(SET_COUNT),
        _ => None,
    };
    let set = set.ok_or_else(|| format!("{name} returns {value}"))?;
    let copy = format!("_ZNK2tt8tt_metal{class}21get_allocated_buffersEv");
    let found = paths(image, &Executor::new(image), &copy)?;
    let loads: Vec<Field> =
        found.iter().flat_map(|path| &path.loads).filter_map(|load| Field::of(load, 1)).collect();
    let read = |offset| loads.contains(&Field { steps: vec![offset], width: 8 });
    let passed = found.iter().flat_map(Path::calls).any(|call| {
        call.arguments.iter().any(|argument| {
            let (base, offset) = base_and_offset(argument);
            **base == Expr::Arg(1) && offset == i64::from(set)
        })
    });
    if passed || (read(set + SET_BUCKETS) && read(set + SET_COUNT)) {
        return Ok(set);
    }
    Err(format!("{copy} does not copy a set at +{set:#x}"))
}

/// `*(this + offset)`, 8 bytes.
fn own_pointer(value: &Value) -> Option<u32> {
    match *Field::of(value, 0)?.steps {
        [offset] => Some(offset),
        _ => None,
    }
}

/// Splits `base + index * 8`.
fn indexed(address: &Value) -> Option<(&Value, &Value)> {
    let Expr::Binary(Op::Add, base, scaled) = &**address else { return None };
    let Expr::Binary(Op::Mul, index, scale) = &**scaled else { return None };
    (**scale == Expr::Const(8)).then_some((base, index))
}

/// One path that found the block in an entry: sizes, buckets, and the entry's offset.
fn found_block(value: &Value) -> Option<(u32, u32, i64)> {
    let Expr::Load { address, width: 8 } = &**value else { return None };
    let (sizes, index) = indexed(address)?;
    let Expr::Load { address: entry, width: 8 } = &**index else { return None };
    let (bucket, second) = base_and_offset(entry);
    let Expr::Load { address: bucket, width: 8 } = &**bucket else { return None };
    let (buckets, hash) = indexed(bucket)?;
    // A bucket is a vector, three words: the index is multiplied by 3.
    let Expr::Binary(Op::Add, once, twice) = &**hash else { return None };
    let Expr::Binary(Op::Mul, same, two) = &**twice else { return None };
    (once == same && **two == Expr::Const(2)).then_some(())?;
    Some((own_pointer(sizes)?, own_pointer(buckets)?, second))
}

/// The address relative to the bank's base that entries are compared with.
fn base_of(path: &Path) -> Option<u32> {
    let mut base = None;
    for condition in path.conditions.iter().filter(|it| it.relation == Relation::Equal) {
        for side in [&condition.left, &condition.right] {
            if let Expr::Binary(Op::Sub, address, start) = &**side
                && **address == Expr::Arg(1)
            {
                base = own_pointer(start);
            }
        }
    }
    base
}

/// The table of allocated blocks, from the function that looks up a block's size.
fn blocks(
    image: &Image<'_>,
    free_list: [Chain; BUFFER_TYPES],
) -> Result<BlockTableLayout, Refusal> {
    let name = "_ZNK2tt8tt_metal9allocator11FreeListOpt19get_allocation_sizeEm";
    let inline = ["_ZNK2tt8tt_metal9allocator11FreeListOpt32get_block_index_from_alloc_tableEm"];
    let found = paths(image, &Executor::new(image).inline(&inline), name)?;
    let mut places = Vec::new();
    let mut entries = Vec::new();
    for path in &found {
        let Outcome::Return(value) = &path.outcome else { continue };
        if let Some((sizes, buckets, entry)) = found_block(value) {
            places.push((sizes, buckets, base_of(path)));
            entries.push(entry);
        }
    }
    let (sizes, buckets, base) = agreed("the block table", places)?;
    let base = base.ok_or("the block table's addresses are not relative to a base")?;
    // The first entry's index is its second word; the next entry lies 16 bytes further on.
    entries.sort_unstable();
    entries.dedup();
    if entries != [8, 24] {
        return Err(format!("the block table's indices lie at {entries:?}, expected 8 and 24"));
    }
    if free_list.iter().all(|chain| !chain.exists()) {
        return Err("the free lists were not found".into());
    }
    Ok(BlockTableLayout { free_list, base, buckets, sizes })
}

/// The classes derived from `AllocatorImpl`, by their type information: name of the vtable's
/// symbol, and what the first word of their objects is.
fn classes(image: &Image<'_>) -> Vec<(String, Svma)> {
    const BASE: &str = "_ZTIN2tt8tt_metal13AllocatorImplE";
    // Class information of a class with one base: vtable pointer, name, base.
    const BASE_CLASS: u64 = 16;
    let Some(base) = image.symbol(BASE) else { return Vec::new() };
    let single_base: Vec<(&str, Svma, Svma)> = image
        .symbols_with_prefix("_ZTI")
        .into_iter()
        .filter(|(_, information)| information.size == BASE_CLASS + 8)
        .filter_map(|(name, information)| {
            let at = information.address;
            Some((name, at, image.address_in_slot(at.plus(BASE_CLASS))?))
        })
        .collect();
    let mut known = vec![base.address];
    let mut found = Vec::new();
    // Each class that is found may be the base of others.
    let mut next = 0;
    while let Some(base) = known.get(next).copied() {
        next += 1;
        for (name, at, _) in single_base.iter().filter(|class| class.2 == base) {
            if known.contains(at) {
                continue;
            }
            known.push(*at);
            let table = format!("_ZTV{}", name.strip_prefix("_ZTI").unwrap_or(name));
            found.extend(device::vptr(image, &table).ok().map(|vptr| (table, vptr)));
        }
    }
    found
}

/// Everything that reading live buffers from memory needs.
pub fn memory(
    image: &Image<'_>,
    facts: &mut Facts,
    free_lists: [Chain; BUFFER_TYPES],
) -> Result<MemoryLayout, Refusal> {
    let live_set = live_set(image)?;
    facts.note("AllocatorImpl live set", &format!("+{live_set:#x}"), "get_num_allocated_buffers");
    let allocator_vptrs = classes(image);
    if allocator_vptrs.is_empty() {
        // A device leads to its default allocator alone, and not to those of sub-devices.
        return Err("its allocators have no vtable to find them in memory by".into());
    }
    for (class, address) in &allocator_vptrs {
        facts.note("allocator vtable", address, class);
    }
    let mut chain = |name: &str, field: Result<Field, Refusal>| {
        let chain = field.and_then(|field| {
            facts.note(name, &field, "allocator_impl");
            field.chain()
        });
        chain
            .inspect_err(|reason| facts.note(name, &format!("absent: {reason}"), "allocator_impl"))
            .ok()
    };
    let mesh_allocator = chain("MeshDevice allocator", device::mesh_allocator(image));
    let device_allocator = chain("Device allocator", device::device_allocator(image));
    let blocks = match blocks(image, free_lists) {
        Ok(blocks) => {
            let places =
                [("base", blocks.base), ("buckets", blocks.buckets), ("sizes", blocks.sizes)];
            for (name, offset) in places {
                let name = format!("FreeListOpt::{name}");
                facts.note(&name, &format!("+{offset:#x}"), "FreeListOpt::get_allocation_size");
            }
            Some(blocks)
        }
        Err(reason) => {
            facts.note("FreeListOpt blocks", &format!("absent: {reason}"), "get_allocation_size");
            None
        }
    };
    let flags = match &blocks {
        Some(blocks) => free_list::flags(image, facts, blocks.sizes),
        None => None,
    };
    let core_lists = per_core::lists(image, facts, &free_lists[BufferType::L1.index()])
        .inspect_err(|reason| {
            facts.note("BankManager free lists", &format!("absent: {reason}"), "get_statistics");
        })
        .ok();
    Ok(MemoryLayout {
        allocator_vptrs,
        live_set,
        mesh_allocator,
        device_allocator,
        blocks,
        flags,
        core_lists,
    })
}

#[cfg(test)]
mod tests;
