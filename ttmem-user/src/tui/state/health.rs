//! What ttmem can see, what it loses, and what it costs, as rows.

use crate::{
    format,
    history::{History, MAX_BYTES},
    ledger::{call::StackCounts, health::Health as Agent, report::Report, snapshot::Snapshot},
    tui::{
        field::Field,
        table::{Column, Heading, Table, Tone},
    },
};

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// What it is about.
    pub about: &'static str,
    /// What.
    pub what: String,
    /// How much, or why.
    pub value: String,
    /// How it is to be seen.
    pub tone: Tone,
}

const COLUMNS: &[Column<Fact>] = &[
    Column { heading: Heading::words("about", "about", 8), field: |row| Field::text(row.about) },
    Column { heading: Heading::words("what", "what", 27), field: |row| Field::text(&*row.what) },
    Column { heading: Heading::words("value", "value", 10), field: |row| Field::text(&*row.value) },
];

/// The state of the view.
#[derive(Debug)]
pub struct Health {
    /// The rows.
    pub table: Table<Fact>,
    /// What was published last, and before that, with their times.
    last: Option<(u64, Agent)>,
    before: Option<(u64, Agent)>,
}

impl Default for Health {
    fn default() -> Self {
        let table = Table::new(COLUMNS, 0, false).with_tone(|row: &Fact| row.tone);
        Self { table, last: None, before: None }
    }
}

impl Health {
    /// Remembers what is published, for rates.
    pub fn note(&mut self, report: &Report) {
        let Some(health) = &report.health else { return };
        if self.last.as_ref().is_none_or(|(time_ns, _)| report.time_ns > *time_ns) {
            self.before = self.last.replace((report.time_ns, health.clone()));
        }
    }

    /// Takes in what is to be shown in a view of `height` lines. `history`: what is recorded of the
    /// target, or why nothing is, if there is something to be said of it.
    pub fn observe(
        &mut self,
        height: u16,
        snapshot: &Snapshot,
        history: Result<&History, Option<&str>>,
        stacks: Option<&StackCounts>,
    ) {
        let mut rows = agent_rows(self.last.as_ref(), self.before.as_ref());
        rows.extend(match history {
            Ok(history) => history_rows(history, snapshot.time_ns),
            Err(why) => why
                .map(|why| fact("history", "what it did", why.to_owned(), Tone::Warn))
                .into_iter()
                .collect(),
        });
        rows.extend(witness_rows(snapshot));
        rows.extend(lost_rows(snapshot));
        rows.extend(stacks.into_iter().flat_map(stack_rows));
        if snapshot.totals_only.is_some() {
            rows.push(odd_row("odd", "events of any kind", snapshot.anomaly_count()));
            rows.push(elsewhere("probe", "probes and fields"));
            rows.push(elsewhere("resync", "readings"));
        } else {
            rows.extend(odd_rows(snapshot));
            rows.extend(probe_rows(snapshot));
        }
        self.table.take(rows, height.saturating_sub(1).into());
    }
}

fn fact(about: &'static str, what: &str, value: String, tone: Tone) -> Fact {
    Fact { about, what: what.to_owned(), value, tone }
}

/// What only the ttmem that attached knows.
fn elsewhere(about: &'static str, what: &str) -> Fact {
    fact(about, what, "with the ttmem that attached".to_owned(), Tone::Usual)
}

fn agent_rows(last: Option<&(u64, Agent)>, before: Option<&(u64, Agent)>) -> Vec<Fact> {
    const ABOUT: &str = "agent";
    let Some((time_ns, now)) = last else {
        return vec![elsewhere(ABOUT, "cost and queues")];
    };
    let unknown = || format::UNKNOWN.to_owned();
    let since = before.map(|(then_ns, then)| (time_ns.saturating_sub(*then_ns).max(1), then));
    let share = |part: fn(&Agent) -> u64| {
        let (elapsed, then) = since?;
        format::percent(part(now).saturating_sub(part(then)), elapsed)
    };
    let records = since.map(|(_, then)| now.records.saturating_sub(then.records));
    let per_second = since.zip(records).map(|((elapsed, _), records)| {
        let rate = u128::from(records) * 1_000_000_000 / u128::from(elapsed);
        format!("{}/s", format::count(u64::try_from(rate).unwrap_or(u64::MAX)))
    });
    let per_record = now.busy_ns.checked_div(now.records).map(format::duration);
    let mut rows = vec![
        fact(
            ABOUT,
            "processor, of one core",
            share(|of| of.cpu_ns).unwrap_or_else(unknown),
            Tone::Usual,
        ),
        fact(ABOUT, "memory", format::bytes_or_unknown(now.resident_bytes), Tone::Usual),
        fact(
            ABOUT,
            "records",
            format!(
                "{} in all, now {}",
                format::count(now.records),
                per_second.unwrap_or_else(unknown)
            ),
            Tone::Usual,
        ),
        fact(ABOUT, "time per record", per_record.unwrap_or_else(unknown), Tone::Usual),
    ];
    if let Some(ring) = now.ring {
        let part = |bytes| format::percent(bytes, ring.size_bytes).unwrap_or_else(unknown);
        let (now, most) = (part(ring.waiting_bytes), part(ring.most_bytes));
        let size = format::bytes(ring.size_bytes);
        let value = format!("{now} of {size} now, at most {most} so far");
        let tone = if ring.most_bytes > ring.size_bytes / 2 { Tone::Warn } else { Tone::Good };
        rows.push(fact(ABOUT, "ring buffer", value, tone));
    }
    for queue in &now.queues {
        let waiting = format!("{} of {} wait", queue.waiting, queue.room);
        let value = format!("{waiting}, {} overflows", queue.overflows);
        let tone = if queue.overflows > 0 { Tone::Warn } else { Tone::Good };
        rows.push(fact("queue", queue.name, value, tone));
    }
    rows
}

/// What is recorded of the target, and what of it had to go.
fn history_rows(history: &History, now_ns: u64) -> Vec<Fact> {
    const ABOUT: &str = "history";
    let (live, all) = (history.live().bytes(), history.bytes());
    let bytes = |count: usize| format::bytes(count as u64);
    let besides = bytes(all.saturating_sub(live));
    let memory = format!("{} live set, {besides} of {} past", bytes(live), bytes(MAX_BYTES));
    let reach = history.reach_ns().map_or_else(
        || "nowhere: changes are missing".to_owned(),
        |reach_ns| {
            let ago = format::age(now_ns.saturating_sub(reach_ns));
            format!("{ago}, {} changes", history.kept())
        },
    );
    let gone = [
        ("changes missed", history.missed()),
        ("changes in no timeline", history.timeline().left_out()),
        ("notes dropped", history.notes_dropped()),
    ];
    let counts = gone.into_iter().map(|(what, count)| {
        let tone = if count > 0 { Tone::Warn } else { Tone::Usual };
        fact(ABOUT, what, count.to_string(), tone)
    });
    let first = [
        fact(ABOUT, "memory", memory, Tone::Usual),
        fact(ABOUT, "buffer by buffer back to", reach, Tone::Usual),
    ];
    first.into_iter().chain(counts).collect()
}

/// What the probes counted, whatever was lost afterwards.
fn witness_rows(snapshot: &Snapshot) -> Vec<Fact> {
    let Some(witness) = &snapshot.witness else { return Vec::new() };
    let allocations = witness.allocations.iter().map(|row| row.count).sum();
    let bytes = witness.allocations.iter().map(|row| u128::from(row.logical_bytes)).sum::<u128>();
    let bytes = format::bytes(u64::try_from(bytes).unwrap_or(u64::MAX));
    [
        ("allocations", format!("{}, {bytes}", format::count(allocations))),
        ("allocations not readable", format::count(witness.unread_allocations)),
        ("frees", format::count(witness.frees)),
        ("bulk frees", format::count(witness.bulk_frees)),
    ]
    .into_iter()
    .map(|(what, value)| fact("kernel", what, value, Tone::Usual))
    .collect()
}

fn lost_rows(snapshot: &Snapshot) -> impl Iterator<Item = Fact> {
    let lost = &snapshot.lost;
    let counts = [("ring buffer full", lost.ring_full), ("field not readable", lost.read_fault)];
    counts.into_iter().map(|(what, count)| {
        let tone = if count > 0 { Tone::Bad } else { Tone::Usual };
        fact("lost", what, count.to_string(), tone)
    })
}

/// What has become of the call stacks.
fn stack_rows(stacks: &StackCounts) -> Vec<Fact> {
    const ABOUT: &str = "stacks";
    let seen = format!("{}, of all {} different", format::count(stacks.seen), stacks.different);
    let doubtful = |what: &str, count: u64| {
        let tone = if count > 0 { Tone::Warn } else { Tone::Usual };
        fact(ABOUT, what, format::count(count), tone)
    };
    let mut rows = vec![
        fact(ABOUT, "seen", seen, Tone::Usual),
        fact(ABOUT, "kept now", format::count(stacks.kept), Tone::Usual),
        doubtful("lost, ring buffer full", stacks.lost),
        doubtful("seen and not kept", stacks.not_kept),
    ];
    let cut = stacks.cut.iter();
    rows.extend(
        cut.map(|(why, count)| doubtful(&format!("cut, {}", why.replace('_', " ")), *count)),
    );
    let python = stacks.python_unknown.iter();
    rows.extend(
        python
            .map(|(why, count)| doubtful(&format!("no Python, {}", why.replace('_', " ")), *count)),
    );
    rows
}

fn odd_rows(snapshot: &Snapshot) -> Vec<Fact> {
    let (odd, resync) = (&snapshot.anomalies, &snapshot.resync);
    let counts = [
        ("odd", "free of an unknown buffer", odd.unknown_free),
        ("odd", "allocation of a live buffer", odd.double_allocation),
        ("odd", "record not decodable", odd.undecodable),
        ("odd", "size not as expected", odd.size_mismatch),
        ("odd", "overlapping buffers", odd.overlap),
        ("odd", "free list not as expected", odd.free_list_mismatch),
        ("odd", "allocation missed", odd.missed_allocation),
        ("odd", "free missed", odd.missed_free),
        ("odd", "buffer changed", odd.changed),
        ("resync", "readings failed", resync.failed),
    ];
    let mut rows: Vec<Fact> =
        counts.into_iter().map(|(about, what, count)| odd_row(about, what, count)).collect();
    rows.push(fact("resync", "readings compared", resync.done.to_string(), Tone::Usual));
    if let Some(last_ns) = resync.last_ns {
        let ago = format::age(snapshot.time_ns.saturating_sub(last_ns));
        let found = resync.last_differences.map_or(0, |last| last.total());
        rows.push(fact("resync", "last", format!("{ago} ago, {found} differences"), Tone::Usual));
    }
    rows
}

fn odd_row(about: &'static str, what: &str, count: u64) -> Fact {
    let tone = if count > 0 { Tone::Warn } else { Tone::Usual };
    fact(about, what, count.to_string(), tone)
}

fn probe_rows(snapshot: &Snapshot) -> Vec<Fact> {
    let missing = snapshot.unresolved.iter();
    let mut rows: Vec<Fact> = missing
        .map(|what| fact("probe", &what.probe, format!("not found: {}", what.reason), Tone::Warn))
        .collect();
    if rows.is_empty() {
        rows.push(fact("probe", "all probes and fields", "found".to_owned(), Tone::Good));
    }
    if let Some(why) = snapshot.failures.unseen_because() {
        rows.push(fact("probe", "failed allocations", format!("not seen: {why}"), Tone::Warn));
    }
    rows
}
