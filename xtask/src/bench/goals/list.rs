//! The goals, in the words of the groups and names that the suites use.

use super::Bound::{AtLeast, AtMost};
use super::Goal;
use super::Number::{Figure, Ratio};

const TIGHT: &str = "stand-in, push: tight, 1 thread";
const AT_20_000: &str = "stand-in, push: 20,000 events/s";
const WORK_5: &str = "stand-in, push: 5 µs of work an event";
const WORK_50: &str = "stand-in, push: 50 µs of work an event";
const FRAME: &str = "tui: a frame of 160x40, 100000 live";
/// All that a frame may take, ns.
const FRAME_NS: f64 = 5e6;
const FLOOR: &str = "× an empty uprobe";

const fn goal(figure: &'static str, group: &'static str, name: &'static str) -> Goal {
    Goal { figure, group, name, number: Figure, bound: AtMost(0.0), unit: "" }
}

impl Goal {
    const fn at_most(self, most: f64, unit: &'static str) -> Self {
        Self { bound: AtMost(most), unit, ..self }
    }

    const fn at_least(self, least: f64, unit: &'static str) -> Self {
        Self { bound: AtLeast(least), unit, ..self }
    }

    const fn ratio(self) -> Self {
        Self { number: Ratio, ..self }
    }
}

/// All of them.
pub const GOALS: [Goal; 39] = [
    goal("added to a call", TIGHT, "ttmem").ratio().at_most(1.40, FLOOR),
    goal("added to a call, stretch", TIGHT, "ttmem").ratio().at_most(1.25, FLOOR),
    goal("added, beside sums", TIGHT, "ttmem ÷ bpftrace * sums of all fields")
        .at_most(1.0, "× the newest bpftrace that sums"),
    goal("added at 20,000/s, beside printing", AT_20_000, "ttmem ÷ bpftrace * print")
        .at_most(0.1, "× the newest bpftrace that prints"),
    goal(
        "added behind endbr64",
        "stand-in, endbr64 + push: tight, 1 thread",
        "ttmem ÷ empty uprobe at the entry",
    )
    .at_most(0.1, "× an empty uprobe at the entry"),
    goal(
        "added behind mov",
        "stand-in, mov + push: tight, 1 thread",
        "ttmem ÷ empty uprobe at the entry",
    )
    .at_most(0.1, "× an empty uprobe at the entry"),
    goal("slowdown, 5 µs of work", WORK_5, "ttmem").at_most(15.0, "%"),
    goal("slowdown, 50 µs of work", WORK_50, "ttmem").at_most(1.8, "%"),
    goal("slowdown, 5 µs, beside printing", WORK_5, "ttmem ÷ bpftrace * print")
        .at_most(0.2, "× the newest bpftrace that prints"),
    goal("slowdown, 50 µs, beside printing", WORK_50, "ttmem ÷ bpftrace * print")
        .at_most(0.2, "× the newest bpftrace that prints"),
    goal("ttnn step loop, n300", "ttnn, n300, cached programs: step", "ttmem")
        .ratio()
        .at_most(1.01, "× bare"),
    goal("ttnn step loop, t3k", "ttnn, t3k, cached programs: step", "ttmem")
        .ratio()
        .at_most(1.01, "× bare"),
    goal("records without loss", "throughput: 2 threads, 4,096 KiB", "received")
        .at_least(1.5, "million/s"),
    goal("lost meanwhile", "throughput: 2 threads, 4,096 KiB", "lost").at_most(0.0, "%"),
    goal("processor meanwhile", "throughput: 2 threads, 4,096 KiB", "agent")
        .at_most(8.0, "% of a core"),
    goal(
        "processor for 1.5 million/s of these",
        "throughput: 2 threads, 4,096 KiB",
        "agent, for 1.5 million/s of these",
    )
    .at_most(8.0, "% of a core"),
    goal("decode + apply, 1,000 live", "agent: decode and apply", "1,000 live")
        .at_most(30.0, "ns a record"),
    goal("decode + apply, 1,000,000 live", "agent: decode and apply", "1,000,000 live")
        .at_most(30.0, "ns a record"),
    goal("shared table, one counter", "shared table: one counter", "the shared table")
        .at_most(1.0, "ns"),
    goal(
        "shared table, one device under a writer",
        "shared table: one device under a writer",
        "at full speed",
    )
    .at_most(40.0, "ns"),
    goal("attach", "life: attach", "until exact").at_most(200.0, "ms"),
    goal("detach", "life: detach", "SIGINT").at_most(200.0, "ms"),
    goal("exit after SIGKILL", "life: detach", "SIGKILL").at_most(200.0, "ms"),
    goal("baseline of 10,000 live buffers", "life: attach", "more for 10,000 live buffers")
        .at_most(100.0, "ms"),
    goal("memory, idle", "rest: memory", "idle").at_most(12.0, "MiB"),
    goal("memory, 100,000 live", "rest: memory", "100,000 live").at_most(40.0, "MiB"),
    goal("processor, idle", "rest: processor", "idle").at_most(0.3, "% of a core"),
    goal("processor, 20,000 events/s", "rest: processor", "20,000 events/s")
        .at_most(1.5, "% of a core"),
    goal("processor, live view at 2 Hz", "rest: processor", "live view, 2 Hz")
        .at_most(3.0, "% of a core"),
    goal("frame, buffers", FRAME, "buffers").at_most(FRAME_NS, "ns"),
    goal("frame, first step back in time", FRAME, "buffers, the first step back")
        .at_most(FRAME_NS, "ns"),
    goal("frame, a step back in time", FRAME, "buffers, a step back").at_most(FRAME_NS, "ns"),
    goal("frame, a page back in time", FRAME, "buffers, a page back").at_most(FRAME_NS, "ns"),
    goal("frame, held", FRAME, "buffers, held").at_most(FRAME_NS, "ns"),
    goal("processor, Tracy at 10,000 events/s", "tracy: processor, 10,000 events/s", "the mirror")
        .at_most(1.0, "% of a core"),
    goal("Tracy, an event of 256 at once", "tracy: an event of 256 at once", "connected")
        .at_most(60.0, "ns"),
    goal("Tracy, an event of 4,096 at once", "tracy: an event of 4096 at once", "connected")
        .at_most(60.0, "ns"),
    goal("overload, uncounted", "throughput: overload", "unaccounted for").at_most(0.0, "records"),
    goal("overload, exact again", "throughput: overload", "exact again").at_most(2_000.0, "ms"),
];
