//! Newtypes that keep the many kinds of addresses and ids apart.
//!
//! A device address is never a host address, a run-time address never a file offset, and a chip
//! id never a mesh id: mixing two of them up is a compile error.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! hex_newtype {
    ($(#[$doc:meta] $name:ident),* $(,)?) => {$(
        #[$doc]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    )*};
}

macro_rules! id_newtype {
    ($(#[$doc:meta] $name:ident($inner:ty)),* $(,)?) => {$(
        #[$doc]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

hex_newtype! {
    /// An address in a device's memory, as tt-metal hands it out (per bank).
    DeviceAddr,
    /// An actual virtual memory address: valid in the running target.
    Avma,
    /// A stated virtual memory address: as the ELF file states it, before relocation.
    Svma,
    /// An offset into a file, which is what a uprobe takes.
    FileOffset,
}

impl Avma {
    /// The address `offset` bytes further on; wraps like the hardware does.
    #[must_use]
    pub const fn plus(self, offset: u64) -> Self {
        Self(self.0.wrapping_add(offset))
    }
}

impl Svma {
    /// The address `offset` bytes further on; wraps like the hardware does.
    #[must_use]
    pub const fn plus(self, offset: u64) -> Self {
        Self(self.0.wrapping_add(offset))
    }
}

id_newtype! {
    /// Id of one chip, as tt-metal numbers them.
    ChipId(i32),
    /// Id of a mesh: a process-wide counter whose values also occur as chip ids.
    MeshId(i32),
    /// A process.
    Pid(u32),
    /// A thread.
    Tid(u32),
}
