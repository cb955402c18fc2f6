//! Gives up what is no longer needed once the probes are attached.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities, set_no_new_privs,
};

/// Drops every capability of this thread, and so of all threads that it starts later.
///
/// What has been opened stays usable: the right to read `/proc/PID/mem` and the like is checked
/// when they are opened, the eBPF maps are mapped.
pub fn drop_all() -> io::Result<()> {
    set_no_new_privs(true)?;
    clear_ambient_capability_set()?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none)?;
    Ok(())
}
