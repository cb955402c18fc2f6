//! Gives up what is no longer needed.
//!
//! Capabilities belong to a thread: the one that attaches keeps what that takes for as long as
//! targets may come, all others keep none.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, set_capabilities,
    set_no_new_privs,
};

/// What attaching to the processes of every user takes. The last one is for a library that has been
/// deleted: only `/proc/PID/map_files` leads to it then (fs/proc/base.c: proc_map_files_get_link).
const FOR_ATTACHING: CapabilitySet = CapabilitySet::BPF
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::CHECKPOINT_RESTORE);

/// Drops every capability of this thread, and so of all threads that it starts later.
///
/// What has been opened stays usable: the right to read `/proc/PID/mem` and the like is checked
/// when they are opened, the eBPF maps are mapped.
pub fn drop_all() -> io::Result<()> {
    keep(CapabilitySet::empty())
}

/// Drops every capability of this thread that attaching does not take. Probes by perf events take
/// one more (kernel/events/core.c: perf_uprobe_event_init).
/// To give files to a group takes another one.
pub fn keep_for_attaching(by_perf_events: bool, to_groups: bool) -> io::Result<()> {
    let mut kept = FOR_ATTACHING;
    if by_perf_events {
        kept |= CapabilitySet::SYS_ADMIN;
    }
    if to_groups {
        kept |= CapabilitySet::CHOWN;
    }
    let held = capabilities(None)?.permitted;
    keep(held.intersection(kept))
}

/// Drops every capability of this thread but the one to signal a command of another user.
pub fn keep_for_signals() -> io::Result<()> {
    let held = capabilities(None)?.permitted;
    keep(held.intersection(CapabilitySet::KILL))
}

fn keep(kept: CapabilitySet) -> io::Result<()> {
    set_no_new_privs(true)?;
    clear_ambient_capability_set()?;
    let sets =
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets)?;
    Ok(())
}
