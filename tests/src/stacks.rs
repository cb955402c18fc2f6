//! What JSON says of call stacks.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::Value;

/// Python functions of one stack that are recorded.
pub const MOST_PYTHON: usize = 64;

/// Functions of Python: file, line, name.
pub type PythonFunctions = Vec<(String, u64, String)>;

/// A buffer that a Python program has made.
#[derive(Debug, Deserialize)]
pub struct Made {
    /// In which way, where there are several.
    #[serde(default)]
    pub how: String,
    /// Its address.
    pub address: u64,
    /// The functions that were being executed, the innermost first.
    pub stack: PythonFunctions,
}

/// What a Python program says where it waits.
#[derive(Debug, Deserialize)]
pub struct Told {
    /// Where that is.
    pub checkpoint: String,
    /// What it has made so far.
    pub made: Vec<Made>,
}

/// The names of a buffer's call stack, the innermost first.
pub fn functions(buffer: &Value) -> Result<Vec<&str>> {
    let frames = buffer["stack"].as_array().with_context(|| format!("no stack: {buffer}"))?;
    Ok(frames.iter().filter_map(|frame| frame["function"].as_str()).collect())
}

/// The Python functions of a buffer's call stack, the innermost first.
pub fn python_functions(buffer: &Value) -> Result<PythonFunctions> {
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

/// A snapshot's buffers by their addresses.
pub fn by_address(snapshot: &Value) -> Result<HashMap<u64, &Value>> {
    let buffers = snapshot["buffers"].as_array().context("no buffers")?;
    let address = |buffer: &Value| buffer["address"].as_u64().context("no address");
    buffers.iter().map(|buffer| Ok((address(buffer)?, buffer))).collect()
}
