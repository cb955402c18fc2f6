//! The three witnesses of an audit as lines.

use super::{Page, Paint, or_unknown};
use crate::{
    format,
    ledger::snapshot::{AuditRow, AuditSnapshot, Verdict},
};

/// A line per chip and type; every byte, since a difference may be small.
pub(super) fn audit(page: &mut Page, audit: &AuditSnapshot) {
    page.line(&[]);
    let done = format!("{} compared, {} busy", audit.compared, audit.busy);
    page.line(&[(Paint::Bold, "audit: "), (Paint::Plain, &done)]);
    if let Some(reason) = &audit.shm_unknown_because {
        page.line(&[(Paint::Dim, &format!("audit: shared memory: {}", format::one_line(reason)))]);
    }
    if audit.rows.is_empty() {
        return;
    }
    let heading = format!(
        "{:>4}  {:<13} {:>15} {:>15} {:>15}  VERDICT",
        "CHIP", "AUDIT", "PROBES", "MEMORY", "SHARED MEMORY"
    );
    page.line(&[(Paint::Bold, &heading)]);
    let worth = |row: &&AuditRow| row.likely_reason.is_some() || has_bytes(row);
    for row in audit.rows.iter().filter(worth) {
        row_lines(page, row, audit.shm_unknown_because.is_none());
    }
}

fn has_bytes(row: &AuditRow) -> bool {
    row.probes_logical_bytes > 0 || row.memory_logical_bytes > 0 || row.shm_bytes > Some(0)
}

fn row_lines(page: &mut Page, row: &AuditRow, with_shm: bool) {
    let figures = format!(
        "{:>4}  {:<13} {:>15} {:>15} {:>15}  ",
        row.chip.0,
        row.buffer_type.name(),
        row.probes_logical_bytes,
        row.memory_logical_bytes,
        or_unknown(row.shm_bytes),
    );
    let paint = match row.verdict {
        Verdict::Agree | Verdict::AgreeWithoutShm => Paint::Good,
        Verdict::Unconfirmed => Paint::Warn,
        Verdict::Differ => Paint::Bad,
    };
    page.line(&[(Paint::Plain, &figures), (paint, row.verdict.name())]);
    let unknown = row.shm_unknown_because.as_ref().filter(|_| with_shm);
    for reason in row.likely_reason.iter().chain(unknown) {
        page.line(&[(Paint::Dim, &format!("{:>4}  {}", "", format::one_line(reason)))]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::render;
    use crate::{
        event::BufferType,
        fixture,
        ledger::snapshot::{AuditRow, AuditSnapshot, Snapshot, Verdict},
        units::ChipId,
    };

    fn row(buffer_type: BufferType, shm_bytes: Option<u64>, verdict: Verdict) -> AuditRow {
        AuditRow {
            chip: ChipId(1),
            buffer_type,
            probes_logical_bytes: 4096,
            memory_logical_bytes: 4096,
            shm_bytes,
            shm_unknown_because: shm_bytes.is_none().then(|| "no room".to_owned()),
            shm_all_bytes: shm_bytes,
            shm_ended_bytes: shm_bytes.map(|_| 0),
            verdict,
            likely_reason: (verdict == Verdict::Differ).then(|| "a ghost".to_owned()),
        }
    }

    #[test]
    fn each_row_says_what_is_odd() {
        let audit = AuditSnapshot {
            compared: 3,
            busy: 1,
            rows: vec![
                row(BufferType::Dram, Some(4096), Verdict::Agree),
                row(BufferType::L1, Some(9000), Verdict::Differ),
                row(BufferType::Trace, None, Verdict::AgreeWithoutShm),
            ],
            ..AuditSnapshot::default()
        };
        let text = render(&Snapshot { audit: Some(audit), ..fixture::normal() }, None, false);
        let (_, shown) = text.split_once("\naudit: ").unwrap();
        let lines: Vec<Vec<&str>> =
            shown.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["3", "compared,", "1", "busy"]);
        assert_eq!(lines[2], ["1", "DRAM", "4096", "4096", "4096", "agree"]);
        assert_eq!(lines[3], ["1", "L1", "4096", "4096", "9000", "differ"]);
        assert_eq!(lines[4], ["a", "ghost"]);
        assert_eq!(lines[5][..5], ["1", "TRACE", "4096", "4096", "–"]);
        assert_eq!(lines[6], ["no", "room"]);
        assert!(!render(&fixture::normal(), None, false).contains("audit"));
    }
}
