//! Signals that ask ttmem to end.
//!
//! Invariant: one that it was started to ignore, as by `nohup` or in the background of a script, stays
//! ignored, by ttmem and by a command that it starts.

use std::future::pending;

use anyhow::Context as _;
use procfs::process::Process;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A signal that is listened to, if it is not ignored.
#[derive(Debug)]
pub struct Request(Option<Signal>);

impl Request {
    /// Listens from now on.
    pub fn listen(kind: SignalKind) -> anyhow::Result<Self> {
        // Before the first handler for it is there, which would be called where it was ignored.
        let ignored = ignored().context("cannot tell which signals are ignored")?;
        if is_among(ignored, kind) {
            return Ok(Self(None));
        }
        Ok(Self(Some(signal(kind).context("cannot listen to signals")?)))
    }

    /// Completes when it comes.
    pub async fn recv(&mut self) {
        match &mut self.0 {
            Some(signal) => _ = signal.recv().await,
            None => pending().await,
        }
    }
}

/// Completes when the program is asked to end.
pub fn quit() -> anyhow::Result<impl Future<Output = ()>> {
    let mut interrupt = Request::listen(SignalKind::interrupt())?;
    let mut terminate = Request::listen(SignalKind::terminate())?;
    let mut hang_up = Request::listen(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            () = interrupt.recv() => {}
            () = terminate.recv() => {}
            () = hang_up.recv() => {}
        }
    })
}

/// The signals that are ignored, a bit for each; signal 1 is the lowest.
fn ignored() -> procfs::ProcResult<u64> {
    Ok(Process::myself()?.status()?.sigign)
}

fn is_among(set: u64, kind: SignalKind) -> bool {
    let bit = kind.as_raw_value().checked_sub(1).and_then(|bit| u32::try_from(bit).ok());
    bit.and_then(|bit| set.checked_shr(bit)).is_some_and(|set| set & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_told_apart() {
        assert!(is_among(0b1, SignalKind::hangup()));
        assert!(is_among(0b10, SignalKind::interrupt()));
        assert!(!is_among(0b101, SignalKind::interrupt()));
        assert!(!is_among(u64::MAX, SignalKind::from_raw(0)));
        assert!(!is_among(u64::MAX, SignalKind::from_raw(65)));
    }

    #[test]
    fn what_the_kernel_says_is_read() {
        // Rust's runtime ignores it, whoever starts the program.
        assert!(is_among(ignored().unwrap(), SignalKind::pipe()));
    }
}
