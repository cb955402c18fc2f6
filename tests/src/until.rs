//! Waiting for what nothing tells of.

use std::{thread, time::Instant};

use anyhow::{Result, bail};

use crate::ttmem::PATIENCE;

/// Looks until it is there. `what` is said if it does not come.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("{what} within {PATIENCE:?}");
        }
        thread::yield_now();
    }
}
