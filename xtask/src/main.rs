//! Development tasks of ttmem: `cargo xtask <command>`.
//!
//! What a person, the documentation or CI calls is here; the work is in a module per command.

mod bench;
mod build;
mod demo;
mod drift;
mod lint;
mod lock;
mod paths;
mod privilege;
mod real_target;
mod run;
mod say;
mod screenshots;
mod setup;
mod test;

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use lock::Lock;
use real_target::Kind;

/// Development tasks of ttmem.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Prepare what building and testing need; a second run changes nothing
    #[command(after_help = "\
Examples:
  cargo xtask setup                 everything: programs, eBPF toolchain, a target to watch
  cargo xtask setup --build-only    only what `cargo build --release` needs
  TTMEM_EBPF_OBJECT=ttmem.o cargo xtask setup
                                    with a prebuilt object instead of an eBPF toolchain")]
    Setup {
        /// Prepare only what building needs
        #[arg(long)]
        build_only: bool,
    },
    /// Watch a small workload on the real tt-metal with mock devices
    #[command(after_help = "\
Examples:
  cargo xtask demo                              the terminal interface; q ends it
  cargo xtask demo --kind p300                  two Blackhole chips
  cargo xtask demo --headless --seconds 10      text for ten seconds")]
    Demo(demo::Arguments),
    /// Draw the live view's pictures for the documentation anew (needs tmux)
    Screenshots(screenshots::Arguments),
    /// Build everything and run every test that this machine can run
    #[command(after_help = "\
Examples:
  cargo xtask test                     everything
  cargo xtask test -- ledger           tests whose name contains `ledger`
  CI=true cargo xtask test             as root, a privileged test that is skipped is a failure")]
    Test {
        /// What cargo test takes
        #[arg(last = true)]
        cargo_arguments: Vec<String>,
    },
    /// Measure what ttmem costs, beside what it is compared with (as root, about ten minutes)
    #[command(after_help = "\
Examples:
  cargo xtask bench                                 everything
  cargo xtask bench --quick                         everything, as indications, in two minutes
  cargo xtask bench 'stand-in, push'                what contains that
  cargo xtask bench --compare base/report.json      and what got worse")]
    Bench(bench::Arguments),
    /// Look whether ttmem understands every published version of ttnn (needs a network)
    #[command(after_help = "\
Examples:
  cargo xtask drift                           every version; a second call goes on where it ended
  cargo xtask drift --versions 0.75.0,0.81.1  only these
  cargo xtask drift --run --bless             also the exactness tests; write the table anew")]
    Drift(drift::Arguments),
    /// Check formatting, lints, import rules, file sizes and dependencies
    #[command(after_help = "\
Examples:
  cargo xtask lint
  cargo fmt --all && cargo xtask lint")]
    Lint,
    /// Run a command in the environment of the real target
    #[command(after_help = "\
Examples:
  cargo xtask real-target                       show the environment
  cargo xtask real-target --kind t3k -- python tests/real_target/exactness.py --list
                                                `python` is the one that has ttnn")]
    RealTarget {
        /// The machine to pretend
        #[arg(long, value_enum, default_value = "n300")]
        kind: Kind,
        /// The command; without one, the environment is shown
        #[arg(last = true)]
        command: Vec<String>,
    },
}

fn main() -> ExitCode {
    match perform(Arguments::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<ExitCode> {
    // Lint changes nothing that others need.
    let lock = if matches!(task, Task::Lint) { None } else { lock::take()? };
    match task {
        Task::Setup { build_only: true } => setup::for_building()?,
        Task::Setup { build_only: false } => drop(setup::for_everything()?),
        Task::Demo(arguments) => return demo::perform(&arguments),
        Task::Screenshots(arguments) => return screenshots::perform(&arguments),
        Task::Test { cargo_arguments } => return test::perform(&cargo_arguments),
        Task::Bench(arguments) => return bench::perform(&arguments),
        Task::Drift(arguments) => return drift::perform(&arguments),
        Task::Lint => lint::perform()?,
        Task::RealTarget { kind, command } => return in_real_target(kind, &command, lock),
    }
    Ok(ExitCode::SUCCESS)
}

fn in_real_target(kind: Kind, words: &[String], lock: Option<Lock>) -> Result<ExitCode> {
    let target = real_target::ensure()?;
    // The command may be what another xtask is to watch.
    drop(lock);
    let environment = target.environment(kind);
    let Some((program, arguments)) = words.split_first() else {
        println!();
        for (name, value) in &environment {
            println!("export {name}={value}");
        }
        return Ok(ExitCode::SUCCESS);
    };
    let python = target.python().filter(|_| program == "python");
    let mut command = python.map_or_else(|| Command::new(program), Command::new);
    let status = command.args(arguments).envs(environment).status();
    let status = status.with_context(|| format!("cannot start `{}`", run::show(&command)))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
