//! The live set against a plain map.

use std::{
    collections::BTreeMap,
    hash::{BuildHasherDefault, Hasher},
};

use proptest::prelude::*;

use super::*;
use crate::{
    event::{BufferType, Spread},
    units::DeviceAddr,
};

#[derive(Clone, Debug)]
enum Step {
    Insert { buffer: u16, live: Live },
    Remove { buffer: u16 },
    IndexBlocks,
    ForgetBlocks,
}

fn live() -> impl Strategy<Value = Live> {
    let number = any::<u64>;
    let spread = prop_oneof![
        Just(Spread::Interleaved),
        number().prop_map(Spread::PagesPerBank),
        (0..=u32::MAX, 1..=u32::MAX).prop_map(|(pages, cores)| Spread::PerCore { pages, cores }),
        Just(Spread::PerUnknownCore),
        Just(Spread::Unknown),
    ];
    let origin = prop_oneof![
        (proptest::num::u32::ANY, number()).prop_map(|(tid, time)| Origin::Seen(Tid(tid), time)),
        Just(Origin::PreAttach),
        Just(Origin::Missed),
    ];
    let measured = (number(), number())
        .prop_map(|(bank_bytes, used_bytes)| Measured { bank_bytes, used_bytes });
    let shape = (proptest::option::of(number()), 0..5_u32, 0..40_u64, number(), number(), spread)
        .prop_map(|(unique_id, raw, address, size, page_size, spread)| BufferShape {
            unique_id,
            buffer_type: BufferType::from_raw(raw).unwrap(),
            address: DeviceAddr(address),
            size,
            page_size,
            spread,
        });
    (shape, proptest::option::of(measured), 0..2_u64, proptest::option::of(any::<u32>()), origin)
        .prop_map(|(shape, measured, allocator, device, origin)| Live {
            shape,
            measured,
            allocator: Avma(allocator),
            device,
            origin,
        })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (0..400_u16, live()).prop_map(|(buffer, live)| Step::Insert { buffer, live }),
        8 => (0..400_u16).prop_map(|buffer| Step::Remove { buffer }),
        1 => Just(Step::IndexBlocks),
        1 => Just(Step::ForgetBlocks),
    ];
    proptest::collection::vec(step, 0..1500)
}

/// What the set has to say.
#[derive(Default)]
struct Model {
    live: BTreeMap<u16, Live>,
    /// The last that got a block, if it is still live.
    by_block: Option<BTreeMap<(u64, usize, u64, bool), u16>>,
}

fn coming(buffer: u64, live: &Live) -> Coming<'_> {
    let Live { shape, measured, allocator, device, origin } = live;
    Coming {
        buffer: Avma(buffer),
        shape,
        measured: *measured,
        allocator: *allocator,
        device: *device,
        origin: *origin,
    }
}

fn block(live: &Live) -> Block {
    Entry::new(&coming(0, live)).block()
}

fn key(live: &Live) -> (u64, usize, u64, bool) {
    let Block { allocator, buffer_type, address, per_core } = block(live);
    (allocator.0, buffer_type.index(), address.0, per_core)
}

impl Model {
    fn remove(&mut self, buffer: u16) -> Option<Live> {
        let live = self.live.remove(&buffer)?;
        if let Some(by_block) = &mut self.by_block
            && by_block.get(&key(&live)) == Some(&buffer)
        {
            by_block.remove(&key(&live));
        }
        Some(live)
    }

    fn insert(&mut self, buffer: u16, live: Live) {
        self.remove(buffer);
        if let Some(by_block) = &mut self.by_block {
            by_block.insert(key(&live), buffer);
        }
        self.live.insert(buffer, live);
    }
}

/// Every look-up says what the model says.
fn agree(set: &LiveSet, model: &Model) -> Result<(), TestCaseError> {
    prop_assert_eq!(set.len(), model.live.len());
    for buffer in 0..400_u16 {
        let expected = model.live.get(&buffer).copied();
        prop_assert_eq!(set.get(Avma(u64::from(buffer))), expected);
    }
    let walked: BTreeMap<u64, Live> =
        set.iter().map(|entry| (entry.buffer().0, entry.live())).collect();
    let expected: BTreeMap<u64, Live> =
        model.live.iter().map(|(&buffer, &live)| (u64::from(buffer), live)).collect();
    prop_assert_eq!(walked, expected);
    prop_assert_eq!(set.keys().count(), set.len());
    let unmeasured = model.live.values().filter(|live| live.measured.is_none()).count();
    prop_assert_eq!(set.unmeasured(), unmeasured);
    for live in model.live.values() {
        // Which of two at the same block had it last is known only since blocks are indexed.
        let owner = set.at_block(block(live)).map(|owner| owner.0);
        let expected = model.by_block.as_ref().and_then(|owners| owners.get(&key(live)).copied());
        prop_assert_eq!(owner, expected.map(u64::from));
    }
    Ok(())
}

proptest! {
    #[test]
    fn the_set_is_a_map(steps in steps()) {
        let (mut set, mut model) = (LiveSet::default(), Model::default());
        for step in steps {
            match step {
                Step::Insert { buffer, live } => {
                    let key = Avma(u64::from(buffer));
                    if model.live.contains_key(&buffer) {
                        let older = set.insert(&coming(key.0, &live)).unwrap_err();
                        prop_assert_eq!(set.at(older).buffer(), key);
                        prop_assert_eq!(set.remove(key), Some(older));
                    }
                    let place = set.insert(&coming(key.0, &live)).unwrap();
                    prop_assert_eq!(set.at(place).live(), live);
                    model.insert(buffer, live);
                }
                Step::Remove { buffer } => {
                    let removed = set.remove(Avma(u64::from(buffer)));
                    prop_assert_eq!(removed.map(|place| set.at(place).live()), model.remove(buffer));
                }
                Step::IndexBlocks => {
                    set.index_blocks();
                    // Which of several it finds first is not said: the model takes its word.
                    model.by_block.get_or_insert_with(|| {
                        let owner = |live: &Live| set.at_block(block(live)).unwrap();
                        let all = model.live.values();
                        all.map(|live| (key(live), u16::try_from(owner(live).0).unwrap())).collect()
                    });
                }
                Step::ForgetBlocks => {
                    set.forget_blocks();
                    model.by_block = None;
                }
            }
        }
        agree(&set, &model)?;
    }
}

/// Hashes that collide, and whose searches run over the end of the table.
#[derive(Default)]
struct Few(u64);

impl Hasher for Few {
    fn write(&mut self, _: &[u8]) {
        unreachable!("a key is a number");
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = [0, u64::MAX, u64::MAX - (1 << 32), 1 << 63][(key & 3) as usize];
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

proptest! {
    #[test]
    fn an_index_finds_what_collides(
        steps in proptest::collection::vec((0..400_u64, 0..5_u8), 0..1400),
    ) {
        let mut entries = Slab::default();
        let mut index = Index::<Avma, BuildHasherDefault<Few>>::default();
        let mut model = BTreeMap::new();
        for (buffer, what) in steps {
            let key = Avma(buffer);
            match what {
                0..=2 => {
                    let put = index.put(&coming(buffer, &plain(buffer)), &mut entries);
                    match model.get(&buffer) {
                        Some(place) => prop_assert_eq!(put, Err(*place)),
                        None => _ = model.insert(buffer, put.unwrap()),
                    }
                }
                3 => {
                    let taken = index.take(key, &entries);
                    prop_assert_eq!(taken, model.remove(&buffer));
                    if let Some(place) = taken {
                        entries.vacate(place);
                    }
                    index.shrink();
                }
                _ => {
                    // Another one like it, at another place.
                    let Some(place) = model.get_mut(&buffer) else { continue };
                    let other = entries.add(&coming(buffer, &plain(buffer)));
                    index.relocate(*place, other, &entries);
                    entries.vacate(std::mem::replace(place, other));
                }
            }
        }
        for buffer in 0..400 {
            let expected = model.get(&buffer).copied();
            prop_assert_eq!(index.find(Avma(buffer), &entries), expected);
            let mut places = Vec::new();
            index.may_be_at(index.tag(Avma(buffer)), |place| places.push(place));
            prop_assert!(expected.is_none_or(|place| places.contains(&place)));
        }
    }
}

fn plain(id: u64) -> Live {
    Live {
        shape: BufferShape {
            unique_id: Some(id),
            buffer_type: BufferType::L1,
            address: DeviceAddr(id),
            size: 1,
            page_size: 1,
            spread: Spread::Interleaved,
        },
        measured: None,
        allocator: Avma(1),
        device: Some(0),
        origin: Origin::Seen(Tid(1), id),
    }
}

#[test]
fn a_large_set_that_shrinks_keeps_what_it_has() {
    let mut set = LiveSet::default();
    for id in 0..50_000 {
        set.insert(&coming(id, &plain(id))).unwrap();
    }
    set.index_blocks();
    for id in (0..50_000).filter(|id| id % 64 != 0) {
        let place = set.remove(Avma(id)).unwrap();
        assert_eq!(set.at(place).live(), plain(id));
    }
    assert_eq!(set.len(), 782);
    for id in 0..50_000 {
        let expected = (id % 64 == 0).then(|| plain(id));
        assert_eq!(set.get(Avma(id)), expected);
        assert_eq!(set.at_block(block(&plain(id))), expected.map(|_| Avma(id)));
    }
}
