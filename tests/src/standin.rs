//! The stand-in for tt-metal: steering its driver.

mod truth;

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use tempfile::TempDir;

use crate::{
    skip,
    ttmem::{PATIENCE, ended_within, readable_within},
};
pub use truth::{Truth, count_by_chip};

/// One built variant of the stand-in.
#[derive(Clone, Debug)]
pub struct Standin {
    folder: PathBuf,
}

impl Standin {
    /// A variant, or why the test cannot run.
    pub fn locate(variant: &str) -> Result<Self, String> {
        let folder = skip::path_from("TTMEM_STANDIN_DIR")?.join(variant);
        if folder.join("driver").exists() {
            Ok(Self { folder })
        } else {
            Err(format!("the stand-in's variant {variant} is not built"))
        }
    }

    /// A copy in a folder of its own, by whose name no other process can be found.
    pub fn copied(&self) -> Result<Copied> {
        let folder = tempfile::Builder::new().prefix("ttmem-standin-").tempdir()?;
        let copy = Self { folder: folder.path().to_owned() };
        fs::copy(self.driver(), copy.driver())?;
        fs::copy(self.library(), copy.library())?;
        Ok(Copied { standin: copy, folder })
    }

    /// The driver's program.
    pub fn driver(&self) -> PathBuf {
        self.folder.join("driver")
    }

    /// The library.
    pub fn library(&self) -> PathBuf {
        self.folder.join("libtt_metal.so")
    }

    /// The library by which a program in another language asks for buffers.
    pub fn entry(&self) -> PathBuf {
        self.folder.join("libstandin_python.so")
    }

    /// Starts the driver and waits until it is ready.
    pub fn start(&self) -> Result<Driver> {
        Driver::start(&self.folder.join("driver"))
    }

    /// The same, with a mesh of two chips and holes in its L1: of 8, 8 and the rest, and between
    /// them 16 and 32 KiB of each bank.
    pub fn start_with_holes(&self) -> Result<Driver> {
        let mut driver = self.start()?;
        driver.all_ok(&[
            "open mesh 0 2 name=m",
            "alloc a m L1 524288 2048",
            "alloc b m L1 1048576 2048",
            "alloc c m L1 524288 2048",
            "alloc d m L1 2097152 2048",
            "free a",
            "free c",
        ])?;
        Ok(driver)
    }
}

/// A copy of a variant. Removed when dropped.
#[derive(Debug)]
pub struct Copied {
    /// The copy.
    pub standin: Standin,
    folder: TempDir,
}

impl Copied {
    /// A copy of a variant, or why the test cannot run.
    pub fn locate(variant: &str) -> Result<Self, String> {
        Standin::locate(variant)?.copied().map_err(|error| format!("{error:#}"))
    }

    /// What is in the command line of each of its drivers, and of no other process's.
    pub fn name(&self) -> Result<&str> {
        let name = self.folder.path().file_name().context("no name")?;
        name.to_str().context("not UTF-8")
    }
}

/// A running driver. Killed when dropped.
#[derive(Debug)]
pub struct Driver {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Driver {
    /// Starts a driver.
    pub fn start(program: &Path) -> Result<Self> {
        let (driver, pid) = Self::start_by(&mut Command::new(program))?;
        ensure!(pid == driver.pid(), "it says that its pid is {pid}");
        Ok(driver)
    }

    /// Starts a driver by a command that ends up running one; also the pid that it gives itself.
    pub fn start_by(command: &mut Command) -> Result<(Self, u32)> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("no pipe")?);
        let mut driver = Self { child, input, output };
        let ready = driver.line()?;
        let pid = ready.strip_prefix("ready pid=").with_context(|| ready.clone())?;
        Ok((driver, pid.parse()?))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn line(&mut self) -> Result<String> {
        if self.output.buffer().is_empty() {
            readable_within(self.output.get_ref(), PATIENCE).context("no answer of the driver")?;
        }
        let mut line = String::new();
        ensure!(self.output.read_line(&mut line)? > 0, "the driver has ended");
        Ok(line.trim_end().to_owned())
    }

    /// Gives a command without waiting for its answer.
    pub fn tell(&mut self, command: &str) -> Result<()> {
        let input = self.input.as_mut().context("its input is closed")?;
        writeln!(input, "{command}").with_context(|| format!("cannot tell {command:?}"))
    }

    /// Gives a command; the answer.
    pub fn ask(&mut self, command: &str) -> Result<String> {
        self.tell(command)?;
        self.line().with_context(|| format!("after {command:?}"))
    }

    /// Gives a command that must succeed; what the answer says.
    pub fn ok(&mut self, command: &str) -> Result<Answer> {
        let answer = self.ask(command)?;
        Answer::parse(&answer).with_context(|| format!("{command:?}: {answer}"))
    }

    /// The answer to a command given by [`Self::tell`], which must have succeeded.
    pub fn answer(&mut self) -> Result<Answer> {
        let answer = self.line()?;
        Answer::parse(&answer).with_context(|| answer.clone())
    }

    /// Gives several commands that must succeed.
    pub fn all_ok(&mut self, commands: &[&str]) -> Result<()> {
        commands.iter().try_for_each(|command| self.ok(command).map(drop))
    }

    /// Gives a command that must end in an exception that the driver catches.
    pub fn caught(&mut self, command: &str) -> Result<()> {
        let answer = self.ask(command)?;
        ensure!(answer.starts_with("caught "), "{command:?}: {answer}");
        Ok(())
    }

    /// What is allocated, by the allocators' own tables.
    pub fn truth(&mut self) -> Result<Truth> {
        let (state, live) = (self.ask("state")?, self.ask("live")?);
        Truth::parse(&state, &live)
    }

    /// Lets it replace itself by a fresh driver.
    pub fn exec(&mut self) -> Result<()> {
        let answer = self.ask("exec")?;
        ensure!(answer == format!("ready pid={}", self.pid()), "{answer}");
        Ok(())
    }

    /// Gives a last command and waits for the end.
    pub fn end_with(mut self, command: &str) -> Result<ExitStatus> {
        self.tell(command)?;
        ended_within(&mut self.child, PATIENCE)
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What follows `ok`.
#[derive(Clone, Debug)]
pub struct Answer(HashMap<String, String>);

impl Answer {
    fn parse(line: &str) -> Result<Self> {
        let mut words = line.split_whitespace();
        ensure!(words.next() == Some("ok"), "not ok");
        let pairs = words.filter_map(|word| word.split_once('='));
        Ok(Self(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()))
    }

    /// A value.
    pub fn text(&self, key: &str) -> Result<&str> {
        self.0.get(key).map(String::as_str).with_context(|| format!("no {key} in {self:?}"))
    }

    /// Counts, one after the other.
    pub fn numbers(&self, key: &str) -> Result<Vec<u64>> {
        self.text(key)?.split(',').map(|number| Ok(number.parse()?)).collect()
    }

    /// A count.
    pub fn number(&self, key: &str) -> Result<u64> {
        Ok(self.text(key)?.parse()?)
    }
}

/// How many bytes of a library's code differ between a process and the file; and how many there are.
pub fn changed_code(pid: u32, library: &Path) -> Result<(usize, usize)> {
    let library = fs::canonicalize(library)?;
    let file = File::open(&library)?;
    let size = file.metadata()?.len();
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let (mut changed, mut total) = (0, 0);
    for line in maps.lines() {
        // A path may have spaces in it, and is the last.
        let Some(rest) = library.to_str().and_then(|path| line.strip_suffix(path)) else {
            continue;
        };
        let words: Vec<&str> = rest.split_whitespace().collect();
        let [range, permissions, offset, _, _] = words[..] else { continue };
        if !permissions.contains('x') {
            continue;
        }
        let (start, end) = range.split_once('-').context("no range")?;
        let (start, end) = (u64::from_str_radix(start, 16)?, u64::from_str_radix(end, 16)?);
        let offset = u64::from_str_radix(offset, 16)?;
        let len = usize::try_from((end - start).min(size - offset))?;
        let (mut mapped, mut stored) = (vec![0; len], vec![0; len]);
        memory.read_exact_at(&mut mapped, start)?;
        file.read_exact_at(&mut stored, offset)?;
        changed += mapped.iter().zip(&stored).filter(|(left, right)| left != right).count();
        total += len;
    }
    ensure!(total > 0, "process {pid} has not mapped {}", library.display());
    Ok((changed, total))
}

/// The same numbers everywhere, for ever (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number below a bound.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
