//! Failed allocations: what ttmem says of them, and what the exception's message does.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::ttmem::Attached;

/// The keys of a failure, and what comes before and after the number in the message.
const NUMBERS: [(&str, &str, &str); 7] = [
    ("size", " to allocate ", " B "),
    ("banks", " across ", " banks"),
    ("bank_bytes", "needs to store ", " B"),
    ("bank_size_bytes", "bank size is ", " B"),
    ("bank_allocated_bytes", "(allocated: ", " B"),
    ("bank_free_bytes", ", free: ", " B"),
    ("bank_largest_free_bytes", "largest free block: ", " B"),
];

fn between<'a>(text: &'a str, before: &str, after: &str) -> Result<&'a str> {
    let rest = text.split_once(before).with_context(|| format!("no {before:?} in {text:?}"))?.1;
    let found = rest.split_once(after).with_context(|| format!("no {after:?} in {rest:?}"))?;
    Ok(found.0)
}

/// Fails unless every number of a failure is that of the message.
pub fn agrees(failure: &Value, message: &str) -> Result<()> {
    for (key, before, after) in NUMBERS {
        let said: u64 = between(message, before, after)?.parse()?;
        ensure!(failure[key] == said, "{key}: {failure} but {message}");
    }
    let said = between(message, " to allocate ", " buffer")?.rsplit(' ').next();
    ensure!(failure["type"].as_str() == said, "{failure} but {message}");
    Ok(())
}

/// Whether a line of ttmem is a failure and not a snapshot.
pub fn is_failure(line: &Value) -> bool {
    line["schema"] == "ttmem.failure/1"
}

/// The failures up to the first snapshot that holds every event up to `time_ns`, and that
/// snapshot.
pub fn up_to(attached: &mut Attached, time_ns: u64) -> Result<(Vec<Value>, Value)> {
    let mut failures = Vec::new();
    loop {
        let line = attached.next()?.context("ttmem ended")?;
        if is_failure(&line) {
            failures.push(line);
        } else if line["time_ns"].as_u64().is_some_and(|time| time >= time_ns) {
            return Ok((failures, line));
        }
    }
}
