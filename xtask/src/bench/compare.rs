//! What got slower since another report, beyond noise.
//!
//! Where a figure was compared with a baseline in its own run, its ratios are compared: they carry
//! over from one hour, and from one machine, to the next. The others are compared as they are.
//! A change counts if the two intervals of the median do not meet, and if it is larger than what a
//! figure differs from itself in either run, at least 5 %.

use ttmem_bench::Line;
use ttmem_bench::stats::Spread;

use super::report::Report;
use super::table;

/// Differences below this mean nothing on a shared machine.
const LEAST: f64 = 1.05;

/// Into which direction a figure went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Slower,
    Faster,
}

/// How a figure changed, and by which factor; `None` if that may be noise.
pub fn change(before: &Line, now: &Line) -> Option<(Change, f64)> {
    let (was, is) = comparable(before, now)?;
    let apart = was.high < is.low || is.high < was.low;
    let factor = is.median / was.median;
    let noise = noise(before).max(noise(now));
    if !apart || !factor.is_finite() || factor <= 0.0 || factor.max(1.0 / factor) <= noise {
        return None;
    }
    let larger = factor > 1.0;
    Some((if larger == now.more_is_better { Change::Faster } else { Change::Slower }, factor))
}

/// The ratios if both have one to the same baseline, else the figures if neither has.
fn comparable(before: &Line, now: &Line) -> Option<(Spread, Spread)> {
    match (&before.against, &now.against) {
        (Some(was), Some(is)) if was.baseline == is.baseline => Some((was.ratio, is.ratio)),
        (None, None) => Some((before.spread, now.spread)),
        _ => None,
    }
}

/// By which factor the baseline differed from itself.
fn noise(line: &Line) -> f64 {
    let control = line.against.as_ref().and_then(|against| against.control);
    control.map_or(LEAST, |control| control.high.max(1.0 / control.low).max(LEAST))
}

/// What there is to say, one line each; the slower ones first.
pub fn lines(before: &Report, now: &Report) -> Vec<String> {
    let mut said = Vec::new();
    let (mut compared, mut alone) = (0, 0);
    for line in &now.results {
        let Some(old) = before.find(&line.group, &line.name) else {
            alone += 1;
            continue;
        };
        compared += 1;
        if let Some((change, factor)) = change(old, line) {
            said.push((change == Change::Faster, describe(change, factor, old, line)));
        }
    }
    said.sort_by_key(|(faster, _)| *faster);
    let mut lines: Vec<String> = said.into_iter().map(|(_, text)| text).collect();
    if before.quick || now.quick {
        lines.push(
            "a quick run is among them: what it says of changes is an indication only".to_owned(),
        );
    }
    lines.push(format!("{compared} figures compared, {alone} are new"));
    lines
}

fn describe(change: Change, factor: f64, before: &Line, now: &Line) -> String {
    let (was, is) = comparable(before, now).unwrap_or((before.spread, now.spread));
    let word = if change == Change::Slower { "worse" } else { "better" };
    let of = now
        .against
        .as_ref()
        .map_or_else(|| now.unit.clone(), |against| format!("× {}", against.baseline));
    let [was, is, factor] = [was.median, is.median, factor].map(table::number);
    format!("{word}: {} / {}: {was} → {is} {of} (× {factor})", now.group, now.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(samples: &[f64]) -> Line {
        Line::of("g", "v", "ns", 1, samples).unwrap()
    }

    fn around(middle: f64) -> Vec<f64> {
        [0.98, 0.99, 1.0, 1.0, 1.0, 1.01, 1.02].map(|part| part * middle).into()
    }

    fn against(ratio: f64, control: [f64; 3]) -> Line {
        let (mine, under) = (around(ratio), around(1.0).iter().map(|_| 1.0).collect::<Vec<_>>());
        let again =
            [control[0], control[1], control[1], control[1], control[1], control[1], control[2]];
        line(&mine).against("floor", &mine, &under, Some(&again))
    }

    #[test]
    fn what_is_apart_and_large_enough_counts() {
        assert_eq!(change(&line(&around(100.0)), &line(&around(120.0))).unwrap().0, Change::Slower);
        assert_eq!(change(&line(&around(120.0)), &line(&around(100.0))).unwrap().0, Change::Faster);
    }

    #[test]
    fn what_overlaps_or_is_small_does_not() {
        assert_eq!(change(&line(&around(100.0)), &line(&around(101.0))), None);
        assert_eq!(change(&line(&[100.0; 7]), &line(&[104.0; 7])), None);
        assert_eq!(change(&line(&[90.0, 130.0]), &line(&[120.0, 140.0])), None);
    }

    #[test]
    fn more_of_a_throughput_is_better() {
        let more = |middle| Line { more_is_better: true, ..line(&around(middle)) };
        assert_eq!(change(&more(100.0), &more(120.0)).unwrap().0, Change::Faster);
        assert_eq!(change(&more(120.0), &more(100.0)).unwrap().0, Change::Slower);
    }

    #[test]
    fn ratios_are_compared_where_there_are_any() {
        let quiet = [0.99, 1.0, 1.01];
        assert_eq!(change(&against(1.2, quiet), &against(1.5, quiet)).unwrap().0, Change::Slower);
        // The figure doubled with the machine's slowness; the ratio did not.
        let mut slow = against(1.2, quiet);
        slow.spread = slow.spread.map(|ns| ns * 2.0);
        assert_eq!(change(&against(1.2, quiet), &slow), None);
        // Another baseline, or none: nothing can be said.
        assert_eq!(change(&against(1.2, quiet), &line(&around(9.0))), None);
    }

    #[test]
    fn a_wide_control_swallows_a_change() {
        assert_eq!(change(&against(1.2, [0.7, 1.0, 1.4]), &against(1.5, [0.99, 1.0, 1.01])), None);
    }

    #[test]
    fn what_was_never_above_nothing_has_no_factor() {
        assert_eq!(change(&line(&[0.0; 7]), &line(&[1.0; 7])), None);
        assert_eq!(change(&line(&[-1.0; 7]), &line(&[1.0; 7])), None);
    }

    #[test]
    fn the_slower_come_first_and_new_ones_are_counted() {
        let named = |name: &str, samples: &[f64]| Line { name: name.to_owned(), ..line(samples) };
        let mut before = Report::new(false, None);
        before.add([named("a", &around(2.0)), named("b", &around(1.0))]);
        let mut now = Report::new(false, None);
        now.add([named("a", &around(1.0)), named("b", &around(2.0)), named("c", &around(1.0))]);
        let said = lines(&before, &now);
        assert!(said[0].starts_with("worse: g / b"), "{said:?}");
        assert!(said[1].starts_with("better: g / a"), "{said:?}");
        assert_eq!(said[2], "2 figures compared, 1 are new");
    }
}
