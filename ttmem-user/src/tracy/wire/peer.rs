//! Who is at the other end of a connection on this machine, and who holds a port.
//!
//! TCP does not say; the kernel's list of sockets does. A peer on another machine, or in another
//! network namespace, is not in it.

use std::net::{IpAddr, SocketAddr};

use procfs::{
    net::{TcpNetEntry, TcpState, tcp, tcp6},
    process::{FDTarget, all_processes},
};

/// Whose connections are accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed(pub Vec<u32>);

/// What is known of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A process of this user, on this machine.
    User(u32),
    /// Somebody whose socket is not among ours: from another machine.
    Remote,
    /// Its address is of this machine, but it has no socket here any more.
    Gone,
}

impl Allowed {
    /// Whether the peer may see the trace; if not, why.
    pub fn check(&self, peer: Peer) -> Result<(), String> {
        match peer {
            Peer::User(user) if self.0.contains(&user) => Ok(()),
            Peer::User(user) => Err(format!("user {user} may not see this process")),
            // Nobody comes from afar unless the address that is listened on lets them.
            Peer::Remote => Ok(()),
            Peer::Gone => Err("it has gone before it could be told who it is".to_owned()),
        }
    }
}

/// Who is at the other end: `peer` is its address, `own` is ours.
pub fn peer(peer: SocketAddr, own: SocketAddr) -> Peer {
    let (peer, own) = (canonical(peer), canonical(own));
    let theirs = sockets().find(|socket| {
        canonical(socket.local_address) == peer && canonical(socket.remote_address) == own
    });
    match theirs {
        Some(socket) => Peer::User(socket.uid),
        None if peer.0.is_loopback() || peer.0 == own.0 => Peer::Gone,
        None => Peer::Remote,
    }
}

/// Who listens on a port, in words, as far as may be known.
pub fn holder(port: u16) -> Option<String> {
    let listening = |socket: &TcpNetEntry| {
        socket.state == TcpState::Listen && socket.local_address.port() == port
    };
    let socket = sockets().find(listening)?;
    let has_it = |process: &procfs::process::Process| {
        let Ok(fds) = process.fd() else { return false };
        fds.flatten().any(|fd| fd.target == FDTarget::Socket(socket.inode))
    };
    let found = all_processes().ok()?.flatten().find(has_it);
    let Some(process) = found else { return Some(format!("a process of user {}", socket.uid)) };
    let name = process.stat().map(|stat| stat.comm).unwrap_or_default();
    Some(format!("process {} ({})", process.pid, crate::format::one_line(&name)))
}

fn sockets() -> impl Iterator<Item = TcpNetEntry> {
    // One of them may not be there.
    tcp().unwrap_or_default().into_iter().chain(tcp6().unwrap_or_default())
}

/// IPv4 is IPv4, also where the socket is one for both.
fn canonical(address: SocketAddr) -> (IpAddr, u16) {
    (address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn who_connects_is_known() {
        let own_user = rustix::process::getuid().as_raw();
        for address in ["127.0.0.1:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let port = listener.local_addr().unwrap().port();
            let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let (accepted, from) = listener.accept().unwrap();
            let own = accepted.local_addr().unwrap();
            assert_eq!(peer(from, own), Peer::User(own_user));
            drop((stream, accepted));
            let nobody = SocketAddr::new(from.ip(), 1);
            assert_eq!(peer(nobody, own), Peer::Gone);
        }
        let (afar, own) = ("192.0.2.1:5".parse().unwrap(), "192.0.2.2:6".parse().unwrap());
        assert_eq!(peer(afar, own), Peer::Remote);
    }

    #[test]
    fn who_listens_is_known() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let holder = holder(port).unwrap();
        assert!(holder.starts_with(&format!("process {} (", std::process::id())), "{holder}");
    }

    #[test]
    fn strangers_are_refused() {
        let allowed = Allowed(vec![0, 10]);
        assert!(allowed.check(Peer::User(10)).is_ok() && allowed.check(Peer::Remote).is_ok());
        assert!(allowed.check(Peer::User(11)).is_err() && allowed.check(Peer::Gone).is_err());
    }
}
