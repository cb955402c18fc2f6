//! `cargo xtask demo`: a small workload on a pretended machine, and ttmem watching it.
//!
//! Only the workload that was started here is ended here. Its standard input is a pipe held by
//! xtask, so it also ends by itself when xtask is ended in whatever way.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::privilege::Privilege;
use crate::real_target::{Kind, RealTarget};
use crate::say::{self, Step};
use crate::{build, paths, run, setup};

/// The first start fills tt-metal's caches.
const READY_LIMIT: Duration = Duration::from_secs(120);
const END_LIMIT: Duration = Duration::from_secs(5);

/// What was typed.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Write text instead of the terminal interface
    #[arg(long)]
    headless: bool,
    /// End after that many seconds
    #[arg(long, default_value_t = 10, value_name = "N", requires = "headless")]
    seconds: u32,
    /// The machine to pretend
    #[arg(long, value_enum, default_value = "n300")]
    kind: Kind,
}

/// Prepares, builds, starts the workload and watches it.
pub fn perform(arguments: &Arguments) -> Result<ExitCode> {
    let target = setup::for_everything()?;
    let ttmem = build::ttmem()?;
    say::heading("Demo");
    let workload = Workload::start(&target, arguments.kind)?;
    let Some(mut attach) = attach(&ttmem, arguments, workload.child.id()) else {
        return wait_for_the_user(workload, &ttmem, arguments);
    };
    println!("    $ {}", run::show(&attach));
    let status = attach.status();
    let status = status.with_context(|| format!("cannot start `{}`", run::show(&attach)))?;
    drop(workload);
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from))
}

fn attach(ttmem: &Path, arguments: &Arguments, pid: u32) -> Option<Command> {
    let mut command = Privilege::find().command(ttmem)?;
    command.args(typed(arguments, pid));
    Some(command)
}

fn typed(arguments: &Arguments, pid: u32) -> Vec<String> {
    let mut words = vec!["attach".to_owned(), "--pid".to_owned(), pid.to_string()];
    if arguments.headless {
        let seconds = arguments.seconds.to_string();
        words.extend(["--headless", "--format", "text", "--duration", &seconds].map(str::to_owned));
    }
    words
}

/// Without root's rights, says what to type, and keeps the workload until Enter.
fn wait_for_the_user(workload: Workload, ttmem: &Path, arguments: &Arguments) -> Result<ExitCode> {
    say::warn("watching needs root, and sudo would ask for a password; in another terminal, type:");
    let words = typed(arguments, workload.child.id()).join(" ");
    println!("\n      sudo {} {words}\n", ttmem.display());
    say::note("Enter ends the workload");
    std::io::stdin().lock().read_line(&mut String::new())?;
    drop(workload);
    Ok(ExitCode::FAILURE)
}

/// The running workload; dropped, it is ended.
struct Workload {
    child: Child,
    input: Option<ChildStdin>,
}

impl Workload {
    fn start(target: &RealTarget, kind: Kind) -> Result<Self> {
        let step = Step::begin("starting", &format!("workload on {}", kind.name()));
        let log = paths::real_target().join("demo.log");
        fs::create_dir_all(paths::real_target())?;
        let stderr =
            File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
        let mut command = target.workload(kind)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
        // Ctrl-C in the terminal is for ttmem; the workload ends with its standard input.
        command.process_group(0);
        let mut child =
            command.spawn().with_context(|| format!("cannot start `{}`", run::show(&command)))?;
        let input = child.stdin.take();
        let mut workload = Self { child, input };
        if let Some(input) = &mut workload.input {
            input.write_all(target.opening_lines().as_bytes())?;
            input.flush()?;
        }
        workload.wait_until_ready(target.says_ready()).with_context(|| {
            format!("the workload did not get ready; what it said is in {}", log.display())
        })?;
        step.done();
        Ok(workload)
    }

    /// Reads the workload's output to its end in a thread, so that it never blocks on it.
    fn wait_until_ready(&mut self, says_ready: bool) -> Result<()> {
        let Some(output) = self.child.stdout.take() else { bail!("its output is not read") };
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // Nobody listens once it is ready.
                drop(sender.send(line));
            }
        });
        if !says_ready {
            return Ok(());
        }
        let end = Instant::now() + READY_LIMIT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match lines.recv_timeout(left) {
                Ok(line) if line.starts_with("ready") => return Ok(()),
                Ok(_) => {}
                Err(mpsc::RecvTimeoutError::Timeout) => bail!("no `ready` in {READY_LIMIT:?}"),
                Err(mpsc::RecvTimeoutError::Disconnected) => bail!("it ended before it was ready"),
            }
        }
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        // The end of its standard input asks it to close its devices and go.
        self.input = None;
        let end = Instant::now() + END_LIMIT;
        while Instant::now() < end {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        // It is our own child, not yet waited for, so its id is still its own.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
