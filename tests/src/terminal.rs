//! A real terminal in which the live view runs: what it shows, and that it gives the terminal back.
//!
//! It is a tmux server of its own; there is no event for a change of the screen, so it is looked at.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::ttmem::Ttmem;

/// How long the screen may take to become what is expected.
const PATIENCE: Duration = Duration::from_secs(20);

/// A terminal of its own, in a tmux server of its own. Ended when dropped.
#[derive(Debug)]
pub struct Terminal {
    socket: String,
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
        (columns, lines): (u32, u32),
        arguments: &[&str],
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let socket = format!("ttmem-test-{}-{name}", std::process::id());
        let terminal = Self { socket, folder };
        let script = terminal.file("script");
        fs::write(&script, SCRIPT)?;
        let variables = [
            format!("FOLDER={}", terminal.folder.path().display()),
            format!("TTMEM={}", ttmem.path().display()),
        ];
        let script = script.display().to_string();
        let size = [columns.to_string(), lines.to_string()];
        let mut command = vec!["-f", "/dev/null", "new-session", "-d"];
        command.extend(["-x", &size[0], "-y", &size[1], "env"]);
        command.extend(variables.iter().map(String::as_str));
        // Monitor mode gives ttmem the foreground, and the script its process id.
        command.extend(["bash", "-m", &script]);
        command.extend(arguments);
        terminal.tmux(&command)?;
        Ok(terminal)
    }

    /// Whether there is such a terminal on this machine.
    pub fn locate() -> Result<(), String> {
        let found = Command::new("tmux").arg("-V").output();
        found.map(drop).map_err(|error| format!("no tmux: {error}"))
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
        let mut command = Command::new("tmux");
        command.args(["-L", &self.socket]).args(arguments);
        let output = command.output().context("tmux")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "tmux {arguments:?}: {errors}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// What is on the screen.
    pub fn screen(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p"])
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

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]);
    }
}
