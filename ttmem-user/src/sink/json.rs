//! What is known as JSON, one object per line; the types say what is in it.

use std::io::{self, Write};

use serde::Serialize;

use crate::ledger::{call::Calls, snapshot::Snapshot};

/// Writes one line.
pub fn write(to: &mut impl Write, what: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *to, what)?;
    to.write_all(b"\n")
}

/// Writes a line for each failed allocation with an id above `shown` that was kept; with what called
/// for what was live, if that is recorded.
pub fn write_failures(
    to: &mut impl Write,
    snapshot: &Snapshot,
    shown: u64,
    calls: Option<&dyn Calls>,
) -> io::Result<()> {
    for mut line in snapshot.failures.lines_after(snapshot.pid, shown) {
        if let (Some(calls), Some(live)) = (calls, &mut line.buffers) {
            calls.look(snapshot.process.serial, &mut |known| {
                live.to_mut().iter_mut().for_each(|buffer| buffer.look_up(known));
            });
        }
        write(to, &line)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::fixture;

    #[test]
    fn a_snapshot_is_one_line_with_the_schema_first() {
        let mut line = Vec::new();
        write(&mut line, &fixture::normal()).unwrap();
        let line = String::from_utf8(line).unwrap();
        assert!(line.starts_with("{\"schema\":\"ttmem.snapshot/1\",\"time_ns\":"));
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.ends_with('\n'));
    }

    #[test]
    fn a_buffer_has_its_call_stack_or_says_why_not() {
        let snapshot = serde_json::to_value(fixture::with_calls()).unwrap();
        let (older, known) = (&snapshot["buffers"][0], &snapshot["buffers"][1]);
        for (key, why) in [("site", "null"), ("stack", "null"), ("stack_cut", "null")] {
            assert_eq!(older[key].to_string(), why, "{key}");
            assert!(older.as_object().unwrap().contains_key(key), "{key}");
        }
        assert_eq!(older["stack_unknown"], "allocated before the attach");
        assert_eq!(known["site"], "ttnn::add");
        assert_eq!(known["stack_cut"], "the copied bytes of the stack end there");
        assert!(known["stack_unknown"].is_null());
        let frame = &known["stack"][1];
        assert_eq!(
            (&frame["function"], &frame["module"], &frame["offset"]),
            (&"ttnn::add".into(), &"/lib/_ttnncpp.so".into(), &0xca_53d3.into())
        );
        assert!(frame["line"].is_null());
        assert_eq!(
            (&known["frames_beyond_cut"], &older["frames_beyond_cut"]),
            (&0.into(), &serde_json::Value::Null)
        );
        assert!(known["python_unknown"].is_null());
        let without = serde_json::to_value(fixture::with_buffers()).unwrap();
        assert!(without["buffers"][1].get("site").is_none() && without.get("stacks").is_none());
    }

    #[test]
    fn a_failure_is_one_line_with_what_was_live() {
        let mut lines = Vec::new();
        write_failures(&mut lines, &fixture::failed(), 0, None).unwrap();
        let lines = String::from_utf8(lines).unwrap();
        let lines: Vec<serde_json::Value> =
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        let (full, bare) = (&lines[0], &lines[1]);
        assert_eq!(full["schema"], "ttmem.failure/1");
        assert_eq!((&full["id"], &full["skipped"]), (&1.into(), &0.into()));
        assert_eq!((&full["type"], &full["size"]), (&"DRAM".into(), &(1 << 30).into()));
        assert_eq!(full["buffers"], serde_json::to_value(fixture::with_buffers().buffers).unwrap());
        assert_eq!(full["exact"], true);
        assert_eq!((&bare["id"], &bare["skipped"]), (&7.into(), &5.into()));
        for unknown in ["type", "size", "banks", "bank_bytes", "chips", "buffers"] {
            assert!(bare[unknown].is_null(), "{unknown}");
        }
        assert_eq!(bare["exact"], false);
        let mut none = Vec::new();
        write_failures(&mut none, &fixture::failed(), 7, None).unwrap();
        assert!(none.is_empty());
    }

    #[test]
    fn a_failure_and_what_was_live_have_their_call_stacks() {
        let (mut snapshot, calls) = (fixture::failed_with_calls(), fixture::calls::Known::new());
        let mut lines = Vec::new();
        snapshot.failures.last.iter_mut().for_each(|it| Arc::make_mut(it).look_up(&calls));
        write_failures(&mut lines, &snapshot, 0, Some(&calls)).unwrap();
        let full: serde_json::Value =
            serde_json::Deserializer::from_slice(&lines).into_iter().next().unwrap().unwrap();
        assert_eq!(
            (&full["site"], &full["stack"][2]["function"]),
            (&"ttnn::add".into(), &"main".into())
        );
        assert!(full["stack_unknown"].is_null());
        let live = &full["buffers"];
        assert_eq!(live[0]["stack_unknown"], "allocated before the attach");
        assert_eq!(live[1]["site"], "ttnn::zeros");
        let without = serde_json::to_value(fixture::failed()).unwrap();
        assert!(without["failures"]["last"][0].get("site").is_none());
    }
}
