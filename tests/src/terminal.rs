//! A real terminal in which the live view runs: what it shows, and that it gives the terminal back.
//!
//! It is a tmux server of its own, which ends with the test, however that ends. There is no event for
//! a change of the screen, so it is looked at.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::ttmem::Ttmem;

/// How long the screen may take to become what is expected.
const PATIENCE: Duration = Duration::from_secs(20);

/// A tmux server of its own. Ended when dropped, or when this process ends in whatever way: a server
/// goes into the background by itself, where nobody would end it after Ctrl-C.
#[derive(Debug)]
pub struct Tmux {
    socket: String,
}

impl Tmux {
    /// Starts a server with a session of so many columns and lines, in which a command runs.
    pub fn start(name: &str, (columns, lines): (u32, u32), words: &[&str]) -> Result<Self> {
        Self::start_for(std::process::id(), name, (columns, lines), words)
    }

    fn start_for(
        pid: u32,
        name: &str,
        (columns, lines): (u32, u32),
        words: &[&str],
    ) -> Result<Self> {
        let tmux = Self { socket: format!("ttmem-test-{}-{name}", std::process::id()) };
        let size = [columns.to_string(), lines.to_string()];
        let session = ["-f", "/dev/null", "new-session", "-d", "-x", &size[0], "-y", &size[1]];
        // The server's own job: it ends with the server, and the server with it.
        let wait = format!("tail --pid={pid} -f /dev/null; tmux -L {} kill-server", tmux.socket);
        tmux.call(&[&session, words, &[";", "run-shell", "-b", &wait]].concat())?;
        Ok(tmux)
    }

    /// Whether there is such a terminal on this machine.
    pub fn locate() -> Result<(), String> {
        let found = Command::new("tmux").arg("-V").output();
        found.map(drop).map_err(|error| format!("no tmux: {error}"))
    }

    /// Has it do something; what it says.
    pub fn call(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("tmux");
        command.args(["-L", &self.socket]).args(arguments).stdin(Stdio::null());
        let output = command.output().context("tmux")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "tmux {arguments:?}: {errors}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// What is on the screen.
    pub fn screen(&self) -> Result<String> {
        self.call(&["capture-pane", "-p"])
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = self.call(&["kill-server"]);
    }
}

/// A terminal of its own. Ended when dropped.
#[derive(Debug)]
pub struct Terminal {
    tmux: Tmux,
    folder: tempfile::TempDir,
}

/// Runs ttmem between two notes of the terminal's settings, then keeps the terminal.
const SCRIPT: &str = r#"
cd "$FOLDER"
echo "the line before"
stty -g > before
"$TTMEM" "$@" 2> errors &
echo $! > pid
fg > /dev/null
echo $? > code
stty -g > after
touch done
while read -r line; do $line; done
"#;

impl Terminal {
    /// Runs ttmem with these arguments on 80 × 24 characters.
    pub fn start(ttmem: &Ttmem, name: &str, arguments: &[&str]) -> Result<Self> {
        Self::start_sized(ttmem, name, (80, 24), arguments)
    }

    /// The same on a screen of so many columns and lines.
    pub fn start_sized(
        ttmem: &Ttmem,
        name: &str,
        size: (u32, u32),
        arguments: &[&str],
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let script = folder.path().join("script");
        fs::write(&script, SCRIPT)?;
        let variables = [
            format!("FOLDER={}", folder.path().display()),
            format!("TTMEM={}", ttmem.path().display()),
        ];
        let script = script.display().to_string();
        let mut command = vec!["env"];
        command.extend(variables.iter().map(String::as_str));
        // Monitor mode gives ttmem the foreground, and the script its process id.
        command.extend(["bash", "-m", &script]);
        let typed = ttmem.typed(arguments);
        let typed: Option<Vec<&str>> = typed.iter().map(|word| word.to_str()).collect();
        command.extend(typed.context("not UTF-8")?);
        Ok(Self { tmux: Tmux::start(name, size, &command)?, folder })
    }

    /// Whether there is such a terminal on this machine.
    pub fn locate() -> Result<(), String> {
        Tmux::locate()
    }

    /// The folder of what it keeps; it goes with the terminal.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Has tmux do something; what it says.
    pub fn tmux(&self, arguments: &[&str]) -> Result<String> {
        self.tmux.call(arguments)
    }

    /// What is on the screen.
    pub fn screen(&self) -> Result<String> {
        self.tmux.screen()
    }

    /// Presses keys, as tmux names them.
    pub fn keys(&self, keys: &[&str]) -> Result<()> {
        self.tmux(&[&["send-keys"], keys].concat()).map(drop)
    }

    /// Waits until the screen is as expected. There is no event for that: it is looked at.
    pub fn until(&self, what: &str, expected: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen()?;
            if expected(&screen) {
                return Ok(screen);
            }
            if Instant::now() > deadline {
                let errors = fs::read_to_string(self.file("errors")).unwrap_or_default();
                bail!("{what} did not come; {errors}\n{screen}");
            }
            std::thread::yield_now();
        }
    }

    /// The process id of ttmem.
    pub fn ttmem_pid(&self) -> Result<u32> {
        Ok(fs::read_to_string(self.file("pid"))?.trim().parse()?)
    }

    /// Sends ttmem a signal.
    pub fn signal_ttmem(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.ttmem_pid()?.cast_signed()).context("pid")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Checks that ttmem has ended, or been stopped, with this code, and left the terminal as it was.
    pub fn given_back(&self, code: &str) -> Result<()> {
        let screen = self.until("the line before", |screen| screen.contains("the line before"))?;
        let deadline = Instant::now() + PATIENCE;
        while !self.file("done").exists() {
            ensure!(Instant::now() < deadline, "ttmem did not end: {screen}");
            std::thread::yield_now();
        }
        let read = |name| fs::read_to_string(self.file(name));
        ensure!(read("code")?.trim() == code, "exit code {}, {}", read("code")?, read("errors")?);
        ensure!(read("errors")?.is_empty(), "{}", read("errors")?);
        ensure!(read("before")? == read("after")?, "{} {}", read("before")?, read("after")?);
        let flags = "#{alternate_on} #{cursor_flag} #{mouse_any_flag} #{mouse_sgr_flag}";
        let modes = self.tmux(&["display-message", "-p", flags])?;
        ensure!(modes.trim() == "0 1 0 0", "alternate screen, cursor, mouse: {modes}");
        ensure!(!self.screen()?.contains("chip 0"), "{}", self.screen()?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{or_skip, sharing::Service};

    #[test]
    fn it_ends_with_whom_it_is_for() {
        or_skip!(Tmux::locate());
        let held = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let held = Service(held);
        let tmux = Tmux::start_for(held.0.id(), "ends", (80, 24), &["cat"]).unwrap();
        tmux.screen().unwrap();
        drop(held);
        let deadline = Instant::now() + PATIENCE;
        while tmux.call(&["list-sessions"]).is_ok() {
            assert!(Instant::now() < deadline, "it is still there");
            std::thread::yield_now();
        }
    }
}
