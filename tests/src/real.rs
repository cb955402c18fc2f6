//! The scripted program on the real ttnn, `real_target/exactness.py`.

pub mod compare;
pub mod text;
pub mod truth;

use std::{
    env,
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    os::{
        fd::AsFd as _,
        unix::{fs::FileExt as _, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{MemfdFlags, memfd_create},
};
use serde_json::Value;

use crate::{
    skip,
    ttmem::{Attached, Ttmem},
};
use truth::Checkpoint;

/// How long the program may take from one line to the next.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at that nothing tells of.
const TICK: Duration = Duration::from_millis(5);

/// How many bytes of its standard error are shown when it fails.
const LAST_WORDS: usize = 2000;

/// Waits for the line that lets it go on, before it imports ttnn.
const LATE_IMPORT: &str = "\
import os, runpy, sys
sys.stdin.readline()
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name='__main__')
";

/// Runs what it is given with a `/dev/shm` of its own.
const OWN_SHM: &str = "mount -t tmpfs -o mode=1777 shm /dev/shm && exec \"$0\" \"$@\"";

/// Options of an attached ttmem that prints what tests compare, often.
pub const STAY: [&str; 4] = ["--buffers", "--map", "--refresh", "50"];

/// The real target and ttmem, or why the test cannot run.
pub fn both() -> Result<(Real, Ttmem), String> {
    Ok((Real::locate()?, Ttmem::locate()?))
}

/// Waits for the library, and attaches before any device is open.
pub fn attach_early(ttmem: &Ttmem, program: &Program) -> Result<Attached> {
    let mut options = vec!["--wait"];
    options.extend(STAY);
    ttmem.attach(program.pid(), &options)
}

/// The real target: where it is, and what it needs.
#[derive(Clone, Debug)]
pub struct Real {
    python: PathBuf,
    dir: PathBuf,
    environment: Vec<(String, String)>,
    /// Its `libtt_metal.so`.
    pub library: PathBuf,
}

impl Real {
    /// The real target, or why the test cannot run.
    pub fn locate() -> Result<Self, String> {
        let python = skip::path_from("TTMEM_REAL_PYTHON")?;
        let dir = skip::path_from("TTMEM_REAL_DIR")?;
        Self::described(python, dir).map_err(|error| format!("{error:#}"))
    }

    fn described(python: PathBuf, dir: PathBuf) -> Result<Self> {
        let file = dir.join("real-target.json");
        let text =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let found: Value = serde_json::from_str(&text)?;
        let library = found["library"].as_str().context("no library in real-target.json")?.into();
        let variables = found["environment"].as_object().context("no environment")?;
        let environment = variables
            .iter()
            .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect();
        Ok(Self { python, dir, environment, library })
    }

    /// Starts the script on a machine of that kind. It imports ttnn at once.
    pub fn start(&self, kind: &str, arguments: &[&str]) -> Result<Program> {
        let mut command = self.python(kind);
        command.arg(script()).args(arguments);
        Program::spawn(command)
    }

    /// Starts another script of that folder. It imports ttnn at once.
    pub fn start_script(&self, kind: &str, name: &str, arguments: &[&str]) -> Result<Program> {
        let mut command = self.python(kind);
        command.arg(script().with_file_name(name)).args(arguments);
        Program::spawn(command)
    }

    /// Starts the script, but it does not import ttnn before [`Program::go_on`].
    pub fn start_late(&self, kind: &str, arguments: &[&str]) -> Result<Program> {
        let mut command = self.python(kind);
        command.args(["-c", LATE_IMPORT]).arg(script()).args(arguments);
        Program::spawn(command)
    }

    /// Starts the script with an empty `/dev/shm` that nobody else sees. It imports ttnn at once.
    pub fn start_with_own_shm(
        &self,
        kind: &str,
        arguments: &[&str],
        more: &[(&str, &str)],
    ) -> Result<Program> {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", OWN_SHM]);
        if let (Ok(uid), Ok(gid)) = (env::var("SUDO_UID"), env::var("SUDO_GID")) {
            command.args(["setpriv", "--reuid", &uid, "--regid", &gid, "--clear-groups"]);
        } else {
            command.arg("env");
        }
        command.arg(&self.python).arg(script()).args(arguments);
        self.set_up(&mut command, kind);
        command.envs(more.iter().copied());
        Program::spawn(command)
    }

    fn python(&self, kind: &str) -> Command {
        self.command(&self.python, kind)
    }

    /// A command line of an interpreter, on a machine of that kind.
    pub fn command(&self, interpreter: &Path, kind: &str) -> Command {
        let mut command = Command::new(interpreter);
        self.set_up(&mut command, kind);
        // As whoever called sudo: what it caches stays theirs.
        for (variable, is_user) in [("SUDO_UID", true), ("SUDO_GID", false)] {
            let id = env::var(variable).ok().and_then(|text| text.parse().ok());
            match id {
                Some(id) if is_user => drop(command.uid(id)),
                Some(id) => drop(command.gid(id)),
                None => {}
            }
        }
        command
    }

    fn set_up(&self, command: &mut Command, kind: &str) {
        command.env_remove("PYTHONPATH").env_remove("PYTHONHOME");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let cluster = self.dir.join(format!("clusters/{kind}.yaml"));
        command.env("TT_METAL_MOCK_CLUSTER_DESC_PATH", cluster).current_dir(&self.dir);
        command.env("HOME", &self.dir);
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("real_target/exactness.py")
}

/// A running script. Killed when dropped.
#[derive(Debug)]
pub struct Program {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// Its standard error.
    log: File,
}

impl Program {
    /// Starts one by a command line.
    pub fn spawn(mut command: Command) -> Result<Self> {
        let log = File::from(memfd_create("log", MemfdFlags::CLOEXEC)?);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log.try_clone()?);
        let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
        let stdin = child.stdin.take().context("no pipe")?;
        let stdout = BufReader::new(child.stdout.take().context("no pipe")?);
        Ok(Self { child, stdin, stdout, log })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has mapped the library.
    pub fn has_library(&self, real: &Real) -> Result<bool> {
        Ok(!text::mappings(self.pid(), &real.library)?.is_empty())
    }

    /// The next checkpoint; the script waits there. `None` at its end.
    pub fn checkpoint(&mut self) -> Result<Option<Checkpoint>> {
        self.record()
    }

    /// The next line, as whatever the script writes; it waits there. `None` at its end.
    pub fn record<T: serde::de::DeserializeOwned>(&mut self) -> Result<Option<T>> {
        if self.stdout.buffer().is_empty() {
            let timeout = Timespec::try_from(PATIENCE)?;
            let mut fds = [PollFd::from_borrowed_fd(self.stdout.get_ref().as_fd(), PollFlags::IN)];
            ensure!(poll(&mut fds, Some(&timeout))? > 0, "the script says nothing");
        }
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let record =
            serde_json::from_str(&line).with_context(|| format!("not as expected: {line}"))?;
        Ok(Some(record))
    }

    /// The next checkpoint, which must have that name.
    pub fn expect(&mut self, name: &str) -> Result<Checkpoint> {
        let checkpoint = self
            .checkpoint()?
            .with_context(|| format!("the script ended before {name}: {}", self.last_words()))?;
        ensure!(checkpoint.name == name, "at {} instead of {name}", checkpoint.name);
        Ok(checkpoint)
    }

    /// Lets it run up to the checkpoint of that name, where it waits.
    pub fn until(&mut self, name: &str) -> Result<Checkpoint> {
        loop {
            let next = self.checkpoint()?;
            let checkpoint = next.with_context(|| {
                format!("the script ended before {name}: {}", self.last_words())
            })?;
            if checkpoint.name == name {
                return Ok(checkpoint);
            }
            self.go_on()?;
        }
    }

    /// Lets it go on.
    pub fn go_on(&mut self) -> Result<()> {
        let result = self.stdin.write_all(b"\n");
        result.with_context(|| format!("the script has ended: {}", self.last_words()))
    }

    /// Lets it run through all further checkpoints to its end, without looking at them.
    pub fn finish(mut self) -> Result<ExitStatus> {
        loop {
            self.go_on()?;
            if self.checkpoint()?.is_none() {
                return self.wait();
            }
        }
    }

    /// Waits for its end, after the last checkpoint.
    pub fn wait(mut self) -> Result<ExitStatus> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                if !status.success() {
                    println!("the script ended with {status}: {}", self.last_words());
                }
                return Ok(status);
            }
            std::thread::sleep(TICK);
        }
        bail!("the script closed its output, but does not end")
    }
}

impl Program {
    /// The end of what it wrote to its standard error.
    fn last_words(&self) -> String {
        let size = self.log.metadata().map_or(0, |metadata| metadata.len());
        let mut words = vec![0; usize::try_from(size).unwrap_or(0).min(LAST_WORDS)];
        let start = size.saturating_sub(words.len() as u64);
        match self.log.read_exact_at(&mut words, start) {
            Ok(()) => String::from_utf8_lossy(&words).into_owned(),
            Err(error) => error.to_string(),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
