//! Everything that keeps the numbers from being exact or known, as lines of text.

use crate::{
    format::{self, one_line},
    ledger::snapshot::Snapshot,
};

/// The notes on a snapshot, wrapped to `width` characters; never empty.
pub fn lines(snapshot: &Snapshot, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in paragraphs(snapshot) {
        wrap(&one_line(&paragraph), width, &mut lines);
    }
    lines
}

fn paragraphs(snapshot: &Snapshot) -> Vec<String> {
    let mut notes = Vec::new();
    notes.extend(snapshot.inexact_because.iter().map(|why| format!("inexact: {why}")));
    let facts = [
        (snapshot.lost.ring_full, "lost: records refused because the ring buffer was full"),
        (snapshot.lost.read_fault, "lost: records with a field that could not be read"),
        (snapshot.anomalies.unknown_free, "anomaly: frees of buffers not known to be live"),
        (snapshot.anomalies.double_allocation, "anomaly: allocations of buffers still live"),
        (snapshot.anomalies.undecodable, "anomaly: records that could not be decoded"),
        (snapshot.anomalies.size_mismatch, "anomaly: older buffers whose size was unexpected"),
        (snapshot.anomalies.missed_allocation, "anomaly: live buffers found that were not known"),
        (snapshot.anomalies.missed_free, "anomaly: buffers gone that were taken as live"),
        (snapshot.anomalies.changed, "anomaly: live buffers that were not what was known"),
    ];
    for (count, what) in facts.into_iter().filter(|(count, _)| *count > 0) {
        notes.push(format!("{what}: {count}"));
    }
    let unresolved = snapshot.unresolved.iter();
    notes.extend(unresolved.map(|what| format!("unresolved: {}: {}", what.probe, what.reason)));
    if notes.is_empty() {
        let nothing = if snapshot.exact {
            "Nothing: every number equals the allocator's own."
        } else {
            "inexact, but no reason was given"
        };
        notes.push(nothing.to_owned());
    }
    if snapshot.taken_blocks > 0 {
        let what = "live buffers whose block was given back by the late free of another";
        notes.push(format!("{what}: {}", snapshot.taken_blocks));
    }
    let failures = &snapshot.failures;
    notes
        .extend(failures.unseen_because().map(|why| format!("failed allocations: unknown: {why}")));
    if let Some(count) = failures.count.filter(|count| *count > 0) {
        let which = match failures.last[..] {
            [] if snapshot.totals_only.is_some() => "they are with the ttmem that attached",
            [] => "none was kept",
            _ => "the last ones, newest first:",
        };
        notes.push(format!("failed allocations: {count}; {which}"));
    }
    let last = failures.last.iter().rev();
    notes.extend(last.map(|failure| format!("{}: {}", failure.id, format::failure(failure))));
    notes
}

/// Breaks `text` at spaces, and words longer than a line anywhere; further lines are indented.
fn wrap(text: &str, width: usize, lines: &mut Vec<String>) {
    let width = width.max(8);
    let mut line = String::new();
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        let used = line.chars().count();
        if used + 1 + word.len() <= width && used > 0 {
            line.push(' ');
        } else if used > 0 {
            lines.push(std::mem::replace(&mut line, "  ".to_owned()));
        }
        while line.chars().count() + word.len() > width {
            let rest = word.split_off(width - line.chars().count());
            line.extend(std::mem::replace(&mut word, rest));
            lines.push(std::mem::replace(&mut line, "  ".to_owned()));
        }
        line.extend(word);
    }
    lines.push(line);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn lines_fit_and_lose_nothing() {
        for width in 8..90 {
            let lines = lines(&fixture::inexact(), width);
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{lines:#?}");
            let text = lines.concat().replace(' ', "");
            assert!(text.contains("GraphTrackerisnotknownforthisbuild"), "{text}");
        }
    }

    #[test]
    fn each_kind_is_listed() {
        let text = |snapshot| lines(&snapshot, 200).join("\n");
        assert!(text(fixture::lossy()).contains("ring buffer was full: 10"));
        assert!(text(fixture::inexact()).contains("not known to be live: 1"));
        assert!(text(fixture::unresolved()).contains("unresolved: bank size: inlined"));
        assert!(text(fixture::normal()).starts_with("Nothing"));
        let failed = text(fixture::failed());
        assert!(failed.contains("failed allocations: 7; the last"), "{failed}");
        assert!(failed.contains("1: no room for 1.0 GiB of DRAM"), "{failed}");
        let blind = text(fixture::blind_to_failures());
        assert!(blind.contains("failed allocations: unknown: nothing throws"), "{blind}");
    }
}
