//! Names as places in the file: a library has some ten thousand, and a string for each would cost
//! more than all the rest of reading it, and leave its memory in pieces.

use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;
use hashbrown::{HashTable, hash_table::Entry};

use super::Symbol;

/// A name: where its bytes lie in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name {
    start: u32,
    len: u32,
}

impl Name {
    /// Of a piece of the file; `None` if it is not one.
    pub fn in_file(name: &str, file: &[u8]) -> Option<Self> {
        let start = (name.as_ptr() as usize).checked_sub(file.as_ptr() as usize)?;
        if start.checked_add(name.len())? > file.len() {
            return None;
        }
        Some(Self { start: u32::try_from(start).ok()?, len: u32::try_from(name.len()).ok()? })
    }

    /// Its text; nothing if this is another file.
    pub fn of(self, file: &[u8]) -> &str {
        let start = self.start as usize;
        let bytes = file.get(start..start + self.len as usize).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }
}

/// Symbols by name.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    table: HashTable<(Name, Symbol)>,
    /// With a random key: which names there are is up to the file.
    hasher: RandomState,
}

impl Symbols {
    /// How many.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// The symbol of a name.
    pub fn get(&self, name: &str, file: &[u8]) -> Option<Symbol> {
        let found = self.table.find(self.hasher.hash_one(name), |entry| entry.0.of(file) == name);
        found.map(|entry| entry.1)
    }

    /// Takes a symbol in, unless there is one of that name.
    pub fn add(&mut self, name: Name, symbol: Symbol, file: &[u8]) {
        let Self { table, hasher } = self;
        let text = name.of(file);
        let same = |entry: &(Name, Symbol)| entry.0.of(file) == text;
        let rehash = |entry: &(Name, Symbol)| hasher.hash_one(entry.0.of(file));
        if let Entry::Vacant(vacant) = table.entry(hasher.hash_one(text), same, rehash) {
            vacant.insert((name, symbol));
        }
    }

    /// All, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (Name, Symbol)> {
        self.table.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Svma;

    const SYMBOL: Symbol = Symbol { address: Svma(7), size: 1, is_function: true };

    #[test]
    fn a_name_is_a_piece_of_its_file() {
        let file = *b"..one.two..";
        let text = std::str::from_utf8(&file).unwrap();
        let name = Name::in_file(&text[2..5], &file).unwrap();
        assert_eq!(name.of(&file), "one");
        assert_eq!(name.of(b"x"), "", "another file");
        assert_eq!(Name::in_file("one", &file), None, "a text that lies elsewhere");
    }

    #[test]
    fn the_first_of_a_name_stays() {
        let file = *b"one.one.two";
        let text = std::str::from_utf8(&file).unwrap();
        let mut symbols = Symbols::default();
        for (range, address) in [(0..3, 1), (4..7, 2), (8..11, 3)] {
            let name = Name::in_file(&text[range], &file).unwrap();
            symbols.add(name, Symbol { address: Svma(address), ..SYMBOL }, &file);
        }
        assert_eq!(symbols.len(), 2);
        let address = |name| symbols.get(name, &file).map(|symbol| symbol.address.0);
        assert_eq!((address("one"), address("two"), address("three")), (Some(1), Some(3), None));
    }
}
