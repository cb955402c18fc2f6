//! The holes of a bank, in order of address.
//!
//! There is one look-up per event, and nearly always it ends at the hole of the one before, or at
//! one of a few dozen. So they lie side by side in short rows, and the last place is tried first;
//! an ordered map from the library takes five times as long. Most often the bytes that were given
//! last are the very ones that are taken next, and then nothing has changed: so they wait aside.
//!
//! Invariant: rows are not empty and hold at most [`ROW`] holes; holes are not empty, ascend, and
//! no two touch.

/// Most holes in a row: 2 KiB.
const ROW: usize = 128;
/// So few holes are all looked at: that is faster than a search, each step of which waits for the
/// one before.
const FEW: usize = 16;

/// First byte, first byte behind.
pub type Hole = (u64, u64);

/// No hole.
const NONE: Hole = (0, 0);

/// A place of a hole: its row, and its place there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct At {
    row: usize,
    place: usize,
}

/// Disjoint holes.
#[derive(Clone, Debug, Default)]
pub struct Holes {
    rows: Vec<Vec<Hole>>,
    /// The first byte of each row's first hole.
    firsts: Vec<u64>,
    /// How many in all rows.
    len: usize,
    /// Where the last look-up ended; may be out of date.
    last: At,
    /// What was given last, if it is not among the holes yet; else empty.
    given: Hole,
}

impl Holes {
    /// How many there are, and the bytes of the largest. Nothing is copied for that.
    pub fn count_and_largest(&self) -> (usize, u64) {
        let (mut start, mut end) = self.given;
        let mut count = self.len + usize::from(self.given != NONE);
        let mut largest = 0;
        for &(first, behind) in self.rows.iter().flatten() {
            largest = largest.max(behind - first);
            // What was given last is one hole with those that it touches.
            if self.given != NONE && behind == self.given.0 {
                (start, count) = (first, count - 1);
            } else if self.given != NONE && first == self.given.1 {
                (end, count) = (behind, count - 1);
            }
        }
        (count, largest.max(end - start))
    }

    /// The holes in order of address.
    pub fn to_vec(&self) -> Vec<Hole> {
        let mut all = Vec::with_capacity(self.len + 1);
        if self.given == NONE {
            all.extend(self.rows.iter().flatten());
        } else {
            let mut settled = self.clone();
            settled.settle();
            all.extend(settled.rows.iter().flatten());
        }
        all
    }

    /// One hole, or none if it is empty.
    pub fn reset(&mut self, (start, end): Hole) {
        *self = Self::default();
        if start < end {
            self.rows.push(vec![(start, end)]);
            self.firsts.push(start);
            self.len = 1;
        }
    }

    /// The hole that has these bytes.
    pub fn around(&mut self, start: u64, end: u64) -> Option<Hole> {
        self.settle();
        let at = self.find(start)?;
        let hole = self.get(at);
        (end <= hole.1).then_some(hole)
    }

    /// Takes bytes out of the hole that has them; `false` if there is none.
    #[inline]
    pub fn take(&mut self, start: u64, end: u64) -> bool {
        if self.given == (start, end) && start < end {
            self.given = NONE;
            return true;
        }
        self.settle();
        self.take_settled(start, end)
    }

    fn take_settled(&mut self, start: u64, end: u64) -> bool {
        let Some(at) = self.find(start) else { return false };
        let (first, behind) = self.get(at);
        if end > behind || start >= end {
            return false;
        }
        match (first == start, end == behind) {
            (true, true) => self.remove(at),
            (true, false) => self.set(at, (end, behind)),
            (false, true) => self.set(at, (first, start)),
            (false, false) => {
                self.set(at, (first, start));
                self.insert(At { place: at.place + 1, ..at }, (end, behind));
            }
        }
        true
    }

    /// Makes a hole of bytes that are in none, and joins it to those that it touches.
    #[inline]
    pub fn give(&mut self, start: u64, end: u64) {
        if start < end {
            self.settle();
            self.given = (start, end);
        }
    }

    /// Puts what was given last among the holes.
    #[inline]
    fn settle(&mut self) {
        if self.given != NONE {
            self.give_settled();
        }
    }

    fn give_settled(&mut self) {
        let (start, end) = std::mem::replace(&mut self.given, NONE);
        let before = self.find(start);
        let next = before.map_or(At::default(), |at| self.next(at));
        let joins_next = self.hole(next).filter(|hole| hole.0 == end);
        let joined = before.map(|at| (at, self.get(at))).filter(|(_, hole)| hole.1 == start);
        match (joined, joins_next) {
            (Some((at, hole)), Some(other)) => {
                self.set(at, (hole.0, other.1));
                self.remove(next);
            }
            (Some((at, hole)), None) => self.set(at, (hole.0, end)),
            (None, Some(other)) => self.set(next, (start, other.1)),
            (None, None) => {
                let place = before.map_or(At::default(), |at| At { place: at.place + 1, ..at });
                self.insert(place, (start, end));
            }
        }
    }

    /// The last hole that begins at or before an address.
    #[inline]
    fn find(&mut self, address: u64) -> Option<At> {
        if let [row] = &self.rows[..]
            && row.len() <= FEW
        {
            let begun: usize = row.iter().map(|hole| usize::from(hole.0 <= address)).sum();
            return Some(At { row: 0, place: begun.checked_sub(1)? });
        }
        self.find_among_many(address)
    }

    #[inline(never)]
    fn find_among_many(&mut self, address: u64) -> Option<At> {
        if self.hole(self.last).is_some_and(|hole| hole.0 <= address)
            && self.hole(self.next(self.last)).is_none_or(|hole| hole.0 > address)
        {
            return Some(self.last);
        }
        let row = self.firsts.partition_point(|first| *first <= address).checked_sub(1)?;
        let place = self.rows[row].partition_point(|hole| hole.0 <= address) - 1;
        self.last = At { row, place };
        Some(self.last)
    }

    fn hole(&self, at: At) -> Option<Hole> {
        self.rows.get(at.row)?.get(at.place).copied()
    }

    fn get(&self, at: At) -> Hole {
        self.rows[at.row][at.place]
    }

    /// The place behind one that is filled; it may be behind the last.
    fn next(&self, at: At) -> At {
        if at.place + 1 < self.rows.get(at.row).map_or(0, Vec::len) {
            At { place: at.place + 1, ..at }
        } else {
            At { row: at.row + 1, place: 0 }
        }
    }

    fn set(&mut self, at: At, hole: Hole) {
        self.rows[at.row][at.place] = hole;
        if at.place == 0 {
            self.firsts[at.row] = hole.0;
        }
    }

    fn insert(&mut self, at: At, hole: Hole) {
        self.len += 1;
        let Some(row) = self.rows.get_mut(at.row) else {
            self.rows.push(vec![hole]);
            self.firsts.push(hole.0);
            return;
        };
        row.insert(at.place, hole);
        let upper = (row.len() > ROW).then(|| row.split_off(ROW / 2));
        self.firsts[at.row] = row[0].0;
        if let Some(upper) = upper {
            self.firsts.insert(at.row + 1, upper[0].0);
            self.rows.insert(at.row + 1, upper);
        }
    }

    fn remove(&mut self, at: At) {
        self.len -= 1;
        let row = &mut self.rows[at.row];
        row.remove(at.place);
        if let Some(first) = row.first() {
            self.firsts[at.row] = first.0;
        }
        self.join_rows(at.row);
    }

    /// Keeps rows from staying short, which would make them many.
    fn join_rows(&mut self, row: usize) {
        if self.rows[row].is_empty() {
            self.rows.remove(row);
            self.firsts.remove(row);
            return;
        }
        let next = self.rows.get(row + 1).map_or(ROW, Vec::len);
        if self.rows[row].len() + next <= ROW / 2 {
            let next = self.rows.remove(row + 1);
            self.firsts.remove(row + 1);
            self.rows[row].extend(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// The same by a map.
    #[derive(Default)]
    struct Naive(BTreeMap<u64, u64>);

    impl Naive {
        fn take(&mut self, start: u64, end: u64) -> bool {
            let Some((&first, &behind)) = self.0.range(..=start).next_back() else { return false };
            if end > behind || start >= end {
                return false;
            }
            self.0.remove(&first);
            self.0
                .extend([(first, start), (end, behind)].into_iter().filter(|hole| hole.0 < hole.1));
            true
        }

        fn give(&mut self, start: u64, end: u64) {
            let end = self.0.remove(&end).unwrap_or(end);
            let before = self.0.range(..start).next_back().map(|(first, behind)| (*first, *behind));
            match before.filter(|hole| hole.1 == start) {
                Some((first, _)) => self.0.insert(first, end),
                None => self.0.insert(start, end),
            };
        }
    }

    fn check(holes: &mut Holes, naive: &Naive) {
        let expected: Vec<Hole> = naive.0.iter().map(|(start, end)| (*start, *end)).collect();
        assert_eq!(holes.to_vec(), expected);
        let largest = expected.iter().map(|(start, end)| end - start).max().unwrap_or(0);
        assert_eq!(holes.count_and_largest(), (expected.len(), largest));
        holes.settle();
        assert_eq!(holes.to_vec(), expected);
        assert_eq!(holes.len, expected.len());
        assert!(holes.rows.iter().all(|row| !row.is_empty() && row.len() <= ROW));
        assert!(holes.firsts.iter().copied().eq(holes.rows.iter().map(|row| row[0].0)));
    }

    proptest! {
        /// Blocks come and go at random places of a bank, so that there are many holes, then few.
        #[test]
        fn holes_are_what_a_map_says(
            steps in proptest::collection::vec((0_u64..900, 1_u64..4), 0..1500),
        ) {
            let (mut holes, mut naive) = (Holes::default(), Naive::default());
            holes.reset((0, 900));
            naive.0.insert(0, 900);
            let mut live: BTreeMap<u64, u64> = BTreeMap::new();
            for (at, len) in steps {
                if let Some(end) = live.remove(&at) {
                    holes.give(at, end);
                    naive.give(at, end);
                } else {
                    let taken = naive.take(at, at + len);
                    prop_assert_eq!(holes.take(at, at + len), taken);
                    if taken {
                        live.insert(at, at + len);
                    }
                }
                let around = naive.0.range(..=at).next_back().map(|(start, end)| (*start, *end));
                let of_naive = naive.0.iter().map(|(start, end)| end - start);
                let summary = (naive.0.len(), of_naive.max().unwrap_or(0));
                prop_assert_eq!(holes.count_and_largest(), summary);
                prop_assert_eq!(holes.around(at, at + 1), around.filter(|hole| at < hole.1));
            }
            check(&mut holes, &naive);
            for (start, end) in live {
                holes.give(start, end);
            }
            prop_assert_eq!(holes.to_vec(), [(0, 900)]);
        }
    }

    #[test]
    fn what_was_given_last_is_taken_as_if_it_were_a_hole() {
        let mut holes = Holes::default();
        holes.reset((0, 10));
        assert!(holes.take(2, 5));
        holes.give(2, 5);
        assert_eq!(holes.to_vec(), [(0, 10)]);
        assert!(holes.take(2, 5));
        assert_eq!(holes.to_vec(), [(0, 2), (5, 10)]);
        holes.give(2, 5);
        assert!(holes.take(1, 6), "with what it touches");
        assert_eq!(holes.to_vec(), [(0, 1), (6, 10)]);
        assert!(!holes.take(2, 5));
    }

    #[test]
    fn an_empty_bank_has_no_hole() {
        let mut holes = Holes::default();
        holes.reset((5, 5));
        assert_eq!((holes.to_vec(), holes.take(5, 6), holes.around(5, 5)), (vec![], false, None));
        holes.give(7, 9);
        assert_eq!(holes.to_vec(), [(7, 9)]);
    }

    #[test]
    fn many_holes_lie_in_few_rows() {
        let mut holes = Holes::default();
        holes.reset((0, 40_000));
        (0..20_000).rev().for_each(|at| assert!(holes.take(at * 2, at * 2 + 1)));
        assert_eq!(holes.to_vec().len(), 20_000);
        assert!(holes.rows.len() <= 20_000 / (ROW / 2) + 1, "{}", holes.rows.len());
        (0..20_000).step_by(2).for_each(|at| holes.give(at * 2, at * 2 + 1));
        (1..20_000).step_by(2).for_each(|at| holes.give(at * 2, at * 2 + 1));
        assert_eq!(holes.to_vec(), [(0, 40_000)]);
    }
}
