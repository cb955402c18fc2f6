//! Where reports go: lines on a stream or in a file.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsStr,
    fs::File,
    io::{self, BufWriter, IsTerminal as _, Write},
    path::Path,
};

use anyhow::Context as _;
use rustix::termios::{Winsize, tcgetwinsize};

use super::Outcome;
use crate::{
    cli::{args::Format, config::Screen},
    ledger::{
        call::Calls,
        report::Report,
        snapshot::{Snapshot, TargetState},
    },
    sink::{json, text},
};

/// Output that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to {to}")]
pub struct NotWritten {
    to: String,
    source: io::Error,
}

impl NotWritten {
    /// Of what was to go to standard output.
    pub fn to_stdout(source: io::Error) -> Self {
        Self { to: "standard output".to_owned(), source }
    }

    /// Whoever read the output has had enough.
    pub fn is_closed(&self) -> bool {
        self.source.kind() == io::ErrorKind::BrokenPipe
    }
}

/// What there is to draw on.
pub fn screen() -> Screen {
    match io::stdin().is_terminal() && io::stdout().is_terminal() {
        true if is_dumb() => Screen::Dumb,
        true => Screen::Terminal,
        false => Screen::None,
    }
}

/// Whether the terminal, if there is one, knows nothing but lines.
fn is_dumb() -> bool {
    is_dumb_called(std::env::var_os("TERM").as_deref())
}

fn is_dumb_called(term: Option<&OsStr>) -> bool {
    term.is_none_or(|term| term.is_empty() || term == "dumb")
}

/// Writes to standard output, at once.
pub fn print(text: &str) -> Result<(), NotWritten> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(NotWritten::to_stdout)
}

/// Where lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A file whose old content goes with the first write, and not before there is anything to write.
struct Overwriting {
    file: File,
    /// Whether it has old content, as only a plain file has.
    old: bool,
}

impl Overwriting {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().write(true).create(true).truncate(false).open(path)?;
        let old = file.metadata()?.is_file();
        Ok(Self { file, old })
    }
}

impl Write for Overwriting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if std::mem::take(&mut self.old) {
            self.file.set_len(0)?;
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Prints reports, each flushed before the next.
pub struct Lines {
    format: Format,
    to: BufWriter<Box<dyn Write + Send>>,
    what: String,
    color: bool,
    width: Option<usize>,
    /// Whether the sums over all targets are printed, too.
    totals: bool,
    /// Whether failed allocations are lines of JSON.
    on_failure: bool,
    /// Targets that have ended and been printed for the last time.
    done: BTreeSet<u64>,
    /// By target, the last failed allocation that was printed.
    failures_shown: HashMap<u64, u64>,
}

impl Lines {
    /// To a file, or else to a stream. Colours and cuts lines only on a terminal.
    pub fn new(format: Format, file: Option<&Path>, stream: Stream) -> anyhow::Result<Self> {
        let (to, what, size): (Box<dyn Write + Send>, String, Option<Winsize>) =
            match (file, stream) {
                (Some(path), _) => {
                    let file = Overwriting::open(path)
                        .with_context(|| format!("cannot write to {}", path.display()))?;
                    (Box::new(file), path.display().to_string(), None)
                }
                (None, Stream::Stdout) => {
                    let stdout = io::stdout();
                    let size = tcgetwinsize(&stdout).ok();
                    (Box::new(stdout), "standard output".to_owned(), size)
                }
                (None, Stream::Stderr) => {
                    let stderr = io::stderr();
                    let size = tcgetwinsize(&stderr).ok();
                    (Box::new(stderr), "standard error".to_owned(), size)
                }
            };
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Ok(Self {
            format,
            to: BufWriter::new(to),
            what,
            // Only a terminal has a size.
            color: size.is_some() && !no_color && !is_dumb(),
            width: size.and_then(width),
            totals: false,
            on_failure: false,
            done: BTreeSet::new(),
            failures_shown: HashMap::new(),
        })
    }

    /// With the sums over all targets.
    pub fn with_totals(self, totals: bool) -> Self {
        Self { totals, ..self }
    }

    /// With a line of JSON for each failed allocation.
    pub fn with_failures(self, on_failure: bool) -> Self {
        Self { on_failure, ..self }
    }

    /// Prints one report, each target after its failed allocations since the last one. A target that
    /// has ended is printed once more, and then no longer.
    pub fn print(&mut self, report: &Report) -> anyhow::Result<()> {
        self.print_with(report, None)
    }

    /// The same; `calls` says what called for what was live when an allocation failed.
    pub fn print_with(&mut self, report: &Report, calls: Option<&dyn Calls>) -> anyhow::Result<()> {
        for target in &report.targets {
            let over = target.state != TargetState::Running;
            if !over || self.done.insert(target.process.serial) {
                self.print_target(target, calls)?;
            }
        }
        if self.totals {
            let totals = report.totals();
            match self.format {
                Format::Json => json::write(&mut self.to, &totals),
                Format::Text => {
                    let page = text::render_totals(&totals, self.width, self.color);
                    self.to.write_all(page.as_bytes())
                }
            }
            .map_err(|source| self.not_written(source))?;
        }
        self.to.flush().map_err(|source| self.not_written(source))
    }

    fn print_target(
        &mut self,
        snapshot: &Snapshot,
        calls: Option<&dyn Calls>,
    ) -> anyhow::Result<()> {
        self.write_failures(snapshot, calls)
            .and_then(|()| match self.format {
                Format::Json => json::write(&mut self.to, snapshot),
                Format::Text => {
                    let page = text::render(snapshot, self.width, self.color);
                    self.to.write_all(page.as_bytes())
                }
            })
            .map_err(|source| self.not_written(source))
    }

    fn not_written(&self, source: io::Error) -> anyhow::Error {
        NotWritten { to: self.what.clone(), source }.into()
    }

    fn write_failures(&mut self, snapshot: &Snapshot, calls: Option<&dyn Calls>) -> io::Result<()> {
        let last = snapshot.failures.last.last().map_or(0, |failure| failure.id);
        let shown = self.failures_shown.insert(snapshot.process.serial, last).unwrap_or(0);
        match (self.format, self.on_failure) {
            (_, true) => json::write_failures(&mut self.to, snapshot, shown, calls),
            (Format::Text, false) => {
                let failures = text::failures(snapshot, shown, self.width, self.color);
                self.to.write_all(failures.as_bytes())
            }
            // Each snapshot has them.
            (Format::Json, false) => Ok(()),
        }
    }
}

/// The columns of a terminal; `None` if it does not know them, as that of `ssh -tt` without one here.
fn width(size: Winsize) -> Option<usize> {
    (size.ws_col > 0).then(|| usize::from(size.ws_col))
}

/// What a last report means for the exit code.
pub fn outcome(last: &Report) -> Outcome {
    if last.is_exact() { Outcome::Complete } else { Outcome::Incomplete }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_terminal_without_a_name_is_dumb() {
        let dumb = |term: &str| is_dumb_called(Some(OsStr::new(term)));
        assert!(is_dumb_called(None) && dumb("") && dumb("dumb"));
        assert!(!dumb("xterm-256color") && !dumb("vt100"));
    }

    #[test]
    fn what_a_file_held_goes_with_the_first_report() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines");
        fs::write(&path, "of an earlier run, and longer than a report".repeat(1000)).unwrap();
        let before = fs::read(&path).unwrap();
        let mut lines = Lines::new(Format::Json, Some(&path), Stream::Stdout).unwrap();
        assert_eq!(fs::read(&path).unwrap(), before, "nothing has been printed");
        let report = Report::of_one(crate::fixture::normal());
        lines.print(&report).unwrap();
        lines.print(&report).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.lines().all(|line| line.starts_with('{') && line.ends_with('}')), "{text}");
    }

    #[test]
    fn what_is_no_plain_file_is_written_to_as_it_is() {
        let mut lines =
            Lines::new(Format::Json, Some(Path::new("/dev/null")), Stream::Stdout).unwrap();
        lines.print(&Report::of_one(crate::fixture::normal())).unwrap();
    }
}
