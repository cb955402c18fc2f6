//! An allocator's table of allocated blocks: the truth about which addresses are taken, and how
//! many bytes of each bank.

use std::collections::HashMap;

use super::Walk;
use crate::{
    event::{BufferShape, BufferType},
    resolve::plan::BlockTableLayout,
    target::memory::Unreadable,
    units::Avma,
};

/// A bucket vector or an entry larger than this means that what was read is no table.
const MAX_BYTES: u64 = 1 << 28;
/// Size of a vector: begin, end, end of storage.
const VECTOR: u64 = 24;
/// Size of an entry: address, index of the block.
const ENTRY: u64 = 16;
/// A block that is not found, or is not what it should be, is looked for again: entries move
/// while the table is read.
const ATTEMPTS: usize = 8;

/// What the tables say of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It takes this many bytes of each bank.
    Size(u64),
    /// It has no block: it was freed in bulk.
    NoBlock,
    /// There is no table to ask.
    NoTable,
    /// The buffer itself has gone meanwhile.
    Gone,
}

/// The tables read so far.
#[derive(Default)]
pub struct BlockTables {
    tables: HashMap<(Avma, BufferType), Option<HashMap<u64, u64>>>,
}

impl BlockTables {
    /// What the table of a buffer's pool says of it. `expected`: the bytes of a bank that its
    /// fields say it takes; `still`: whether it is still there.
    ///
    /// Of what is not as expected only the last of many readings counts.
    pub fn size_of(
        &mut self,
        walk: &Walk<'_>,
        allocator: Avma,
        shape: &BufferShape,
        expected: Option<u64>,
        still: impl Fn() -> bool,
    ) -> Found {
        let Some(layout) = &walk.memory_layout.blocks else { return Found::NoTable };
        let key = (allocator, shape.buffer_type);
        let mut last = Found::NoBlock;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 && !still() {
                return Found::Gone;
            }
            let table = self
                .tables
                .entry(key)
                .or_insert_with(|| read(walk, layout, allocator, shape.buffer_type).ok());
            let Some(table) = table else { return Found::NoTable };
            last = table.get(&shape.address.0).map_or(Found::NoBlock, |&bytes| Found::Size(bytes));
            if expected.is_some_and(|expected| last == Found::Size(expected)) {
                return last;
            }
            if expected.is_none() && last != Found::NoBlock {
                return last;
            }
            self.tables.remove(&key);
        }
        if still() { last } else { Found::Gone }
    }
}

/// Address → bytes of each bank.
fn read(
    walk: &Walk<'_>,
    layout: &BlockTableLayout,
    allocator: Avma,
    buffer_type: BufferType,
) -> Result<HashMap<u64, u64>, Unreadable> {
    let chain = &layout.free_list[buffer_type.index()];
    let list = Avma(walk.memory.chain(allocator, chain)?);
    let base = walk.memory.word(list.plus(u64::from(layout.base)))?;
    let buckets = vector(walk, list.plus(u64::from(layout.buckets)))?;
    let sizes = vector(walk, list.plus(u64::from(layout.sizes)))?;
    let mut table = HashMap::new();
    for bucket in buckets.chunks_exact(3) {
        // A bucket cannot have more entries than there are blocks.
        if bucket[1].wrapping_sub(bucket[0]) / ENTRY > sizes.len() as u64 {
            return Err(Unreadable(Avma(bucket[0])));
        }
        let entries = elements(walk, bucket[0], bucket[1])?;
        for entry in entries.chunks_exact((ENTRY / 8) as usize) {
            let size = usize::try_from(entry[1]).ok().and_then(|index| sizes.get(index));
            if let Some(&size) = size {
                table.insert(base.wrapping_add(entry[0]), size);
            }
        }
    }
    Ok(table)
}

/// The words of a vector's elements.
pub(super) fn vector(walk: &Walk<'_>, at: Avma) -> Result<Vec<u64>, Unreadable> {
    let header = walk.memory.words(at, (VECTOR / 8) as usize)?;
    elements(walk, header[0], header[1])
}

/// The bytes of a vector of bytes.
pub(super) fn bytes(walk: &Walk<'_>, at: Avma) -> Result<Vec<u8>, Unreadable> {
    let header = walk.memory.words(at, (VECTOR / 8) as usize)?;
    let len = usize::try_from(length(header[0], header[1])?).unwrap_or(0);
    let words = walk.memory.words(Avma(header[0]), len / 8)?;
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut rest = [0; 8];
    let rest = &mut rest[..len % 8];
    walk.memory.read(Avma(header[0]).plus(bytes.len() as u64), rest)?;
    bytes.extend_from_slice(rest);
    Ok(bytes)
}

fn length(begin: u64, end: u64) -> Result<u64, Unreadable> {
    let bytes = end.checked_sub(begin).filter(|bytes| *bytes <= MAX_BYTES);
    bytes.ok_or(Unreadable(Avma(begin)))
}

fn elements(walk: &Walk<'_>, begin: u64, end: u64) -> Result<Vec<u64>, Unreadable> {
    let bytes = length(begin, end)?;
    if bytes == 0 {
        return Ok(Vec::new());
    }
    walk.memory.words(Avma(begin), usize::try_from(bytes / 8).unwrap_or(0))
}
