//! Puts the parts together: the only place that knows all of them.

mod agent;
mod ask;
mod attach;
mod bpf_log;
mod completions;
mod doctor;
mod export;
mod fits;
mod launch;
mod memory;
mod metrics;
mod output;
mod privileges;
pub mod record;
mod run;
mod serve;
mod session;
mod share;
mod signals;
mod snapshot;
mod stacks;
mod target;
mod watch;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;

use crate::{
    cli::args::{Arguments, Command},
    stderr::remark,
};
use output::NotWritten;

/// How a command ended, when it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// All is known.
    Complete,
    /// Something was shown, but it is not exact or not complete.
    Incomplete,
    /// The answer is no.
    No,
}

/// Runs the program.
pub fn main() -> ExitCode {
    memory::be_frugal();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version go to standard output and are no failure.
            let failed = error.use_stderr();
            let _ = error.print();
            return if failed { ExitCode::from(1) } else { ExitCode::SUCCESS };
        }
    };
    let result = match &arguments.command {
        Command::Attach(args) => attach::run(args),
        Command::Run(args) => return exit_code(run::run(args)),
        Command::Launch(args) => return exit_code(launch::run(args)),
        #[cfg(feature = "tracy-client")]
        Command::TracyClientBackend => {
            return exit_code(crate::tracy::client::nursery::run().map(|()| 0));
        }
        Command::Snapshot(args) => snapshot::run(args),
        Command::Fits(args) => fits::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Watch(args) => watch::run(args),
        Command::Metrics(args) => metrics::run(args),
        Command::Ask(args) => ask::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Completions(args) => completions::run(args),
    };
    exit_code(result.map(|outcome| match outcome {
        Outcome::Complete => 0,
        Outcome::Incomplete => 2,
        Outcome::No => 3,
    }))
}

fn exit_code(result: anyhow::Result<u8>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        // Whoever read the output has had enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            remark!("ttmem: {}", one_line(&error));
            ExitCode::from(1)
        }
    }
}

/// The event loop of the thread that shows the numbers.
fn event_loop() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")
}

/// Whether it is our own output that nobody reads any more. A socket's other end may be gone as well.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<NotWritten>()).any(NotWritten::is_closed)
}

/// An error and its causes, without repeating what an outer message already says.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if !line.contains(&text) {
            if !line.is_empty() {
                line.push_str(": ");
            }
            line.push_str(&text);
        }
    }
    line.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn errors_are_one_line_without_repetition() {
        let inner = anyhow::anyhow!("no room\nat all");
        let error = Err::<(), _>(inner).context("cannot load: no room\nat all").unwrap_err();
        assert_eq!(one_line(&error), "cannot load: no room at all");
        let error = anyhow::anyhow!("inner").context("outer");
        assert_eq!(one_line(&error), "outer: inner");
    }

    #[test]
    fn closed_output_is_told_from_other_errors() {
        let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
        let output = anyhow::Error::from(NotWritten::to_stdout(closed()));
        assert!(is_broken_pipe(&output.context("while a report was printed")));
        let full = anyhow::Error::from(NotWritten::to_stdout(io::ErrorKind::StorageFull.into()));
        assert!(!is_broken_pipe(&full));
        assert!(!is_broken_pipe(&anyhow::Error::from(closed()).context("a socket")));
    }
}
