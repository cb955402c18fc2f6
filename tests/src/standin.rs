//! The stand-in for tt-metal: steering its driver, and comparing ttmem's numbers with the truth.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    skip,
    space::{self, TrueSpace},
    ttmem::{PATIENCE, ended_within, readable_within},
};

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

    /// The driver's program.
    pub fn driver(&self) -> PathBuf {
        self.folder.join("driver")
    }

    /// The library.
    pub fn library(&self) -> PathBuf {
        self.folder.join("libtt_metal.so")
    }

    /// Starts the driver and waits until it is ready.
    pub fn start(&self) -> Result<Driver> {
        Driver::start(&self.folder.join("driver"))
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
        let state: State = serde_json::from_str(&self.ask("state")?)?;
        let live: Vec<LiveRow> = serde_json::from_str(&self.ask("live")?)?;
        for row in &state.allocators {
            ensure!(row.consistent, "the stand-in contradicts itself: {row:?}");
        }
        Ok(Truth { allocators: state.allocators, live })
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

    /// A count.
    pub fn number(&self, key: &str) -> Result<u64> {
        Ok(self.text(key)?.parse()?)
    }
}

#[derive(Debug, Deserialize)]
struct State {
    allocators: Vec<AllocatorRow>,
}

/// One buffer type of one allocator.
#[derive(Clone, Debug, Deserialize)]
struct AllocatorRow {
    device: String,
    mesh: bool,
    id: i64,
    chips: Vec<i64>,
    #[serde(rename = "type")]
    buffer_type: String,
    buffers: u64,
    logical_bytes: u64,
    bank_bytes: u64,
    banks: u64,
    used: u64,
    capacity: u64,
    consistent: bool,
    base: u64,
    bank_size: u64,
    free: u64,
    largest_free: u64,
    holes: u64,
}

impl AllocatorRow {
    fn space(&self) -> TrueSpace {
        TrueSpace {
            mesh: self.mesh.then_some(self.id),
            chips: self.chips.clone(),
            buffer_type: self.buffer_type.clone(),
            banks: self.banks,
            bank_size: self.bank_size,
            base: (self.banks > 0).then_some(self.base),
            free: self.free,
            largest: self.largest_free,
            holes: self.holes,
            map: None,
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
struct LiveRow {
    uid: Option<u64>,
    device: String,
    chips: Vec<i64>,
    #[serde(rename = "type")]
    buffer_type: String,
    address: u64,
    size: u64,
    page_size: u64,
    bank_bytes: u64,
}

/// What is allocated, by the allocators' own tables.
#[derive(Clone, Debug)]
pub struct Truth {
    allocators: Vec<AllocatorRow>,
    live: Vec<LiveRow>,
}

/// Chip and buffer type.
type PoolKey = (i64, String);

/// The figures of a pool that the truth knows, by their names in ttmem's JSON.
const POOL_FIGURES: [&str; 6] =
    ["buffers", "logical_bytes", "bank_bytes", "used_bytes", "capacity_bytes", "banks"];

/// Everything that tells a live buffer from others, with ttmem's names.
const BUFFER_FIGURES: [&str; 8] =
    ["type", "address", "size", "page_size", "bank_bytes", "chips", "mesh", "unique_id"];

impl Truth {
    /// Number of live buffers.
    pub fn buffers(&self) -> usize {
        self.live.len()
    }

    /// By pool: [`POOL_FIGURES`]. Sums over the allocators of a chip; capacity and banks are those
    /// of the largest, since they all hand out the same memory.
    fn pools(&self) -> BTreeMap<PoolKey, [u64; 6]> {
        let mut pools = BTreeMap::new();
        for row in &self.allocators {
            for &chip in &row.chips {
                let pool: &mut [u64; 6] = pools.entry((chip, row.buffer_type.clone())).or_default();
                pool[0] += row.buffers;
                pool[1] += row.logical_bytes;
                pool[2] += row.bank_bytes;
                pool[3] += row.used;
                if row.capacity > pool[4] {
                    (pool[4], pool[5]) = (row.capacity, row.banks);
                }
            }
        }
        pools
    }

    fn mesh_of(&self, device: &str) -> Option<i64> {
        self.allocators.iter().find(|row| row.device == device && row.mesh).map(|row| row.id)
    }

    /// One line per live buffer, with [`BUFFER_FIGURES`].
    fn live_lines(&self) -> Vec<String> {
        let known = figures_of(self);
        let line = |row: &LiveRow| {
            let figures: [Value; 8] = [
                row.buffer_type.as_str().into(),
                row.address.into(),
                row.size.into(),
                row.page_size.into(),
                row.bank_bytes.into(),
                row.chips.clone().into(),
                self.mesh_of(&row.device).into(),
                row.uid.into(),
            ];
            named(&figures[..known])
        };
        self.live.iter().map(line).collect()
    }

    /// Compares all that the truth knows with a snapshot that was made `--buffers`, and that has to
    /// be exact. Returns how many figures were compared.
    pub fn compare(&self, snapshot: &Value) -> Result<usize> {
        let mut comparison = Comparison::default();
        comparison.exact(snapshot);
        comparison.pools(&self.pools(), snapshot)?;
        comparison.spaces(&self.allocators, snapshot)?;
        comparison.live(self.live_lines(), figures_of(self), snapshot)?;
        comparison.finish()
    }

    /// The same of a snapshot that has been set right: what was lost is still counted.
    pub fn compare_set_right(&self, snapshot: &Value) -> Result<usize> {
        let mut comparison = Comparison::default();
        comparison.undoubted(snapshot);
        comparison.pools(&self.pools(), snapshot)?;
        comparison.spaces(&self.allocators, snapshot)?;
        comparison.live(self.live_lines(), figures_of(self), snapshot)?;
        comparison.finish()
    }

    /// The same as [`Truth::compare`] without the live set.
    pub fn compare_pools(&self, snapshot: &Value) -> Result<usize> {
        let mut comparison = Comparison::default();
        comparison.exact(snapshot);
        comparison.pools(&self.pools(), snapshot)?;
        comparison.spaces(&self.allocators, snapshot)?;
        comparison.finish()
    }
}

/// How many of [`BUFFER_FIGURES`] the truth knows: the inline variant has no getter for unique ids.
fn figures_of(truth: &Truth) -> usize {
    let known = truth.live.iter().all(|row| row.uid.is_some());
    BUFFER_FIGURES.len() - usize::from(!known)
}

fn named(figures: &[Value]) -> String {
    let pairs = BUFFER_FIGURES.iter().zip(figures);
    pairs.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

/// Figures compared, and where they differ.
#[derive(Debug, Default)]
struct Comparison {
    figures: usize,
    differences: Vec<String>,
}

impl Comparison {
    fn same(&mut self, what: impl FnOnce() -> String, truth: &Value, shown: &Value) {
        self.figures += 1;
        if truth != shown {
            self.differences.push(format!("{}: truth {truth}, ttmem {shown}", what()));
        }
    }

    fn exact(&mut self, snapshot: &Value) {
        let zero = 0.into();
        self.undoubted(snapshot);
        for group in ["lost", "anomalies"] {
            for (name, count) in snapshot[group].as_object().into_iter().flatten() {
                self.same(|| format!("{group} {name}"), &zero, count);
            }
        }
    }

    fn undoubted(&mut self, snapshot: &Value) {
        self.same(|| "exact".into(), &true.into(), &snapshot["exact"]);
        self.same(
            || "inexact_because".into(),
            &Value::Array(Vec::new()),
            &snapshot["inexact_because"],
        );
    }

    fn pools(&mut self, truth: &BTreeMap<PoolKey, [u64; 6]>, snapshot: &Value) -> Result<()> {
        let shown = shown_pools(snapshot)?;
        for (key, figures) in truth {
            let pool = shown.get(key).unwrap_or(&Value::Null);
            for (name, figure) in POOL_FIGURES.iter().zip(figures) {
                let what = || format!("chip {} {} {name}", key.0, key.1);
                self.same(what, &(*figure).into(), &pool[*name]);
            }
        }
        // A chip that is open no more keeps its pools, and they are empty.
        for (key, pool) in shown.iter().filter(|(key, _)| !truth.contains_key(*key)) {
            for name in &POOL_FIGURES[..4] {
                let what = || format!("closed chip {} {} {name}", key.0, key.1);
                self.same(what, &0.into(), &pool[*name]);
            }
        }
        Ok(())
    }

    fn spaces(&mut self, truth: &[AllocatorRow], snapshot: &Value) -> Result<()> {
        let truth: Vec<TrueSpace> = truth.iter().map(AllocatorRow::space).collect();
        let (equal, differences) = space::compare(&truth, snapshot)?;
        self.figures += equal + differences.len();
        self.differences.extend(differences);
        Ok(())
    }

    fn live(&mut self, mut truth: Vec<String>, known: usize, snapshot: &Value) -> Result<()> {
        let buffers = snapshot["buffers"].as_array().context("no live set in the snapshot")?;
        let figures = |buffer: &Value| BUFFER_FIGURES.map(|name| buffer[name].clone());
        let mut shown: Vec<String> =
            buffers.iter().map(|buffer| named(&figures(buffer)[..known])).collect();
        self.figures += truth.len() * known;
        let mut ids = HashSet::new();
        let mut given = buffers.iter().filter_map(|buffer| buffer["unique_id"].as_u64());
        if let Some(twice) = given.find(|id| !ids.insert(*id)) {
            self.differences.push(format!("two buffers with the unique id {twice}"));
        }
        truth.sort_unstable();
        shown.sort_unstable();
        if truth != shown {
            let missing = truth.iter().filter(|line| shown.binary_search(line).is_err());
            self.differences.extend(missing.map(|line| format!("ttmem lacks {line}")));
            let extra = shown.iter().filter(|line| truth.binary_search(line).is_err());
            self.differences.extend(extra.map(|line| format!("ttmem invents {line}")));
            let counts = format!("live buffers: truth {}, ttmem {}", truth.len(), shown.len());
            self.differences.push(counts);
        }
        Ok(())
    }

    fn finish(self) -> Result<usize> {
        if self.differences.is_empty() {
            return Ok(self.figures);
        }
        let shown = self.differences.iter().take(40).cloned().collect::<Vec<_>>().join("\n  ");
        bail!("{} of {} figures differ:\n  {shown}", self.differences.len(), self.figures)
    }
}

fn shown_pools(snapshot: &Value) -> Result<BTreeMap<PoolKey, Value>> {
    let mut shown = BTreeMap::new();
    for device in snapshot["devices"].as_array().context("no devices in the snapshot")? {
        let chip = device["chip"].as_i64().context("no chip id")?;
        for pool in device["pools"].as_array().context("no pools")? {
            let buffer_type = pool["type"].as_str().context("no type")?.to_owned();
            let before = shown.insert((chip, buffer_type), pool.clone());
            ensure!(before.is_none(), "chip {chip} twice in {snapshot}");
        }
    }
    Ok(shown)
}

/// A counter of each chip, summed over its pools.
pub fn count_by_chip(snapshot: &Value, counter: &str) -> Result<BTreeMap<i64, u64>> {
    let mut counts = BTreeMap::new();
    for ((chip, _), pool) in shown_pools(snapshot)? {
        *counts.entry(chip).or_default() += pool[counter].as_u64().context("no such counter")?;
    }
    Ok(counts)
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
        let words: Vec<&str> = line.split_whitespace().collect();
        let [range, permissions, offset, _, _, path] = words[..] else { continue };
        if !permissions.contains('x') || Path::new(path) != library {
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
