//! What is lacking in the output when something could not be resolved.
//!
//! Invariant: totals are called inexact only for what [`Target::doubtful`] counts as a doubt.
//!
//! [`Target::doubtful`]: crate::app::target::Target::doubtful

use ttmem_common::probe::{PROBES, ProbeId};

/// What follows if a probe or field could not be resolved, and what still holds.
pub(super) fn consequence(name: &str) -> String {
    let probe = PROBES.into_iter().find(|probe| probe.name() == name);
    let follows = match probe {
        Some(probe) if probe.is_essential() => "ttmem cannot attach to it",
        Some(ProbeId::Dispatch) => {
            "`--dispatches` cannot be used with it; all other numbers are as exact as ever"
        }
        Some(probe) if probe.watches_programs() => {
            "circular and dataflow buffers of programs are unknown (`–`), and so is the headroom; \
             the totals of tensors are as exact as ever"
        }
        Some(ProbeId::Failure) => {
            "failed allocations are not counted; all other numbers are as exact as ever"
        }
        Some(_) => {
            "a device is known only from its first allocation on; the totals are as exact as ever"
        }
        None => "ttmem leaves out what depends on it and marks its numbers inexact",
    };
    format!("{name} could not be resolved in this version of tt-metal: {follows}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lacking_field_makes_totals_inexact() {
        for probe in PROBES {
            let text = consequence(probe.name());
            assert!(text.starts_with(probe.name()), "{text}");
            assert!(!text.contains("inexact"), "{text}");
            let refused = text.contains("cannot attach");
            assert_eq!(refused, probe.is_essential(), "{text}");
            assert_eq!(text.contains("as exact as ever"), !probe.is_essential(), "{text}");
        }
        assert!(consequence("Buffer: size").contains("inexact"));
    }

    #[test]
    fn the_figures_are_named_that_are_lacking() {
        for probe in [ProbeId::Circular, ProbeId::Dataflow, ProbeId::ProgramEnd] {
            assert!(consequence(probe.name()).contains("circular and dataflow buffers"));
        }
        assert!(consequence(ProbeId::Dispatch.name()).contains("--dispatches"));
    }
}
