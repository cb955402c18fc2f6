//! How much of a file is looked at before it is given up.

use super::ImageError;

/// Bytes that are still to be looked at.
#[derive(Debug)]
pub(super) struct Budget(usize);

impl Budget {
    /// What a file may take. All names, tables and relocations of the largest library of ttnn 0.81 take a
    /// tenth of it.
    pub const fn of_a_file() -> Self {
        Self(256 << 20)
    }

    /// So many bytes.
    #[cfg(test)]
    pub const fn of(bytes: usize) -> Self {
        Self(bytes)
    }

    /// Takes so many times so much off it. What is beyond is an error: of half a file nothing follows.
    pub fn take_each(&mut self, count: usize, each: usize) -> Result<(), ImageError> {
        let left = count.checked_mul(each).and_then(|wanted| self.0.checked_sub(wanted));
        self.0 = left.ok_or(ImageError::TooMuch)?;
        Ok(())
    }

    /// What is left.
    #[cfg(test)]
    pub const fn left(&self) -> usize {
        self.0
    }
}
