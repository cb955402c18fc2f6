//! The life of an agent: its start, its attach, its end, and what it costs while nothing happens.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ttmem_bench::Line;

use super::agent::{self, Agent};
use super::plan::Plan;
use super::report::Report;
use super::rig::Rig;
use super::target::Target;
use crate::run;

const LIVE: u64 = 10_000;
const MANY_LIVE: u64 = 100_000;

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A target with so many live buffers.
pub fn target(rig: &Rig, name: &str, held: u64) -> Result<Target> {
    let mut target = Target::on_a_copy(&rig.native.join("push"), &rig.scratch.join(name))?;
    target.ask("tight 1 100")?;
    target.ask(&format!("hold {held}"))?;
    Ok(target)
}

/// Attaches to it.
pub fn attach(rig: &Rig, target: &Target) -> Result<Agent> {
    let defaults = rig.defaults();
    let options: Vec<&str> = defaults.iter().map(String::as_str).collect();
    Agent::attach(&rig.ttmem, target.pid(), &options)
}

/// Start-up, attach and detach.
pub fn coming_and_going(rig: &Rig, plan: &Plan, report: &mut Report) -> Result<()> {
    let mut empty = target(rig, "life-empty", 0)?;
    let mut full = target(rig, "life-full", LIVE)?;
    let (mut starts, mut attaches, mut more) = (Vec::new(), Vec::new(), Vec::new());
    let (mut detaches, mut kills) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        let start = Instant::now();
        run::capture(Command::new(&rig.ttmem).arg("--version"))?;
        starts.push(milliseconds(start.elapsed()));
        let watching = attach(rig, &empty)?;
        attaches.push(milliseconds(watching.until_exact));
        detaches.push(milliseconds(watching.interrupt()?));
        empty.wait_for_probes(false)?;
        let watching = attach(rig, &full)?;
        let round = attaches.last().copied().unwrap_or_default();
        more.push(milliseconds(watching.until_exact) - round);
        kills.push(milliseconds(watching.kill()?));
        full.wait_for_probes(false)?;
    }
    let lines = [
        Line::of("life: start", "ttmem --version", "ms", 1, &starts),
        Line::of("life: attach", "until exact", "ms", 1, &attaches),
        Line::of("life: attach", "more for 10,000 live buffers", "ms", 1, &more),
        Line::of("life: detach", "SIGINT", "ms", 1, &detaches),
        Line::of("life: detach", "SIGKILL", "ms", 1, &kills),
    ];
    report.add(lines.into_iter().flatten());
    Ok(())
}

/// Memory and processor while little happens.
pub fn at_rest(rig: &Rig, plan: &Plan, report: &mut Report) -> Result<()> {
    let mut target = target(rig, "life-rest", 0)?;
    let agent = attach(rig, &target)?;
    let seconds = Duration::from_secs(plan.watch_seconds);
    // The first seconds confirm the first reading; what comes then is rest.
    thread::sleep(Duration::from_secs(2));
    let rest = || {
        thread::sleep(seconds);
        Ok(())
    };
    let (mut idle, mut busy) = (Vec::new(), Vec::new());
    let memory = agent::resident_mib(agent.pid())?;
    for _ in 0..if plan.quick { 1 } else { 3 } {
        idle.push(agent::cpu_share(agent.pid(), rest)?);
        let pairs = 10_000 * plan.watch_seconds;
        busy.push(agent::cpu_share(agent.pid(), || {
            target.ask(&format!("paced 20000 {pairs}")).map(drop)
        })?);
    }
    report.add(live_view(rig, &target, seconds, "live view, 2 Hz")?);
    target.ask(&format!("hold {MANY_LIVE}"))?;
    thread::sleep(Duration::from_secs(1));
    let full = agent::resident_mib(agent.pid())?;
    agent.finish()?;
    let (memory_group, group, unit) = ("rest: memory", "rest: processor", "% of a core");
    let binary = fs::metadata(&rig.ttmem)?.len();
    #[expect(clippy::cast_precision_loss, reason = "a file is below 2^53 bytes")]
    let binary = binary as f64 / f64::from(1 << 20);
    let lines = [
        Line::of(memory_group, "idle", "MiB", 1, &[memory]),
        Line::of(memory_group, "100,000 live", "MiB", 1, &[full]),
        Line::of("rest: file", "the program, with debug information", "MiB", 1, &[binary]),
        Line::of(group, "idle", unit, 1, &idle),
        Line::of(group, "20,000 events/s", unit, 1, &busy),
    ];
    report.add(lines.into_iter().flatten());
    report.add(live_view(rig, &target, seconds, "live view, 2 Hz, 100,000 live")?);
    Ok(())
}

/// After an attach the live buffers are read, and once more a second later.
const SETTLED: Duration = Duration::from_secs(4);

/// The live view on a terminal that tmux makes, by a server of its own. It ends when dropped.
struct View {
    server: String,
    agent: u32,
}

impl View {
    fn start(rig: &Rig, target: &Target) -> Result<Self> {
        let mut view = Self { server: format!("ttmem-bench-{}", target.pid()), agent: 0 };
        let mut start = view.tmux();
        start.args(["new-session", "-d", "-x", "120", "-y", "40", "--"]).arg(&rig.ttmem);
        start.args(["attach", "--pid", &target.pid().to_string()]).args(rig.defaults());
        run::capture(&mut start)?;
        let said = run::capture(view.tmux().args(["list-panes", "-F", "#{pane_pid}"]))?;
        view.agent = said.trim().parse().with_context(|| format!("no process in {said:?}"))?;
        Ok(view)
    }

    fn tmux(&self) -> Command {
        let mut command = Command::new("tmux");
        command.args(["-f", "/dev/null", "-L", &self.server]);
        command
    }
}

impl Drop for View {
    fn drop(&mut self) {
        drop(run::capture(self.tmux().arg("kill-server")));
    }
}

fn live_view(rig: &Rig, target: &Target, seconds: Duration, name: &str) -> Result<Option<Line>> {
    let view = View::start(rig, target)?;
    thread::sleep(SETTLED);
    let share = agent::cpu_share(view.agent, || {
        thread::sleep(seconds);
        Ok(())
    })?;
    Ok(Line::of("rest: processor", name, "% of a core", 1, &[share]))
}

/// A question at the socket, from the write to the whole answer.
pub fn socket(rig: &Rig, plan: &Plan, report: &mut Report) -> Result<()> {
    let target = target(rig, "life-socket", 100)?;
    let agent = attach(rig, &target)?;
    let path = rig.tables().join(format!("{}.sock", target.pid()));
    let stream = UnixStream::connect(&path).with_context(|| format!("no {}", path.display()))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let questions = [
        ("sync", r#"{"get":"sync"}"#),
        ("snapshot", r#"{"get":"snapshot"}"#),
        ("100 live buffers", r#"{"get":"buffers"}"#),
    ];
    let n = plan.some(200);
    for (name, question) in questions {
        let mut samples = Vec::new();
        for _ in 0..plan.rounds {
            let start = Instant::now();
            for _ in 0..n {
                writeln!(&stream, "{question}")?;
                let mut answer = String::new();
                if reader.read_line(&mut answer)? == 0 {
                    bail!("the socket was closed");
                }
            }
            #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
            samples.push(start.elapsed().as_secs_f64() * 1e6 / n as f64);
        }
        report.add(Line::of("socket: a question", name, "µs", n, &samples));
    }
    agent.finish().map(drop)
}
