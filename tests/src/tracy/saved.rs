//! A trace as Tracy saves it: pools with their events, plots, and the strings.
//!
//! Most of the file is skipped, unread: pools and plots are found by the keys of their names,
//! which ttmem has chosen. Whatever is read is checked against the counts in the file.

use std::{collections::BTreeMap, fs, io::Read as _, path::Path};

use anyhow::{Context as _, Result, bail, ensure};

/// What ttmem's keys of names begin with.
const NAMES: u64 = 0x7470_0000_0000;

/// An allocation in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its address.
    pub address: u64,
    /// Bytes of each bank.
    pub size: u64,
    /// When it came, ns since the start of the trace.
    pub came_ns: i64,
    /// How long it stayed, ns; negative: to the end.
    pub stayed_ns: i64,
    /// Number of its thread in the trace.
    pub thread: u16,
    /// Its call stack's number; 0: none.
    pub stack: u32,
}

/// A pool.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    /// All that was ever in it, in the order in which it came.
    pub events: Vec<Event>,
    /// How much of it was there at the end.
    pub live: u64,
}

/// A saved trace.
#[derive(Clone, Debug)]
pub struct Trace {
    bytes: Vec<u8>,
    /// By name.
    pub pools: BTreeMap<String, Pool>,
    /// By name: when, ns since the start, and what.
    pub plots: BTreeMap<String, Vec<(i64, f64)>>,
}

impl Trace {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self> {
        let file = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let bytes = decompress(&file)?;
        let names = names(&bytes)?;
        let pools = pools(&bytes, &names)?;
        let plots = plots(&bytes, &names);
        Ok(Self { bytes, pools, plots })
    }

    /// Whether a text is anywhere in it.
    pub fn has_text(&self, text: &str) -> bool {
        memchr_find(&self.bytes, text.as_bytes(), 0).is_some()
    }

    /// When it begins, CLOCK_MONOTONIC nanoseconds, as ttmem says in a line about it.
    pub fn begun_ns(&self) -> u64 {
        let text = b"time 0 is CLOCK_MONOTONIC ";
        let at = memchr_find(&self.bytes, text, 0).map(|at| at + text.len());
        let digits = at.and_then(|at| self.bytes.get(at..)).unwrap_or_default();
        let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(0);
        String::from_utf8_lossy(&digits[..end]).parse().unwrap_or(0)
    }

    /// Bytes live in a pool at the end.
    pub fn live_bytes(&self, pool: &str) -> u64 {
        let events = self.pools.get(pool).map(|pool| &pool.events[..]).unwrap_or_default();
        events.iter().filter(|event| event.stayed_ns < 0).map(|event| event.size).sum()
    }

    /// The addresses and sizes that are live in a pool at the end, in order.
    pub fn live(&self, pool: &str) -> Vec<(u64, u64)> {
        let events = self.pools.get(pool).map(|pool| &pool.events[..]).unwrap_or_default();
        let live = events.iter().filter(|event| event.stayed_ns < 0);
        let mut live: Vec<(u64, u64)> = live.map(|event| (event.address, event.size)).collect();
        live.sort_unstable();
        live
    }
}

/// Pieces of this many bytes go to all streams in turn.
const PIECE: usize = 64 * 1024;
/// A block of nothing, the last one: the streams are flushed, but never ended.
const LAST_BLOCK: [u8; 3] = [1, 0, 0];

fn decompress(file: &[u8]) -> Result<Vec<u8>> {
    ensure!(file.starts_with(b"tr\xfdP"), "not a saved trace: {:?}", &file[..4.min(file.len())]);
    let [kind, streams] = [file[4], file[5]];
    ensure!(kind == 1 && streams > 0, "compressed in an unknown way: {kind}, {streams} streams");
    let mut compressed = vec![Vec::new(); usize::from(streams)];
    let (mut left, mut number) = (&file[6..], 0);
    while left.len() >= 4 {
        let len = u32::from_le_bytes(left[..4].try_into()?) as usize;
        ensure!(left.len() >= 4 + len, "the file is cut off");
        compressed[number % usize::from(streams)].extend_from_slice(&left[4..4 + len]);
        left = &left[4 + len..];
        number += 1;
    }
    let mut plain = Vec::new();
    for mut stream in compressed.into_iter().filter(|stream| !stream.is_empty()) {
        stream.extend_from_slice(&LAST_BLOCK);
        let (mut source, mut bytes) = (&stream[..], Vec::new());
        ruzstd::decoding::StreamingDecoder::new(&mut source)?.read_to_end(&mut bytes)?;
        plain.push(bytes);
    }
    let pieces = plain.iter().map(|bytes| bytes.len().div_ceil(PIECE)).max().unwrap_or(0);
    let mut all = Vec::new();
    for piece in 0..pieces {
        for bytes in &plain {
            all.extend(bytes.chunks(PIECE).nth(piece).unwrap_or_default());
        }
    }
    Ok(all)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn i64_at(bytes: &[u8], at: usize) -> Option<i64> {
    Some(i64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn memchr_find(bytes: &[u8], wanted: &[u8], from: usize) -> Option<usize> {
    bytes.get(from..)?.windows(wanted.len()).position(|window| window == wanted).map(|at| at + from)
}

/// Names by key. Strings are saved as their key in the file, their length and their text; then
/// which key of the program stands for which key in the file.
fn names(bytes: &[u8]) -> Result<BTreeMap<u64, String>> {
    let mut texts: BTreeMap<u64, String> = BTreeMap::new();
    let mut names = BTreeMap::new();
    for at in 0..bytes.len().saturating_sub(16) {
        // key in the file, u64; length, u64; text
        if let (Some(key), Some(len)) = (u64_at(bytes, at), u64_at(bytes, at + 8))
            && key > 0x1000
            && (1..200).contains(&len)
            && let Some(text) = bytes.get(at + 16..at + 16 + usize::try_from(len)?)
            && text.iter().all(|byte| (b' '..0x7f).contains(byte))
        {
            let text = String::from_utf8_lossy(text).into_owned();
            texts.entry(key).or_insert(text);
        }
        if let (Some(program), Some(key)) = (u64_at(bytes, at), u64_at(bytes, at + 8))
            && is_name(program)
            && let Some(text) = texts.get(&key)
        {
            names.entry(program).or_insert_with(|| text.clone());
        }
    }
    ensure!(!names.is_empty(), "no name of ttmem's is in the trace");
    Ok(names)
}

fn is_name(key: u64) -> bool {
    key >> 20 == NAMES >> 20 && key.is_multiple_of(16)
}

fn pools(bytes: &[u8], names: &BTreeMap<u64, String>) -> Result<BTreeMap<String, Pool>> {
    let mut pools = BTreeMap::new();
    for at in 0..bytes.len().saturating_sub(32) {
        let Some(key) = u64_at(bytes, at).filter(|key| is_name(*key)) else { continue };
        let Some(name) = names.get(&key) else { continue };
        if let Some(pool) = pool_at(bytes, at, key)
            && pools.insert(name.clone(), pool).is_some()
        {
            bail!("pool {name} is there twice");
        }
    }
    Ok(pools)
}

/// key, count, live, frees, events of 8+8+3+3+8+8+2+2 bytes, highest, lowest, in use, key.
fn pool_at(bytes: &[u8], at: usize, key: u64) -> Option<Pool> {
    const EVENT: usize = 42;
    let (count, live, frees) =
        (u64_at(bytes, at + 8)?, u64_at(bytes, at + 16)?, u64_at(bytes, at + 24)?);
    let start = at + 32;
    let end = start.checked_add(usize::try_from(count).ok()?.checked_mul(EVENT)?)?;
    if count == 0 || live + frees != count || u64_at(bytes, end + 24)? != key {
        return None;
    }
    let mut came_ns = 0;
    let mut events = Vec::new();
    for event in bytes.get(start..end)?.chunks_exact(EVENT) {
        came_ns += i64_at(event, 22)?;
        events.push(Event {
            address: u64_at(event, 0)?,
            size: u64_at(event, 8)?,
            stack: u32::from_le_bytes([event[16], event[17], event[18], 0]),
            came_ns,
            stayed_ns: i64_at(event, 30)?,
            thread: u16::from_le_bytes([event[38], event[39]]),
        });
    }
    Some(Pool { events, live })
}

/// type, format, steps, fill, colour, key, lowest, highest, sum, count, points of 8+8 bytes.
fn plots(bytes: &[u8], names: &BTreeMap<u64, String>) -> BTreeMap<String, Vec<(i64, f64)>> {
    let mut plots = BTreeMap::new();
    for at in 8..bytes.len().saturating_sub(40) {
        let Some(name) = u64_at(bytes, at).and_then(|key| names.get(&key)) else { continue };
        if let Some(points) = plot_at(bytes, at) {
            plots.insert(name.clone(), points);
        }
    }
    plots
}

fn plot_at(bytes: &[u8], at: usize) -> Option<Vec<(i64, f64)>> {
    // Of a user, in bytes, with steps, filled.
    if bytes.get(at - 8..at - 4)? != [0, 1, 1, 1] {
        return None;
    }
    let value = |at| Some(f64::from_bits(u64_at(bytes, at)?));
    let (lowest, highest) = (value(at + 8)?, value(at + 16)?);
    let count = usize::try_from(u64_at(bytes, at + 32)?).ok().filter(|count| *count > 0)?;
    let points = bytes.get(at + 40..)?.get(..count.checked_mul(16)?)?;
    let mut time = 0;
    let mut found = Vec::new();
    for point in points.chunks_exact(16) {
        time += i64_at(point, 0)?;
        found.push((time, f64::from_bits(u64_at(point, 8)?)));
    }
    let within = |(_, value): &(i64, f64)| (lowest..=highest).contains(value);
    found.iter().all(within).then_some(found)
}
