//! What can be typed.

pub mod look;
pub mod readers;
pub mod stacks;
#[cfg(feature = "tracy")]
pub mod tracy;

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use regex::Regex;

use crate::{event::BufferType, format};

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
  sudo ttmem attach --pid 4711 --headless --format json -r 100 | jq .devices
  sudo ttmem attach --name vllm --headless          all whose command line matches
  sudo ttmem attach --all                           all with tt-metal, those to come too
  sudo ttmem attach --pid 4711 --on-failure json | jq 'select(.schema == \"ttmem.failure/1\")'

While it runs: SIGUSR1 has the live buffers read again and compared.")]
    Attach(AttachArgs),
    /// Start a command and watch it, and all that it starts, from its first instruction.
    #[command(after_help = "Examples:
  sudo ttmem run -- python model.py                 live view, with the output in a pane
  sudo ttmem run --headless -o mem.jsonl --format json -- python model.py
  sudo ttmem run --headless -- pytest tests/        tables on standard error

The command runs as the user who called sudo, with that user's environment. Its standard output and
error are its own; its exit code is passed on (128 + N if signal N ended it).")]
    Run(RunArgs),
    /// The command of `run`, before it runs: waits for a byte on a descriptor.
    #[command(hide = true)]
    Launch(LaunchArgs),
    /// What has Tracy's own client in it; started by --tracy-backend client.
    #[cfg(feature = "tracy-client")]
    #[command(hide = true)]
    TracyClientBackend,
    /// Print what a process holds right now, from its memory alone: no probe, nothing attached.
    #[command(after_help = "Examples:
  sudo ttmem snapshot --pid 4711
  sudo ttmem snapshot --pid 4711 --json --buffers | jq '.buffers | length'")]
    Snapshot(SnapshotArgs),
    /// Say whether a buffer would fit now, and if not, which buffers are in the way.
    #[command(after_help = "Examples:
  sudo ttmem fits --pid 4711 --type L1 --size 256K
  sudo ttmem fits --pid 4711 --type DRAM --total 2GiB --page-size 2048 --mesh 0

Exit codes: 0 it fits, 3 it does not, 1 failed, 2 it cannot be told, or the numbers that it is told from
are not exact (the output says why).")]
    Fits(FitsArgs),
    /// Watch what another ttmem watches, by the tables that it shares: no privilege is needed.
    #[command(after_help = "Examples:
  ttmem watch                       live view of all processes that you may read
  ttmem watch -d 0 -d 1 -r 1000     two devices, every second
  ttmem watch --once                one table, then exit
  ttmem watch --once --json | jq '.devices[].pools'

Somebody has to watch for it: `sudo ttmem attach --pid N` in another shell, or `ttmem serve`.")]
    Watch(readers::WatchArgs),
    /// Print, or serve to Prometheus, what another ttmem watches; no privilege is needed.
    #[command(after_help = "Examples:
  ttmem metrics --listen 9464                        at http://127.0.0.1:9464/metrics
  ttmem metrics > /var/lib/node_exporter/ttmem.prom  once, for a collector of files

Somebody has to watch for it: `ttmem serve`, or `sudo ttmem attach --pid N`.")]
    Metrics(readers::MetricsArgs),
    /// Ask a running ttmem about a process; one JSON object there, JSON lines back.
    #[command(after_help = "Examples:
  ttmem ask '{\"get\":\"buffers\",\"type\":\"L1\",\"sort\":\"-size\",\"limit\":3}'
  ttmem ask --pid 4711 '{\"get\":\"failures\"}' | jq .last
  ttmem ask '{\"subscribe\":\"deltas\"}'

Exit codes: 0 answered, 1 failed, or the answer is an error.")]
    Ask(readers::AskArgs),
    /// Watch every process with tt-metal as a service: shared tables and sockets, no view.
    #[command(after_help = "Examples:
  sudo ttmem serve
  sudo ttmem serve --group users --table-dir /run/ttmem
  systemctl start ttmem             with packaging/ttmem.service

SIGHUP: looks for processes again, and has all live buffers read again and compared.")]
    Serve(readers::ServeArgs),
    /// Say what works here, what does not, and what to do about it.
    #[command(after_help = "Examples:
  sudo ttmem doctor
  sudo ttmem doctor --pid 4711
  ttmem doctor --library path/to/libtt_metal.so
  ttmem doctor --library path/to/libtt_metal.so --json | jq .unresolved")]
    Doctor(DoctorArgs),
    /// Print a script by which a shell completes commands and options.
    #[command(after_help = "Examples:
  ttmem completions bash | sudo tee /etc/bash_completion.d/ttmem > /dev/null
  ttmem completions zsh | sudo tee /usr/local/share/zsh/site-functions/_ttmem > /dev/null
  ttmem completions fish > ~/.config/fish/completions/ttmem.fish

Shells that are started afterwards complete by it.")]
    Completions(CompletionsArgs),
}

/// Arguments of `attach`.
#[derive(Debug, Args)]
pub struct AttachArgs {
    /// Which processes.
    #[command(flatten)]
    pub targets: TargetArgs,
    /// Wait until a process loads tt-metal.
    #[arg(long, conflicts_with = "all")]
    pub wait: bool,
    /// Print one snapshot and end; implies --headless.
    #[arg(long)]
    #[cfg_attr(feature = "tracy", arg(conflicts_with = "tracy"))]
    pub once: bool,
    /// How to watch.
    #[command(flatten)]
    pub watch: WatchArgs,
}

/// Which processes to watch.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct TargetArgs {
    /// The process to watch; may be repeated.
    #[arg(short, long, value_name = "PID")]
    pub pid: Vec<u32>,
    /// Watch every process with tt-metal whose command line matches, now or later; one has to be
    /// there at the start, unless --wait.
    #[arg(long, value_name = "REGEX")]
    pub name: Option<Regex>,
    /// Watch every process with tt-metal, now or later.
    #[arg(short, long)]
    pub all: bool,
}

impl TargetArgs {
    /// Whether it is not said which.
    pub fn is_empty(&self) -> bool {
        self.pid.is_empty() && self.name.is_none() && !self.all
    }
}

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// How to watch.
    #[command(flatten)]
    pub watch: WatchArgs,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Arguments of `launch`, which `run` starts its command by.
#[derive(Debug, Args)]
pub struct LaunchArgs {
    /// The descriptor that the command's environment comes from when all is ready.
    #[arg(long)]
    pub gate: i32,
    /// The user to become.
    #[arg(long)]
    pub user: Option<u32>,
    /// The group to become.
    #[arg(long)]
    pub group: Option<u32>,
    /// Make standard input the terminal that controls the command.
    #[arg(long)]
    pub terminal: bool,
    /// The command and its arguments.
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

/// How to watch.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct WatchArgs {
    /// Print lines instead of showing the live view.
    #[arg(long)]
    pub headless: bool,
    /// What to print; implies --headless.
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// Where to print; implies --headless [default: standard output; for `run` standard error].
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// How the live view looks.
    #[command(flatten)]
    pub look: look::LookArgs,
    /// How often to show or print, in milliseconds, 10 to 3600000.
    #[arg(short, long, value_name = "MS", default_value_t = 500,
          value_parser = clap::value_parser!(u64).range(10..=3_600_000))]
    pub refresh: u64,
    /// Watch no longer than this many seconds, above 0 and at most 1000000000; the command of `run`
    /// runs on.
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub duration: Option<f64>,
    /// Print every live buffer, and every program's circular buffers, too; implies --headless.
    #[arg(long)]
    pub buffers: bool,
    /// Print failed allocations, each on a line, with what was live then; implies --headless, and
    /// --format json unless a format is given. They come with the next refresh; of a burst of more
    /// than --keep-failures the first ones and the last.
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub on_failure: Option<OnFailure>,
    /// How many failed allocations to keep, 0 to 1000, with what was live then.
    #[arg(long, value_name = "N", default_value_t = 16,
          value_parser = clap::value_parser!(u16).range(0..=1000))]
    pub keep_failures: u16,
    /// Read the live buffers again every so many seconds, above 0 and at most 1000000000, and report
    /// every difference.
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub audit: Option<f64>,
    /// Print every block and hole of the banks too, in JSON, since tables have no room for them;
    /// implies --headless, and --format json unless a format is given.
    #[arg(long)]
    pub map: bool,
    /// Watch which program runs when; costs the process a probe hit per dispatch.
    #[arg(long)]
    pub dispatches: bool,
    /// Whether and how call stacks are recorded.
    #[command(flatten)]
    pub stacks: stacks::StackArgs,
    /// Where other processes can read the totals [default: /run/ttmem, or ttmem in
    /// XDG_RUNTIME_DIR when not root].
    #[arg(long, value_name = "DIR", conflicts_with = "no_table")]
    pub table_dir: Option<PathBuf>,
    /// A group whose members may read them, besides the user of the process.
    #[arg(long, value_name = "GROUP", conflicts_with = "no_table")]
    pub group: Option<String>,
    /// Let no other process read them.
    #[arg(long)]
    pub no_table: bool,
    /// Room for records on their way from the kernel, in KiB, 4 to 1048576; rounded up to a power of
    /// two.
    #[arg(long, value_name = "KIB", default_value_t = 4096,
          value_parser = clap::value_parser!(u32).range(4..=1_048_576))]
    pub ring_size: u32,
    /// Write the eBPF side's own diagnostics to standard error.
    #[arg(long)]
    pub debug_bpf: bool,
    /// Attach with a perf event per probe, as on older kernels; detaching takes longer.
    #[arg(long, hide_short_help = true)]
    pub perf_events: bool,
    /// Let every other probe hit do as if it had preempted another one; for tests.
    #[arg(long, hide = true)]
    pub pretend_preempting: bool,
    /// How to show it in Tracy, if at all.
    #[cfg(feature = "tracy")]
    #[command(flatten)]
    pub tracy: tracy::TracyArgs,
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
    /// Print every block and hole of the banks too; implies --json.
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
    /// Bytes of each bank, at least 1; units: K or KiB, M or MiB, G or GiB.
    #[arg(short, long, value_name = "BYTES", value_parser = size,
          required_unless_present = "total", conflicts_with = "total")]
    pub size: Option<u64>,
    /// Instead: bytes of a whole interleaved buffer, at least 1, spread over the banks in pages.
    #[arg(long, value_name = "BYTES", value_parser = size, requires = "page_size")]
    pub total: Option<u64>,
    /// Bytes of a page of that buffer, at least 1; the total is a multiple of it.
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
    /// Print what was found in the library as JSON.
    #[arg(long, requires = "library", conflicts_with = "pid")]
    pub json: bool,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    pub shell: Shell,
}

/// What to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table.
    Text,
    /// One JSON object per line.
    Json,
}

/// How to print a failed allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnFailure {
    /// One JSON object per failure, on a line of its own.
    Json,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= 1e9 => Ok(seconds),
        _ => Err("a number of seconds above 0 and at most 1000000000 is needed".to_owned()),
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
    format::parse_bytes(text).map_err(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_pid_may_be_repeated() {
        let words = ["ttmem", "attach", "--pid", "1", "-p", "2"];
        match Arguments::try_parse_from(words).unwrap().command {
            Command::Attach(args) => assert_eq!(args.targets.pid, [1, 2]),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_comes_after_the_dashes_is_the_commands_own() {
        let words = ["ttmem", "run", "-r", "100", "--", "python", "-r", "x.py"];
        match Arguments::try_parse_from(words).unwrap().command {
            Command::Run(args) => assert_eq!(args.command, ["python", "-r", "x.py"]),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn bad_values_are_refused() {
        for bad in [
            &["ttmem", "attach", "--pid", "x"][..],
            &["ttmem", "attach", "--pid", "1", "-r", "1"],
            &["ttmem", "attach", "--pid", "1", "--duration", "-1"],
            &["ttmem", "attach", "--pid", "1", "--duration", "nan"],
            &["ttmem", "attach", "--pid", "1", "--no-such-flag"],
            &["ttmem", "attach", "--pid", "1", "--on-failure", "text"],
            &["ttmem", "attach", "--pid", "1", "--keep-failures", "1001"],
            &["ttmem", "attach", "--pid", "1", "--all"],
            &["ttmem", "attach", "--pid", "1", "--name", "x"],
            &["ttmem", "attach", "--name", "("],
            &["ttmem", "attach", "--all", "--wait"],
            &["ttmem", "attach", "--pid", "1", "--audit", "0"],
            &["ttmem", "run"],
            &["ttmem", "run", "--headless", "x"],
            &["ttmem", "doctor", "--pid", "1", "--library", "x"],
            &["ttmem", "doctor", "--pid", "1", "--json"],
            &["ttmem", "doctor", "--json"],
        ] {
            assert!(Arguments::try_parse_from(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_bounds_themselves_are_possible() {
        let parse = |options: &str| {
            let words = ["ttmem", "attach", "--pid", "1", "--stacks"].into_iter();
            Arguments::try_parse_from(words.chain(options.split(' ')))
        };
        for good in [
            "-r 10",
            "-r 3600000",
            "--duration 0.001",
            "--audit 1000000000",
            "--keep-failures 0",
            "--keep-failures 1000",
            "--stack-bytes 1",
            "--stack-bytes 64K",
            "--stack-ring-size 128",
            "--ring-size 1048576",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in [
            "-r 3600001",
            "--duration 1000000001",
            "--stack-bytes 65537",
            "--stack-bytes 18446744073709551615",
            "--stack-ring-size 127",
            "--ring-size 1048577",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    /// Why a value of an option is refused, if it is for what it says.
    fn refusal(command: &clap::Command, option: &str, value: &str) -> Option<String> {
        let typed = [command.get_name().to_owned(), format!("--{option}={value}")];
        let error = command.clone().try_get_matches_from(typed).err()?;
        let refused = error.kind() == clap::error::ErrorKind::ValueValidation;
        let source = std::error::Error::source(&error);
        source.filter(|_| refused).map(ToString::to_string)
    }

    fn words(text: &str) -> impl Iterator<Item = &str> {
        text.split(|letter: char| !letter.is_ascii_alphanumeric())
    }

    /// The numbers that refusals of an option's values name, but for those of its type or of ports.
    fn bounds(command: &clap::Command, option: &str) -> BTreeSet<String> {
        let known = ["4294967295", "2147483648", "port"];
        let values = ["-1", "0", "18446744073709551615", "99999999999999999999"];
        let mut bounds = BTreeSet::new();
        for value in values {
            let Some(reason) = refusal(command, option, value) else { continue };
            assert_eq!(reason.lines().count(), 1, "{reason}");
            let reason = reason.strip_prefix(value).unwrap_or(&reason);
            if !words(reason).any(|word| known.contains(&word)) {
                let numbers = words(reason).filter(|word| word.starts_with(char::is_numeric));
                bounds.extend(numbers.map(str::to_owned));
            }
        }
        bounds
    }

    #[test]
    fn what_bounds_a_number_is_in_its_help() {
        let mut bounded = BTreeSet::new();
        let arguments = Arguments::command();
        for command in arguments.get_subcommands().filter(|command| !command.is_hide_set()) {
            for option in command.get_arguments() {
                let Some(name) = option.get_long() else { continue };
                let help = option.get_help().unwrap_or_default().to_string();
                for bound in bounds(command, name) {
                    let said = words(&help).any(|word| word == bound);
                    assert!(said, "{} --{name}: {bound} is not in: {help}", command.get_name());
                    bounded.insert(name);
                }
            }
        }
        for name in ["refresh", "duration", "audit", "keep-failures", "stack-bytes", "ring-size"] {
            assert!(bounded.contains(name), "{name} is not in {bounded:?}");
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
