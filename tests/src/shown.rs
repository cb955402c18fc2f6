//! What the screen of the live view says, to be compared with JSON.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// A byte count as people read it: binary units, rounded down.
pub fn bytes(count: &Value) -> Result<String> {
    let count = count.as_u64().context("no byte count")?;
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    while count >> (10 * (unit + 1)) > 0 {
        unit += 1;
    }
    let tenths = (u128::from(count) * 10) >> (10 * unit);
    Ok(if unit == 0 || tenths >= 10_000 {
        format!("{} {}", tenths / 10, units[unit])
    } else {
        format!("{}.{} {}", tenths / 10, tenths % 10, units[unit])
    })
}

/// The lines that follow a chip's title.
pub fn lines_of_chip(screen: &str, chip: i64) -> Vec<&str> {
    let title = format!("── chip {chip} ");
    let mut lines = screen.lines().skip_while(|line| !line.contains(&title));
    lines.next();
    lines.take_while(|line| !line.contains("── chip ")).collect()
}

/// Compares what the screen says of a pool with JSON; on 80 columns all columns are there.
pub fn compare_pool(screen: &str, chip: i64, pool: &Value) -> Result<()> {
    let kind = pool["type"].as_str().context("no type")?;
    let name = if kind == "SYSTEM_MEMORY" { "SYSMEM" } else { kind };
    let lines = lines_of_chip(screen, chip);
    let line = lines
        .iter()
        .find(|line| line.split_whitespace().next() == Some(name))
        .with_context(|| format!("chip {chip} {name} is not shown:\n{screen}"))?;
    let (used, capacity) = (pool["used_bytes"].as_u64(), pool["capacity_bytes"].as_u64());
    let (used, capacity) = used.zip(capacity).context("unknown")?;
    let tenths = u128::from(used) * 1000 / u128::from(capacity);
    let percent = match tenths {
        0 if used > 0 => "<0.1%".to_owned(),
        _ => format!("{}.{}%", tenths / 10, tenths % 10),
    };
    let expected = format!(
        "{percent} {} / {} {} {} 0",
        bytes(&pool["used_bytes"])?,
        bytes(&pool["capacity_bytes"])?,
        bytes(&pool["peak_used_bytes"])?,
        pool["buffers"],
    );
    ends_with(&line.replace('!', " "), &expected)
}

/// Makes sure that a line ends with these words, however they are spaced.
pub fn ends_with(line: &str, expected: &str) -> Result<()> {
    let shown = line.split_whitespace().collect::<Vec<_>>().join(" ");
    ensure!(shown.ends_with(&format!(" {expected}")), "{expected:?} is not in {line:?}");
    Ok(())
}

/// A row of a table of buffers or changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The words before the size, but for the time.
    pub what: Option<String>,
    /// As people read it.
    pub size: String,
    /// Buffer type.
    pub kind: String,
    /// Address.
    pub address: u64,
}

/// The rows of the view of live buffers.
pub fn buffer_rows(screen: &str) -> Vec<Row> {
    let row = |line: &str| {
        let words: Vec<&str> = line.trim_start_matches('▶').split_whitespace().collect();
        let [size, unit, _, _, kind, _, address, ..] = words[..] else { return None };
        let address = u64::from_str_radix(address.strip_prefix("0x")?, 16).ok()?;
        Some(Row { what: None, size: format!("{size} {unit}"), kind: kind.to_owned(), address })
    };
    screen.lines().filter_map(row).collect()
}

/// The rows of the view of events that tell of buffers.
pub fn event_rows(screen: &str) -> Vec<Row> {
    let row = |line: &str| {
        let words: Vec<&str> = line.trim_start_matches('▶').split_whitespace().collect();
        let [_, what, kind, size, unit, address, ..] = words[..] else { return None };
        let address = u64::from_str_radix(address.strip_prefix("0x")?, 16).ok()?;
        let (what, size) = (Some(what.to_owned()), format!("{size} {unit}"));
        Some(Row { what, size, kind: kind.to_owned(), address })
    };
    screen.lines().filter_map(row).collect()
}

/// The live buffers of JSON as rows would say them, the largest first, and then in no order.
pub fn expected_rows(buffers: &[Value]) -> Result<Vec<Row>> {
    let mut sorted: Vec<&Value> = buffers.iter().collect();
    sorted.sort_by_key(|buffer| std::cmp::Reverse(buffer["size"].as_u64()));
    let row = |buffer: &&Value| {
        Ok(Row {
            what: None,
            size: bytes(&buffer["size"])?,
            kind: buffer["type"].as_str().context("no type")?.to_owned(),
            address: buffer["address"].as_u64().context("no address")?,
        })
    };
    sorted.iter().map(row).collect()
}

/// Compares the visible rows of live buffers, sorted by size, with JSON.
pub fn compare_buffers(screen: &str, buffers: &[Value]) -> Result<usize> {
    let (shown, expected) = (buffer_rows(screen), expected_rows(buffers)?);
    ensure!(!shown.is_empty(), "no rows:\n{screen}");
    ensure!(shown.len() <= expected.len(), "{} rows of {}", shown.len(), expected.len());
    for (row, expected_there) in shown.iter().zip(&expected) {
        ensure!(row.size == expected_there.size, "{row:?} instead of {expected_there:?}\n{screen}");
        ensure!(expected.contains(row), "{row:?} is not live");
    }
    let total = format!(" {} buffers,", buffers.len());
    ensure!(screen.contains(&total), "no {total:?}:\n{screen}");
    Ok(shown.len())
}

/// Compares what happened last at each address with JSON; returns how many changes were compared.
pub fn compare_events(screen: &str, buffers: &[Value]) -> Result<usize> {
    let live = expected_rows(buffers)?;
    let mut seen = BTreeSet::new();
    for row in event_rows(screen) {
        if !seen.insert((row.kind.clone(), row.address)) {
            continue;
        }
        let found = live.iter().find(|it| (&it.kind, it.address) == (&row.kind, row.address));
        match row.what.as_deref() {
            Some("alloc") => {
                ensure!(found.is_some_and(|it| it.size == row.size), "{row:?} is not live");
            }
            Some("free") => ensure!(found.is_none(), "{row:?} is live"),
            _ => {}
        }
    }
    ensure!(!seen.is_empty(), "no events:\n{screen}");
    Ok(seen.len())
}
