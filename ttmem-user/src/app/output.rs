//! Where reports go: lines on a stream or in a file.

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io::{self, BufWriter, IsTerminal as _, Write},
    path::Path,
};

use anyhow::Context as _;

use super::Outcome;
use crate::{
    cli::args::Format,
    ledger::{
        call::Calls,
        report::Report,
        snapshot::{Snapshot, TargetState},
    },
    sink::{json, text},
};

/// Where lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
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
        let (to, what, terminal): (Box<dyn Write + Send>, String, bool) = match (file, stream) {
            (Some(path), _) => {
                let file = File::create(path)
                    .with_context(|| format!("cannot write to {}", path.display()))?;
                (Box::new(file), path.display().to_string(), false)
            }
            (None, Stream::Stdout) => {
                let stdout = io::stdout();
                let terminal = stdout.is_terminal();
                (Box::new(stdout), "standard output".to_owned(), terminal)
            }
            (None, Stream::Stderr) => {
                let stderr = io::stderr();
                let terminal = stderr.is_terminal();
                (Box::new(stderr), "standard error".to_owned(), terminal)
            }
        };
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let width = crossterm::terminal::size().ok().map(|(columns, _)| usize::from(columns));
        Ok(Self {
            format,
            to: BufWriter::new(to),
            what,
            color: terminal && !no_color,
            width: width.filter(|_| terminal),
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
            .with_context(|| format!("cannot write to {}", self.what))?;
        }
        self.to.flush().with_context(|| format!("cannot write to {}", self.what))
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
            .with_context(|| format!("cannot write to {}", self.what))
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

/// What a last report means for the exit code.
pub fn outcome(last: &Report) -> Outcome {
    if last.is_exact() { Outcome::Complete } else { Outcome::Incomplete }
}
