//! What is known → the outside. Each output is a file of its own.

pub mod fits;
pub mod json;
pub mod prometheus;
pub mod text;

use std::sync::Arc;

use crate::ledger::{delta::Delta, health::Queue, snapshot::ProcessLabel};

/// An output that follows every change of a target.
pub trait DeltaSink: Send {
    /// Takes the deltas of one drain, in their order. Must not block: what cannot be taken is the
    /// sink's to count. `false`: it wants no more.
    fn take(&mut self, deltas: &Arc<[Delta]>) -> bool;

    /// Whether nobody is there any more to take anything, so that it can go before there is more.
    fn is_closed(&self) -> bool {
        false
    }

    /// How full its queue is, if it has one.
    fn queue(&self) -> Option<Queue> {
        None
    }
}

/// Gives a new target something that follows its changes from the first on.
pub type Follower = Box<dyn Fn(&Arc<ProcessLabel>) -> Box<dyn DeltaSink> + Send>;
