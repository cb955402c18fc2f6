//! Where snapshots go: lines on standard output.

use std::{
    cell::Cell,
    io::{self, BufWriter, IsTerminal as _, Write},
};

use anyhow::Context as _;

use super::Outcome;
use crate::{
    cli::args::Format,
    ledger::snapshot::Snapshot,
    sink::{json, text},
};

/// Prints snapshots, each flushed before the next.
pub struct Lines {
    format: Format,
    color: bool,
    width: Option<usize>,
    /// Whether failed allocations are lines of JSON.
    on_failure: bool,
    /// Id of the last failed allocation that was printed.
    shown: Cell<u64>,
}

impl Lines {
    /// Colours and cuts lines only on a terminal.
    pub fn new(format: Format, on_failure: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let width = crossterm::terminal::size().ok().map(|(columns, _)| usize::from(columns));
        Self {
            format,
            color: terminal && !no_color,
            width: width.filter(|_| terminal),
            on_failure,
            shown: Cell::new(0),
        }
    }

    /// Prints one snapshot, after the failed allocations since the last one.
    pub fn print(&self, snapshot: &Snapshot) -> anyhow::Result<()> {
        let mut out = BufWriter::new(io::stdout().lock());
        self.write(&mut out, snapshot)
            .and_then(|()| out.flush())
            .context("cannot write to standard output")
    }

    fn write(&self, out: &mut impl Write, snapshot: &Snapshot) -> io::Result<()> {
        let last = snapshot.failures.last.last().map_or(0, |failure| failure.id);
        let shown = self.shown.replace(last);
        match (self.format, self.on_failure) {
            (_, true) => json::write_failures(out, snapshot, shown)?,
            (Format::Text, false) => {
                let failures = text::failures(snapshot, shown, self.width, self.color);
                out.write_all(failures.as_bytes())?;
            }
            // Each snapshot has them.
            (Format::Json, false) => {}
        }
        match self.format {
            Format::Json => json::write(out, snapshot),
            Format::Text => {
                out.write_all(text::render(snapshot, self.width, self.color).as_bytes())
            }
        }
    }
}

/// What a last snapshot means for the exit code.
pub fn outcome(last: &Snapshot) -> Outcome {
    if last.exact { Outcome::Complete } else { Outcome::Incomplete }
}
