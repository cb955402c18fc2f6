//! Who may connect. The rights of the file have let the peer in; this looks at who it is.

use tokio::net::{UnixStream, unix::UCred};

/// Who may ask about a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The user of this program.
    pub own: u32,
    /// The user of the target.
    pub user: Option<u32>,
    /// A group.
    pub group: Option<u32>,
}

impl Allowed {
    /// Which user the peer is, if it may ask; if not, why.
    pub fn check(&self, peer: &UnixStream) -> Result<u32, String> {
        let found = peer.peer_cred().map_err(|error| format!("cannot tell who asks: {error}"))?;
        if self.admits(&found, groups_of) {
            Ok(found.uid())
        } else {
            Err(format!("user {} may not ask about this process", found.uid()))
        }
    }

    fn admits(&self, peer: &impl Credentials, groups: impl Fn(i32) -> Vec<u32>) -> bool {
        let known = [Some(0), Some(self.own), self.user];
        known.contains(&Some(peer.user()))
            || self.group.is_some_and(|group| {
                peer.group() == group
                    || peer.process().is_some_and(|pid| groups(pid).contains(&group))
            })
    }
}

/// What the kernel says of a peer.
trait Credentials {
    fn user(&self) -> u32;
    fn group(&self) -> u32;
    fn process(&self) -> Option<i32>;
}

impl Credentials for UCred {
    fn user(&self) -> u32 {
        self.uid()
    }
    fn group(&self) -> u32 {
        self.gid()
    }
    fn process(&self) -> Option<i32> {
        self.pid()
    }
}

/// The further groups of a process.
fn groups_of(pid: i32) -> Vec<u32> {
    let status = procfs::process::Process::new(pid).and_then(|process| process.status());
    status.map(|status| status.groups).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Peer(u32, u32);

    impl Credentials for Peer {
        fn user(&self) -> u32 {
            self.0
        }
        fn group(&self) -> u32 {
            self.1
        }
        fn process(&self) -> Option<i32> {
            Some(1)
        }
    }

    #[test]
    fn only_those_named_are_admitted() {
        let allowed = Allowed { own: 10, user: Some(20), group: None };
        let admits = |allowed: &Allowed, peer| allowed.admits(&peer, |_| vec![30]);
        for (user, expected) in [(0, true), (10, true), (20, true), (21, false)] {
            assert_eq!(admits(&allowed, Peer(user, 30)), expected, "{user}");
        }
        let with_group = Allowed { group: Some(30), ..allowed };
        assert!(admits(&with_group, Peer(21, 30)), "its own group");
        assert!(admits(&with_group, Peer(21, 31)), "one of its further groups");
        assert!(!admits(&Allowed { group: Some(32), ..allowed }, Peer(21, 31)));
        assert!(!admits(&Allowed { user: None, ..allowed }, Peer(20, 0)));
    }
}
