//! What the process with Tracy's client in it gives up: everything.
//!
//! Its user is nobody's, where that can be had; it has no capability and gets none, writes no core,
//! cannot be looked into by its equals, opens no file, connects to nothing, and listens on one port.
//! Where the kernel has no Landlock, the last three are only what a user without rights may do.

use std::io;

use anyhow::Context as _;
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, NetPort, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, Scope,
};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::{
    process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit},
    thread::{
        CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities,
        set_no_new_privs,
    },
};

/// The user that owns nothing.
const NOBODY: u32 = 65_534;
/// Descriptors; Tracy takes a handful.
const MAX_DESCRIPTORS: u64 = 64;
/// Address space, bytes: Tracy's queue for a viewer that does not read knows no other bound.
const MAX_MEMORY: u64 = 1 << 30;

/// Takes all rights of this process, which must have one thread.
pub fn leave() -> anyhow::Result<()> {
    if Uid::effective().is_root() {
        let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        setgroups(&[]).context("cannot leave the groups")?;
        setresgid(group, group, group).context("cannot become nobody's group")?;
        setresuid(user, user, user).context("cannot become nobody")?;
    }
    give_up().context("cannot give up all rights")
}

fn give_up() -> io::Result<()> {
    set_no_new_privs(true)?;
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    for (resource, most) in [
        (Resource::Core, 0),
        (Resource::Fsize, 0),
        (Resource::Nofile, MAX_DESCRIPTORS),
        (Resource::As, MAX_MEMORY),
    ] {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    Ok(())
}

/// Leaves nothing within reach but one port to listen on.
pub fn shut(port: u16) -> anyhow::Result<()> {
    // Of what these stand for, as much as the kernel has.
    let abi = ABI::V6;
    Ruleset::default()
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?
        .add_rule(NetPort::new(port, AccessNet::BindTcp))?
        .restrict_self()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::ErrorKind::PermissionDenied,
        net::{TcpListener, TcpStream},
        thread,
    };

    use landlock::{CompatLevel, Compatible as _};

    use super::*;

    #[test]
    fn nothing_is_within_reach_but_one_port() {
        let has_all = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessNet::from_all(ABI::V6));
        if has_all.is_err() {
            eprintln!("skipped: this kernel cannot restrict ports");
            return;
        }
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (own, other) = (free(), free());
        let somebody = TcpListener::bind("127.0.0.1:0").unwrap();
        let elsewhere = somebody.local_addr().unwrap();
        // It holds for a thread, and those that it starts.
        let shut_in = thread::spawn(move || {
            assert!(File::open("/etc/hostname").is_ok() || File::open("/etc/passwd").is_ok());
            shut(own.port()).unwrap();
            let refused = |error: io::Error| error.kind() == PermissionDenied;
            assert!(File::open("/etc/passwd").is_err_and(refused));
            assert!(File::open("/proc/self/environ").is_err_and(refused));
            assert!(File::create(std::env::temp_dir().join("ttmem-shut")).is_err_and(refused));
            assert!(TcpListener::bind(other).is_err_and(refused));
            assert!(TcpStream::connect(elsewhere).is_err_and(refused));
            assert!(TcpListener::bind(own).is_ok());
        });
        shut_in.join().unwrap();
    }
}
