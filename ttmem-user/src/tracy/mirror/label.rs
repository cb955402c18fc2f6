//! What pools and plots are called.

use crate::{event::BufferType, units::ChipId};

/// Whose habit names follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Style {
    /// `TT_Dev0_L1`.
    #[default]
    Ttmem,
    /// `Device 0 L1`, as tt-metal's own memory profiler has it.
    TtMetal,
}

/// What memory a pool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// That of a buffer type.
    Buffers(BufferType),
    /// What a program keeps in L1 for circular and dataflow buffers.
    Circular,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Buffers(buffer_type) => buffer_type.name(),
            Self::Circular => "CB",
        }
    }
}

impl Style {
    /// A pool: the `nth` of that kind on that chip, from 0.
    pub fn pool(self, chip: ChipId, kind: Kind, nth: usize) -> String {
        let name = kind.name();
        let base = match self {
            Self::Ttmem => format!("TT_Dev{chip}_{name}"),
            Self::TtMetal => format!("Device {chip} {name}"),
        };
        if nth == 0 { base } else { format!("{base}#{}", nth + 1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_has_no_number() {
        let l1 = Kind::Buffers(BufferType::L1Small);
        assert_eq!(Style::Ttmem.pool(ChipId(3), l1, 0), "TT_Dev3_L1_SMALL");
        assert_eq!(Style::Ttmem.pool(ChipId(3), Kind::Circular, 1), "TT_Dev3_CB#2");
        assert_eq!(Style::TtMetal.pool(ChipId(0), l1, 0), "Device 0 L1_SMALL");
    }
}
