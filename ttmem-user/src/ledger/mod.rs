//! Events → what is live now.

pub mod snapshot;
