//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::event::BufferType;

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
    /// Say whether a buffer would fit now, and if not, which buffers are in the way.
    #[command(after_help = "Examples:
  sudo ttmem fits --pid 4711 --type L1 --size 256K
  sudo ttmem fits --pid 4711 --type DRAM --total 2GiB --page-size 2048 --mesh 0

Exit codes: 0 it fits, 3 it does not, 1 failed, 2 it cannot be told (the output says why).")]
    Fits(FitsArgs),
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
    /// Print every live buffer too; implies --headless.
    #[arg(long)]
    pub buffers: bool,
    /// Print every block and hole of the banks too, in JSON; implies --headless.
    #[arg(long)]
    pub map: bool,
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
    /// Print every block and hole of the banks too, in JSON.
    #[arg(long)]
    pub map: bool,
}

/// Arguments of `fits`.
#[derive(Debug, Args)]
pub struct FitsArgs {
    /// The process to look at.
    #[arg(short, long, value_name = "PID")]
    pub pid: u32,
    /// The buffer type: DRAM, L1, L1_SMALL, TRACE or SYSTEM_MEMORY.
    #[arg(short = 't', long = "type", value_name = "TYPE", value_parser = buffer_type)]
    pub buffer_type: BufferType,
    /// Bytes of each bank; units: K or KiB, M or MiB, G or GiB.
    #[arg(short, long, value_name = "BYTES", value_parser = size,
          required_unless_present = "total", conflicts_with = "total")]
    pub size: Option<u64>,
    /// Instead: bytes of a whole interleaved buffer, spread over the banks in pages.
    #[arg(long, value_name = "BYTES", value_parser = size, requires = "page_size")]
    pub total: Option<u64>,
    /// Bytes of a page of that buffer; the total is a multiple of it.
    #[arg(long, value_name = "BYTES", value_parser = size, requires = "total", conflicts_with = "size")]
    pub page_size: Option<u64>,
    /// Only allocators that have this chip.
    #[arg(long, value_name = "ID")]
    pub chip: Option<i32>,
    /// Only the allocator of this mesh.
    #[arg(long, value_name = "ID")]
    pub mesh: Option<i32>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
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

fn buffer_type(text: &str) -> Result<BufferType, String> {
    let names = || BufferType::ALL.map(BufferType::name).join(", ");
    BufferType::ALL
        .into_iter()
        .find(|buffer_type| buffer_type.name().eq_ignore_ascii_case(text))
        .ok_or_else(|| format!("one of {} is needed", names()))
}

/// Bytes, with a binary unit if there is one.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match &*text[digits.len()..].to_ascii_lowercase() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return Err("the units are K, M, G, KiB, MiB, GiB".to_owned()),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| "a whole number above 0 is needed".to_owned())
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

    #[test]
    fn fits_needs_one_kind_of_size() {
        let parse = |words: &str| {
            let words = ["ttmem", "fits", "--pid", "1"].into_iter().chain(words.split(' '));
            Arguments::try_parse_from(words)
        };
        for good in [
            "--type L1 --size 4096",
            "--type dram --size 64K --chip 0",
            "--type TRACE --total 1MiB --page-size 2048 --mesh 1 --json",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in [
            "--type L1",
            "--size 4096",
            "--type L2 --size 4096",
            "--type L1 --total 4096",
            "--type L1 --page-size 4096",
            "--type L1 --size 4096 --total 4096 --page-size 4096",
            "--type L1 --size 4096 --page-size 4096",
            "--type L1 --size 0",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_have_binary_units() {
        let sizes =
            ["1", "64K", "64k", "64KiB", "1MiB", "2g", "7b"].map(|text| size(text).unwrap());
        assert_eq!(sizes, [1, 65_536, 65_536, 65_536, 1 << 20, 2 << 30, 7]);
        for bad in ["", "K", "0", "-1", "1.5M", "64KB", "1T", "99999999999G", "1 M", "é"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
