//! Reads a `std::unordered_set<T*>` of libstdc++ from a target that goes on changing it.
//!
//! Layout (fixed by libstdc++'s ABI): buckets, number of buckets, first node, number of elements.
//! All nodes form one list; a bucket holds the address of the node before its first one. The hash
//! of a pointer is the pointer, its bucket the remainder.
//!
//! Walking the one long list would lose the way as soon as a node on it is freed. A bucket's part
//! of it is a node or two: read until several readings agree, it holds every element that was in it
//! all the time. They are read page by page at first, all of them and then all of them again; those
//! that differ one by one.
//!
//! A thread that is stopped amid a change leaves the set half changed until it runs on, which may
//! take many times as long as reading it. While one node is linked or unlinked, the part of a
//! neighbouring bucket begins with that node, which is skipped. While all are put into new
//! buckets, some buckets cannot be read, or there are fewer elements than are counted: that is
//! waited for, and if it takes too long it is an error, never a smaller set.

use std::{ops::Range, thread, time::Duration};

use crate::{
    target::{
        memory::{TargetMemory, Unreadable},
        pages::Pages,
    },
    units::Avma,
};

/// Why no set could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// What is there cannot be a set.
    NotASet,
    /// It changes faster than it can be read.
    Unsteady,
}

impl From<Unreadable> for Error {
    fn from(_: Unreadable) -> Self {
        Self::NotASet
    }
}

/// More buckets than this is no set of buffers.
const MAX_BUCKETS: u64 = 1 << 28;
/// A chain this long means that the way was lost.
const MAX_CHAIN: usize = 1 << 12;
/// Nodes that are read of one set, besides a few times all that are counted: else its links are
/// nonsense.
const MAX_NODES: u64 = 1 << 20;
/// Readings of all buckets page by page. What is on two pages is of two moments that lie further
/// apart than those of two words: so it is one more than of a bucket by itself.
const READINGS: usize = 3;
/// Attempts to read one bucket twice alike, and to read the whole without a rehash.
const ATTEMPTS: usize = 100;
/// The way was lost so often in a row: trying at once again is of no use.
const FAILURES: usize = 8;
/// How long is waited for a thread that was stopped amid a change.
const PAUSE: Duration = Duration::from_millis(1);
/// How often that is done for buckets that cannot be read.
const PATIENCE: usize = 250;
/// The same, if no bucket can be read: most likely it is no set.
const LITTLE_PATIENCE: usize = 20;

/// The elements, in address order.
pub fn read(memory: &dyn TargetMemory, set: Avma) -> Result<Vec<Avma>, Error> {
    let mut before = Header::read(memory, set)?;
    for _ in 0..ATTEMPTS {
        let elements = before.elements(memory, set);
        let after = Header::read(memory, set)?;
        // After a rehash the old buckets may hold anything.
        if after.same_buckets(&before) {
            let elements = elements?;
            if after != before || elements.len() as u64 >= before.elements {
                return Ok(elements);
            }
            // Nothing has changed, and not all were there.
            thread::sleep(PAUSE);
        }
        before = after;
    }
    Err(Error::Unsteady)
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Header {
    buckets: Avma,
    count: u64,
    first: u64,
    elements: u64,
}

impl Header {
    fn read(memory: &dyn TargetMemory, set: Avma) -> Result<Self, Error> {
        let words = memory.words(set, 4)?;
        let [buckets, count, first, elements] = words[..] else { return Err(Error::NotASet) };
        let sane = buckets % 8 == 0
            && buckets != 0
            && (1..=MAX_BUCKETS).contains(&count)
            && elements <= MAX_BUCKETS
            && first % 8 == 0;
        let header = Self { buckets: Avma(buckets), count, first, elements };
        if sane { Ok(header) } else { Err(Error::NotASet) }
    }

    fn same_buckets(&self, other: &Self) -> bool {
        self.buckets == other.buckets && self.count == other.count
    }

    fn elements(&self, memory: &dyn TargetMemory, set: Avma) -> Result<Vec<Avma>, Error> {
        let mut nodes = MAX_NODES + 16 * self.elements;
        let (mut elements, mut unread) = self.by_page(memory, &self.filled(memory)?, &mut nodes);
        for waited in 0.. {
            unread.retain(|&bucket| match self.bucket(memory, bucket, &mut nodes) {
                Some(found) => {
                    elements.extend(found);
                    false
                }
                None => true,
            });
            if unread.is_empty() {
                elements.sort_unstable();
                elements.dedup();
                return Ok(elements);
            }
            if elements.is_empty() && waited >= LITTLE_PATIENCE {
                return Err(Error::NotASet);
            }
            if waited >= PATIENCE || nodes == 0 || !Self::read(memory, set)?.same_buckets(self) {
                break;
            }
            thread::sleep(PAUSE);
        }
        Err(Error::Unsteady)
    }

    /// The buckets that have elements, in the order of what leads to them: what was linked one after
    /// the other mostly lies one behind the other.
    fn filled(&self, memory: &dyn TargetMemory) -> Result<Vec<u64>, Error> {
        let count = usize::try_from(self.count).map_err(|_| Error::NotASet)?;
        let heads = memory.words(self.buckets, count)?;
        let filled = heads.into_iter().zip(0..).filter(|(head, _)| *head != 0);
        let mut filled: Vec<(u64, u64)> = filled.collect();
        filled.sort_unstable();
        Ok(filled.into_iter().map(|(_, bucket)| bucket).collect())
    }

    /// Reads buckets page by page, several times: the elements of those that were always the same, and
    /// the other buckets.
    fn by_page(
        &self,
        memory: &dyn TargetMemory,
        buckets: &[u64],
        nodes: &mut u64,
    ) -> (Vec<Avma>, Vec<u64>) {
        let mut found = Vec::new();
        // Where among those each bucket's are; nowhere if it differed.
        let mut places: Vec<Range<usize>> = Vec::with_capacity(buckets.len());
        for reading in 0..READINGS {
            let pages = Pages::new(memory);
            for (index, &bucket) in buckets.iter().enumerate() {
                if reading == 0 {
                    let start = found.len();
                    found.extend(self.chain(&pages, bucket, nodes).unwrap_or_default());
                    places.push(start..found.len());
                } else if !places[index].is_empty() {
                    let before = &found[places[index].clone()];
                    let now = self.chain(&pages, bucket, nodes);
                    if now.as_deref() != Some(before) {
                        places[index] = 0..0;
                    }
                }
            }
        }
        let same = places.iter().flat_map(|place| &found[place.clone()]).copied().collect();
        let others = buckets.iter().zip(&places).filter(|(_, place)| place.is_empty());
        (same, others.map(|(&bucket, _)| bucket).collect())
    }

    /// Reads a bucket until two readings agree, and at most so many nodes.
    fn bucket(&self, memory: &dyn TargetMemory, bucket: u64, nodes: &mut u64) -> Option<Vec<Avma>> {
        let (mut last, mut failures) = (None, 0);
        for _ in 0..ATTEMPTS {
            let chain = self.chain(memory, bucket, nodes);
            if chain.is_some() && chain == last {
                return chain;
            }
            failures = if chain.is_some() { 0 } else { failures + 1 };
            if failures == FAILURES {
                break;
            }
            last = chain;
        }
        None
    }

    /// `None` if the way was lost.
    fn chain(&self, memory: &dyn TargetMemory, bucket: u64, nodes: &mut u64) -> Option<Vec<Avma>> {
        let before = memory.pointer(self.buckets.plus(bucket * 8)).ok()?;
        let mut elements = Vec::new();
        if before.0 == 0 {
            return Some(elements);
        }
        let mut node = memory.pointer(before).ok()?;
        let (mut skipped, mut mark) = (false, None);
        while node.0 != 0 {
            *nodes = nodes.checked_sub(1)?;
            let words = memory.words(node, 2).ok()?;
            let [next, element] = words[..] else { return None };
            if element % self.count != bucket {
                if elements.is_empty() && !skipped {
                    // One that is just being linked or unlinked before them.
                    skipped = true;
                    node = Avma(next);
                    continue;
                }
                break;
            }
            // It leads back to itself, or nowhere.
            if mark == Some(element) || elements.len() == MAX_CHAIN {
                return None;
            }
            elements.push(Avma(element));
            // Whatever the length of a circle: in time the mark is on it.
            if elements.len().is_power_of_two() {
                mark = Some(element);
            }
            node = Avma(next);
        }
        // A bucket that is not empty has an element.
        (!elements.is_empty()).then_some(elements)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::target::memory::SavedMemory;

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

    /// Counts readings.
    struct Counting {
        inner: SavedMemory,
        reads: Cell<u64>,
    }

    impl TargetMemory for Counting {
        fn read(&self, from: Avma, to: &mut [u8]) -> Result<(), Unreadable> {
            self.reads.set(self.reads.get() + 1);
            self.inner.read(from, to)
        }
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
            let memory = Counting { inner, reads: Cell::new(0) };
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
        let stays = [0x100, 0x200, 0x208];
        for at in 0..400 {
            let before = set_of(&[0x10d, 0x100, 0x200, 0x208]);
            let mut after = before.clone();
            after.add(Avma(NODES + 32), bytes(&[NODES + 96, 0x200]));
            after.add(Avma(NODES + 64), bytes(&[0, 0x10d]));
            after.add(SET, bytes(&[BUCKETS, COUNT, NODES, 3]));
            let memory = Changing { first: before, then: after, reads: Cell::new(0), at };
            let found = read(&memory, SET).unwrap();
            assert!(stays.iter().all(|&it| found.contains(&Avma(it))), "{at}: {found:x?}");
        }
    }

    #[test]
    fn a_torn_reading_is_repeated() {
        let elements = [0x100, 0x10d, 0x200, 0x208, 0x300];
        let memory = Flickering { inner: set_of(&elements), reads: Cell::new(0) };
        assert_eq!(read(&memory, SET), Ok(elements.map(Avma).to_vec()));
    }
}
