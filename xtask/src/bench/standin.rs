//! The stand-in library: what a call costs, by first instruction, rate and who looks.

use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::Result;
use ttmem_bench::Line;

use super::cell::{BARE, BARE_AGAIN, EMPTY, EMPTY_AGAIN, Kind};
use super::fleet::Fleet;
use super::plan::Plan;
use super::report::Report;
use super::rig::Rig;
use super::target::Target;
use super::watcher::Watch;

/// The names of ttmem's variants.
pub const TTMEM: &str = "ttmem";
const DISPATCHES: &str = "ttmem --dispatches";
const STACKS: &str = "ttmem --stacks";
/// With a ring that holds all stacks of a sample: one that is lost costs less.
pub const STACK_OPTIONS: [&str; 3] = ["--stacks", "--stack-ring-size", "262144"];
/// Built variants of the library, and what is said of them.
const SITES: [(&str, &str); 4] =
    [("push", "push"), ("cet", "endbr64 + push"), ("mov", "mov + push"), ("nop5", "5-byte nop")];
/// A call's first byte.
const CALL: u64 = 0xe8;
/// How long a step of work is, in nanoseconds, for finding how many steps make one.
const CALIBRATION_STEPS: u64 = 2_000_000;

/// The name of a bpftrace variant.
pub fn bpftrace(version: &str, what: &str) -> String {
    format!("bpftrace {version} {what}")
}

fn ttmem(rig: &Rig, options: &[&str]) -> Watch {
    let mut words = rig.defaults();
    words.extend(options.iter().map(|word| (*word).to_owned()));
    Watch::Ttmem(words)
}

/// The variants that every cell has.
fn common(rig: &Rig) -> Vec<(String, Watch)> {
    let named = |(name, watch): (&str, Watch)| (name.to_owned(), watch);
    [
        (BARE, Watch::Nobody),
        (BARE_AGAIN, Watch::Nobody),
        (EMPTY, Watch::Empty),
        (EMPTY_AGAIN, Watch::Empty),
        (TTMEM, ttmem(rig, &[])),
    ]
    .map(named)
    .into()
}

/// All tools there are.
fn all(rig: &Rig) -> Vec<(String, Watch)> {
    let mut variants = common(rig);
    variants.push((DISPATCHES.to_owned(), ttmem(rig, &["--dispatches"])));
    variants.push((STACKS.to_owned(), ttmem(rig, &STACK_OPTIONS)));
    for (age, tool) in rig.bpftraces.iter().enumerate() {
        let scripts: &[(&str, &str)] = if age == 0 {
            &[
                ("bytes", "sum of bytes"),
                ("sum", "sums of all fields"),
                ("print", "print"),
                ("pair", "like memleak"),
            ]
        } else {
            &[("sum", "sums of all fields"), ("print", "print")]
        };
        for (script, name) in scripts {
            variants.push((bpftrace(&tool.version, name), Watch::Script(tool.clone(), script)));
        }
    }
    variants
}

/// Measures on every kind of first instruction; on the usual one at every rate.
pub fn measure(rig: &Rig, plan: &Plan, report: &mut Report) -> Result<()> {
    for (site, title) in SITES {
        let title = format!("stand-in, {title}");
        if !report.wants(&title) {
            continue;
        }
        let usual = site == "push";
        let variants = if usual { all(rig) } else { at_another_site(rig) };
        let start = |index: usize| {
            Target::on_a_copy(&rig.native.join(site), &rig.scratch.join(format!("{site}-{index}")))
        };
        let mut fleet = Fleet::start(rig, &title, &variants, &start)?;
        if usual {
            report.add(tight(&mut fleet, plan, 1, 10_000)?);
            report.add(tight(&mut fleet, plan, 2, 10_000)?);
            report.add(paced(&mut fleet, plan)?);
            report.add(working(&mut fleet, plan)?);
        } else {
            report.add(tight(&mut fleet, plan, 1, 3_000)?);
        }
        note_class(rig, site, &mut fleet, report)?;
        report.add(fleet.end()?);
        if usual {
            report.add(starved(rig, plan)?);
        }
    }
    Ok(())
}

/// What the kernel does at that instruction, by ttmem's word and by the code in memory.
fn note_class(rig: &Rig, site: &str, fleet: &mut Fleet, report: &mut Report) -> Result<()> {
    let image = rig.image(&fleet.target(0).library)?;
    let floor = fleet.names().iter().position(|name| name == EMPTY).unwrap_or(0);
    let entry = fleet.target(0).sites()?.entries[0];
    let moved = match image.points[0].checked_sub(entry) {
        Some(0) | None => "at the entry".to_owned(),
        Some(bytes) => format!("{bytes} bytes behind the entry"),
    };
    let optimised = fleet.target(floor).sites()?.opcode == CALL;
    let by_call = if optimised { ", made a call by this kernel" } else { "" };
    report.fact(&format!("probed at {site}"), &format!("{}, {moved}{by_call}", image.cost));
    Ok(())
}

/// Where the instruction is dear, what ttmem does about it is seen beside a probe at the entry.
fn at_another_site(rig: &Rig) -> Vec<(String, Watch)> {
    let mut variants = common(rig);
    variants.push(("empty uprobe at the entry".to_owned(), Watch::EmptyAtEntry));
    variants.extend(sums(rig));
    variants
}

/// The newest bpftrace there is, which sums.
pub fn sums(rig: &Rig) -> Option<(String, Watch)> {
    newest(rig, "sum", "sums of all fields")
}

/// The newest bpftrace there is, with a script, and what is said of it.
fn newest(rig: &Rig, script: &'static str, what: &str) -> Option<(String, Watch)> {
    let tool = rig.bpftraces.first()?;
    Some((bpftrace(&tool.version, what), Watch::Script(tool.clone(), script)))
}

/// ttmem beside every other tool of the same cell.
pub fn versus(cell: &super::cell::Cell, names: &[String]) -> Vec<Line> {
    let others =
        names.iter().filter(|name| name.starts_with("bpftrace") || name.ends_with("entry"));
    others.filter_map(|other| cell.versus(TTMEM, other)).collect()
}

fn tight(fleet: &mut Fleet, plan: &Plan, threads: u64, pairs: u64) -> Result<Vec<Line>> {
    let pairs = plan.some(pairs);
    let name = format!("tight, {threads} thread{}", if threads == 1 { "" } else { "s" });
    let command = format!("tight {threads} {pairs}");
    let n = 2 * pairs * threads;
    let cell = fleet.measure(&name, Kind::Added, &command, n, plan.rounds)?;
    let mut lines = cell.lines();
    lines.extend(versus(&cell, fleet.names()));
    Ok(lines)
}

fn paced(fleet: &mut Fleet, plan: &Plan) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for (rate, shown, pairs) in
        [(2_000, "2,000", 200), (20_000, "20,000", 1_500), (200_000, "200,000", 10_000)]
    {
        let pairs = plan.some(pairs);
        let name = format!("{shown} events/s");
        let command = format!("paced {rate} {pairs}");
        let cell = fleet.measure(&name, Kind::Added, &command, 2 * pairs, plan.long_rounds)?;
        lines.extend(cell.lines());
        lines.extend(versus(&cell, fleet.names()));
    }
    Ok(lines)
}

fn working(fleet: &mut Fleet, plan: &Plan) -> Result<Vec<Line>> {
    let command = format!("loops {CALIBRATION_STEPS}");
    let times: Result<Vec<f64>> = (0..5).map(|_| fleet.target(0).nanoseconds(&command)).collect();
    let fastest = times?.into_iter().fold(f64::INFINITY, f64::min).max(1.0);
    let mut lines = Vec::new();
    for (microseconds, pairs) in [(5, 2_000), (50, 300)] {
        let pairs = plan.some(pairs);
        let steps = steps(microseconds, fastest);
        let name = format!("{microseconds} µs of work an event");
        let command = format!("work {steps} {pairs}");
        let cell = fleet.measure(&name, Kind::Slower, &command, 2 * pairs, plan.rounds)?;
        lines.extend(cell.lines());
        lines.extend(versus(&cell, fleet.names()));
    }
    Ok(lines)
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a count of steps, above 0 and far below 2^53"
)]
fn steps(microseconds: u64, ns_of_calibration: f64) -> u64 {
    (microseconds as f64 * 1000.0 * CALIBRATION_STEPS as f64 / ns_of_calibration) as u64
}

/// Every processor is busy with something else, so that whoever reads comes late: what is lost?
fn starved(rig: &Rig, plan: &Plan) -> Result<Vec<Line>> {
    let mut variants = vec![(TTMEM.to_owned(), ttmem(rig, &[]))];
    variants.extend(newest(rig, "print", "print"));
    let start = |index: usize| {
        Target::on_a_copy(&rig.native.join("push"), &rig.scratch.join(format!("starved-{index}")))
    };
    let title = "stand-in, push, starved agent at 200,000 events/s";
    let mut fleet = Fleet::start(rig, title, &variants, &start)?;
    let hogs = Hogs::start()?;
    for index in 0..fleet.names().len() {
        fleet.target(index).ask(&format!("paced 200000 {}", plan.some(100_000)))?;
    }
    drop(hogs);
    fleet.end()
}

/// Two busy loops for each processor. They are ended when dropped.
struct Hogs(Vec<Child>);

impl Hogs {
    fn start() -> Result<Self> {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let mut hogs = Self(Vec::new());
        for _ in 0..2 * processors {
            let mut command = Command::new("sh");
            command.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
            hogs.0.push(command.spawn()?);
        }
        Ok(hogs)
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        for hog in &mut self.0 {
            // Our own child, not yet waited for, so its id is still its own.
            drop(hog.kill());
            drop(hog.wait());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_make_the_work() {
        // A step of one nanosecond: five thousand of them are five microseconds.
        assert_eq!(steps(5, 2_000_000.0), 5_000);
        assert_eq!(steps(50, 4_000_000.0), 25_000);
    }
}
