//! What the arguments mean. Everything is checked here, once.

use std::{path::PathBuf, time::Duration};

use super::args::{Format, WatchArgs, readers::ServeArgs, stacks::StackArgs};
use crate::{kernel::StackOptions, tui::Theme};

/// How often a service writes what only a snapshot knows.
const SERVICE_REFRESH: Duration = Duration::from_secs(1);

/// How to watch, and where the numbers go.
#[derive(Clone, Debug, PartialEq)]
pub struct WatchConfig {
    /// Where the numbers go.
    pub output: Output,
    /// The file that lines go to; `None`: the usual stream.
    pub file: Option<PathBuf>,
    /// Failed allocations are printed one by one.
    pub on_failure: bool,
    /// How the live view looks.
    pub theme: Theme,
    /// How to watch.
    pub session: SessionConfig,
}

/// How to watch.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct SessionConfig {
    /// How often.
    pub refresh: Duration,
    /// End after this time.
    pub duration: Option<Duration>,
    /// One report only.
    pub once: bool,
    /// With the live set.
    pub buffers: bool,
    /// How many failed allocations are kept.
    pub keep_failures: usize,
    /// How often memory is read again and compared.
    pub audit: Option<Duration>,
    /// With every block of every bank.
    pub map: bool,
    /// Dispatches of programs are watched.
    pub dispatches: bool,
    /// How call stacks are recorded, if they are.
    pub stacks: Option<StackOptions>,
    /// How others may read the numbers, if they may.
    pub sharing: Option<Sharing>,
    /// Room for records on their way, bytes.
    pub ring_bytes: u32,
    /// Diagnostics of the eBPF side.
    pub debug_bpf: bool,
    /// Every change is recorded, for the live view.
    pub history: bool,
    /// Perf events where a `uprobe_multi` link would do.
    pub perf_events: bool,
    /// Every other hit does as if it had preempted another one.
    pub pretend_preempting: bool,
    /// How it is shown in Tracy, if it is.
    #[cfg(feature = "tracy")]
    pub tracy: Option<crate::tracy::Config>,
}

/// How other processes may read the numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sharing {
    /// In which directory; `None`: the usual one.
    pub directory: Option<PathBuf>,
    /// Which group may, besides the user of the process.
    pub group: Option<String>,
    /// Whether there is no point in watching if others cannot read.
    pub needed: bool,
}

/// Where the numbers go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The live view.
    Tui,
    /// Lines on standard output.
    Lines(Format),
}

/// What standard input and output are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    /// A terminal that can be drawn on.
    Terminal,
    /// A terminal that can only be written to, line by line.
    Dumb,
    /// One of them is something else.
    None,
}

/// The live view needs a terminal.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NoTerminal {
    /// There is none.
    #[error("standard input or output is no terminal, so there is no live view: add --headless")]
    None,
    /// It cannot be drawn on.
    #[error(
        "TERM says that this terminal cannot be drawn on, so there is no live view: add --headless"
    )]
    Dumb,
}

impl WatchConfig {
    /// Checks arguments.
    pub fn new(args: &WatchArgs, once: bool, screen: Screen) -> Result<Self, NoTerminal> {
        let on_failure = args.on_failure.is_some();
        let lines = args.headless
            || once
            || on_failure
            || args.buffers
            || args.map
            || args.format.is_some()
            || args.output.is_some();
        match screen {
            Screen::None if !lines => return Err(NoTerminal::None),
            Screen::Dumb if !lines => return Err(NoTerminal::Dumb),
            _ => {}
        }
        Ok(Self {
            output: if lines {
                // No table has room for a map.
                let json = on_failure || args.map;
                let usual = if json { Format::Json } else { Format::Text };
                Output::Lines(args.format.unwrap_or(usual))
            } else {
                Output::Tui
            },
            file: args.output.clone(),
            on_failure,
            theme: args.look.theme(),
            session: SessionConfig::new(args, once, !lines),
        })
    }
}

impl SessionConfig {
    fn new(args: &WatchArgs, once: bool, has_view: bool) -> Self {
        #[cfg(not(feature = "tracy"))]
        let _ = has_view;
        let sharing = Sharing {
            directory: args.table_dir.clone(),
            group: args.group.clone(),
            needed: args.table_dir.is_some() || args.group.is_some(),
        };
        Self {
            refresh: Duration::from_millis(args.refresh),
            duration: args.duration.map(Duration::from_secs_f64),
            once,
            buffers: args.buffers,
            keep_failures: args.keep_failures.into(),
            audit: args.audit.map(Duration::from_secs_f64),
            map: args.map,
            dispatches: args.dispatches,
            stacks: stacks(&args.stacks),
            // One report is over before anybody could ask.
            sharing: (!once && !args.no_table).then_some(sharing),
            ring_bytes: ring_bytes(args.ring_size),
            debug_bpf: args.debug_bpf,
            perf_events: args.perf_events,
            pretend_preempting: args.pretend_preempting,
            history: has_view,
            #[cfg(feature = "tracy")]
            tracy: tracy(&args.tracy, !has_view),
        }
    }

    /// Of a service: for others to read, without an output of its own.
    pub fn of_service(args: &ServeArgs) -> Self {
        let directory = args.table_dir.clone();
        Self {
            refresh: SERVICE_REFRESH,
            duration: None,
            once: false,
            buffers: false,
            keep_failures: args.keep_failures.into(),
            audit: args.audit.map(Duration::from_secs_f64),
            map: false,
            dispatches: args.dispatches,
            stacks: stacks(&args.stacks),
            sharing: Some(Sharing { directory, group: args.group.clone(), needed: true }),
            ring_bytes: ring_bytes(args.ring_size),
            debug_bpf: false,
            perf_events: false,
            pretend_preempting: false,
            history: false,
            #[cfg(feature = "tracy")]
            tracy: tracy(&args.tracy, true),
        }
    }
}

/// How it is shown in Tracy. `talkative`: standard error is free for lines all the time.
#[cfg(feature = "tracy")]
fn tracy(args: &super::args::tracy::TracyArgs, talkative: bool) -> Option<crate::tracy::Config> {
    args.tracy.map(|address| crate::tracy::Config {
        address,
        backend: args.tracy_backend.into(),
        protocol: args.tracy_protocol,
        style: args.tracy_names.into(),
        talkative,
    })
}

fn stacks(args: &StackArgs) -> Option<StackOptions> {
    let ring_bytes = ring_bytes(args.stack_ring_size);
    args.stacks.then_some(StackOptions { bytes: args.stack_bytes, ring_bytes })
}

/// A ring buffer is whole pages, and a power of two.
fn ring_bytes(kib: u32) -> u32 {
    let page_kib = u32::try_from(rustix::param::page_size() / 1024).unwrap_or(4);
    kib.max(page_kib).next_power_of_two() * 1024
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Arguments, Command};

    fn config(options: &[&str], terminal: bool) -> Result<WatchConfig, NoTerminal> {
        config_on(options, if terminal { Screen::Terminal } else { Screen::None })
    }

    fn config_on(options: &[&str], screen: Screen) -> Result<WatchConfig, NoTerminal> {
        let words = ["ttmem", "attach", "--pid", "7"].iter().chain(options);
        match Arguments::parse_from(words).command {
            Command::Attach(args) => WatchConfig::new(&args.watch, args.once, screen),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn without_a_terminal_there_is_no_live_view() {
        assert_eq!(config(&[], true).unwrap().output, Output::Tui);
        assert_eq!(config(&[], false), Err(NoTerminal::None));
        assert_eq!(config_on(&[], Screen::Dumb), Err(NoTerminal::Dumb));
        assert!(config_on(&["--headless"], Screen::Dumb).is_ok());
        let lines = Output::Lines(Format::Text);
        assert_eq!(config(&["--headless"], false).unwrap().output, lines);
    }

    #[test]
    fn what_only_lines_can_do_implies_headless() {
        let options =
            [&["--once"][..], &["--buffers"], &["--map"], &["--format", "json"], &["-o", "x"]];
        for option in options {
            assert!(matches!(config(option, true).unwrap().output, Output::Lines(_)), "{option:?}");
        }
    }

    #[test]
    fn failures_and_maps_are_json_and_so_is_the_rest_unless_asked_otherwise() {
        let json = config(&["--on-failure", "json"], false).unwrap();
        assert_eq!((json.output, json.on_failure), (Output::Lines(Format::Json), true));
        assert_eq!(config(&["--map"], true).unwrap().output, Output::Lines(Format::Json));
        let text = config(&["--on-failure", "json", "--format", "text"], true).unwrap();
        assert_eq!((text.output, text.on_failure), (Output::Lines(Format::Text), true));
        assert_eq!(config(&["--keep-failures", "3"], true).unwrap().session.keep_failures, 3);
    }

    #[test]
    fn the_ring_is_a_power_of_two() {
        assert_eq!(config(&["--ring-size", "5"], true).unwrap().session.ring_bytes, 8192);
        assert_eq!(config(&[], true).unwrap().session.ring_bytes, 4 << 20);
    }
}
