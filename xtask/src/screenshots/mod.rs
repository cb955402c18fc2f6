//! `cargo xtask screenshots`: pictures of the live view, as it really is, for the documentation.
//!
//! A workload on a pretended machine is watched in a terminal of its own (tmux); each view is shown
//! and drawn as SVG into `docs/images`.

mod screen;
mod svg;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::privilege::Privilege;
use crate::real_target::Kind;
use crate::{build, paths, run, say, setup};

/// Of the screen.
const COLUMNS: usize = 100;
const LINES: usize = 28;
/// How long a view may take to come.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often the screen is looked at.
const TICK: Duration = Duration::from_millis(100);
/// How long the workload is watched before the first picture: there is to be something to see.
const RUN_IN: Duration = Duration::from_secs(20);

/// A picture: its name, what it shows, the keys that lead there, and what is on the screen then.
struct Shot {
    name: &'static str,
    title: &'static str,
    keys: &'static [&'static str],
    shows: &'static str,
}

const SHOTS: &[Shot] = &[
    Shot { name: "overview", title: "Overview", keys: &["1"], shows: "DRAM" },
    Shot { name: "buffers", title: "Buffers", keys: &["2"], shows: "DRAM" },
    Shot { name: "map", title: "Map", keys: &["3", "]"], shows: "L1  allocator" },
    Shot { name: "circular", title: "CB/L1", keys: &["4"], shows: "program" },
    Shot { name: "timeline", title: "Timeline", keys: &["5"], shows: "DRAM" },
    Shot { name: "histograms", title: "Histograms", keys: &["6"], shows: "size" },
    Shot { name: "failures", title: "Failures", keys: &["7"], shows: "ttnn::empty" },
    Shot { name: "events", title: "Events", keys: &["8"], shows: "alloc" },
    Shot { name: "health", title: "Health", keys: &["9"], shows: "ring buffer" },
];

/// What was typed.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Only these pictures
    names: Vec<String>,
    /// The machine to pretend
    #[arg(long, value_enum, default_value = "n300")]
    kind: Kind,
}

/// Starts the workload, watches it, and writes the pictures.
pub fn perform(arguments: &Arguments) -> Result<ExitCode> {
    let wanted = |shot: &&Shot| {
        arguments.names.is_empty() || arguments.names.iter().any(|name| name == shot.name)
    };
    let shots: Vec<&Shot> = SHOTS.iter().filter(wanted).collect();
    if shots.is_empty() {
        let known: Vec<&str> = SHOTS.iter().map(|shot| shot.name).collect();
        bail!("no such picture; there are {}", known.join(", "));
    }
    let target = setup::for_everything()?;
    let ttmem = build::ttmem()?;
    say::heading("Screenshots");
    let terminal = Terminal::start(&ttmem, &by_short_names(&target.workload(arguments.kind)?))?;
    terminal.until("exact", |screen| screen.contains(" exact") && screen.contains("DRAM"))?;
    // What the workload writes is not shown.
    terminal.keys(&["o"])?;
    thread::sleep(RUN_IN);
    let folder = paths::root().join("docs/images");
    fs::create_dir_all(&folder)?;
    for shot in shots {
        terminal.keys(shot.keys)?;
        let screen = terminal.until(shot.shows, |screen| {
            let shown = screen.to_lowercase();
            shown.contains(&shot.shows.to_lowercase())
        });
        let lines = screen::lines(&screen.with_context(|| shot.title)?);
        let picture = svg::draw(&format!("ttmem: {}", shot.title), COLUMNS, &lines);
        let file = folder.join(format!("{}.svg", shot.name));
        fs::write(&file, &picture).with_context(|| format!("cannot write {}", file.display()))?;
        println!("    {} ({} KiB)", file.display(), picture.len().div_ceil(1024));
    }
    terminal.end()?;
    Ok(ExitCode::SUCCESS)
}

/// The same command without the folders of this machine, which the pictures would show.
fn by_short_names(long: &Command) -> Command {
    let program = Path::new(long.get_program());
    let mut command = Command::new(program.file_name().unwrap_or_default());
    command.envs(long.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(long.get_current_dir().unwrap_or(Path::new(".")));
    for argument in long.get_args().map(Path::new) {
        if let (Some(name), true, Some(folder)) =
            (argument.file_name(), argument.is_file(), argument.parent())
        {
            command.arg(name).current_dir(folder);
        } else {
            command.arg(argument);
        }
    }
    let here = program.parent().map(Path::to_path_buf);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = here.into_iter().chain(std::env::split_paths(&path));
    command.env("PATH", std::env::join_paths(folders).unwrap_or(path.clone()));
    command
}

/// A terminal of its own, in a tmux server of its own. Ended when dropped.
struct Terminal {
    socket: PathBuf,
}

impl Terminal {
    /// Runs a command in it, and watches it.
    fn start(ttmem: &Path, command: &Command) -> Result<Self> {
        let folder = paths::notes();
        fs::create_dir_all(&folder)?;
        let terminal = Self { socket: folder.join(format!("tmux-{}", std::process::id())) };
        // From its first instruction on, so that nothing is unknown.
        let mut watch = Privilege::find()
            .command(Path::new("env"))
            .context("watching needs root, and sudo would ask for a password: `sudo -v` first")?;
        watch.args(["-u", "NO_COLOR", "-C"]);
        watch.arg(command.get_current_dir().unwrap_or(Path::new(".")));
        watch.arg("COLORTERM=truecolor");
        for (name, value) in command.get_envs() {
            if let (Some(name), Some(value)) = (name.to_str(), value.and_then(OsStr::to_str)) {
                watch.arg(format!("{name}={value}"));
            }
        }
        watch.arg(ttmem).args(["run", "--no-table", "--stacks", "--"]);
        watch.arg(command.get_program()).args(command.get_args());
        let (columns, lines) = (COLUMNS.to_string(), LINES.to_string());
        let mut start = terminal.tmux();
        start.args(["-f", "/dev/null", "new-session", "-d", "-x", &columns, "-y", &lines]);
        start.arg(watch.get_program()).args(watch.get_args());
        run::run(&mut start).context("tmux is needed: apt-get install tmux")?;
        Ok(terminal)
    }

    fn tmux(&self) -> Command {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(&self.socket);
        command
    }

    fn keys(&self, keys: &[&str]) -> Result<()> {
        run::capture(self.tmux().arg("send-keys").args(keys)).map(drop)
    }

    /// Interrupts the command, and waits until all has ended: it goes by itself then.
    fn end(&self) -> Result<()> {
        self.keys(&["C-c"])?;
        let deadline = Instant::now() + PATIENCE;
        while self.capture(&[]).is_ok() {
            ensure!(Instant::now() < deadline, "the workload does not end");
            thread::sleep(TICK);
        }
        Ok(())
    }

    fn capture(&self, options: &[&str]) -> Result<String> {
        run::capture(self.tmux().args(["capture-pane", "-p"]).args(options))
    }

    /// Waits until the screen is as expected and at rest, but for numbers; how it looks.
    fn until(&self, what: &str, expected: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // The key may not have been taken yet.
            thread::sleep(TICK * 8);
            let screen = self.capture(&[])?;
            if expected(&screen) {
                return self.capture(&["-e"]);
            }
            ensure!(Instant::now() < deadline, "{what:?} did not come:\n{screen}");
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.tmux().arg("kill-server").output());
    }
}
