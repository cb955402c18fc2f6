//! Whose a block is, where several live buffers have its address.
//!
//! A buffer that has lost its block stays in the live set and keeps its address, and another may
//! get the same one. The block is that of the one that was allocated last: the others had lost
//! theirs before. Unique ids count up; where there are none, all are taken as owners, and the
//! ledger says that they overlap.

use std::collections::HashMap;

use crate::event::{BaselineBuffer, LiveBaseline, SweptBuffer};

/// Adds buffers of one allocator for whose address there is a block: one owner each, the others as
/// such that have lost theirs.
pub fn tell_apart(found: Vec<BaselineBuffer>, baseline: &mut LiveBaseline) {
    let mut newest = HashMap::new();
    for buffer in &found {
        let place = (buffer.shape.buffer_type, buffer.shape.address);
        let newest = newest.entry(place).or_insert(buffer.shape.unique_id);
        *newest = (*newest).max(buffer.shape.unique_id);
    }
    for buffer in found {
        let place = (buffer.shape.buffer_type, buffer.shape.address);
        if newest.get(&place) == Some(&buffer.shape.unique_id) {
            baseline.buffers.push(buffer);
        } else {
            baseline.swept.push(swept(&buffer));
        }
    }
}

/// A buffer without a block.
pub fn swept(buffer: &BaselineBuffer) -> SweptBuffer {
    SweptBuffer {
        buffer: buffer.buffer,
        allocator: buffer.allocator,
        buffer_type: buffer.shape.buffer_type,
        address: buffer.shape.address,
        per_core: buffer.shape.spread.is_per_core(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{BufferShape, BufferType, Spread},
        units::{Avma, DeviceAddr},
    };

    fn buffer(host: u64, unique_id: Option<u64>, address: u64) -> BaselineBuffer {
        BaselineBuffer {
            buffer: Avma(host),
            allocator: Avma(1),
            device: Avma(2),
            shape: BufferShape {
                unique_id,
                buffer_type: BufferType::Dram,
                address: DeviceAddr(address),
                size: 64,
                page_size: 64,
                spread: Spread::Interleaved,
            },
            block_bytes: Some(64),
        }
    }

    fn hosts(found: Vec<BaselineBuffer>) -> (Vec<u64>, Vec<u64>) {
        let mut baseline = LiveBaseline::default();
        tell_apart(found, &mut baseline);
        let owners = baseline.buffers.iter().map(|owner| owner.buffer.0).collect();
        (owners, baseline.swept.iter().map(|swept| swept.buffer.0).collect())
    }

    #[test]
    fn the_block_is_that_of_the_newest() {
        let found = vec![
            buffer(1, Some(7), 64),
            buffer(2, Some(9), 64),
            buffer(3, Some(8), 64),
            buffer(4, Some(1), 128),
        ];
        assert_eq!(hosts(found), (vec![2, 4], vec![1, 3]));
    }

    #[test]
    fn without_ids_nobody_is_taken_out() {
        let found = vec![buffer(1, None, 64), buffer(2, None, 64)];
        assert_eq!(hosts(found), (vec![1, 2], vec![]));
    }
}
