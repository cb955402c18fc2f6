//! The lines that go out, one type per schema.

use serde::Serialize;
use serde_json::Value;

use super::{filter::Selected, server::End};
use crate::{
    ledger::{
        delta::Delta,
        marks::SinceMark,
        snapshot::{BufferSnapshot, FailuresSnapshot, Snapshot},
    },
    units::Pid,
};

/// An answer as a line, with the id of its request.
pub fn line(id: Option<&Value>, body: &impl Serialize) -> Vec<u8> {
    let mut line = open(body);
    line.extend(end(id));
    line
}

/// An answer without its end, which may be shared by all who ask.
pub fn open(body: &impl Serialize) -> Vec<u8> {
    // None of the types has a map with keys that are no strings, which is all that could fail.
    let mut line = serde_json::to_vec(body).unwrap_or_default();
    line.pop();
    line
}

/// The end of an answer, with the id of its request.
pub fn end(id: Option<&Value>) -> Vec<u8> {
    let mut end = Vec::new();
    if let Some(id) = id {
        end.extend_from_slice(b",\"id\":");
        end.extend(serde_json::to_vec(id).unwrap_or_default());
    }
    end.extend_from_slice(b"}\n");
    end
}

/// What every answer begins with.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Head {
    /// Name and version of the schema.
    pub schema: &'static str,
    /// Every event up to then is included.
    pub time_ns: u64,
    /// The target.
    pub pid: Pid,
}

/// `ttmem.buffers/1`
#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "the documented keys")]
pub struct Buffers<'a> {
    #[serde(flatten)]
    head: Head,
    exact: bool,
    inexact_because: &'a [String],
    sequence: u64,
    total: usize,
    matched: usize,
    matched_bytes: u64,
    buffers: Vec<&'a BufferSnapshot>,
}

impl<'a> Buffers<'a> {
    /// Of a snapshot with the live set.
    pub fn new(snapshot: &'a Snapshot, sequence: u64, selected: Selected<'a>) -> Self {
        let Selected { matched, matched_bytes, buffers } = selected;
        Self {
            head: head("ttmem.buffers/1", snapshot),
            exact: snapshot.exact,
            inexact_because: &snapshot.inexact_because,
            sequence,
            total: snapshot.buffers.as_ref().map_or(0, Vec::len),
            matched,
            matched_bytes,
            buffers,
        }
    }
}

/// `ttmem.failures/1`
#[derive(Debug, Serialize)]
pub struct Failures<'a> {
    #[serde(flatten)]
    head: Head,
    #[serde(flatten)]
    failures: &'a FailuresSnapshot,
}

impl<'a> Failures<'a> {
    /// Of a snapshot.
    pub fn new(snapshot: &'a Snapshot) -> Self {
        Self { head: head("ttmem.failures/1", snapshot), failures: &snapshot.failures }
    }
}

/// `ttmem.sync/1`, `ttmem.unsubscribed/1`
#[derive(Debug, Serialize)]
pub struct Bare {
    #[serde(flatten)]
    pub head: Head,
}

/// `ttmem.mark/1`
#[derive(Debug, Serialize)]
pub struct Marked<'a> {
    #[serde(flatten)]
    pub head: Head,
    pub name: &'a str,
    pub previous: Option<SinceMark>,
}

/// `ttmem.since/1`
#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "the documented keys")]
pub struct Since<'a> {
    #[serde(flatten)]
    pub head: Head,
    pub name: &'a str,
    pub since: SinceMark,
}

/// `ttmem.subscribed/1`
#[derive(Debug, Serialize)]
pub struct Subscribed {
    #[serde(flatten)]
    pub head: Head,
    pub sequence: u64,
}

/// `ttmem.deltas/1`
#[derive(Debug, Serialize)]
pub struct Deltas<'a> {
    #[serde(flatten)]
    pub head: Head,
    pub deltas: &'a [Delta],
}

/// `ttmem.end/1`
#[derive(Debug, Serialize)]
pub struct Ended {
    #[serde(flatten)]
    pub head: Head,
    pub state: End,
}

/// `ttmem.error/1`
#[derive(Debug, Serialize)]
pub struct Failed<'a> {
    schema: &'static str,
    time_ns: u64,
    error: Error<'a>,
}

#[derive(Debug, Serialize)]
struct Error<'a> {
    code: &'static str,
    message: &'a str,
}

impl<'a> Failed<'a> {
    /// An error with one of the documented codes.
    pub fn new(code: &'static str, message: &'a str, time_ns: u64) -> Self {
        Self { schema: "ttmem.error/1", time_ns, error: Error { code, message } }
    }
}

fn head(schema: &'static str, snapshot: &Snapshot) -> Head {
    Head { schema, time_ns: snapshot.time_ns, pid: snapshot.pid }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fixture, socket::filter::Filter};

    #[test]
    fn an_answer_is_one_line_with_the_schema_first_and_the_id_last() {
        let snapshot = fixture::with_buffers();
        let all = snapshot.buffers.as_deref().expect("buffers");
        let answer = Buffers::new(&snapshot, 4, Filter::default().select(all));
        let text = String::from_utf8(line(Some(&"x\n".into()), &answer)).expect("text");
        assert!(text.starts_with("{\"schema\":\"ttmem.buffers/1\",\"time_ns\":"), "{text}");
        assert!(text.ends_with(",\"id\":\"x\\n\"}\n"), "{text}");
        assert_eq!(text.matches('\n').count(), 1);
        let back: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(back["total"], all.len());
        assert_eq!(back["buffers"][0]["unique_id"], 17, "what has no id comes last");
    }
}
