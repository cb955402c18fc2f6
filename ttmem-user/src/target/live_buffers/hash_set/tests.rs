use std::cell::Cell;

use super::*;
use crate::target::memory::{CountingMemory, SavedMemory};

const SET: Avma = Avma(0x1000);
const BUCKETS: u64 = 0x2000;
const COUNT: u64 = BUCKET_COUNT as u64;
const BUCKET_COUNT: usize = 13;

/// Where the nodes are.
const NODES: u64 = 0x8000;

fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// A set as libstdc++ lays it out.
fn set_of(elements: &[u64]) -> SavedMemory {
    let mut sorted = elements.to_vec();
    sorted.sort_by_key(|element| element % COUNT);
    let node = |index: usize| NODES + index as u64 * 32;
    let mut buckets = [0; BUCKET_COUNT];
    let mut memory = SavedMemory::default();
    for (index, element) in sorted.iter().enumerate() {
        let before = if index == 0 { SET.0 + 16 } else { node(index - 1) };
        let bucket = &mut buckets[usize::try_from(element % COUNT).unwrap()];
        if *bucket == 0 {
            *bucket = before;
        }
        let next = if index + 1 < sorted.len() { node(index + 1) } else { 0 };
        memory.add(Avma(node(index)), bytes(&[next, *element]));
    }
    let first = if sorted.is_empty() { 0 } else { NODES };
    memory.add(Avma(BUCKETS), bytes(&buckets));
    memory.add(SET, bytes(&[BUCKETS, COUNT, first, sorted.len() as u64]));
    memory
}

#[test]
fn every_element_is_found() {
    for elements in [vec![], vec![0x100], vec![0x100, 0x10d, 0x11a, 0x200, 0x208, 0x300]] {
        let mut expected: Vec<Avma> = elements.iter().copied().map(Avma).collect();
        expected.sort();
        assert_eq!(read(&set_of(&elements), SET), Ok(expected));
    }
}

#[test]
fn what_is_no_set_is_refused() {
    let mut memory = SavedMemory::default();
    assert_eq!(read(&memory, SET), Err(Error::NotASet));
    memory.add(SET, vec![0xff; 32]);
    assert_eq!(read(&memory, SET), Err(Error::NotASet));
    // One bucket whose chain never ends.
    let mut endless = set_of(&[0x100]);
    endless.add(Avma(NODES), bytes(&[NODES, 0x100]));
    assert_eq!(read(&endless, SET), Err(Error::NotASet));
}

/// Whoever waits for ttmem is not kept waiting by nonsense.
#[test]
fn a_way_that_leads_nowhere_is_given_up_soon() {
    let mut circle = set_of(&[0x100, 0x101, 0x10d]);
    circle.add(Avma(NODES), bytes(&[NODES, 0x100]));
    // A way of nodes without an end, all of one bucket: the first bytes are nodes of their own.
    let mut endless = set_of(&[0x100, 0x101]);
    let element = |at: u64| 0x100 + COUNT * at;
    let nodes = (0..5000).flat_map(|at| [0x10_0000 + 16 * (at + 1), element(at + 1)]);
    endless.add(Avma(0x10_0000), bytes(&nodes.collect::<Vec<_>>()));
    endless.add(Avma(NODES), bytes(&[0x10_0000, 0x100]));
    let circle = (circle, Error::Unsteady, 20_000);
    let endless = (endless, Error::NotASet, 2 * MAX_NODES);
    for (inner, error, limit) in [circle, endless] {
        let memory = CountingMemory { inner, reads: Cell::new(0) };
        assert_eq!(read(&memory, SET), Err(error));
        assert!(memory.reads.get() < limit, "{} readings", memory.reads.get());
    }
}

/// Loses the way on every seventh reading of a node.
struct Flickering {
    inner: SavedMemory,
    reads: Cell<u32>,
}

impl TargetMemory for Flickering {
    fn read(&self, from: Avma, to: &mut [u8]) -> Result<(), Unreadable> {
        self.inner.read(from, to)?;
        if from.0 >= NODES {
            self.reads.set(self.reads.get() + 1);
            if self.reads.get().is_multiple_of(7) {
                to.fill(0x55);
            }
        }
        Ok(())
    }
}

/// A thread has stopped amid the insertion of 0x203: it is the first of the list, and the
/// bucket of what was the first still begins before it.
#[test]
fn a_node_that_is_half_linked_hides_nothing() {
    let elements = [0x100, 0x10d, 0x200];
    let mut memory = set_of(&elements);
    let first = memory.pointer(SET.plus(16)).unwrap();
    memory.add(Avma(0x9000), bytes(&[first.0, 0x203]));
    memory.add(SET, bytes(&[BUCKETS, COUNT, 0x9000, 3]));
    assert_eq!(read(&memory, SET), Ok(elements.map(Avma).to_vec()));
}

/// A thread has stopped amid a rehash: the nodes lead elsewhere than the buckets say.
#[test]
fn what_stays_half_changed_is_no_smaller_set() {
    let mut memory = set_of(&[0x100, 0x101, 0x102, 0x103]);
    let torn = Avma(NODES);
    let element = memory.word(torn.plus(8)).unwrap();
    memory.add(torn, bytes(&[0, element]));
    assert_eq!(read(&memory, SET), Err(Error::Unsteady));
}

/// Every bucket can be read, and yet elements are missing.
#[test]
fn fewer_than_are_counted_are_not_all() {
    let mut memory = set_of(&[0x100, 0x10d]);
    let first = memory.pointer(SET.plus(16)).unwrap();
    memory.add(first, bytes(&[0, 0x100]));
    assert_eq!(read(&memory, SET), Err(Error::Unsteady));
}

/// One for so many readings, and the other from then on.
struct Changing {
    first: SavedMemory,
    then: SavedMemory,
    reads: Cell<u32>,
    at: u32,
}

impl TargetMemory for Changing {
    fn read(&self, from: Avma, to: &mut [u8]) -> Result<(), Unreadable> {
        self.reads.set(self.reads.get() + 1);
        let now = if self.reads.get() <= self.at { &self.first } else { &self.then };
        now.read(from, to)
    }
}

#[test]
fn a_thread_that_runs_on_is_waited_for() {
    let elements = [0x100, 0x101, 0x102, 0x103];
    let mut torn = set_of(&elements);
    let element = torn.word(Avma(NODES + 8)).unwrap();
    torn.add(Avma(NODES), bytes(&[0, element]));
    let then = set_of(&elements);
    let memory = Changing { first: torn, then, reads: Cell::new(0), at: 2_000 };
    assert_eq!(read(&memory, SET), Ok(elements.map(Avma).to_vec()));
}

/// An element goes that is on the way to another one, at whichever moment: a reading may find the
/// way to it, and then its freed node.
#[test]
fn what_stays_is_found_whatever_goes() {
    for at in 0..400 {
        let (first, then) = (set_of(&MANY), without_the_first());
        let memory = Changing { first, then, reads: Cell::new(0), at };
        let found = read(&memory, SET).unwrap();
        assert!(STAYS.iter().all(|it| found.contains(it)), "{at}: {found:x?}");
    }
}

const MANY: [u64; 5] = [0x10d, 0x100, 0x101, 0x200, 0x208];
const STAYS: [Avma; 4] = [Avma(0x100), Avma(0x101), Avma(0x200), Avma(0x208)];

/// The set of all once 0x10d has gone, which was before 0x100 in the same bucket.
fn without_the_first() -> SavedMemory {
    let mut after = set_of(&MANY);
    after.add(Avma(NODES + 32), bytes(&[NODES + 96, 0x200]));
    after.add(Avma(NODES + 64), bytes(&[0, 0x10d]));
    after.add(SET, bytes(&[BUCKETS, COUNT, NODES, 4]));
    after
}

/// Says one thing by page, and another word by word.
struct TwoMoments {
    pages: SavedMemory,
    words: SavedMemory,
}

impl TargetMemory for TwoMoments {
    fn read(&self, from: Avma, to: &mut [u8]) -> Result<(), Unreadable> {
        let is_page = from.0.is_multiple_of(4096) && to.len() == 4096;
        if is_page { &self.pages } else { &self.words }.read(from, to)
    }
}

/// The page with the way to a node is from before that was freed, and the one with the node from
/// when it was one of another set, with the same element.
fn led_astray() -> SavedMemory {
    let mut torn = set_of(&MANY);
    torn.add(Avma(NODES + 64), bytes(&[NODES + 256, 0x10d]));
    torn.add(Avma(NODES + 256), bytes(&[0, 0x303]));
    torn
}

/// All of its pages, whole.
fn paged(memory: &SavedMemory) -> SavedMemory {
    let word = |at: u64| memory.word(Avma(at)).unwrap_or(0);
    let mut pages = SavedMemory::default();
    for page in [SET.0, BUCKETS, NODES] {
        let all: Vec<u64> = (page..page + 4096).step_by(8).map(word).collect();
        pages.add(Avma(page), bytes(&all));
    }
    pages
}

#[test]
fn a_node_of_another_set_hides_nothing() {
    let words = without_the_first();
    let memory = TwoMoments { pages: paged(&led_astray()), words };
    assert_eq!(read(&memory, SET), Ok(STAYS.to_vec()));
}

/// And by chance the way ends where that set has another bucket.
#[test]
fn what_was_read_only_once_is_not_taken() {
    let mut torn = led_astray();
    torn.add(Avma(BUCKETS + 0x303 % COUNT * 8), bytes(&[NODES + 64]));
    let then = paged(&without_the_first());
    // The set, its buckets, and the three pages of the first reading.
    let memory = Changing { first: paged(&torn), then, reads: Cell::new(0), at: 5 };
    assert_eq!(read(&memory, SET), Ok(STAYS.to_vec()));
}

#[test]
fn a_torn_reading_is_repeated() {
    let elements = [0x100, 0x10d, 0x200, 0x208, 0x300];
    let memory = Flickering { inner: set_of(&elements), reads: Cell::new(0) };
    assert_eq!(read(&memory, SET), Ok(elements.map(Avma).to_vec()));
}

/// A node that has just been made anew at its place is still linked there, and leads nowhere yet.
#[test]
fn only_one_bucket_ends_the_list() {
    let elements = [0x100, 0x10d, 0x101, 0x10e, 0x104];
    let mut memory = set_of(&elements);
    let mut sorted = elements;
    sorted.sort_by_key(|element| element % COUNT);
    for (index, element) in (0..).zip(sorted).take(elements.len() - 1) {
        let node = Avma(NODES + index * 32);
        let as_it_was = memory.clone();
        memory.add(node, bytes(&[0, element]));
        assert_eq!(read(&memory, SET), Err(Error::Unsteady), "{element:#x}");
        memory = as_it_was;
    }
    assert_eq!(read(&memory, SET).map(|found| found.len()), Ok(elements.len()));
}
