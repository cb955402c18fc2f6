//! Reads a `std::unordered_set<T*>` of libstdc++ from a target that goes on changing it.
//!
//! Layout (fixed by libstdc++'s ABI): buckets, number of buckets, first node, number of elements.
//! All nodes form one list; a bucket holds the address of the node before its first one. The hash
//! of a pointer is the pointer, its bucket the remainder.
//!
//! Walking the one long list would lose the way as soon as a node on it is freed. A bucket's part
//! of it is a node or two: read until two readings agree, and end where another bucket begins, it holds
//! every element that was in it all the time. They are read page by page at first, all of them and then
//! all of them again; those that differ, or do not end well, word by word. Only one can end the list: a
//! node that is used again and again at one place leads nowhere each time before it is linked.
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

/// More buckets than this is no set of buffers. They take 128 MiB here while they are looked at.
const MAX_BUCKETS: u64 = 1 << 24;
/// A chain this long means that the way was lost.
const MAX_CHAIN: usize = 1 << 12;
/// Nodes that are read of one set, besides a few times all that are counted: else its links are
/// nonsense.
const MAX_NODES: u64 = 1 << 20;
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
            let mut last = Vec::new();
            unread.retain(|&bucket| match self.bucket(memory, bucket, &mut nodes) {
                Some(Chain { elements: found, behind: None, .. }) if !found.is_empty() => {
                    last.push((bucket, found));
                    false
                }
                Some(chain) => {
                    elements.extend(chain.elements);
                    false
                }
                None => true,
            });
            let is_any_read = !elements.is_empty() || !last.is_empty();
            // The one that ends the list is read again as long as another one may be it.
            match &mut *last {
                [(_, found)] if unread.is_empty() => elements.append(found),
                buckets => unread.extend(buckets.iter().map(|(bucket, _)| *bucket)),
            }
            if unread.is_empty() {
                elements.sort_unstable();
                elements.dedup();
                return Ok(elements);
            }
            if !is_any_read && waited >= LITTLE_PATIENCE {
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

    /// Reads buckets page by page, twice: the elements of those that were the same and end where another
    /// one begins, and the other buckets. What is on two pages is of two moments that lie far apart.
    fn by_page(
        &self,
        memory: &dyn TargetMemory,
        buckets: &[u64],
        nodes: &mut u64,
    ) -> (Vec<Avma>, Vec<u64>) {
        let mut read_one = |pages: &Pages<'_>, bucket| {
            let chain = self.chain(pages, bucket, nodes)?;
            self.ends_well(pages, &chain).then_some(chain.elements)
        };
        let mut found = Vec::new();
        let pages = Pages::new(memory);
        // Where among those each bucket's are; nowhere if it differed.
        let in_turn = buckets.iter().map(|&bucket| {
            let start = found.len();
            found.extend(read_one(&pages, bucket).unwrap_or_default());
            start..found.len()
        });
        let mut places: Vec<Range<usize>> = in_turn.collect();
        drop(pages);
        let pages = Pages::new(memory);
        for (place, &bucket) in places.iter_mut().zip(buckets) {
            let before = &found[place.clone()];
            if !before.is_empty() && read_one(&pages, bucket).as_deref() != Some(before) {
                *place = 0..0;
            }
        }
        let same = places.iter().flat_map(|place| &found[place.clone()]).copied().collect();
        let others = buckets.iter().zip(&places).filter(|(_, place)| place.is_empty());
        (same, others.map(|(&bucket, _)| bucket).collect())
    }

    /// Reads a bucket until two readings agree, and at most so many nodes.
    fn bucket(&self, memory: &dyn TargetMemory, bucket: u64, nodes: &mut u64) -> Option<Chain> {
        let (mut last, mut failures) = (None, 0);
        for _ in 0..ATTEMPTS {
            let chain = self.chain(memory, bucket, nodes);
            let chain =
                chain.filter(|chain| chain.behind.is_none() || self.ends_well(memory, chain));
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
    fn chain(&self, memory: &dyn TargetMemory, bucket: u64, nodes: &mut u64) -> Option<Chain> {
        let before = memory.pointer(self.buckets.plus(bucket * 8)).ok()?;
        let mut chain = Chain { elements: Vec::new(), last: before, behind: None };
        if before.0 == 0 {
            return Some(chain);
        }
        let mut node = memory.pointer(before).ok()?;
        let (mut skipped, mut mark) = (false, None);
        while node.0 != 0 {
            *nodes = nodes.checked_sub(1)?;
            let words = memory.words(node, 2).ok()?;
            let [next, element] = words[..] else { return None };
            if element % self.count != bucket {
                if chain.elements.is_empty() && !skipped {
                    // One that is just being linked or unlinked before them.
                    skipped = true;
                    node = Avma(next);
                    continue;
                }
                chain.behind = Some(element);
                break;
            }
            // It leads back to itself, or nowhere.
            if mark == Some(element) || chain.elements.len() == MAX_CHAIN {
                return None;
            }
            chain.elements.push(Avma(element));
            chain.last = node;
            // Whatever the length of a circle: in time the mark is on it.
            if chain.elements.len().is_power_of_two() {
                mark = Some(element);
            }
            node = Avma(next);
        }
        // A bucket that is not empty has an element.
        (!chain.elements.is_empty()).then_some(chain)
    }

    /// Whether what is behind a chain says that it begins there. A node that was freed meanwhile may
    /// be one of another set, with the same element, and lead on there.
    fn ends_well(&self, memory: &dyn TargetMemory, chain: &Chain) -> bool {
        chain.behind.is_some_and(|element| {
            let head = self.buckets.plus(element % self.count * 8);
            memory.pointer(head) == Ok(chain.last)
        })
    }
}

/// A bucket's part of the list.
#[derive(PartialEq, Eq)]
struct Chain {
    elements: Vec<Avma>,
    /// Its last node.
    last: Avma,
    /// The first element of another bucket behind it; `None`: the list ends.
    behind: Option<u64>,
}

#[cfg(test)]
mod tests;
