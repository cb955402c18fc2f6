//! Requests on banks that are drawn, and on random ones against every window there is.

use proptest::prelude::*;

use super::*;

const BASE: u64 = 1000;

/// A bank from its blocks: bytes, and whether they are free.
fn space(blocks: &[(u64, bool)]) -> SpaceSnapshot {
    let mut start = BASE;
    let mut map = Vec::new();
    for (number, &(bytes, free)) in (0..).zip(blocks) {
        map.push(BlockSnapshot {
            start: DeviceAddr(start),
            end: DeviceAddr(start + bytes),
            free,
            unique_id: (!free).then_some(number),
            size: (!free).then_some(bytes * 3),
        });
        start += bytes;
    }
    let free = || blocks.iter().filter(|(_, free)| *free).map(|(bytes, _)| *bytes);
    SpaceSnapshot {
        id: 0,
        mesh: Some(MeshId(1)),
        chips: vec![ChipId(0)],
        buffer_type: BufferType::L1,
        maybe_closed: false,
        base: Some(DeviceAddr(BASE)),
        bank_size: start - BASE,
        banks: 4,
        alignment: 16,
        block_minimum: Some(32),
        block_unit: Some(32),
        free_bank_bytes: Some(free().sum()),
        largest_free_bank_bytes: Some(free().max().unwrap_or(0)),
        holes: Some(free().count() as u64),
        fragmentation_permille: Some(0),
        unknown_because: None,
        checked: true,
        map: Some(map),
    }
}

fn per_bank(size: u64, blocks: &[(u64, bool)]) -> Answer {
    answer(Request::PerBank { size }, &space(blocks))
}

/// Numbers of the blocks in the way.
fn pins(answer: &Answer) -> Vec<u64> {
    let pins = answer.in_the_way.iter().flat_map(|way| &way.buffers);
    pins.filter_map(|buffer| buffer.unique_id).collect()
}

#[test]
fn the_request_is_rounded_like_a_block() {
    let exactly = [(64, true), (64, false)];
    assert_eq!(per_bank(64, &exactly).fits, Some(true));
    assert_eq!(per_bank(33, &exactly).block_bytes, Some(64));
    assert_eq!(per_bank(65, &exactly).block_bytes, Some(96));
    assert_eq!(per_bank(65, &exactly).fits, Some(false));
    assert_eq!(per_bank(1, &exactly).block_bytes, Some(32), "the least block");
}

#[test]
fn an_interleaved_buffer_is_spread_in_whole_pages() {
    let bank = space(&[(64, true), (64, false)]);
    let ask = |total, page_size| answer(Request::Interleaved { total, page_size }, &bank);
    // Four banks: five pages are two on the first; a page of 20 bytes is aligned to 32.
    assert_eq!(ask(80, 16).block_bytes, Some(32));
    assert_eq!(ask(5 * 20, 20).block_bytes, Some(64));
    assert_eq!(ask(9 * 20, 20).fits, Some(false));
}

#[test]
fn the_fewest_bytes_are_in_the_way() {
    let blocks =
        [(64, true), (128, false), (64, true), (32, false), (96, true), (32, false), (32, true)];
    let answer = per_bank(192, &blocks);
    assert_eq!((answer.fits, pins(&answer)), (Some(false), vec![3]));
    let way = answer.in_the_way.unwrap();
    assert_eq!((way.start, way.end), (DeviceAddr(BASE + 192), DeviceAddr(BASE + 384)));
    assert_eq!(way.bank_bytes, 32);
    assert_eq!(way.buffers[0].size, Some(96));
    let answer = per_bank(224, &blocks);
    assert_eq!(pins(&answer), [3, 5]);
    assert_eq!(pins(&per_bank(448, &blocks)), [1, 3, 5], "all of them");
}

#[test]
fn a_bank_that_is_too_small_has_nothing_in_the_way() {
    let answer = per_bank(256, &[(64, true), (128, false)]);
    assert_eq!((answer.fits, answer.in_the_way), (Some(false), None));
}

#[test]
fn what_is_not_known_is_not_answered() {
    let unknown = SpaceSnapshot {
        largest_free_bank_bytes: None,
        unknown_because: Some("no idea".into()),
        map: None,
        ..space(&[(64, true)])
    };
    let answer_ = answer(Request::PerBank { size: 32 }, &unknown);
    assert_eq!((answer_.fits, answer_.unknown_because.as_deref()), (None, Some("no idea")));
    let unit = SpaceSnapshot { block_unit: None, ..space(&[(64, true)]) };
    assert_eq!(answer(Request::PerBank { size: 32 }, &unit).fits, None);
    let huge = answer(Request::PerBank { size: u64::MAX }, &space(&[(64, true)]));
    assert_eq!(huge.fits, None);
    let none = SpaceSnapshot { banks: 0, ..space(&[]) };
    assert_eq!(answer(Request::PerBank { size: 1 }, &none).fits, Some(false));
}

proptest! {
    #[test]
    fn no_window_is_cheaper(
        blocks in proptest::collection::vec((1..6_u64, any::<bool>()), 1..24),
        wanted in 1..40_u64,
    ) {
        // A free list has no two holes side by side.
        let mut joined: Vec<(u64, bool)> = Vec::new();
        for (units, free) in blocks {
            match joined.last_mut() {
                Some((bytes, true)) if free => *bytes += units * 32,
                _ => joined.push((units * 32, free)),
            }
        }
        let blocks = joined;
        let answer = per_bank(wanted * 32, &blocks);
        let cheapest = (0..blocks.len())
            .flat_map(|first| (first..blocks.len()).map(move |last| (first, last)))
            .map(|(first, last)| &blocks[first..=last])
            .filter(|window| window.iter().map(|(bytes, _)| bytes).sum::<u64>() >= wanted * 32)
            .map(|window| window.iter().filter(|(_, free)| !free).map(|(bytes, _)| bytes).sum::<u64>())
            .min();
        match cheapest {
            Some(0) => prop_assert_eq!(answer.fits, Some(true)),
            None => prop_assert!(answer.fits == Some(false) && answer.in_the_way.is_none()),
            Some(bytes) => {
                let way = answer.in_the_way.unwrap();
                prop_assert_eq!(way.bank_bytes, bytes);
                prop_assert_eq!(way.buffers.iter().map(|buffer| buffer.bank_bytes).sum::<u64>(), bytes);
                prop_assert!(way.end.0 - way.start.0 >= wanted * 32);
            }
        }
    }
}
