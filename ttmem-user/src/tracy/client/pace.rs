//! How far Tracy's client is behind what it has been told. It does not say, and its queue knows no
//! bound: a viewer that does not read would fill the memory.
//!
//! It has sent everything when it rests, and its socket has nothing left.

use std::{
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};

use rustix::{
    net::{getpeername, getsockname, sockopt::socket_acceptconn},
    time::{ClockId, clock_gettime},
};

/// Operations that it may be told ahead of what it is known to have sent: 64 bytes each.
const MAX_AHEAD: u64 = 1 << 20;
/// How long it must have rested.
const REST: Duration = Duration::from_millis(20);
/// Descriptors that may be Tracy's.
const DESCRIPTORS: std::ops::Range<i32> = 3..64;

/// What Tracy's client has been told since it was last known to have sent everything.
#[derive(Debug, Default)]
pub struct Pace {
    told: u64,
    /// When it was looked at, and how much its threads had run by then.
    looked: Option<(Instant, Duration)>,
}

impl Pace {
    /// It has been told one thing more.
    pub const fn tell(&mut self) {
        self.told += 1;
    }

    /// Another connection begins with an empty queue.
    pub const fn begin(&mut self) {
        (self.told, self.looked) = (0, None);
    }

    /// Whether it must not be told more.
    pub const fn is_full(&self) -> bool {
        self.told >= MAX_AHEAD
    }

    /// Looks whether it has sent everything to whoever is connected to that port.
    pub fn look(&mut self, port: u16) {
        let now = (Instant::now(), of_other_threads());
        let Some(before) = self.looked else {
            self.looked = Some(now);
            return;
        };
        let (passed, ran) = (now.0 - before.0, now.1.saturating_sub(before.1));
        if passed < REST {
            return;
        }
        self.looked = Some(now);
        if ran * 4 < passed && unsent(port) == 0 {
            self.begin();
        }
    }
}

/// How long the other threads of this process have run: they are Tracy's.
fn of_other_threads() -> Duration {
    let of = |clock| Duration::try_from(clock_gettime(clock)).unwrap_or_default();
    of(ClockId::ProcessCPUTime).saturating_sub(of(ClockId::ThreadCPUTime))
}

/// Whether this process listens on that port. Tracy itself does not say.
pub fn is_listening(port: u16) -> bool {
    DESCRIPTORS.into_iter().any(|fd| {
        let fd = borrow(fd);
        socket_acceptconn(fd) == Ok(true) && is_at(fd, port)
    })
}

/// Bytes that whoever is connected to that port has not taken yet.
fn unsent(port: u16) -> u64 {
    let connected = DESCRIPTORS.filter(|fd| {
        let fd = borrow(*fd);
        getpeername(fd).is_ok_and(|peer| peer.is_some()) && is_at(fd, port)
    });
    connected.map(queued).sum()
}

fn queued(fd: i32) -> u64 {
    let mut bytes: libc::c_int = 0;
    #[expect(unsafe_code, reason = "ioctl(2)")]
    // SAFETY: it writes one number, or fails.
    let _ = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut bytes) };
    u64::try_from(bytes).unwrap_or(0)
}

fn is_at(fd: BorrowedFd<'_>, port: u16) -> bool {
    let of = |address: rustix::net::SocketAddrAny| std::net::SocketAddr::try_from(address).ok();
    getsockname(fd).ok().and_then(of).is_some_and(|address| address.port() == port)
}

fn borrow(fd: i32) -> BorrowedFd<'static> {
    #[expect(unsafe_code, reason = "the descriptors of this process that are Tracy's")]
    // SAFETY: it is only asked what it is; if it is closed meanwhile, the answer is an error.
    unsafe {
        BorrowedFd::borrow_raw(fd)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn what_nobody_reads_is_unsent_and_a_listener_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(is_listening(port));
        let mut viewer = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (mut client, _) = listener.accept().unwrap();
        drop(listener);
        assert!(!is_listening(port));
        client.set_nonblocking(true).unwrap();
        let mut written = 0;
        while let Ok(len) = client.write(&[0; 4096]) {
            written += len;
        }
        assert!(unsent(port) > 0);
        viewer.read_exact(&mut vec![0; written]).unwrap();
        assert_eq!(unsent(port), 0);
    }

    #[test]
    fn it_is_full_until_it_has_rested() {
        let mut pace = Pace::default();
        for _ in 0..MAX_AHEAD {
            assert!(!pace.is_full());
            pace.tell();
        }
        assert!(pace.is_full());
        let deadline = Instant::now() + Duration::from_secs(20);
        // Port 0 is nobody's. Other tests may run meanwhile, and then it has not rested.
        while pace.is_full() && Instant::now() < deadline {
            pace.look(0);
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!pace.is_full());
    }
}
