//! `cargo xtask test`: everything that can be tested here, and one closing line.
//!
//! The unit tests run as whoever calls. The privileged tests are the package `ttmem-e2e` in
//! `tests/`; their programs run as root, by sudo if need be, and are told where things are:
//!
//! | variable | meaning |
//! |---|---|
//! | `TTMEM_PRIVILEGED` | `1`: there are root's rights |
//! | `TTMEM_BIN` | the release build of `ttmem` |
//! | `TTMEM_STANDIN_DIR` | the built stand-in library |
//! | `TTMEM_REAL_DIR` | the real target's folder: `clusters/KIND.yaml`, `real-target.json` |
//! | `TTMEM_REAL_PYTHON` | an interpreter that can import ttnn, if there is one |
//! | `TTMEM_REAL_DRIVER` | our driver of the real library, where there is no such interpreter |
//! | `TTMEM_REAL_LIBRARY` | the real `libtt_metal.so`, if there is one |
//! | `TTMEM_READERS_PYTHON` | an interpreter with pytest and `python/ttmem`, and ttnn where it can be had |
//! | `TTMEM_TRACY_DIR` | real Tracy servers, in a folder for each protocol |
//! | `TTMEM_SKIP_FILE` | a file to which a test that cannot run appends `SKIPPED name: reason` |

mod tally;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

use anyhow::{Context, Result, bail};

use crate::privilege::Privilege;
use crate::real_target::RealTarget;
use crate::{bench, build, paths, run, say, setup};
use tally::Counts;
pub use tally::Tally;

/// The package of the privileged tests.
const PRIVILEGED: &str = "ttmem-e2e";

/// Prepares, builds, runs everything, and says what came of it.
pub fn perform(cargo_arguments: &[String]) -> Result<ExitCode> {
    let target = setup::for_everything()?;
    let ttmem = build::ttmem()?;
    let skips = fresh_skip_file()?;
    let mut tally = Tally::default();
    say::heading("Unit tests");
    let is_privileged = test_target(cargo_arguments).map(is_privileged_test);
    if is_privileged == Some(true) {
        println!("  · not asked for");
    } else {
        let mut unit = cargo_test(&["--workspace", "--exclude", PRIVILEGED], cargo_arguments);
        unit.env("TTMEM_SKIP_FILE", &skips).env("TTMEM_BIN", &ttmem);
        unit.envs(target.library().map(|library| ("TTMEM_REAL_LIBRARY", library)));
        count("unit tests", &mut unit, &mut tally)?;
    }
    let readers = setup::readers::ensure(&target);
    say::heading("Tests of the Python package");
    let mut notes = python_package(readers.as_ref(), &mut tally)?;
    say::heading("Privileged tests");
    let readers = readers.as_deref().ok();
    if is_privileged == Some(false) {
        println!("  · not asked for");
    } else {
        notes.extend(privileged((&target, &ttmem), readers, cargo_arguments, &skips, &mut tally)?);
    }
    if cargo_arguments.is_empty() {
        notes.extend(bench_works(&mut tally)?);
    }
    Ok(close(&mut tally, &read_skips(&skips)?, &notes))
}

/// The one test file that is asked for, as by `-- --test several`: cargo fails in packages without it.
fn test_target(cargo_arguments: &[String]) -> Option<&str> {
    let own = cargo_arguments.iter().take_while(|argument| *argument != "--");
    let mut own = own.map(String::as_str);
    while let Some(argument) = own.next() {
        match argument.strip_prefix("--test") {
            Some("") => return own.next(),
            Some(name) if name.starts_with('=') => return name.get(1..),
            _ => {}
        }
    }
    None
}

fn is_privileged_test(name: &str) -> bool {
    paths::root().join("tests/tests").join(name).with_extension("rs").is_file()
}

/// Runs what `cargo xtask bench` does, as little of it as can be and whatever the figures are; or
/// returns why not.
fn bench_works(tally: &mut Tally) -> Result<Vec<String>> {
    say::heading("The bench, for its function only");
    if Privilege::find() != Privilege::Root {
        return Ok(vec!["cargo xtask bench: it needs to be root".to_owned()]);
    }
    let failures = bench::try_out()?;
    tally.suite("cargo xtask bench --quick", Some(Counts::one(failures.is_empty())));
    Ok(failures)
}

/// An empty file that tests of any user may append to.
fn fresh_skip_file() -> Result<PathBuf> {
    let file = paths::notes().join("skipped");
    fs::create_dir_all(paths::notes())?;
    fs::write(&file, "").with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

/// A run of cargo's tests.
pub fn cargo_test(selection: &[&str], more: &[String]) -> Command {
    let mut command = run::cargo();
    command.arg("test").args(selection).arg("--no-fail-fast").args(more);
    command.envs(setup::ebpf_env());
    command
}

fn count(what: &str, command: &mut Command, tally: &mut Tally) -> Result<()> {
    let failed_before = tally.total().failed;
    let status = run::tee(command, |line| tally.line(line))?;
    tally.ended(what, status.success(), failed_before);
    Ok(())
}

/// Runs the tests of `python/ttmem` and checks its types, or returns why not.
fn python_package(
    python: Result<&PathBuf, &anyhow::Error>,
    tally: &mut Tally,
) -> Result<Vec<String>> {
    let python = match python {
        Ok(python) => python,
        Err(error) => return Ok(vec![format!("the Python package: {error:#}")]),
    };
    let mut closing = None;
    let mut tests = setup::readers::command(python);
    tests.args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]);
    let status = run::tee(&mut tests, |line| closing = tally::pytest_line(line).or(closing))?;
    tally.suite("python/ttmem: pytest", closing.filter(|_| status.code() < Some(2)));
    let mut types = setup::readers::command(python);
    let status = run::tee(types.args(["-m", "mypy"]), |_| ())?;
    tally.suite("python/ttmem: mypy", Some(Counts::one(status.success())));
    Ok(Vec::new())
}

/// Runs the privileged tests, or returns why they are not run.
fn privileged(
    (target, ttmem): (&RealTarget, &Path),
    readers: Option<&Path>,
    arguments: &[String],
    skips: &Path,
    tally: &mut Tally,
) -> Result<Vec<String>> {
    if !paths::root().join("tests/Cargo.toml").is_file() {
        return Ok(vec![format!("there is no package {PRIVILEGED}")]);
    }
    let mut variables = target.test_environment();
    variables.push(("TTMEM_PRIVILEGED", "1".into()));
    variables.push(("TTMEM_BIN", ttmem.to_path_buf()));
    variables.push(("TTMEM_STANDIN_DIR", paths::standin()));
    variables.push(("TTMEM_TRACY_DIR", setup::tracy::folder()));
    variables.push(("TTMEM_SKIP_FILE", skips.to_path_buf()));
    variables.extend(readers.map(|python| ("TTMEM_READERS_PYTHON", python.to_path_buf())));
    let mut command = cargo_test(&["--package", PRIVILEGED], arguments);
    if let Err(error) = with_rights(&mut command, &variables) {
        return Ok(vec![format!("{PRIVILEGED}: {error}")]);
    }
    // The tests attach to processes and count kernel objects: one at a time.
    if !arguments.iter().any(|argument| argument == "--") {
        command.args(["--", "--test-threads=1"]);
    }
    count("privileged tests", &mut command, tally)?;
    give_back()?;
    Ok(Vec::new())
}

/// What test programs have left in `target/` as root belongs to the user again, who called by sudo:
/// caches and logs of tt-metal are written to by the demo too, and all of it is to be deletable.
pub fn give_back() -> Result<()> {
    if Privilege::find() != Privilege::Sudo {
        return Ok(());
    }
    let user = rustix::process::getuid().as_raw();
    let group = rustix::process::getgid().as_raw();
    let mut chown = Command::new("sudo");
    chown.args(["-n", "chown", "-R", "--no-dereference", "--from=0"]);
    run::run(chown.arg(format!("{user}:{group}")).arg(paths::prepared()))
}

/// Makes cargo run the test programs with root's rights and these variables.
pub fn with_rights(command: &mut Command, variables: &[(&'static str, PathBuf)]) -> Result<()> {
    match Privilege::find() {
        Privilege::Root => {}
        Privilege::Sudo => {
            let names: Vec<&str> = variables.iter().map(|(name, _)| *name).collect();
            let keep = format!("--preserve-env={},CI", names.join(","));
            // Only the test programs run as root: cargo's own files stay the user's, and so do the
            // folders beside Python's sources.
            let runner = format!("sudo -n {keep} env PYTHONDONTWRITEBYTECODE=1");
            command.env(runner_variable(), runner);
        }
        Privilege::None => {
            bail!("no root's rights: type `sudo -v` before `cargo xtask test`, or run it as root")
        }
    }
    command.envs(variables.iter().map(|(name, path)| (name, path)));
    Ok(())
}

/// Where cargo looks for what test programs of the host are run by.
fn runner_variable() -> String {
    let target = format!("{}_UNKNOWN_LINUX_GNU", env::consts::ARCH.to_uppercase());
    format!("CARGO_TARGET_{target}_RUNNER")
}

fn read_skips(file: &Path) -> Result<Vec<String>> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(text.lines().filter_map(|line| line.strip_prefix("SKIPPED ")).map(str::to_owned).collect())
}

/// Says what came of every suite, what was skipped and why, and the closing line.
fn close(tally: &mut Tally, skips: &[String], notes: &[String]) -> ExitCode {
    let strict =
        env::var("CI").is_ok_and(|value| value == "true") && Privilege::find() == Privilege::Root;
    for _ in skips {
        tally.not_run(strict);
    }
    say::heading("Results");
    for suite in tally.suites() {
        let Counts { passed, failed, skipped } = suite.counts.unwrap_or_default();
        if passed + failed + skipped > 0 {
            let mark = if failed == 0 { '✓' } else { '✗' };
            println!(
                "  {mark} {}: {passed} passed, {failed} failed, {skipped} ignored",
                suite.name
            );
        }
    }
    for note in notes {
        println!("  ! not run: {note}");
    }
    let label = if strict { "failed, for it could not run" } else { "skipped" };
    for skip in skips {
        println!("  ! {label}: {skip}");
    }
    let total = tally.total();
    println!("\n{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped);
    if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked_for(typed: &str) -> Option<String> {
        let arguments: Vec<String> = typed.split(' ').map(str::to_owned).collect();
        test_target(&arguments).map(str::to_owned)
    }

    #[test]
    fn one_file_of_tests_is_of_one_kind() {
        assert_eq!(asked_for("--test several names").as_deref(), Some("several"));
        assert_eq!(asked_for("-q --test=memory").as_deref(), Some("memory"));
        assert_eq!(asked_for("several -- --test several"), None);
        assert_eq!(asked_for("--tests"), None);
        assert!(is_privileged_test("several"));
        assert!(!is_privileged_test("memory"));
    }
}
