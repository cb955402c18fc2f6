//! What the arguments mean. Everything is checked here, once.

use std::time::Duration;

use super::args::{AttachArgs, Format};
use crate::units::Pid;

/// How `attach` works.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct AttachConfig {
    /// The target.
    pub pid: Pid,
    /// Wait for the library.
    pub wait: bool,
    /// Where the numbers go.
    pub output: Output,
    /// How often.
    pub refresh: Duration,
    /// End after this time.
    pub duration: Option<Duration>,
    /// One snapshot only.
    pub once: bool,
    /// With the live set.
    pub buffers: bool,
    /// Dispatches of programs are watched.
    pub dispatches: bool,
    /// Size of the ring buffer, bytes.
    pub ring_bytes: u32,
    /// Diagnostics of the eBPF side.
    pub debug_bpf: bool,
    /// Perf events where a `uprobe_multi` link would do.
    pub perf_events: bool,
}

/// Where the numbers go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The live view.
    Tui,
    /// Lines on standard output.
    Lines(Format),
}

/// The live view needs a terminal.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("standard input or output is no terminal, so there is no live view: add --headless")]
pub struct NoTerminal;

impl AttachConfig {
    /// Checks arguments. `is_terminal`: both standard input and output are one.
    pub fn new(args: &AttachArgs, is_terminal: bool) -> Result<Self, NoTerminal> {
        let lines = args.headless || args.once || args.buffers || args.format.is_some();
        if !lines && !is_terminal {
            return Err(NoTerminal);
        }
        let page_kib = u32::try_from(rustix::param::page_size() / 1024).unwrap_or(4);
        Ok(Self {
            pid: Pid(args.pid),
            wait: args.wait,
            output: if lines {
                Output::Lines(args.format.unwrap_or(Format::Text))
            } else {
                Output::Tui
            },
            refresh: Duration::from_millis(args.refresh),
            duration: args.duration.map(Duration::from_secs_f64),
            once: args.once,
            buffers: args.buffers,
            dispatches: args.dispatches,
            ring_bytes: args.ring_size.max(page_kib).next_power_of_two() * 1024,
            debug_bpf: args.debug_bpf,
            perf_events: args.perf_events,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Arguments, Command};

    fn config(options: &[&str], terminal: bool) -> Result<AttachConfig, NoTerminal> {
        let words = ["ttmem", "attach", "--pid", "7"].iter().chain(options);
        match Arguments::parse_from(words).command {
            Command::Attach(args) => AttachConfig::new(&args, terminal),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_a_terminal_there_is_no_live_view() {
        assert_eq!(config(&[], true).unwrap().output, Output::Tui);
        assert_eq!(config(&[], false), Err(NoTerminal));
        let lines = Output::Lines(Format::Text);
        assert_eq!(config(&["--headless"], false).unwrap().output, lines);
    }

    #[test]
    fn what_only_lines_can_do_implies_headless() {
        for option in [&["--once"][..], &["--buffers"], &["--format", "json"]] {
            assert!(matches!(config(option, true).unwrap().output, Output::Lines(_)), "{option:?}");
        }
    }

    #[test]
    fn the_ring_is_a_power_of_two() {
        assert_eq!(config(&["--ring-size", "5"], true).unwrap().ring_bytes, 8192);
        assert_eq!(config(&[], true).unwrap().ring_bytes, 4 << 20);
    }
}
