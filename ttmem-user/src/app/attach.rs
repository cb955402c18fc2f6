//! `ttmem attach`.

use std::{
    io::{self, IsTerminal as _},
    os::fd::AsFd as _,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use super::{
    Outcome,
    output::{Lines, outcome},
    privileges,
    target::Target,
};
use crate::{
    cli::{
        args::AttachArgs,
        config::{AttachConfig, Output},
    },
    event::LiveBaseline,
    kernel::{Kernel, KernelError, Link, LoadOptions},
    ledger::{Ledger, snapshot::Snapshot},
    pipeline::{Control, Input, Options, Pipeline},
    resolve::PlanCache,
    source::EventSource as _,
    target::{
        live_buffers::Reader,
        process::{Process, ProcessError},
    },
    tui::{self, TargetLabel, Theme, Ui},
    units::Pid,
};

/// How often the eBPF side's log is read, with `--debug-bpf`.
const LOG_TICK: Duration = Duration::from_millis(100);
/// One target per agent so far.
const SLOT: u32 = 0;

/// Runs the command.
pub fn run(args: &AttachArgs) -> anyhow::Result<Outcome> {
    // A process that is not there is a better reason than a terminal that is not.
    Process::open(Pid(args.pid))?;
    let terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    let config = AttachConfig::new(args, terminal)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(watch(&config))
}

async fn watch(config: &AttachConfig) -> anyhow::Result<Outcome> {
    let target = Target::examine(config.pid, config.wait, &mut PlanCache::default())?;
    target.check_probes()?;
    if config.dispatches {
        target.check_dispatches()?;
    }
    let (mut kernel, link) = attach(&target, config)?;
    if config.debug_bpf {
        pass_on_log(&mut kernel)?;
    }
    let label = TargetLabel { pid: config.pid, command: target.process.command(), version: None };
    let (pipeline, control, snapshots) = start(target, kernel, config)?;
    let quit = quit_signal()?;
    let last = snapshots.clone();
    let result = match config.output {
        Output::Lines(format) => print_all(&Lines::new(format), snapshots, quit, &control).await,
        Output::Tui => {
            let ui = Ui::new(Theme::from_env(), label);
            tui::run(ui, snapshots, quit_or_over(quit, config.duration)).await
        }
    };
    // First no more probes, then no more reader.
    drop(link);
    drop(pipeline);
    result?;
    let outcome = outcome(&last.borrow());
    Ok(outcome)
}

fn attach(target: &Target, config: &AttachConfig) -> anyhow::Result<(Kernel, Link)> {
    let options = LoadOptions {
        ring_bytes: config.ring_bytes,
        debug: config.debug_bpf,
        perf_events: config.perf_events,
    };
    let mut kernel = Kernel::load(options)?;
    kernel.set_layout(SLOT, &target.layout())?;
    kernel.describe_frees(true);
    let pid = target.process.pid();
    let path = &target.library.open_path;
    let attached = kernel.attach(path, pid, SLOT, &target.points(config.dispatches));
    let link = attached.map_err(|error| {
        if target.process.has_ended() {
            anyhow::Error::from(ProcessError::Ended(pid))
        } else {
            error.into()
        }
    })?;
    Ok((kernel, link))
}

type Running = (Pipeline, Arc<Control>, watch::Receiver<Arc<Snapshot>>);

/// Starts the threads, without capabilities.
fn start(target: Target, kernel: Kernel, config: &AttachConfig) -> anyhow::Result<Running> {
    // Opened after the attach, so that every older buffer lies in a mapping that it sees.
    let reader = target.reader()?;
    let same_program = target.program_check()?;
    let ended = target.process.as_fd().try_clone_to_owned()?;
    let mut ledger = Ledger::new(target.process.pid(), target.doubtful());
    ledger.watch_programs(target.program_watch(), config.dispatches);
    // The parsed library is large, and no longer needed.
    drop(target);
    privileges::drop_all().context("cannot drop capabilities")?;
    let control = Control::new().context("cannot make an eventfd")?;
    let baseline = read_in_background(reader, Arc::clone(&control))?;
    let options = Options {
        refresh: config.refresh,
        duration: config.duration,
        once: config.once,
        with_buffers: config.buffers,
    };
    let input = Input { source: kernel, ledger, target: ended, baseline, same_program };
    let (pipeline, snapshots) =
        Pipeline::start(input, options, Arc::clone(&control)).context("cannot start a thread")?;
    Ok((pipeline, control, snapshots))
}

/// Reads the live buffers on a thread of its own: the records go on being drained meanwhile.
fn read_in_background(
    reader: Result<Reader, String>,
    control: Arc<Control>,
) -> anyhow::Result<mpsc::Receiver<Result<LiveBaseline, String>>> {
    let (send, receive) = mpsc::channel();
    thread::Builder::new()
        .name("ttmem-baseline".to_owned())
        .spawn(move || {
            // If nobody waits any more, nobody needs it.
            let _ = send.send(reader.and_then(|reader| reader.read()));
            control.wake();
        })
        .context("cannot start a thread")?;
    Ok(receive)
}

/// Prints until the pipeline ends, which `quit` makes it do.
async fn print_all(
    lines: &Lines,
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    quit: impl Future<Output = ()>,
    control: &Control,
) -> anyhow::Result<()> {
    let mut quit = std::pin::pin!(quit);
    let mut quitting = false;
    loop {
        tokio::select! {
            () = &mut quit, if !quitting => {
                quitting = true;
                control.stop();
            }
            changed = snapshots.changed() => {
                if changed.is_err() {
                    return Ok(());
                }
                let snapshot = Arc::clone(&snapshots.borrow_and_update());
                lines.print(&snapshot)?;
            }
        }
    }
}

/// Completes when the program is asked to end, or its time is over.
async fn quit_or_over(quit: impl Future<Output = ()>, duration: Option<Duration>) {
    let over = async {
        match duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = quit => {}
        () = over => {}
    }
}

/// Completes when the program is asked to end.
fn quit_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let listen = |kind| signal(kind).context("cannot listen to signals");
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hang_up = listen(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
    })
}

/// Writes the eBPF side's log to standard error.
fn pass_on_log(kernel: &mut Kernel) -> Result<(), KernelError> {
    static STDERR: StderrLog = StderrLog;
    let mut logger = kernel.logger(&STDERR)?;
    let mut tick = tokio::time::interval(LOG_TICK);
    tokio::spawn(async move {
        loop {
            tick.tick().await;
            logger.flush();
        }
    });
    Ok(())
}

struct StderrLog;

impl log::Log for StderrLog {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("ttmem: eBPF {}: {}", record.level(), record.args());
    }

    fn flush(&self) {}
}
