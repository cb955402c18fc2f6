//! Targets that are not what they seem: a process id that is used again, memory full of nonsense.
//! ttmem goes on or says what is wrong; it never crashes, hangs, or takes memory without bound.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    or_skip,
    refusal::{compile, output_within, sane},
    standin::{Copied, Driver, Standin},
    ttmem::{Attached, Ttmem, now_ns},
};
use rustix::process::Signal;
use serde_json::Value;

/// Runs a program in a child that has the wished process id, which must be free.
const WITH_PID: &str = r#"
#define _GNU_SOURCE
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int argc, char **argv) {
    pid_t wish = atoi(argv[1]);
    struct clone_args how = {
        .exit_signal = SIGCHLD, .set_tid = (uint64_t)(uintptr_t)&wish, .set_tid_size = 1};
    long child = syscall(SYS_clone3, &how, sizeof how);
    if (child < 0) {
        perror("clone3");
        return 1;
    }
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execv(argv[2], argv + 2);
        _exit(127);
    }
    int status;
    waitpid(child, &status, 0);
}
"#;

/// A driver in a process with this id.
fn start_as(pid: u32, standin: &Standin) -> Result<Driver> {
    let folder = tempfile::tempdir()?;
    let helper = compile(folder.path(), "with_pid", WITH_PID, &[])?;
    let mut command = Command::new(helper);
    command.arg(pid.to_string()).arg(standin.driver());
    let (driver, own) = Driver::start_by(&mut command)?;
    ensure!(own == pid, "it runs as {own} instead of {pid}");
    Ok(driver)
}

/// Watched, ended, and followed by another program with the same process id, while ttmem is
/// stopped and can see neither the end nor the start.
fn replaced_by_another(
    ttmem: &Ttmem,
    standin: &Standin,
    name: Option<&str>,
    extra: &[&str],
) -> Result<(Attached, u64, u32, Driver)> {
    let mut old = standin.start()?;
    old.all_ok(&["open mesh 0 2 name=m", "alloc a m DRAM 65536 2048"])?;
    let pid = old.pid();
    let own = pid.to_string();
    let selection = name.map_or(["--pid", &own], |name| ["--name", name]);
    let options = [&selection[..], extra, &["--buffers", "--map", "--refresh", "20"]].concat();
    let mut watch = ttmem.attach_to(&options)?;
    watch.find(|line| line["pid"] == pid && line["exact"] == true)?;
    watch.signal(Signal::STOP)?;
    old.end_with("quit")?;
    let mut new = start_as(pid, standin)?;
    let reused_at = now_ns();
    new.all_ok(&["open mesh 0 2 name=n", "alloc x n L1 65536 2048", "alloc y n DRAM 4096 2048"])?;
    watch.signal(Signal::CONT)?;
    Ok((watch, reused_at, pid, new))
}

/// What the old target held when it ended, and nothing of what came later.
fn is_the_old_one(last: &Value) -> Result<()> {
    ensure!(last["state"] == "exited", "{last}");
    let buffers = last["buffers"].as_array().context("no live set")?;
    ensure!(buffers.len() == 1 && buffers[0]["size"] == 65536, "{last}");
    ensure!(last["devices"][0]["pools"][1]["allocations"] == 0, "{last}");
    Ok(())
}

#[test]
fn a_pid_reused_by_another_program_is_noticed() {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate("pimpl"));
    for extra in [&[][..], &["--perf-events"]] {
        let reused = || -> Result<()> {
            let (watch, _, pid, mut new) = replaced_by_another(&ttmem, &standin, None, extra)?;
            // The new program works on, unseen.
            new.ok("alloc z n L1 65536 2048")?;
            let (rest, status) = watch.finish()?;
            let last = rest.iter().rfind(|line| line["pid"] == pid).context("no last snapshot")?;
            is_the_old_one(last)?;
            ensure!(status.code() == Some(0), "ttmem ended with {status}");
            ensure!(new.truth()?.buffers() == 3, "the new program is as it was");
            Ok(())
        };
        reused().with_context(|| format!("{extra:?}")).unwrap();
    }
}

#[test]
fn a_pid_reused_by_another_program_is_a_target_of_its_own() {
    let ttmem = or_skip!(Ttmem::locate());
    let copied = or_skip!(Copied::locate("pimpl"));
    let reused = || -> Result<()> {
        let (mut watch, reused_at, pid, mut new) =
            replaced_by_another(&ttmem, &copied.standin, Some(copied.name()?), &[])?;
        let over = watch.find(|line| line["pid"] == pid && line["state"] == "exited")?;
        is_the_old_one(&over)?;
        let is_new = |line: &Value| {
            line["pid"] == pid
                && line["state"] == "running"
                && line["exact"] == true
                && line["time_ns"].as_u64() >= Some(reused_at)
        };
        let found = watch.find(is_new)?;
        new.truth()?.compare(&found)?;
        new.all_ok(&["free x", "alloc z n DRAM 4096 2048"])?;
        let snapshot = watch.of_at(pid, now_ns())?;
        ensure!(snapshot["state"] == "running", "{snapshot}");
        new.truth()?.compare(&snapshot)?;
        Ok(())
    };
    reused().unwrap();
}

/// How long a command may take on memory that makes no sense.
const BOUND: Duration = Duration::from_secs(20);
/// Its address space, in bytes.
const MEMORY: &str = "--as=1000000000";

/// Runs ttmem with bounded memory; it must end in time, without a panic.
fn bounded(ttmem: &Ttmem, arguments: &[&str], codes: &[i32]) -> Result<Option<Value>> {
    let mut command = Command::new("prlimit");
    command.args([MEMORY, "--core=0"]).arg(ttmem.path()).args(ttmem.typed(arguments));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let start = Instant::now();
    let output = output_within(command.spawn()?).with_context(|| format!("{arguments:?}"))?;
    let took = start.elapsed();
    ensure!(took < BOUND, "{arguments:?} took {took:?}");
    sane(&output, codes).with_context(|| format!("{arguments:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let last: Option<Value> = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
    if let Some(last) = &last
        && arguments[0] != "fits"
    {
        let exact = last["exact"] == true;
        let code = output.status.code();
        ensure!((code == Some(0)) == exact, "{arguments:?} ended with {code:?}: {last}");
    }
    Ok(last)
}

/// A driver with buffers in two allocators, on whose heap that many words are wrong.
fn scribbling(standin: &Standin, how: &str) -> Result<(Driver, e2e::standin::Truth)> {
    let mut driver = standin.start()?;
    driver.all_ok(&["open mesh 0 2 name=m", "submesh m 1 1 name=s", "hold 100"])?;
    driver.all_ok(&["churn 1 200 7 keep=60", "alloc a m L1 65536 2048", "bulk s"])?;
    let truth = driver.truth()?;
    driver.ok(how)?;
    Ok((driver, truth))
}

const SEEDS: u64 = 6;

/// While ttmem reads, more and more of what it reads is nonsense.
#[test]
fn a_target_that_scribbles_over_its_own_memory() {
    let ttmem = or_skip!(Ttmem::locate());
    for variant in ["pimpl", "inline"] {
        let standin = or_skip!(Standin::locate(variant));
        for seed in 0..SEEDS {
            let words = 1 << (2 * seed);
            let scribbles = || -> Result<()> {
                let (driver, _) = scribbling(&standin, &format!("scribble {seed} {words}"))?;
                let pid = driver.pid().to_string();
                bounded(
                    &ttmem,
                    &["snapshot", "--json", "--buffers", "--map", "--pid", &pid],
                    &[0, 1, 2],
                )?;
                let attach = ["attach", "--format", "json", "--buffers", "--pid", &pid];
                bounded(&ttmem, &[&attach[..], &["--once"]].concat(), &[0, 1, 2])?;
                let audit = ["--audit", "0.2", "--duration", "1"];
                bounded(&ttmem, &[&attach[..], &audit].concat(), &[0, 1, 2])?;
                let fits = ["fits", "--json", "--type", "L1", "--size", "64K", "--pid", &pid];
                bounded(&ttmem, &fits, &[0, 1, 2, 3])?;
                Ok(())
            };
            scribbles().with_context(|| format!("{variant}, {words} words")).unwrap();
        }
    }
}

/// What is wrong and stays so can be known, as long as two things say the same: then nothing wrong
/// is called exact.
#[test]
fn what_is_wrong_in_memory_is_not_called_exact() {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate("pimpl"));
    let mut exact = 0;
    for seed in 0..40 {
        let still = || -> Result<bool> {
            let how = format!("scribble {seed} 64 still=1");
            let (driver, truth) = scribbling(&standin, &how)?;
            let pid = driver.pid().to_string();
            let arguments = ["snapshot", "--json", "--buffers", "--map", "--pid", &pid];
            let snapshot = bounded(&ttmem, &arguments, &[0, 2])?.context("no snapshot")?;
            if snapshot["exact"] == true {
                truth.compare_use(&snapshot)?;
            }
            Ok(snapshot["exact"] == true)
        };
        exact += u64::from(still().with_context(|| format!("seed {seed}")).unwrap());
    }
    println!("{exact} of 40 are exact, and right");
}
