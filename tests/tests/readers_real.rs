//! The examples and the pytest plugin on the real ttnn: what they print is what tt-metal says.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    or_skip,
    readers::{Spoken, compile, open_to_all, python, root, share},
    real::{Real, both, truth::Pool},
    refusal::end_of,
    ttmem::Ttmem,
};
use tempfile::TempDir;

/// What a tensor of 1024 × 1024 bfloat16 takes of a chip's DRAM, bytes.
const TENSOR: &str = "2113536";

struct Rig {
    real: Real,
    ttmem: Ttmem,
    python: PathBuf,
    folder: TempDir,
}

impl Rig {
    fn new() -> Result<Self, String> {
        let (real, ttmem) = both()?;
        let python = python()?;
        let folder = tempfile::tempdir().unwrap();
        open_to_all(folder.path()).unwrap();
        Ok(Self { real, ttmem, python, folder })
    }

    fn tables(&self) -> PathBuf {
        self.folder.path().join("tables")
    }

    /// A script by the interpreter that has `python/ttmem`.
    fn script(&self, script: &str, arguments: &[&str]) -> Command {
        let mut command = self.real.command(&self.python, "n300");
        command.arg(root().join(script)).args(arguments);
        self.told(command)
    }

    fn pytest(&self, suite: &str, arguments: &[&str]) -> Command {
        let mut command = self.real.command(&self.python, "n300");
        command.args(["-m", "pytest", "-p", "no:cacheprovider", "-rf"]).arg(root().join(suite));
        command.arg("--ttmem-table-dir").arg(self.tables()).args(arguments);
        self.told(command)
    }

    /// A program that reads tables.
    fn reader(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments);
        self.told(command)
    }

    fn told(&self, mut command: Command) -> Command {
        command.env("TTMEM_TABLE_DIR", self.tables()).env("PYTHONDONTWRITEBYTECODE", "1");
        command
    }
}

fn has(text: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(text.contains(word), "no {word:?} in:\n{text}");
    }
    Ok(())
}

/// What a command prints, which must end well.
fn printed(command: Command) -> Result<String> {
    let shown = format!("{command:?}");
    let output = end_of(command)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{shown}: {}\n{text}\n{errors}", output.status);
    println!("{text}");
    Ok(text)
}

#[test]
fn the_examples_that_read_show_what_tt_metal_says() {
    let rig = or_skip!(Rig::new());
    let show = || -> Result<()> {
        let mut program = rig.real.start("n300", &["--mesh", "1x2", "--phases", "interleaved"])?;
        let checkpoint = loop {
            let checkpoint = program.checkpoint()?.context("it ended")?;
            let pools = checkpoint.truth()?.pools;
            if pools.get(&(0, "DRAM".to_owned())).is_some_and(|pool| pool.used_bytes > 0) {
                break checkpoint;
            }
            program.go_on()?;
        };
        let pid = program.pid();
        let truth = checkpoint.truth()?;
        let pool = |kind: &str| -> Result<Pool> {
            truth.pools.get(&(0, kind.to_owned())).cloned().context("no such pool")
        };
        let (dram, l1) = (pool("DRAM")?, pool("L1")?);
        let _ttmem = share(&rig.ttmem, pid, &rig.tables())?;
        let pid = pid.to_string();
        let query = compile("examples/query.cpp", rig.folder.path())?;
        let said = printed(rig.reader(&query, &[&pid, "0", "1"]))?;
        let line = format!(
            "DRAM: {} of {} bytes used by {} buffers",
            dram.used_bytes, dram.capacity_bytes, dram.buffers
        );
        has(&said, &[&line, "DRAM changed by 0 bytes"])?;
        let monitor = compile("examples/monitor.c", rig.folder.path())?;
        let said = printed(rig.reader(&monitor, &[&pid, "1", "3"]))?;
        let line = format!(
            "chip 0  DRAM {} bytes in {} buffers  L1 {} bytes in {} buffers  exact",
            dram.used_bytes, dram.buffers, l1.used_bytes, l1.buffers
        );
        ensure!(said.lines().filter(|found| **found == line).count() == 3, "not {line}: {said}");
        let example = rig.ttmem.path().with_file_name("examples").join("read_table");
        let tables = rig.tables().display().to_string();
        let said = printed(rig.reader(&example, &[&pid, &tables]))?;
        let line = format!("chip 0 Dram: {} bytes in {} buffers", dram.used_bytes, dram.buffers);
        has(&said, &[&line, "chip 1 Dram", "exact"])
    };
    show().unwrap();
}

#[test]
fn track_and_follow_see_a_model() {
    let rig = or_skip!(Rig::new());
    let see = || -> Result<()> {
        let mut model = Spoken::start(rig.script("examples/track.py", &[]))?;
        let pid = model.until("process ")?.trim_start_matches("process ").parse()?;
        let tables = rig.tables();
        let tables = tables.to_str().context("not UTF-8")?;
        let mut ttmem = rig.ttmem.attach(pid, &["--wait", "--table-dir", tables])?;
        ttmem.settled()?;
        let mut follower = Spoken::start(rig.script("examples/follow.py", &[&pid.to_string()]))?;
        follower.until("following process")?;
        writeln_to(&mut model)?;
        let (lines, success) = model.rest()?;
        let said = lines.join("\n");
        println!("{said}");
        ensure!(success, "track.py failed: {said}");
        let peak = format!("DRAM: grew by 2.0 MiB ({TENSOR} bytes), peak 6.0 MiB");
        let rest = ["DRAM: 3 allocations, 2 frees", "still there: DRAM 2.0 MiB at 0x", "exact"];
        has(&said, &[&peak, rest[0], rest[1], rest[2]])?;
        ensure!(!said.contains("not exact"), "{said}");
        let (lines, success) = follower.rest()?;
        println!("{}", lines.join("\n"));
        ensure!(success && lines.last().is_some_and(|line| line == "the process has ended"));
        let count = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
        ensure!((count(" allocated DRAM"), count(" freed DRAM")) == (3, 3), "{lines:?}");
        Ok(())
    };
    see().unwrap();
}

/// A line of input.
fn writeln_to(spoken: &mut Spoken) -> Result<()> {
    use std::io::Write as _;
    Ok(writeln!(spoken.stdin.as_mut().context("no input")?)?)
}

#[test]
fn a_suite_within_its_limits_passes() {
    let rig = or_skip!(Rig::new());
    let passes = || -> Result<()> {
        let binary = rig.ttmem.path().to_str().context("not UTF-8")?;
        let options = ["--ttmem", "--ttmem-attach", "--ttmem-binary", binary];
        let said = printed(rig.pytest("examples/test_model.py", &options))?;
        has(&said, &["2 passed", "the heaviest tests", "4.0 MiB", "::test_a_sum_stays_small"])?;
        let left = std::fs::read_dir(rig.tables())?.flatten();
        let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
        ensure!(left.iter().all(|name| name == ".lock"), "its ttmem left {left:?}");
        Ok(())
    };
    passes().unwrap();
}

#[test]
fn a_suite_beyond_its_limits_fails() {
    let rig = or_skip!(Rig::new());
    let fails = || -> Result<()> {
        let binary = rig.ttmem.path().to_str().context("not UTF-8")?;
        let options = ["--ttmem-stacks", "--ttmem-binary", binary];
        let output = end_of(rig.pytest("tests/readers/test_failing.py", &options))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        println!("{said}");
        ensure!(output.status.code() == Some(1), "{}", output.status);
        let over =
            format!("DRAM peaked at 2.0 MiB ({TENSOR} bytes), 1 B over the limit of 2.0 MiB");
        has(
            &said,
            &[
                "4 failed, 2 passed",
                &format!("chip 0: {over}"),
                &format!("chip 1: {over}"),
                "chip 0: L1 peaked at 2.0 MiB (2097152 bytes)",
                "over the limit of 1% of it",
                "1 buffers (2.0 MiB) were allocated in the test and are still live:",
                "DRAM 2.0 MiB at 0x",
                "on chips 0, 1, for test_failing.py:",
                "assert kept is None",
            ],
        )
    };
    fails().unwrap();
}

#[test]
fn without_a_ttmem_it_says_how_to_start_one() {
    let rig = or_skip!(Rig::new());
    let says = || -> Result<()> {
        let output = end_of(rig.pytest("examples/test_model.py", &[]))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.code() == Some(1), "{}:\n{said}", output.status);
        has(
            &said,
            &[
                "ttmem: no table of process",
                "start `sudo ttmem attach --headless --pid",
                "`sudo ttmem serve`; or let `pytest --ttmem-attach` start it",
            ],
        )
    };
    says().unwrap();
}
