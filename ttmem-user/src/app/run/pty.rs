//! The terminal of a command: ttmem's side of it.
//!
//! It goes with the last copy of [`Pty`]; what still runs in it is then told that its terminal
//! hung up, as by any terminal that closes.

use std::{os::fd::OwnedFd, sync::Arc};

use anyhow::Context as _;
use ratatui::layout::Size;
use rustix::{
    fs::{Gid, Uid, fchown},
    io::{Errno, read, retry_on_intr, write},
    pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{Winsize, tcgetwinsize, tcsetwinsize},
};

use super::invoker::Invoker;
use crate::tui::usable;

/// What a terminal takes for an interrupt, unless the command has changed that.
const INTERRUPT: &[u8] = b"\x03";

/// Our side of a terminal.
#[derive(Clone, Debug)]
pub struct Pty(Arc<OwnedFd>);

impl Pty {
    /// A new terminal, and the side of it that the command gets. It belongs to the user who the
    /// command will be.
    pub fn open(size: Size, invoker: Option<&Invoker>) -> anyhow::Result<(Self, OwnedFd)> {
        let open = || {
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            let ours = openpt(flags)?;
            grantpt(&ours)?;
            unlockpt(&ours)?;
            let theirs = ioctl_tiocgptpeer(&ours, flags)?;
            if let Some(invoker) = invoker {
                let (user, group) = (Uid::from_raw(invoker.user), Gid::from_raw(invoker.group));
                fchown(&theirs, Some(user), Some(group))?;
            }
            rustix::io::Result::Ok((Self(Arc::new(ours)), theirs))
        };
        let (ours, theirs) = open().context("cannot make a terminal for the command")?;
        ours.resize(size);
        Ok((ours, theirs))
    }

    /// Tells the command how many columns and lines there are.
    pub fn resize(&self, size: Size) {
        let size = Winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
        // It can only fail for what is no terminal.
        let _ = tcsetwinsize(&*self.0, size);
    }

    /// Sends an interrupt to what runs in the foreground of the terminal.
    pub fn interrupt(&self) {
        // A terminal whose input is full takes it no better from a keyboard.
        let _ = retry_on_intr(|| write(&*self.0, INTERRUPT));
    }

    /// Reads what was written to the terminal; 0 bytes when nobody can write to it any more.
    pub fn read(&self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match retry_on_intr(|| read(&*self.0, &mut *buffer)) {
            Err(Errno::IO) => Ok(0),
            result => Ok(result?),
        }
    }
}

impl std::os::fd::AsFd for Pty {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Size of the terminal that ttmem itself has, a usual one if it does not say; `None` if it has none.
pub fn own_size() -> Option<Size> {
    let size = tcgetwinsize(rustix::stdio::stdout()).ok()?;
    Some(usable(Size { width: size.ws_col, height: size.ws_row }))
}
