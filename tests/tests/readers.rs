//! Readers of the shared table in C, C++ and Python: what they see, what they refuse, who they are.

use std::{
    fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command, sync::OnceLock,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    asking::Asking,
    or_skip,
    readers::{
        Asker, Askers, LANGUAGES, Language, Spoken, by, compile, open_to_all, python, root, share,
        table_of,
    },
    standin::{Driver, Random, Standin},
    ttmem::Ttmem,
    until::until,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Who the target is, and somebody else.
const USERS: [u32; 2] = [12_345, 12_346];

/// How often a chip's numbers are read under load.
const READS: &str = "10000000";
/// Changes that they have to see meanwhile, however fast they read.
const CHANGES: &str = "200";

static BUILT: OnceLock<Askers> = OnceLock::new();

/// Everything a test needs, in a folder of its own.
struct Rig {
    ttmem: Ttmem,
    standin: Standin,
    askers: Askers,
    folder: TempDir,
}

impl Rig {
    fn new() -> Result<Self, String> {
        let (ttmem, standin) = (Ttmem::locate()?, Standin::locate("pimpl")?);
        let python = python()?;
        let make = || -> Result<_> {
            let folder = tempfile::tempdir()?;
            open_to_all(folder.path())?;
            // Compiled once: with sanitizers that takes seconds.
            let compile = || Askers::build(Path::new(env!("CARGO_TARGET_TMPDIR")), python).unwrap();
            let askers = BUILT.get_or_init(compile).copied(folder.path())?;
            Ok((folder, askers))
        };
        // What does not compile is no reason to skip.
        let (folder, askers) = make().unwrap();
        Ok(Self { ttmem, standin, askers, folder })
    }

    fn tables(&self) -> std::path::PathBuf {
        self.folder.path().join("tables")
    }

    /// A driver with a mesh of two chips.
    fn driver(&self) -> Result<Driver> {
        let mut driver = self.standin.start()?;
        driver.ok("open mesh 0 2 name=m")?;
        Ok(driver)
    }

    /// Askers that have opened the driver's table.
    fn opened(&self, driver: &Driver) -> Result<Vec<Asker>> {
        let mut askers = self.askers.start_all()?;
        for asker in &mut askers {
            let said = asker.open(driver.pid(), &self.tables())?;
            ensure!(said == "ok", "{:?}: {said}", asker.language);
        }
        Ok(askers)
    }
}

/// What the driver itself says of the DRAM of chip 0.
fn dram(driver: &mut Driver) -> Result<String> {
    let state: Value = serde_json::from_str(&driver.ask("state")?)?;
    let mut chips = state["chips"].as_array().context("no chips")?.iter();
    let pool = chips.find(|row| row["chip"] == 0 && row["type"] == "DRAM").context("no DRAM")?;
    Ok(format!("used={} buffers={} exact=1", pool["used"], pool["buffers"]))
}

#[test]
fn all_say_what_the_allocator_says() {
    let rig = or_skip!(Rig::new());
    let agree = || -> Result<()> {
        let mut driver = rig.driver()?;
        driver.ok("alloc older m DRAM 1048576 2048")?;
        let _ttmem = share(&rig.ttmem, driver.pid(), &rig.tables())?;
        let mut askers = rig.opened(&driver)?;
        for step in 0..40 {
            driver.ok(&format!("alloc a{step} m DRAM {} 2048", (step + 1) * 30_720))?;
            if step % 3 == 2 {
                driver.ok(&format!("free a{}", step - 1))?;
            }
            let truth = dram(&mut driver)?;
            for asker in &mut askers {
                let said = asker.ask("now 0")?;
                ensure!(said == truth, "{:?} says {said}, the driver {truth}", asker.language);
                asker.expect("now 7", &["error no-device", "has not used chip 7"])?;
            }
        }
        println!("120 times equal: {}", dram(&mut driver)?);
        Ok(())
    };
    agree().unwrap();
}

#[test]
fn nothing_is_torn_under_load() {
    let rig = or_skip!(Rig::new());
    let tears = || -> Result<()> {
        let mut driver = rig.driver()?;
        let tables = rig.tables();
        let ttmem = share(&rig.ttmem, driver.pid(), &tables)?;
        let program = compile("tests/readers/torture.c", rig.folder.path())?;
        let start = |reads: &str| {
            let mut command = Command::new(&program);
            command.arg(driver.pid().to_string()).arg(&tables).args([reads, CHANGES]);
            Spoken::start(command)
        };
        let mut victim = start("0")?;
        let reader = start(READS)?;
        victim.until("begun")?;
        let mut rounds = 0;
        // Loads until the readers have read enough; one of them is killed in the midst of it.
        let reading = std::thread::spawn(move || reader.rest());
        let mut victim = Some(victim);
        while !reading.is_finished() || rounds == 0 {
            driver.ok(&format!("churn 1 20000 {rounds}"))?;
            victim.take().map_or(Ok(()), Spoken::kill)?;
            rounds += 1;
        }
        let (lines, success) = reading.join().ok().context("the reader")??;
        let last = lines.last().context("it said nothing")?;
        println!("{last}; {rounds} rounds of load");
        ensure!(success && last.starts_with("ok "), "{lines:?}");
        let changes: u64 = figure(last, "changes")?.parse()?;
        ensure!(changes > 100, "only {changes} changes were seen");
        ensure!(figure(last, "lost")? == "0", "lost: {last}");
        // What it costs is for the bench; this is a tenfold of what is slow.
        ensure!(figure(last, "counter_ns")?.parse::<f64>()? < 200.0, "slow: {last}");
        ensure!(figure(last, "device_ns")?.parse::<f64>()? < 20_000.0, "slow: {last}");
        drop(ttmem);
        Ok(())
    };
    tears().unwrap();
}

fn figure<'a>(line: &'a str, name: &str) -> Result<&'a str> {
    let found = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    found.with_context(|| format!("no {name} in {line}"))
}

#[test]
fn deltas_add_up_to_the_live_buffers() {
    let rig = or_skip!(Rig::new());
    let add_up = || -> Result<()> {
        let mut driver = rig.driver()?;
        let ttmem = share(&rig.ttmem, driver.pid(), &rig.tables())?;
        let mut command = Command::new(python().map_err(anyhow::Error::msg)?);
        command.arg(root().join("tests/readers/add_up.py"));
        command.arg(driver.pid().to_string()).arg(rig.tables());
        let mut follower = Spoken::start(command)?;
        follower.until("begun")?;
        driver.ok("churn 2 10000 1 keep=40")?;
        // What was lost on a busy machine has its deltas when it has been set right.
        let mut asking = Asking::connect(&rig.tables(), driver.pid())?;
        until("never exact again", || {
            Ok((asking.ask(&json!({"get": "snapshot"}))?["exact"] == true).then_some(()))
        })?;
        let live: Vec<Value> = serde_json::from_str(&driver.ask("live")?)?;
        let mut left: Vec<(String, u64, u64)> = Vec::new();
        for buffer in &live {
            let number = |key: &str| buffer[key].as_u64().context("no number");
            let kind = buffer["type"].as_str().context("no type")?.to_owned();
            left.push((kind, number("address")?, number("size")?));
        }
        left.sort_unstable();
        ensure!(left.len() >= 80, "only {} are left", left.len());
        driver.end_with("quit")?;
        let (lines, success) = follower.rest()?;
        ensure!(success, "{lines:?}");
        let said: Vec<(String, u64, u64)> = serde_json::from_str(lines.last().context("nothing")?)?;
        ensure!(said == left, "{said:?}\nis not\n{left:?}");
        println!("{} buffers are left after 40000 changes", left.len());
        drop(ttmem);
        Ok(())
    };
    add_up().unwrap();
}

#[test]
fn a_killed_ttmem_is_noticed_and_the_next_one_found() {
    let rig = or_skip!(Rig::new());
    let noticed = || -> Result<()> {
        let mut driver = rig.driver()?;
        driver.ok("alloc a m DRAM 1048576 2048")?;
        let killed = share(&rig.ttmem, driver.pid(), &rig.tables())?;
        let mut askers = rig.opened(&driver)?;
        let agent = format!("process {}", killed.pid());
        killed.signal(Signal::KILL)?;
        killed.finish()?;
        ensure!(table_of(&rig.tables(), &driver).exists(), "a killed one leaves its table");
        for asker in &mut askers {
            asker.expect("now 0", &["error "])?;
            // Its heartbeat is there for a few seconds more.
            let said = until_stale(asker)?;
            for words in ["error stale", &agent, "was killed or is stopped", "start it again"] {
                ensure!(said.contains(words), "{:?}: no {words:?} in {said}", asker.language);
            }
            println!("{:?}: {said}", asker.language);
        }
        driver.ok("alloc b m DRAM 1048576 2048")?;
        let next = share(&rig.ttmem, driver.pid(), &rig.tables())?;
        let truth = dram(&mut driver)?;
        for asker in &mut askers {
            ensure!(asker.ask("now 0")? == truth, "{:?}: not {truth}", asker.language);
        }
        next.signal(Signal::TERM)?;
        next.finish()?;
        for asker in &mut askers {
            asker.expect("query 0", &["error ended", "is not watched any more"])?;
            asker.expect("process", &["state="])?;
        }
        Ok(())
    };
    noticed().unwrap();
}

#[test]
fn the_next_ttmem_is_found_before_the_killed_one_looks_dead() {
    let rig = or_skip!(Rig::new());
    let found = || -> Result<()> {
        let mut driver = rig.driver()?;
        driver.ok("alloc a m DRAM 1048576 2048")?;
        let mut killed = share(&rig.ttmem, driver.pid(), &rig.tables())?;
        let mut askers = rig.opened(&driver)?;
        for round in 0..3 {
            let truth = dram(&mut driver)?;
            for asker in &mut askers {
                ensure!(asker.ask("now 0")? == truth, "{:?}: not {truth}", asker.language);
            }
            let begun = Instant::now();
            killed.signal(Signal::KILL)?;
            killed.finish()?;
            driver.ok(&format!("alloc b{round} m DRAM 1048576 2048"))?;
            killed = share(&rig.ttmem, driver.pid(), &rig.tables())?;
            let truth = dram(&mut driver)?;
            for asker in &mut askers {
                let said = asker.ask("now 0")?;
                ensure!(said == truth, "{:?} says {said}, the driver {truth}", asker.language);
            }
            println!("{:?} after the kill: {truth}", begun.elapsed());
        }
        Ok(())
    };
    found().unwrap();
}

/// Asks until it is told that the numbers are old.
fn until_stale(asker: &mut Asker) -> Result<String> {
    let deadline = std::time::Instant::now() + e2e::ttmem::PATIENCE;
    loop {
        let said = asker.ask("query 0")?;
        if said.starts_with("error") {
            return Ok(said);
        }
        ensure!(std::time::Instant::now() < deadline, "{:?} notices nothing", asker.language);
        std::thread::yield_now();
    }
}

#[test]
fn the_end_of_the_target_is_told() {
    let rig = or_skip!(Rig::new());
    let told = || -> Result<()> {
        let driver = rig.driver()?;
        let ttmem = share(&rig.ttmem, driver.pid(), &rig.tables())?;
        let mut askers = rig.opened(&driver)?;
        driver.end_with("quit")?;
        ttmem.finish()?;
        for asker in &mut askers {
            asker.expect("query 0", &["error ended", "has ended"])?;
        }
        Ok(())
    };
    told().unwrap();
}

#[test]
fn hostile_tables_are_refused() {
    let rig = or_skip!(Rig::new());
    let refused = || -> Result<()> {
        let driver = rig.driver()?;
        let ttmem = share(&rig.ttmem, driver.pid(), &rig.tables())?;
        let good = fs::read(table_of(&rig.tables(), &driver))?;
        drop(ttmem);
        let hostile = rig.folder.path().join("hostile");
        fs::create_dir(&hostile)?;
        let file = table_of(&hostile, &driver);
        let mut askers = rig.askers.start_all()?;
        let mut refuse = |bytes: &[u8], words: &[&str]| -> Result<()> {
            fs::write(&file, bytes)?;
            for asker in &mut askers {
                asker.expect(&format!("open {} {}", driver.pid(), hostile.display()), words)?;
            }
            Ok(())
        };
        refuse(&good, &["ok"])?;
        for size in [0, 1, 8, 1855, 1856, 4096, good.len() - 1] {
            refuse(&good[..size], &["error broken", "no table of ttmem", "bytes"])?;
        }
        let with = |at: usize, value: u64| {
            let mut bytes = good.clone();
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            bytes
        };
        refuse(&with(0, 7), &["error broken", "does not begin with TTMEMTAB"])?;
        refuse(&with(8, 2), &["error broken", "version"])?;
        for at in [16, 24, 32, 40, 48, 56] {
            for value in [u64::MAX, 1 << 63, 1 << 32, 4] {
                // Four chips are possible.
                refuse(
                    &with(at, value),
                    if (at, value) == (40, 4) { &["ok"] } else { &["error broken"] },
                )?;
            }
        }
        let mut random = Random(1);
        for _ in 0..300 {
            let len = usize::try_from(random.below(9000))?;
            let noise: Vec<u8> = (0..len).map(|_| random.below(256).to_le_bytes()[0]).collect();
            refuse(&noise, &["error broken", "no table of ttmem"])?;
        }
        changed_words(&good, &mut random, &mut askers, &file, driver.pid())?;
        // So does root of the host look in a rootless container.
        std::os::unix::fs::chown(&file, Some(65_534), None)?;
        for asker in &mut askers {
            let line = format!("open {} {}", driver.pid(), hostile.display());
            asker.expect(&line, &["error broken", "user 65534 (in a user namespace"])?;
        }
        Ok(())
    };
    refused().unwrap();
}

/// Any words anywhere: whatever is said, the readers live.
fn changed_words(
    good: &[u8],
    random: &mut Random,
    askers: &mut [Asker],
    file: &Path,
    pid: u32,
) -> Result<()> {
    let tables = file.parent().context("no folder")?;
    for _ in 0..300 {
        let mut bytes = good.to_vec();
        for _ in 0..=random.below(12) {
            let words = if random.below(2) == 0 { 28 } else { bytes.len() as u64 / 8 };
            let at = usize::try_from(random.below(words))? * 8;
            // An odd sequence is waited for.
            let bits = random.below(63);
            let value = random.below(1 << bits) & !1;
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        fs::write(file, &bytes)?;
        for asker in &mut *askers {
            asker.open(pid, tables)?;
            for line in ["query 0", "process", "query 1"] {
                asker.ask(line)?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_write_that_was_never_finished_is_noticed() {
    let rig = or_skip!(Rig::new());
    let noticed = || -> Result<()> {
        let driver = rig.driver()?;
        let ttmem = share(&rig.ttmem, driver.pid(), &rig.tables())?;
        let mut bytes = fs::read(table_of(&rig.tables(), &driver))?;
        drop(ttmem);
        bytes[4096..4104].copy_from_slice(&5_u64.to_le_bytes());
        let torn = rig.folder.path().join("torn");
        fs::create_dir(&torn)?;
        fs::write(table_of(&torn, &driver), &bytes)?;
        for asker in &mut rig.askers.start_all()? {
            ensure!(asker.open(driver.pid(), &torn)? == "ok", "{:?}", asker.language);
            asker.expect("query 0", &["error ", "in the midst of a write", "start it again"])?;
        }
        Ok(())
    };
    noticed().unwrap();
}

/// As C sees it, and C++ by way of it; `python/tests` has the same.
#[test]
fn numbers_are_exact_only_if_they_were_before_and_after() {
    let rig = or_skip!(Rig::new());
    let told = || -> Result<()> {
        let driver = rig.driver()?;
        let ttmem = share(&rig.ttmem, driver.pid(), &rig.tables())?;
        let bytes = fs::read(table_of(&rig.tables(), &driver))?;
        drop(ttmem);
        let copies = rig.folder.path().join("copies");
        fs::create_dir(&copies)?;
        let copy = table_of(&copies, &driver);
        fs::write(&copy, &bytes)?;
        let mut command = Command::new(compile("tests/readers/exact.c", rig.folder.path())?);
        command.arg(driver.pid().to_string()).arg(&copies).arg(&copy);
        let (lines, success) = Spoken::start(command)?.rest()?;
        let expected = [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 1)];
        let expected = expected
            .map(|(before, after, exact)| format!("before={before} after={after} exact={exact}"));
        ensure!(success && lines == expected, "{lines:?}");
        Ok(())
    };
    told().unwrap();
}

#[test]
fn the_user_of_the_target_may_read_and_others_may_not() {
    let rig = or_skip!(Rig::new());
    let may = || -> Result<()> {
        let program = copied(&rig)?;
        let (mut driver, pid) = Driver::start_by(&mut by(USERS[0], &program))?;
        driver.ok("open mesh 0 2 name=m")?;
        driver.ok("alloc a m DRAM 1048576 2048")?;
        let _ttmem = share(&rig.ttmem, pid, &rig.tables())?;
        let truth = dram(&mut driver)?;
        for language in LANGUAGES {
            let mut own = rig.askers.start(language, Some(USERS[0]))?;
            ensure!(own.open(pid, &rig.tables())? == "ok", "{language:?}");
            ensure!(own.ask("now 0")? == truth, "{language:?}: not {truth}");
            let mut other = rig.askers.start(language, Some(USERS[1]))?;
            let said = other.open(pid, &rig.tables())?;
            ensure!(said.starts_with("error denied may not read"), "{language:?}: {said}");
        }
        Ok(())
    };
    may().unwrap();
}

#[test]
fn what_a_test_run_starts_ends_though_it_is_root_s() {
    let rig = or_skip!(Rig::new());
    let ends = || -> Result<()> {
        let folder = rig.folder.path().join("bin");
        fs::create_dir(&folder)?;
        open_to_all(&folder)?;
        let sudo = folder.join("sudo");
        fs::copy(compile("tests/readers/sudo.c", rig.folder.path())?, &sudo)?;
        fs::set_permissions(&sudo, fs::Permissions::from_mode(0o4755))?;
        let mut command = Command::new(python().map_err(anyhow::Error::msg)?);
        command.arg(root().join("tests/readers/attach.py")).arg(USERS[0].to_string());
        command.arg(rig.ttmem.path()).arg(rig.standin.library()).arg(rig.tables());
        let path = std::env::var("PATH")?;
        command.env("PATH", format!("{}:{path}", folder.display()));
        let (lines, success) = Spoken::start(command)?.rest()?;
        ensure!(lines == ["chips []", "it is root's", "ended with 0"] && success, "{lines:?}");
        Ok(())
    };
    ends().unwrap();
}

#[test]
fn in_a_container_it_is_found_by_its_start() {
    let rig = or_skip!(Rig::new());
    let found = || -> Result<()> {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
        let (mut driver, inside) = Driver::start_by(command.arg(rig.standin.driver()))?;
        ensure!(inside == 1, "its own pid is {inside}");
        let children = format!("/proc/{0}/task/{0}/children", driver.pid());
        let outside: u32 = fs::read_to_string(children)?.trim().parse()?;
        driver.ok("open mesh 0 2 name=m")?;
        driver.ok("alloc a m DRAM 1048576 2048")?;
        let _ttmem = share(&rig.ttmem, outside, &rig.tables())?;
        // The table of another process that has this number outside.
        let own = fs::read(rig.tables().join(format!("{outside}.table")))?;
        let mut other = own.clone();
        other[64..72].copy_from_slice(&1_u64.to_le_bytes());
        other[72..80].copy_from_slice(&1_u64.to_le_bytes());
        other[80..88].copy_from_slice(&u64::MAX.to_le_bytes());
        fs::write(rig.tables().join("1.table"), other)?;
        let truth = dram(&mut driver)?;
        for language in LANGUAGES {
            let mut asker = rig.askers.start_beside(language, outside)?;
            let said = asker.open(inside, &rig.tables())?;
            ensure!(said == "ok", "{language:?}: {said}");
            ensure!(asker.ask("now 0")? == truth, "{language:?}: not {truth}");
        }
        Ok(())
    };
    found().unwrap();
}

/// The driver where any user can start it.
fn copied(rig: &Rig) -> Result<std::path::PathBuf> {
    let to = rig.folder.path();
    let program = to.join("driver");
    fs::copy(rig.standin.driver(), &program)?;
    fs::copy(rig.standin.library(), to.join("libtt_metal.so"))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(program)
}

#[test]
fn where_nobody_watches_it_says_how_to_start() {
    let rig = or_skip!(Rig::new());
    let says = || -> Result<()> {
        let driver = rig.driver()?;
        let none = rig.folder.path().join("none");
        for asker in &mut rig.askers.start_all()? {
            let said = asker.open(driver.pid(), &none)?;
            for words in ["error not-watched no table of process", "sudo ttmem attach", "serve"] {
                ensure!(said.contains(words), "{:?}: {said}", asker.language);
            }
        }
        let mut planted = rig.askers.start(Language::C, None)?;
        fs::create_dir(&none)?;
        std::os::unix::fs::symlink("/etc/passwd", table_of(&none, &driver))?;
        let said = planted.open(driver.pid(), &none)?;
        ensure!(said.starts_with("error broken cannot open"), "a link: {said}");
        Ok(())
    };
    says().unwrap();
}
