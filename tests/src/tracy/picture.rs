//! A picture of a saved trace: bytes of each bank in each pool over time.

use std::fmt::Write as _;

use super::saved::{Pool, Trace};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 90.0;
const LEFT: f64 = 150.0;

/// The pools, one below the other, as SVG.
pub fn svg(trace: &Trace) -> String {
    let events = || trace.pools.values().flat_map(|pool| &pool.events);
    let begin = events().map(|event| event.came_ns).min().unwrap_or(0);
    let ends = events().map(|event| event.came_ns + event.stayed_ns.max(0));
    let end = ends.max().unwrap_or(0).max(begin + 1);
    let height = HEIGHT * f64::from(u32::try_from(trace.pools.len()).unwrap_or(0)) + 40.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"{w}\" height=\"{height}\" \
         fill=\"#1b1b1f\"/>\n",
        w = LEFT + WIDTH + 20.0
    );
    let x = |time: i64| LEFT + WIDTH * share(time - begin, end - begin);
    for (row, (name, pool)) in (0_u32..).zip(&trace.pools) {
        let bottom = HEIGHT * f64::from(row + 1);
        let steps = steps(pool);
        let highest = steps.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0).max(1);
        let y = |bytes: i64| bottom - (HEIGHT - 20.0) * share(bytes, highest);
        let mut path = format!("M{LEFT:.1} {bottom:.1}");
        let mut last = 0;
        for (time, bytes) in steps {
            let _ = write!(path, " L{:.1} {:.1} L{:.1} {:.1}", x(time), y(last), x(time), y(bytes));
            last = bytes;
        }
        let _ = write!(path, " L{:.1} {:.1} L{:.1} {bottom:.1} Z", x(end), y(last), x(end));
        let kib = highest / 1024;
        let _ = writeln!(
            out,
            "<path d=\"{path}\" fill=\"#3f7fbf\" stroke=\"#9cf\" stroke-width=\"0.7\"/>\n<text x=\"8\" \
             y=\"{:.1}\" fill=\"#eee\">{name}</text>\n<text x=\"8\" y=\"{:.1}\" fill=\"#999\">peak \
             {kib} KiB/bank</text>",
            bottom - 34.0,
            bottom - 18.0
        );
    }
    let seconds = (end - begin) / 1_000_000;
    let _ = writeln!(
        out,
        "<text x=\"{LEFT}\" y=\"{:.1}\" fill=\"#999\">{seconds} ms, {} allocations</text>\n</svg>",
        height - 12.0,
        events().count()
    );
    out
}

/// When the sum changes, and to what.
fn steps(pool: &Pool) -> Vec<(i64, i64)> {
    let mut changes = Vec::new();
    for event in &pool.events {
        let size = i64::try_from(event.size).unwrap_or(0);
        changes.push((event.came_ns, size));
        if event.stayed_ns >= 0 {
            changes.push((event.came_ns + event.stayed_ns, -size));
        }
    }
    changes.sort_unstable();
    let mut sum = 0;
    changes
        .into_iter()
        .map(|(time, change)| {
            sum += change;
            (time, sum)
        })
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "a place in a picture")]
fn share(part: i64, whole: i64) -> f64 {
    part as f64 / whole as f64
}
