//! Blocks in LZ4's format, of items that are like the one of their kind before.
//!
//! A compressor for anything looks for repetitions, which took half of the time of an event. Here
//! it is known where they are: an item is compared with one other, byte by byte at the same places,
//! and where four bytes or more are the same the block refers to them. The rest is copied.

/// The shortest repetition that the format has.
const MIN_MATCH: usize = 4;
/// How far back a repetition may be.
const MAX_OFFSET: usize = 0xffff;
/// No repetition begins within so many bytes of the end.
const TAIL: usize = 12;
/// The longest item that is compared.
pub const MAX_ITEM: usize = 40;
/// How many bytes are compared at once.
const LANES: usize = 16;
/// What is compared of any item: all of the longest, in whole lanes.
const COMPARED: usize = MAX_ITEM.next_multiple_of(LANES);

/// An item, and where the one is that it is like.
#[derive(Clone, Copy, Debug)]
pub struct Alike {
    /// Where it begins.
    pub at: usize,
    /// Where the other begins, which is before it.
    pub before: usize,
    /// Its length, at most [`MAX_ITEM`].
    pub len: usize,
}

/// Compresses blocks.
pub struct Compressor {
    block: Vec<u8>,
}

impl Compressor {
    /// Of blocks that are at most so long before.
    pub fn new(longest: usize) -> Self {
        Self { block: vec![0; longest + longest / 255 + 64] }
    }

    /// The block. What is alike is in the order of its places.
    pub fn compress(&mut self, raw: &[u8], alike: &[Alike]) -> &[u8] {
        let mut out = Out { block: &mut self.block, len: 0 };
        let mut copied = 0;
        for Alike { at, before, len } in alike {
            let offset = at - before;
            if !(1..=MAX_OFFSET).contains(&offset)
                || *len > MAX_ITEM
                || at + COMPARED + TAIL > raw.len()
            {
                continue;
            }
            let mut same = same(&raw[*before..], &raw[*at..]) & ((1 << len) - 1);
            loop {
                let runs = same & same >> 1 & same >> 2 & same >> 3;
                if runs == 0 {
                    break;
                }
                let first = runs.trailing_zeros();
                let run = (same >> first).trailing_ones() as usize;
                let start = at + first as usize;
                out.sequence(raw, copied..start, offset, run);
                copied = start + run;
                same &= u64::MAX << (first as usize + run);
            }
        }
        out.last(&raw[copied..]);
        let len = out.len;
        &self.block[..len]
    }
}

struct Out<'a> {
    block: &'a mut [u8],
    len: usize,
}

impl Out<'_> {
    /// What is copied from the input, and a repetition after it.
    #[inline]
    fn sequence(
        &mut self,
        raw: &[u8],
        literals: std::ops::Range<usize>,
        offset: usize,
        run: usize,
    ) {
        let token = self.len;
        let count = literals.len();
        self.len += 1;
        let mut nibble = count << 4;
        if count >= 15 {
            nibble = 0xf0;
            self.long(count - 15);
        }
        if count <= 16 {
            // There is more in both places, and one copy of a fixed length is the fastest.
            let from = &raw[literals.start..literals.start + 16];
            self.block[self.len..self.len + 16].copy_from_slice(from);
        } else {
            self.block[self.len..self.len + count].copy_from_slice(&raw[literals]);
        }
        self.len += count;
        let [low, high, ..] = offset.to_le_bytes();
        self.block[self.len..self.len + 2].copy_from_slice(&[low, high]);
        self.len += 2;
        let more = run - MIN_MATCH;
        if more >= 15 {
            nibble |= 15;
            self.long(more - 15);
        } else {
            nibble |= more;
        }
        let [nibble, ..] = nibble.to_le_bytes();
        self.block[token] = nibble;
    }

    /// What is left at the end.
    fn last(&mut self, literals: &[u8]) {
        let token = self.len;
        self.len += 1;
        let [short, ..] = (literals.len().min(15) << 4).to_le_bytes();
        self.block[token] = short;
        if literals.len() >= 15 {
            self.long(literals.len() - 15);
        }
        self.block[self.len..self.len + literals.len()].copy_from_slice(literals);
        self.len += literals.len();
    }

    /// The rest of a length that four bits are too few for.
    fn long(&mut self, mut rest: usize) {
        while rest >= 255 {
            self.block[self.len] = 255;
            self.len += 1;
            rest -= 255;
        }
        let [rest, ..] = rest.to_le_bytes();
        self.block[self.len] = rest;
        self.len += 1;
    }
}

/// Which of the first bytes are the same, a bit each.
#[inline]
fn same(one: &[u8], other: &[u8]) -> u64 {
    let (one, other) = (&one[..COMPARED], &other[..COMPARED]);
    let (one, other) = (one.as_chunks::<LANES>().0, other.as_chunks::<LANES>().0);
    let lanes = one.iter().zip(other).enumerate();
    lanes.fold(0, |same, (nth, (one, other))| same | same_lanes(one, other) << (nth * LANES))
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[expect(unsafe_code, reason = "SSE2, which every processor of this architecture has")]
fn same_lanes(one: &[u8; LANES], other: &[u8; LANES]) -> u64 {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8};
    // SAFETY: the processor has SSE2, and both places are as long as what is loaded.
    let same = unsafe {
        let load = |bytes: &[u8; LANES]| _mm_loadu_si128(bytes.as_ptr().cast());
        _mm_movemask_epi8(_mm_cmpeq_epi8(load(one), load(other)))
    };
    same.cast_unsigned().into()
}

#[cfg(not(target_arch = "x86_64"))]
fn same_lanes(one: &[u8; LANES], other: &[u8; LANES]) -> u64 {
    let pairs = one.iter().zip(other).enumerate();
    pairs.fold(0, |same, (nth, (one, other))| same | u64::from(one == other) << nth)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_bit_for_each_byte_that_is_the_same() {
        let (one, mut other) = ([0x80; COMPARED], [0x80; COMPARED]);
        for at in [0, 7, 8, 15, 16, 40, 47] {
            other[at] ^= 0xff;
        }
        assert_eq!(same(&one, &other), 0x7eff_fffe_7e7e);
        assert_eq!(same(&one, &one), 0xffff_ffff_ffff);
    }

    #[test]
    fn what_repeats_is_short() {
        let item = [7; 36];
        let raw: Vec<u8> = (0..100).flat_map(|number| [&item[..35], &[number]].concat()).collect();
        let alike: Vec<Alike> =
            (1..100).map(|nth| Alike { at: nth * 36, before: (nth - 1) * 36, len: 36 }).collect();
        let mut compressor = Compressor::new(raw.len());
        let block = compressor.compress(&raw, &alike);
        assert!(block.len() < 100 * 6 + 100, "{}", block.len());
        assert_eq!(lz4_flex::block::decompress(block, raw.len()).unwrap(), raw);
    }

    proptest! {
        #[test]
        fn it_is_what_it_was(
            items in prop::collection::vec(
                (prop::collection::vec(0..3_u8, 0..60), any::<bool>(), 0..4_usize), 0..200,
            ),
            long in (0..200_usize, 0..700_usize),
        ) {
            let (mut raw, mut alike): (Vec<u8>, Vec<Alike>) = (Vec::new(), Vec::new());
            let mut starts: Vec<usize> = Vec::new();
            for (number, (item, is_compared, back)) in items.iter().enumerate() {
                let at = raw.len();
                if *is_compared && let Some(before) = starts.iter().nth_back(*back) {
                    alike.push(Alike { at, before: *before, len: item.len() });
                }
                starts.push(at);
                raw.extend(item);
                if number == long.0 {
                    raw.extend((0..long.1).map(|byte| byte.to_le_bytes()[0]));
                }
            }
            let mut compressor = Compressor::new(raw.len());
            let block = compressor.compress(&raw, &alike);
            prop_assert_eq!(lz4_flex::block::decompress(block, raw.len()).unwrap(), raw);
        }
    }
}
