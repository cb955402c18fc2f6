//! `ttmem completions`: what a shell needs to complete commands and options.

use anyhow::Context as _;
use clap::{Command, CommandFactory as _};
use clap_complete::{Shell, generate};

use super::{Outcome, output};
use crate::cli::args::{Arguments, CompletionsArgs};

/// Runs the command.
pub fn run(args: &CompletionsArgs) -> anyhow::Result<Outcome> {
    output::print(&script(args.shell)?)?;
    Ok(Outcome::Complete)
}

/// The whole script, before any of it is written: the generator panics where it cannot write.
fn script(shell: Shell) -> anyhow::Result<String> {
    let mut script = Vec::new();
    generate(shell, &mut shown(&Arguments::command()), "ttmem", &mut script);
    String::from_utf8(script).context("the script is no text")
}

/// The definition without what `--help` does not show either: the generator would offer it.
fn shown(command: &Command) -> Command {
    let arguments = command.get_arguments().filter(|argument| !argument.is_hide_set());
    let commands = command.get_subcommands().filter(|command| !command.is_hide_set());
    let shown = Command::new(command.get_name().to_owned())
        .about(command.get_about().cloned().unwrap_or_default())
        .args(arguments)
        .subcommands(commands.map(shown));
    match command.get_version() {
        Some(version) => shown.version(version.to_owned()),
        None => shown,
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    /// What bash offers where `words` have been typed, the last of them not to its end.
    fn offered(words: &[&str]) -> Vec<String> {
        let asking = r#"eval "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
            _ttmem ttmem "${@: -1}" "${@: -2:1}"; printf '%s\n' "${COMPREPLY[@]}""#;
        let script = script(Shell::Bash).unwrap();
        let mut bash = std::process::Command::new("bash");
        bash.args(["--norc", "-c", asking, "bash", &script, "ttmem"]).args(words);
        let output = bash.output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn every_shell_is_told_of_every_command() {
        for shell in Shell::value_variants() {
            let script = script(*shell).unwrap();
            for command in shown(&Arguments::command()).get_subcommands() {
                let name = command.get_name();
                assert!(script.contains(name), "{shell} is not told of {name}");
            }
            assert!(script.contains("stack-ring-size"), "{shell} is not told of all options");
        }
    }

    #[test]
    fn a_shell_offers_what_there_is() {
        assert_eq!(offered(&["sn"]), ["snapshot"]);
        assert_eq!(offered(&["completions", ""]).last().map(String::as_str), Some("zsh"));
        assert_eq!(offered(&["attach", "--format", ""]), ["text", "json"]);
        assert_eq!(offered(&["doctor", "--"]), ["--pid", "--library", "--json", "--help"]);
    }

    #[test]
    fn what_is_hidden_is_not_offered() {
        let all = Arguments::command();
        let hidden = all.get_subcommands().filter(|command| command.is_hide_set());
        let hidden: Vec<&str> = hidden.map(Command::get_name).collect();
        assert!(hidden.contains(&"launch"), "{hidden:?}");
        let commands = offered(&[""]);
        assert!(hidden.iter().all(|name| !commands.iter().any(|offered| offered == name)));
        assert_eq!(offered(&["attach", "--p"]), ["--pid", "--perf-events"]);
    }
}
