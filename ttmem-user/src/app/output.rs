//! Where snapshots go: lines on standard output.

use std::io::{self, BufWriter, IsTerminal as _, Write as _};

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
}

impl Lines {
    /// Colours and cuts lines only on a terminal.
    pub fn new(format: Format) -> Self {
        let terminal = io::stdout().is_terminal();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let width = crossterm::terminal::size().ok().map(|(columns, _)| usize::from(columns));
        Self { format, color: terminal && !no_color, width: width.filter(|_| terminal) }
    }

    /// Prints one snapshot.
    pub fn print(&self, snapshot: &Snapshot) -> anyhow::Result<()> {
        let mut out = BufWriter::new(io::stdout().lock());
        match self.format {
            Format::Json => json::write(&mut out, snapshot),
            Format::Text => {
                out.write_all(text::render(snapshot, self.width, self.color).as_bytes())
            }
        }
        .and_then(|()| out.flush())
        .context("cannot write to standard output")
    }
}

/// What a last snapshot means for the exit code.
pub fn outcome(last: &Snapshot) -> Outcome {
    if last.exact { Outcome::Complete } else { Outcome::Incomplete }
}
