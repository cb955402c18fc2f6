//! As fast as two threads can: what arrives, at which price, and what happens if it is too much.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use ttmem_bench::Line;

use super::agent::{self, Agent, delivered};
use super::plan::Plan;
use super::report::Report;
use super::rig::Rig;
use super::target::Target;
use super::watcher::Delivered;
use crate::say;

/// Sizes of the ring, in KiB.
const RINGS: [u64; 4] = [64, 256, 1024, 4096];
/// One that cannot hold what comes while the agent sleeps.
const TOO_SMALL: &str = "4";

/// Between two lines of the agent, in milliseconds: seldom enough that what they cost does not count.
const REFRESH: &str = "200";
/// The rate for which the agent's share is told besides: it works the more the faster the target is.
const ASKED_FOR: f64 = 1.5;

const STACKS: &str = "throughput: stacks";

/// Measures.
pub fn measure(rig: &Rig, plan: &Plan, report: &mut Report) -> Result<()> {
    for ring in RINGS {
        if plan.quick && ring != 4096 {
            continue;
        }
        let title = format!("throughput: 2 threads, {} KiB", super::table::number(number(ring)));
        if report.wants(&title) {
            say::note(&title);
            report.add(with_ring(rig, plan, ring, &title)?);
        }
    }
    if report.wants("throughput: overload") {
        say::note("throughput: overload");
        report.add(overload(rig, plan)?);
    }
    if report.wants(STACKS) {
        say::note(STACKS);
        report.add(with_stacks(rig, plan)?);
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
fn number(count: u64) -> f64 {
    count as f64
}

fn target(rig: &Rig) -> Result<Target> {
    let mut target = Target::on_a_copy(&rig.native.join("push"), &rig.scratch.join("throughput"))?;
    target.ask("tight 2 100")?;
    Ok(target)
}

/// The first line that holds every event up to now.
fn up_to_now(agent: &mut Agent) -> Result<&Value> {
    let now = agent::monotonic_ns()?;
    agent.find(|line| line["time_ns"].as_u64().is_some_and(|time| time >= now))
}

/// What has arrived up to now.
fn settled(agent: &mut Agent) -> Result<Delivered> {
    up_to_now(agent).and_then(delivered)
}

fn with_ring(rig: &Rig, plan: &Plan, kibibytes: u64, title: &str) -> Result<Vec<Line>> {
    let mut target = target(rig)?;
    let kibibytes = kibibytes.to_string();
    let mut options = vec!["--ring-size", &kibibytes, "--refresh", REFRESH];
    let defaults = rig.defaults();
    options.extend(defaults.iter().map(String::as_str));
    let mut agent = Agent::attach(&rig.ttmem, target.pid(), &options)?;
    let mut before = settled(&mut agent)?;
    let pairs = plan.some(500_000);
    let (mut rates, mut losses, mut shares) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.long_rounds {
        let called = number(4 * pairs);
        let start = Instant::now();
        let mut seconds = 0.0;
        shares.push(agent::cpu_share(agent.pid(), || {
            target.ask(&format!("tight 2 {pairs}"))?;
            seconds = start.elapsed().as_secs_f64();
            Ok(())
        })?);
        let now = settled(&mut agent)?;
        rates.push(number(now.received - before.received) / seconds / 1e6);
        losses.push(number(now.lost - before.lost) * 100.0 / called);
        before = now;
    }
    let shares_asked_for: Vec<f64> =
        shares.iter().zip(&rates).map(|(share, rate)| share * ASKED_FOR / rate).collect();
    let more = |line: Line| Line { more_is_better: true, ..line };
    let n = 4 * pairs;
    let lines = [
        Line::of(title, "received", "million/s", n, &rates).map(more),
        Line::of(title, "lost", "%", n, &losses),
        Line::of(title, "agent", "% of a core", n, &shares),
        Line::of(title, "agent, for 1.5 million/s of these", "% of a core", n, &shares_asked_for),
    ];
    Ok(lines.into_iter().flatten().collect())
}

/// A ring that is far too small, and nobody reads: what is lost is counted, and the totals get right
/// again. While it reads, ttmem sets right what it can, and a record of what was set right already
/// is in none of its counts; so only what is lost at once can be balanced.
fn overload(rig: &Rig, plan: &Plan) -> Result<Vec<Line>> {
    let mut target = target(rig)?;
    target.ask("hold 1000")?;
    let mut options = vec!["--ring-size", TOO_SMALL, "--refresh", "10"];
    let defaults = rig.defaults();
    options.extend(defaults.iter().map(String::as_str));
    let mut agent = Agent::attach(&rig.ttmem, target.pid(), &options)?;
    let pairs = plan.some(200_000);
    // Each device is described by a record of its own at its first event, and again until one arrives.
    target.ask("tight 1 1")?;
    target.ask("tight 2 1")?;
    let mut before = settled(&mut agent)?;
    let (mut lost, mut off, mut times) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.long_rounds {
        agent.stop()?;
        target.ask(&format!("tight 2 {pairs}"))?;
        agent.go_on()?;
        let end = agent::monotonic_ns()?;
        let now = settled(&mut agent)?;
        let called = number(4 * pairs);
        let seen = number(now.received - before.received) + number(now.lost - before.lost);
        lost.push(number(now.lost - before.lost) * 100.0 / called);
        off.push((called - seen).abs());
        let exact = agent.find(|line| {
            line["exact"] == true && line["time_ns"].as_u64().is_some_and(|time| time >= end)
        })?;
        let at = exact["time_ns"].as_u64().unwrap_or(end);
        times.push(number(at.saturating_sub(end)) / 1e6);
        before = delivered(exact)?;
    }
    let (title, n) = ("throughput: overload", 4 * pairs);
    let lines = [
        Line::of(title, "lost", "%", n, &lost),
        Line::of(title, "unaccounted for", "records", n, &off),
        Line::of(title, "exact again", "ms", n, &times),
    ];
    Ok(lines.into_iter().flatten().collect())
}

/// Stacks at a steady rate, one for each allocation: the processor for unwinding them, and those lost.
fn with_stacks(rig: &Rig, plan: &Plan) -> Result<Vec<Line>> {
    let mut target = target(rig)?;
    let mut options = vec!["--stacks", "--refresh", REFRESH];
    let defaults = rig.defaults();
    options.extend(defaults.iter().map(String::as_str));
    let mut agent = Agent::attach(&rig.ttmem, target.pid(), &options)?;
    let mut lines = Vec::new();
    for (per_second, name) in [(25_000, "25,000/s"), (50_000, "50,000/s")] {
        let pairs = plan.some(per_second);
        let (mut shares, mut losses) = (Vec::new(), Vec::new());
        let mut before = stacks(&mut agent)?;
        for _ in 0..plan.long_rounds {
            shares.push(agent::cpu_share(agent.pid(), || {
                target.ask(&format!("paced {} {pairs}", 2 * per_second)).map(drop)
            })?);
            let now = stacks(&mut agent)?;
            if now.received + now.lost - before.received - before.lost != pairs {
                bail!("of {pairs} stacks {now:?} are accounted for, behind {before:?}");
            }
            losses.push(number(now.lost - before.lost) * 100.0 / number(pairs));
            before = now;
        }
        lines.extend(Line::of(STACKS, &format!("agent, {name}"), "% of a core", pairs, &shares));
        lines.extend(Line::of(STACKS, &format!("lost, {name}"), "%", pairs, &losses));
    }
    agent.finish()?;
    Ok(lines)
}

/// What became of the stacks up to now.
fn stacks(agent: &mut Agent) -> Result<Delivered> {
    let line = up_to_now(agent)?;
    let count =
        |key: &str| line["stacks"][key].as_u64().with_context(|| format!("no {key}: {line}"));
    Ok(Delivered { received: count("seen")?, lost: count("lost")? })
}
