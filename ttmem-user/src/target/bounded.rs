//! Reads a file piece by piece, as its headers ask for, but no more than so much of it.
//!
//! Whatever the headers claim, what has been read is kept in memory: a sparse file of a few bytes
//! could ask for all that there is.

use std::{cell::Cell, ops::Range};

use object::read::{ReadCache, ReadCacheOps, ReadRef};

use super::file::MOST_BYTES;

/// What keeping a string takes beside its bytes, about.
const STRING: u64 = 64;

/// How far the end of a string is looked for, about.
const ENDLESS: u64 = 4096;

/// A file, and how much of it may still be read.
#[derive(Debug)]
pub struct Bounded<F: ReadCacheOps> {
    cache: ReadCache<F>,
    left: Cell<u64>,
}

impl<F: ReadCacheOps> Bounded<F> {
    /// Nothing has been read yet.
    pub fn new(file: F) -> Self {
        Self::of(file, MOST_BYTES)
    }

    /// The same, of which so many bytes may be read.
    pub fn of(file: F, most: u64) -> Self {
        Self { cache: ReadCache::new(file), left: Cell::new(most) }
    }

    /// Whether more has been asked for than may be read.
    pub fn is_exceeded(&self) -> bool {
        self.left.get() == 0
    }

    /// Takes so many bytes off what is left. Once that is not enough nothing is read any more: half
    /// of what a file says is nothing to go by.
    fn take(&self, bytes: u64) -> Result<(), ()> {
        let left = self.left.get().checked_sub(bytes);
        self.left.set(left.unwrap_or(0));
        left.filter(|left| *left > 0).map(|_| ()).ok_or(())
    }
}

impl<'a, F: ReadCacheOps> ReadRef<'a> for &'a Bounded<F> {
    fn len(self) -> Result<u64, ()> {
        self.cache.len()
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'a [u8], ()> {
        // What is beyond its end is not read in any case.
        if offset.checked_add(size).is_none_or(|end| self.cache.len().is_ok_and(|len| end > len)) {
            return Err(());
        }
        self.take(size)?;
        self.cache.read_bytes_at(offset, size)
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'a [u8], ()> {
        let read = self.cache.read_bytes_at_until(range, delimiter);
        // To find no end takes as long as to find one.
        self.take(read.map_or(ENDLESS, |bytes| bytes.len() as u64) + STRING)?;
        read
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write as _};

    use super::*;

    fn file(len: u64) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"a string\0").unwrap();
        file.set_len(len).unwrap();
        file
    }

    #[test]
    fn pieces_are_read_as_far_as_they_are_there() {
        let bounded = Bounded::new(file(4096));
        assert_eq!((&bounded).read_bytes_at(2, 6), Ok(&b"string"[..]));
        assert_eq!((&bounded).read_bytes_at_until(0..4096, 0), Ok(&b"a string"[..]));
        assert!((&bounded).read_bytes_at(4000, 97).is_err());
        assert!((&bounded).read_bytes_at(u64::MAX, 2).is_err());
        assert!(!bounded.is_exceeded());
        assert_eq!(bounded.left.get(), MOST_BYTES - 6 - 8 - STRING);
    }

    #[test]
    fn a_sparse_file_that_claims_too_much_is_not_read() {
        let bounded = Bounded::new(file(4 * MOST_BYTES));
        assert!((&bounded).read_bytes_at(0, 9).is_ok());
        assert!((&bounded).read_bytes_at(0, 3 * MOST_BYTES).is_err());
        assert!(bounded.is_exceeded());
        assert!((&bounded).read_bytes_at(100, 1).is_err(), "all of it is refused");
    }

    #[test]
    fn many_strings_are_too_much_too() {
        let bounded = Bounded::new(file(4096));
        bounded.left.set(300);
        let read = (0..8).filter(|at| (&bounded).read_bytes_at_until(*at..4096, 0).is_ok());
        assert_eq!(read.count(), 4);
    }

    #[test]
    fn strings_without_end_are_too_much_too() {
        let bounded = Bounded::new(file(4096));
        for _ in 0..3 {
            assert!((&bounded).read_bytes_at_until(9..4096, b'x').is_err());
        }
        assert_eq!(bounded.left.get(), MOST_BYTES - 3 * (ENDLESS + STRING));
    }
}
