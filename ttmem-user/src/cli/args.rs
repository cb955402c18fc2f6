//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Shows, live and exactly, what a running program does with the memory of its Tenstorrent
/// devices.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 fine, 1 failed, 2 the numbers are not exact (the output says why)."
)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch a running process, in a live view or as lines of text or JSON.
    #[command(after_help = "Examples:
  sudo ttmem attach --pid 4711                      live view, q quits
  sudo ttmem attach --pid 4711 --headless           a table every half second
  sudo ttmem attach --pid 4711 --once --format json one line of JSON, then exit
  sudo ttmem attach --pid 4711 --headless --format json -r 100 | jq .devices")]
    Attach(AttachArgs),
    /// Print what a process holds right now, from its memory alone: no probe, nothing attached.
    #[command(after_help = "Examples:
  sudo ttmem snapshot --pid 4711
  sudo ttmem snapshot --pid 4711 --json --buffers | jq '.buffers | length'")]
    Snapshot(SnapshotArgs),
    /// Say what works here, what does not, and what to do about it.
    #[command(after_help = "Examples:
  sudo ttmem doctor
  sudo ttmem doctor --pid 4711
  ttmem doctor --library path/to/libtt_metal.so")]
    Doctor(DoctorArgs),
}

/// Arguments of `attach`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct AttachArgs {
    /// The process to watch.
    #[arg(short, long, value_name = "PID")]
    pub pid: u32,
    /// Wait until the process loads tt-metal.
    #[arg(long)]
    pub wait: bool,
    /// Print lines instead of showing the live view.
    #[arg(long)]
    pub headless: bool,
    /// What to print; implies --headless.
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// How often to show or print, in milliseconds.
    #[arg(short, long, value_name = "MS", default_value_t = 500,
          value_parser = clap::value_parser!(u64).range(10..=3_600_000))]
    pub refresh: u64,
    /// End after this many seconds.
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub duration: Option<f64>,
    /// Print one snapshot and end; implies --headless.
    #[arg(long)]
    pub once: bool,
    /// Print every live buffer, and every program's circular buffers, too; implies --headless.
    #[arg(long)]
    pub buffers: bool,
    /// Watch which program runs when; costs the process a probe hit per dispatch.
    #[arg(long)]
    pub dispatches: bool,
    /// Size of the ring buffer between kernel and agent, in KiB; rounded up to a power of two.
    #[arg(long, value_name = "KIB", default_value_t = 4096,
          value_parser = clap::value_parser!(u32).range(4..=1_048_576))]
    pub ring_size: u32,
    /// Write the eBPF side's own diagnostics to standard error.
    #[arg(long)]
    pub debug_bpf: bool,
    /// Attach with a perf event per probe, as on older kernels; detaching takes longer.
    #[arg(long, hide_short_help = true)]
    pub perf_events: bool,
}

/// Arguments of `snapshot`.
#[derive(Debug, Args)]
pub struct SnapshotArgs {
    /// The process to look at.
    #[arg(short, long, value_name = "PID")]
    pub pid: u32,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Print every live buffer too.
    #[arg(long)]
    pub buffers: bool,
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// A process to examine.
    #[arg(short, long, value_name = "PID", conflicts_with = "library")]
    pub pid: Option<u32>,
    /// A library to examine, without any process.
    #[arg(long, value_name = "FILE")]
    pub library: Option<PathBuf>,
}

/// What to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table.
    Text,
    /// One JSON object per line.
    Json,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 1e9 => Ok(seconds),
        _ => Err("a number of seconds greater than 0 is needed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn bad_values_are_refused() {
        for bad in [
            &["ttmem", "attach"][..],
            &["ttmem", "attach", "--pid", "x"],
            &["ttmem", "attach", "--pid", "1", "-r", "1"],
            &["ttmem", "attach", "--pid", "1", "--duration", "-1"],
            &["ttmem", "attach", "--pid", "1", "--duration", "nan"],
            &["ttmem", "attach", "--pid", "1", "--no-such-flag"],
            &["ttmem", "doctor", "--pid", "1", "--library", "x"],
        ] {
            assert!(Arguments::try_parse_from(bad).is_err(), "{bad:?}");
        }
    }
}
