//! Whether a block would fit into a bank as it is now, and which buffers are in the way if not.
//!
//! The direction in which the allocator searches does not matter: it finds a hole that is large
//! enough if there is one. What it does at the next allocation of another thread is not foreseen.

use serde::Serialize;

use super::space_view::{BlockSnapshot, SpaceSnapshot};
use crate::{
    event::{BufferShape, BufferType, Geometry, Spread},
    units::{ChipId, DeviceAddr, MeshId},
};

/// What is to be allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Request {
    /// A block of each bank.
    PerBank {
        /// Bytes of each bank.
        size: u64,
    },
    /// A whole buffer whose pages go to all banks in turn.
    Interleaved {
        /// Bytes of the buffer.
        total: u64,
        /// Bytes of a page.
        page_size: u64,
    },
}

/// The answer for one allocator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// Number of the allocator.
    pub id: u32,
    /// Its mesh; `None` for a single device.
    pub mesh: Option<MeshId>,
    /// Its chips.
    pub chips: Vec<ChipId>,
    /// Whether it fits; `None` if that cannot be told.
    pub fits: Option<bool>,
    /// Why it cannot be told.
    pub unknown_because: Option<String>,
    /// The block that it takes of each bank, bytes: the request, rounded as the allocator does.
    pub block_bytes: Option<u64>,
    /// Bytes of a bank.
    pub bank_size: u64,
    /// Free bytes of each bank.
    pub free_bank_bytes: Option<u64>,
    /// Bytes of the largest hole of each bank.
    pub largest_free_bank_bytes: Option<u64>,
    /// Holes in each bank.
    pub holes: Option<u64>,
    /// Where room could be made at the least cost. `None`: it fits, or the bank is too small.
    pub in_the_way: Option<InTheWay>,
}

/// Neighbours whose release would make room: those that take the fewest bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InTheWay {
    /// First byte of the room that there would be.
    pub start: DeviceAddr,
    /// First byte behind it.
    pub end: DeviceAddr,
    /// What they take of each bank, bytes.
    pub bank_bytes: u64,
    /// The buffers, in order of address.
    pub buffers: Vec<Pinning>,
}

/// A buffer in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pinning {
    /// `Buffer::unique_id()`; `None` in versions that do not expose it.
    pub unique_id: Option<u64>,
    /// Buffer type.
    #[serde(rename = "type")]
    pub buffer_type: BufferType,
    /// Address.
    pub address: DeviceAddr,
    /// What it takes of each bank, bytes.
    pub bank_bytes: u64,
    /// Logical size, bytes.
    pub size: Option<u64>,
}

impl Request {
    /// What it takes of each bank, as the allocator rounds it.
    fn block_bytes(self, space: &SpaceSnapshot) -> Result<u64, String> {
        let rounding = space.block_minimum.zip(space.block_unit);
        let (block_minimum, block_unit) = rounding.ok_or("how blocks are rounded is not known")?;
        let geometry = Geometry {
            bank_size: space.bank_size,
            banks: space.banks,
            alignment: space.alignment,
            block_minimum,
            block_unit,
            base: space.base,
        };
        let (spread, page_size, size) = match self {
            Self::Interleaved { total, page_size } => (Spread::Interleaved, page_size, total),
            Self::PerBank { size } => {
                let block = size.max(u64::from(block_minimum));
                let rounded = block.checked_next_multiple_of(u64::from(block_unit));
                return rounded.ok_or_else(|| "it is larger than any bank".to_owned());
            }
        };
        let shape = BufferShape {
            unique_id: None,
            buffer_type: space.buffer_type,
            address: DeviceAddr(0),
            size,
            page_size,
            spread,
        };
        geometry.bank_bytes(&shape).ok_or_else(|| "it is larger than any bank".to_owned())
    }
}

/// Whether a request would fit. The space must have been taken with its map.
pub fn answer(request: Request, space: &SpaceSnapshot) -> Answer {
    let mut answer = Answer {
        id: space.id,
        mesh: space.mesh,
        chips: space.chips.clone(),
        fits: None,
        unknown_because: space.unknown_because.clone(),
        block_bytes: None,
        bank_size: space.bank_size,
        free_bank_bytes: space.free_bank_bytes,
        largest_free_bank_bytes: space.largest_free_bank_bytes,
        holes: space.holes,
        in_the_way: None,
    };
    if space.banks == 0 {
        // Without banks there is nothing to round to, and nothing fits.
        answer.fits = Some(false);
        return answer;
    }
    match request.block_bytes(space) {
        Ok(bytes) => answer.block_bytes = Some(bytes),
        Err(reason) => drop(answer.unknown_because.get_or_insert(reason)),
    }
    if let (Some(wanted), Some(largest), Some(map)) =
        (answer.block_bytes, space.largest_free_bank_bytes, &space.map)
    {
        answer.fits = Some(wanted <= largest);
        if wanted > largest {
            answer.in_the_way = in_the_way(map, wanted, space.buffer_type);
        }
    }
    answer
}

/// Neighbours whose release makes a hole of that many bytes: the fewest bytes, then the fewest
/// buffers, then the lowest address. `None`: the whole bank has less.
fn in_the_way(map: &[BlockSnapshot], wanted: u64, buffer_type: BufferType) -> Option<InTheWay> {
    let mut best: Option<(u64, usize, usize, usize)> = None;
    let (mut room, mut taken, mut buffers) = (0, 0, 0);
    let mut first = 0;
    for (last, block) in map.iter().enumerate() {
        room += block.bytes();
        if !block.free {
            taken += block.bytes();
            buffers += 1;
        }
        // The shortest window that ends here: without its first block it would not do.
        while room - map[first].bytes() >= wanted {
            room -= map[first].bytes();
            if !map[first].free {
                taken -= map[first].bytes();
                buffers -= 1;
            }
            first += 1;
        }
        let better = best.is_none_or(|(bytes, count, ..)| (taken, buffers) < (bytes, count));
        if room >= wanted && better {
            best = Some((taken, buffers, first, last));
        }
    }
    let (bank_bytes, _, first, last) = best?;
    let window = widened(map, first, last);
    let pinning = window.iter().filter(|block| !block.free).map(|block| Pinning {
        unique_id: block.unique_id,
        buffer_type,
        address: block.start,
        bank_bytes: block.bytes(),
        size: block.size,
    });
    Some(InTheWay {
        start: window.first()?.start,
        end: window.last()?.end,
        bank_bytes,
        buffers: pinning.collect(),
    })
}

/// The window with the holes that touch it: they would be part of the room.
fn widened(map: &[BlockSnapshot], first: usize, last: usize) -> &[BlockSnapshot] {
    let is_hole = |at: usize| map.get(at).is_some_and(|block| block.free);
    let first = first.checked_sub(1).filter(|before| is_hole(*before)).unwrap_or(first);
    let last = if is_hole(last + 1) { last + 1 } else { last };
    &map[first..=last]
}

#[cfg(test)]
mod tests;
