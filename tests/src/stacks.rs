//! What JSON says of call stacks.

use anyhow::{Context as _, Result};
use serde_json::Value;

/// The names of a buffer's call stack, the innermost first.
pub fn functions(buffer: &Value) -> Result<Vec<&str>> {
    let frames = buffer["stack"].as_array().with_context(|| format!("no stack: {buffer}"))?;
    Ok(frames.iter().filter_map(|frame| frame["function"].as_str()).collect())
}

/// The Python functions of a buffer's call stack, the innermost first: file, line, name.
pub fn python_functions(buffer: &Value) -> Result<Vec<(String, u64, String)>> {
    let frames = buffer["stack"].as_array().with_context(|| format!("no stack: {buffer}"))?;
    let python = frames.iter().filter_map(|frame| Some((frame, frame["line"].as_u64()?)));
    let text = |value: &Value| value.as_str().map(str::to_owned).context("no text");
    python
        .map(|(frame, line)| Ok((text(&frame["module"])?, line, text(&frame["function"])?)))
        .collect()
}

/// Whether the calls are in a stack in this order, with others in between.
pub fn are_in_order(names: &[&str], calls: &[&str]) -> bool {
    let mut rest = names.iter();
    calls.iter().all(|call| rest.any(|name| name == call))
}
