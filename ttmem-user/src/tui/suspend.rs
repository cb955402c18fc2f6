//! Ctrl-Z and SIGTSTP: the live view stops as any program of a shell does, and goes on with `fg`.

use std::io;

use nix::{
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, raise, sigaction},
    unistd::Pid,
};
use tokio::signal::unix::{self, SignalKind, signal};

/// Listens to SIGTSTP. Once it is dropped the signal does again what it usually does.
#[derive(Debug)]
pub struct Stops(unix::Signal);

impl Stops {
    /// Listens from now on.
    pub fn listen() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::from_raw(Signal::SIGTSTP as i32))?))
    }

    /// Completes when this program is asked to stop.
    pub async fn recv(&mut self) {
        _ = self.0.recv().await;
    }

    /// Stops, as where nobody listens; returns when the program goes on. Where no shell could have it go
    /// on, that is at once: the kernel sees to that.
    pub fn stop() -> io::Result<()> {
        let listening = set(&usual())?;
        let stopped = raise(Signal::SIGTSTP);
        set(&listening)?;
        Ok(stopped?)
    }
}

impl Drop for Stops {
    fn drop(&mut self) {
        // It fails for no signal that can be listened to.
        let _ = set(&usual());
    }
}

/// Asks all programs of the job to stop, this one included, as the terminal does when it is not raw.
pub fn ask() -> io::Result<()> {
    Ok(kill(Pid::from_raw(0), Signal::SIGTSTP)?)
}

fn usual() -> SigAction {
    SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty())
}

#[expect(unsafe_code, reason = "an action may name any function")]
fn set(action: &SigAction) -> nix::Result<SigAction> {
    // SAFETY: it is the kernel's own action, or the one that was there before.
    unsafe { sigaction(Signal::SIGTSTP, action) }
}
