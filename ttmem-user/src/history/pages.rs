//! A sequence that is cheap to copy: it lies in pages, copies share them, and who writes to a page
//! that is shared copies that page first.
//!
//! To copy is to count one reference a page. A copy that is kept while the original goes on changing
//! takes, in the end, as much as the original.

use std::sync::Arc;

/// Values of a page: small, so that a change here and there copies little.
pub(super) const PAGE: usize = 32;

/// A sequence of `T`.
#[derive(Clone, Debug)]
pub(super) struct Pages<T> {
    pages: Vec<Arc<[T; PAGE]>>,
    len: usize,
}

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Self { pages: Vec::new(), len: 0 }
    }
}

impl<T> Pages<T> {
    pub const fn new() -> Self {
        Self { pages: Vec::new(), len: 0 }
    }

    pub const fn len(&self) -> usize {
        self.len
    }

    /// All, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &T> + Clone {
        self.range(0, self.len)
    }

    /// Those from one place up to another.
    pub fn range(&self, from: usize, to: usize) -> impl DoubleEndedIterator<Item = &T> + Clone {
        let to = to.min(self.len);
        let from = from.min(to);
        let pages = self.pages.get(from / PAGE..to.div_ceil(PAGE)).unwrap_or_default();
        pages.iter().enumerate().flat_map(move |(page, values)| {
            let start = (from / PAGE + page) * PAGE;
            &values[from.saturating_sub(start)..(to - start).min(PAGE)]
        })
    }

    /// Bytes that it takes, what it shares included.
    pub fn bytes(&self) -> usize {
        // Two counts lie beside each page.
        self.pages.capacity() * size_of::<Arc<T>>()
            + self.pages.len() * (size_of::<[T; PAGE]>() + 2 * size_of::<usize>())
    }
}

impl<T: Copy> Pages<T> {
    pub fn push(&mut self, value: T) {
        if self.len.is_multiple_of(PAGE) {
            // What is behind the end is never read.
            self.pages.push(Arc::new([value; PAGE]));
            self.len += 1;
        } else {
            self.len += 1;
            let last = self.len - 1;
            self[last] = value;
        }
    }

    /// Keeps those that `wanted` says, in order, and no more pages than they need.
    pub fn only(&self, wanted: impl Fn(&T) -> bool) -> Self {
        let mut kept = Self::new();
        for value in self.iter().filter(|value| wanted(value)) {
            kept.push(*value);
        }
        kept
    }
}

impl<T> std::ops::Index<usize> for Pages<T> {
    type Output = T;

    fn index(&self, place: usize) -> &T {
        &self.pages[place / PAGE][place % PAGE]
    }
}

impl<T: Copy> std::ops::IndexMut<usize> for Pages<T> {
    fn index_mut(&mut self, place: usize) -> &mut T {
        &mut Arc::make_mut(&mut self.pages[place / PAGE])[place % PAGE]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is done to one of two copies, each is what a vector would be.
        #[test]
        fn copies_do_not_see_each_other(
            before in proptest::collection::vec(any::<u16>(), 0..200),
            changes in proptest::collection::vec(
                (any::<bool>(), any::<Option<prop::sample::Index>>(), any::<u16>()), 0..100,
            ),
            (from, to) in (0..300_usize, 0..300_usize),
        ) {
            let mut models = [before.clone(), before.clone()];
            let mut one = Pages::new();
            for &value in &before {
                one.push(value);
            }
            let other = one.clone();
            let mut copies = [one, other];
            for (which, place, value) in changes {
                let (copy, model) =
                    (&mut copies[usize::from(which)], &mut models[usize::from(which)]);
                if let Some(place) = place.filter(|_| !model.is_empty()) {
                    let place = place.index(model.len());
                    (copy[place], model[place]) = (value, value);
                } else {
                    copy.push(value);
                    model.push(value);
                }
            }
            for (copy, model) in copies.iter().zip(&models) {
                prop_assert_eq!(copy.len(), model.len());
                prop_assert_eq!(&copy.iter().copied().collect::<Vec<_>>(), model);
                let (to, from) = (to.min(model.len()), from.min(to).min(model.len()));
                let part: Vec<_> = copy.range(from, to).rev().copied().collect();
                prop_assert!(part.iter().rev().eq(&model[from..to]));
                let odd = copy.only(|value| value % 2 == 1);
                prop_assert!(odd.iter().eq(model.iter().filter(|value| **value % 2 == 1)));
                prop_assert!((0..model.len()).all(|place| copy[place] == model[place]));
            }
        }
    }

    #[test]
    fn a_copy_takes_what_was_written_since() {
        let mut one = Pages::new();
        for value in 0..100 * PAGE {
            one.push(value);
        }
        let copy = one.clone();
        one[5] = 7;
        let shared = one.pages.iter().zip(&copy.pages).filter(|(one, copy)| Arc::ptr_eq(one, copy));
        assert_eq!((shared.count(), copy[5], one[5]), (99, 5, 7));
    }
}
