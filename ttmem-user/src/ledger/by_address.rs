//! Few things by their host address, of which the same ones are asked for again and again.

use std::cell::Cell;

use hashbrown::HashMap;

use crate::units::Avma;

/// So many of the things that were asked for last are found without a look into a hash table. Two of
/// them seldom have the same place among these.
const RECENT: usize = 64;

/// Devices, allocators and the like. Little is ever taken out.
#[derive(Debug)]
pub(super) struct ByAddress<T> {
    things: Vec<(Avma, T)>,
    /// By address: the place among the things.
    places: HashMap<Avma, usize, foldhash::fast::RandomState>,
    /// The place that was asked for last.
    last: Cell<usize>,
    /// Places that were asked for lately, each where its address says.
    recent: [Cell<u32>; RECENT],
}

impl<T> Default for ByAddress<T> {
    fn default() -> Self {
        Self {
            things: Vec::new(),
            places: HashMap::default(),
            last: Cell::new(0),
            recent: [const { Cell::new(0) }; RECENT],
        }
    }
}

impl<T> ByAddress<T> {
    #[inline]
    fn place(&self, address: Avma) -> Option<usize> {
        let last = self.last.get();
        if self.is_at(last, address) { Some(last) } else { self.another_place(address) }
    }

    /// Apart: where there is one thing only, nobody comes here.
    #[inline(never)]
    fn another_place(&self, address: Avma) -> Option<usize> {
        let recent = &self.recent[recent(address)];
        let mut place = recent.get() as usize;
        if !self.is_at(place, address) {
            place = *self.places.get(&address)?;
            recent.set(u32::try_from(place).unwrap_or(0));
        }
        self.last.set(place);
        Some(place)
    }

    #[inline]
    fn is_at(&self, place: usize, address: Avma) -> bool {
        self.things.get(place).is_some_and(|(at, _)| *at == address)
    }

    /// What is at an address.
    #[inline]
    pub fn get(&self, address: Avma) -> Option<&T> {
        self.place(address).map(|place| &self.things[place].1)
    }

    /// The same, to be changed.
    #[inline]
    pub fn get_mut(&mut self, address: Avma) -> Option<&mut T> {
        self.place(address).map(|place| &mut self.things[place].1)
    }

    /// Puts something at an address; what was there before.
    pub fn insert(&mut self, address: Avma, thing: T) -> Option<T> {
        if let Some(known) = self.get_mut(address) {
            return Some(std::mem::replace(known, thing));
        }
        self.places.insert(address, self.things.len());
        self.things.push((address, thing));
        None
    }

    /// Takes out what `stays` does not want.
    pub fn retain(&mut self, mut stays: impl FnMut(Avma, &T) -> bool) {
        let things = std::mem::take(self).things;
        for (address, thing) in things {
            if stays(address, &thing) {
                self.insert(address, thing);
            }
        }
    }

    /// All things, in the order in which their addresses came.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.things.iter().map(|(_, thing)| thing)
    }

    /// The same with their addresses, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Avma, &mut T)> {
        self.things.iter_mut().map(|(at, thing)| (*at, thing))
    }
}

/// Objects of a heap lie at multiples of 16, and large ones far apart.
#[inline]
const fn recent(address: Avma) -> usize {
    (((address.0 >> 4) ^ (address.0 >> 12)) & 0xffff) as usize % RECENT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_asked_for_is_not_taken_for_another() {
        let mut things = ByAddress::default();
        assert_eq!((things.insert(Avma(1), 'a'), things.insert(Avma(2), 'b')), (None, None));
        for _ in 0..2 {
            assert_eq!((things.get(Avma(1)), things.get(Avma(1))), (Some(&'a'), Some(&'a')));
            assert_eq!((things.get(Avma(2)), things.get(Avma(3))), (Some(&'b'), None));
        }
        assert_eq!(things.insert(Avma(1), 'c'), Some('a'));
        *things.get_mut(Avma(2)).unwrap() = 'd';
        assert!(things.values().eq(&['c', 'd']));
        // More than are found without a look into the table.
        let mut many = ByAddress::default();
        for _ in 0..2 {
            for at in 0..100 {
                many.insert(Avma(at << 6), at);
            }
            assert!((0..100).all(|at| many.get(Avma(at << 6)) == Some(&at)));
            assert_eq!(many.get(Avma(1)), None);
        }
        many.retain(|_, at| *at % 2 == 1);
        let stayed = (0..100).map(|at| many.get(Avma(at << 6)).copied());
        assert!(stayed.eq((0..100).map(|at| (at % 2 == 1).then_some(at))));
        things.iter_mut().for_each(|(at, thing)| *thing = if at == Avma(1) { 'e' } else { 'f' });
        assert!(things.values().eq(&['e', 'f']));
    }
}
