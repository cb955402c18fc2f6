//! From a key to the place of its entry. The keys themselves are in the entries.
//!
//! A table of words, one for each place. A key's hash says where in it the search for it begins: at
//! the upper half of the hash, as a fraction of the table, and from there one by one up to an empty
//! word (linear probing). So the cache line that a look-up needs is known without reading anything,
//! and the lines of many look-ups can be fetched at once; a table of the library has two lines for
//! each, and says of neither where it is.
//!
//! Most words are empty, so that a search nearly always ends at the first: how many it passes is up to
//! chance, and to guess that wrong costs a processor as much as a cache miss.
//!
//! Invariants: at most one of [`Key::WORDS`] words is filled; between where the search for a key begins
//! and its word none is empty.

use std::{
    hash::{BuildHasher, Hash},
    marker::PhantomData,
};

use foldhash::fast::RandomState;

use super::{Coming, Entry, LivePlace, Slab};
use crate::{fetch::fetch, ledger::late::Block, units::Avma};

/// The table is never smaller: 4 KiB.
const SMALLEST: usize = 512;
/// What an entry can be found by.
pub(super) trait Key: Copy + Eq + Hash {
    /// So many words there are at least for each that is filled; a quarter more when the table has grown.
    const WORDS: usize;
    /// And at most half as many again, once the table has been made smaller.
    const MOST_WORDS: usize = Self::WORDS * 3 / 2;

    /// The key of an entry.
    fn of(entry: &Entry) -> Self;
}

impl Key for Avma {
    const WORDS: usize = 4;

    #[inline]
    fn of(entry: &Entry) -> Self {
        entry.buffer()
    }
}

/// Only for a while, and seldom asked: so it may be denser.
impl Key for Block {
    const WORDS: usize = 2;

    #[inline]
    fn of(entry: &Entry) -> Self {
        entry.block()
    }
}

/// The upper half of a key's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(u32);

/// A key's tag, and its place; or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word(u64);

impl Word {
    /// There is no such place.
    const EMPTY: Self = Self(u64::MAX);

    fn new(tag: Tag, place: LivePlace) -> Self {
        Self(u64::from(tag.0) << 32 | u64::from(place))
    }

    #[inline]
    const fn tag(self) -> Tag {
        Tag((self.0 >> 32) as u32)
    }

    #[inline]
    const fn place(self) -> LivePlace {
        (self.0 & 0xffff_ffff) as u32
    }
}

/// Places by key, at most one of each.
#[derive(Debug)]
pub(super) struct Index<K, S = RandomState> {
    words: Vec<Word>,
    /// How many are filled.
    len: usize,
    hasher: S,
    key: PhantomData<K>,
}

impl<K, S: Default> Default for Index<K, S> {
    fn default() -> Self {
        let words = vec![Word::EMPTY; SMALLEST];
        Self { words, len: 0, hasher: S::default(), key: PhantomData }
    }
}

impl<S: BuildHasher> Index<Avma, S> {
    /// Adds an entry. `Err`: where there is one already.
    #[inline]
    pub fn put(&mut self, coming: &Coming<'_>, entries: &mut Slab) -> Result<LivePlace, LivePlace> {
        self.make_room();
        let tag = self.tag(coming.buffer);
        match self.locate(tag, coming.buffer, entries) {
            Ok(at) => Err(self.words[at].place()),
            Err(at) => {
                let place = entries.add(coming);
                self.fill(at, Word::new(tag, place));
                Ok(place)
            }
        }
    }
}

impl<K: Key, S: BuildHasher> Index<K, S> {
    /// The place of a key's entry.
    #[inline]
    pub fn find(&self, key: K, entries: &Slab) -> Option<LivePlace> {
        let at = self.locate(self.tag(key), key, entries).ok()?;
        Some(self.words[at].place())
    }

    /// What the search for a key begins with.
    #[inline]
    pub fn tag(&self, key: K) -> Tag {
        Tag((self.hasher.hash_one(key) >> 32) as u32)
    }

    /// Has the processor fetch what a look-up of the key with this tag reads first.
    #[inline]
    pub fn fetch(&self, tag: Tag) {
        fetch(&raw const self.words[self.start(tag)]);
    }

    /// The places at which the entry of the key with this tag may be: nearly always one if it is there,
    /// and none if not. No entry is looked at.
    #[inline]
    pub fn may_be_at(&self, tag: Tag, mut at: impl FnMut(LivePlace)) {
        let _ = self.search(tag, |place| {
            at(place);
            false
        });
    }

    /// Notes where the entry of a key is.
    pub fn set(&mut self, place: LivePlace, entries: &Slab) {
        self.make_room();
        let key = K::of(entries.get(place));
        let tag = self.tag(key);
        let word = Word::new(tag, place);
        match self.locate(tag, key, entries) {
            Ok(at) => self.words[at] = word,
            Err(at) => self.fill(at, word),
        }
    }

    /// Takes the place of a key's entry out.
    #[inline]
    pub fn take(&mut self, key: K, entries: &Slab) -> Option<LivePlace> {
        let at = self.locate(self.tag(key), key, entries).ok()?;
        let place = self.words[at].place();
        self.empty(at);
        Some(place)
    }

    /// Takes a place out, if it is there.
    pub fn forget(&mut self, place: LivePlace, entries: &Slab) {
        let tag = self.tag(K::of(entries.get(place)));
        if let Ok(at) = self.search(tag, |other| other == place) {
            self.empty(at);
        }
    }

    /// The entry at one place is about to come to another.
    #[inline]
    pub fn relocate(&mut self, from: LivePlace, to: LivePlace, entries: &Slab) {
        let tag = self.tag(K::of(entries.get(from)));
        if let Ok(at) = self.search(tag, |place| place == from) {
            self.words[at] = Word::new(tag, to);
        }
    }

    /// Gives memory back if most of it is not used.
    pub fn shrink(&mut self) {
        if self.words.len() > SMALLEST && self.words.len() > self.len * K::MOST_WORDS {
            self.rebuild(with_a_quarter(self.len * K::WORDS).max(SMALLEST));
        }
    }

    /// The word of a key with this tag. `Err`: the empty one where the search ended.
    #[inline]
    fn locate(&self, tag: Tag, key: K, entries: &Slab) -> Result<usize, usize> {
        self.search(tag, |place| K::of(entries.get(place)) == key)
    }

    /// The word with this tag and a place that is the one. `Err`: the empty one where the search ended.
    #[inline]
    fn search(&self, tag: Tag, mut is_it: impl FnMut(LivePlace) -> bool) -> Result<usize, usize> {
        let mut at = self.start(tag);
        loop {
            let word = self.words[at];
            if word == Word::EMPTY {
                return Err(at);
            }
            if word.tag() == tag && is_it(word.place()) {
                return Ok(at);
            }
            at = self.next(at);
        }
    }

    /// Makes sure that one more can be added.
    #[inline]
    fn make_room(&mut self) {
        if self.len * K::WORDS >= self.words.len() {
            self.rebuild(with_a_quarter(self.words.len()));
        }
    }

    #[inline]
    fn fill(&mut self, at: usize, word: Word) {
        self.words[at] = word;
        self.len += 1;
    }

    /// Empties a word, and closes the gap for those behind it whose search would end there.
    #[inline]
    fn empty(&mut self, mut gap: usize) {
        let mut at = gap;
        loop {
            at = self.next(at);
            let word = self.words[at];
            if word == Word::EMPTY {
                break;
            }
            if self.steps(self.start(word.tag()), at) >= self.steps(gap, at) {
                self.words[gap] = word;
                gap = at;
            }
        }
        self.words[gap] = Word::EMPTY;
        self.len -= 1;
    }

    /// Makes a table of so many words.
    #[inline(never)]
    fn rebuild(&mut self, size: usize) {
        let old = std::mem::replace(&mut self.words, vec![Word::EMPTY; size]);
        for word in old.into_iter().filter(|word| *word != Word::EMPTY) {
            let mut at = self.start(word.tag());
            while self.words[at] != Word::EMPTY {
                at = self.next(at);
            }
            self.words[at] = word;
        }
    }

    /// Where the search for a tag begins.
    #[inline]
    fn start(&self, tag: Tag) -> usize {
        // Less than the number of words.
        ((u64::from(tag.0) * self.words.len() as u64) >> 32) as usize
    }

    #[inline]
    fn next(&self, at: usize) -> usize {
        if at + 1 == self.words.len() { 0 } else { at + 1 }
    }

    /// How often [`Self::next`] leads from one word to another.
    #[inline]
    fn steps(&self, from: usize, to: usize) -> usize {
        to.checked_sub(from).unwrap_or_else(|| to + self.words.len() - from)
    }
}

const fn with_a_quarter(words: usize) -> usize {
    words + words / 4
}
