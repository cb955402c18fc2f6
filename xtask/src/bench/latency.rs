//! How long after a call its delta is at a client of the socket: after a quiet spell, when the
//! record itself has to wake the agent, and while records flow, when it comes by on its own.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;
use ttmem_bench::Line;

use super::life;
use super::plan::Plan;
use super::report::Report;
use super::rig::Rig;

const GROUP: &str = "latency: from a call to the socket";
/// After so long without a record the agent sleeps.
const QUIET: Duration = Duration::from_millis(300);
const ROUNDS: usize = 15;
/// Events of a sample while records flow, a tenth of a second.
const FLOWING: u64 = 2_000;

/// Measures both.
pub fn measure(rig: &Rig, plan: &Plan, report: &mut Report) -> Result<()> {
    let mut target = life::target(rig, "latency", 0)?;
    let agent = life::attach(rig, &target)?;
    let mut deltas = Deltas::subscribe(rig, target.pid())?;
    let (mut quiet, mut flowing) = (Vec::new(), Vec::new());
    for _ in 0..if plan.quick { 1 } else { ROUNDS } {
        thread::sleep(QUIET);
        target.ask("tight 1 1")?;
        quiet.push(deltas.take(2)?.first().copied().context("no delta")?);
        target.tell(&format!("paced 20000 {}", FLOWING / 2))?;
        flowing.extend(deltas.take(FLOWING)?);
        target.answer()?;
    }
    agent.finish()?;
    let lines = [
        Line::of(GROUP, "after a quiet spell", "ms", 1, &quiet),
        Line::of(GROUP, "at 20,000 events/s", "ms", 1, &flowing),
    ];
    report.add(lines.into_iter().flatten());
    Ok(())
}

/// The deltas of a target, as they come.
struct Deltas(BufReader<UnixStream>);

impl Deltas {
    fn subscribe(rig: &Rig, pid: u32) -> Result<Self> {
        let path = rig.tables().join(format!("{pid}.sock"));
        let stream =
            UnixStream::connect(&path).with_context(|| format!("no {}", path.display()))?;
        writeln!(&stream, r#"{{"subscribe":"deltas"}}"#)?;
        let mut deltas = Self(BufReader::new(stream));
        deltas.line()?;
        Ok(deltas)
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            bail!("the socket was closed");
        }
        Ok(serde_json::from_str(&line)?)
    }

    /// Takes so many deltas; of each line the age of its first one, ms: the others are younger.
    fn take(&mut self, count: u64) -> Result<Vec<f64>> {
        let (mut ages, mut taken) = (Vec::new(), 0);
        while taken < count {
            let line = self.line()?;
            let now = clock_gettime(ClockId::Monotonic);
            let deltas = line["deltas"].as_array().context("no deltas")?;
            let first = deltas.first().and_then(|delta| delta["time_ns"].as_u64());
            let first = Duration::from_nanos(first.context("no time")?);
            let now = Duration::try_from(now).context("before the system started")?;
            ages.push(now.saturating_sub(first).as_secs_f64() * 1e3);
            taken += deltas.len() as u64;
        }
        Ok(ages)
    }
}
