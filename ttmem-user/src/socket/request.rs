//! What a client may ask. Every line is either a [`Request`] or refused with a reason.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::filter::Filter;

/// Bytes of a name of a mark.
const MAX_NAME: usize = 256;
const DEFAULT_INTERVAL_MS: u64 = 500;

/// One question.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Comes back with the answer.
    pub id: Option<Value>,
    /// What is asked.
    pub what: What,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// The state, with the live set if so.
    Snapshot {
        /// With every live buffer.
        buffers: bool,
    },
    /// Some of the live buffers.
    Buffers(Filter),
    /// Failed allocations.
    Failures,
    /// That the table is up to date.
    Sync,
    /// To mark this moment.
    Mark(String),
    /// What happened since a mark.
    Since(String),
    /// A snapshot every so many milliseconds.
    SubscribeSnapshots {
        /// With every live buffer.
        buffers: bool,
        /// How often.
        interval_ms: u64,
    },
    /// Every change.
    SubscribeDeltas,
    /// No more of it.
    Unsubscribe(Stream),
}

/// What can be subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Snapshots.
    Snapshots,
    /// Deltas.
    Deltas,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Get {
    Snapshot,
    Buffers,
    Failures,
    Sync,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SnapshotOptions {
    #[serde(default)]
    buffers: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IntervalOptions {
    #[serde(default)]
    buffers: bool,
    interval_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoOptions {}

/// A line that is no request, with its id if that could be told.
#[derive(Clone, Debug, PartialEq)]
pub struct BadRequest {
    /// The request's id.
    pub id: Option<Value>,
    /// What is wrong with it.
    pub why: String,
}

/// Reads a line.
pub fn parse(line: &[u8]) -> Result<Request, BadRequest> {
    let bad = |why: String| BadRequest { id: None, why };
    let value: Value =
        serde_json::from_slice(line).map_err(|error| bad(format!("no JSON: {error}")))?;
    let Value::Object(mut keys) = value else {
        return Err(bad("a request is a JSON object".to_owned()));
    };
    let id = keys.remove("id");
    if id.as_ref().is_some_and(|id| !(id.is_string() || id.is_number())) {
        return Err(bad("`id` is a string or a number".to_owned()));
    }
    match what(keys) {
        Ok(what) => Ok(Request { id, what }),
        Err(why) => Err(BadRequest { id, why }),
    }
}

fn what(mut keys: Map<String, Value>) -> Result<What, String> {
    const VERBS: [&str; 5] = ["get", "mark", "since", "subscribe", "unsubscribe"];
    let mut verbs = VERBS.into_iter().filter(|verb| keys.contains_key(*verb));
    let (Some(verb), None) = (verbs.next(), verbs.next()) else {
        return Err(format!("a request has exactly one of {}", VERBS.join(", ")));
    };
    let object = keys.remove(verb).unwrap_or_default();
    match verb {
        "get" => get(read(verb, object)?, keys),
        "mark" => no_options(keys).and(name(verb, object).map(What::Mark)),
        "since" => no_options(keys).and(name(verb, object).map(What::Since)),
        "subscribe" => subscribe(read(verb, object)?, keys),
        _ => no_options(keys).and(read(verb, object).map(What::Unsubscribe)),
    }
}

fn get(what: Get, keys: Map<String, Value>) -> Result<What, String> {
    match what {
        Get::Snapshot => {
            let SnapshotOptions { buffers } = options(keys)?;
            Ok(What::Snapshot { buffers })
        }
        Get::Buffers => options(keys).map(What::Buffers),
        Get::Failures => no_options(keys).map(|()| What::Failures),
        Get::Sync => no_options(keys).map(|()| What::Sync),
    }
}

fn subscribe(stream: Stream, keys: Map<String, Value>) -> Result<What, String> {
    match stream {
        Stream::Deltas => no_options(keys).map(|()| What::SubscribeDeltas),
        Stream::Snapshots => {
            let IntervalOptions { buffers, interval_ms } = options(keys)?;
            let interval_ms = interval_ms.unwrap_or(DEFAULT_INTERVAL_MS);
            if !(10..=3_600_000).contains(&interval_ms) {
                return Err("`interval_ms` is 10 to 3600000".to_owned());
            }
            Ok(What::SubscribeSnapshots { buffers, interval_ms })
        }
    }
}

fn name(verb: &str, value: Value) -> Result<String, String> {
    let name: String = read(verb, value)?;
    if name.len() > MAX_NAME {
        return Err(format!("a name has at most {MAX_NAME} bytes"));
    }
    Ok(name)
}

fn no_options(keys: Map<String, Value>) -> Result<(), String> {
    options(keys).map(|NoOptions {}| ())
}

fn options<T: for<'a> Deserialize<'a>>(keys: Map<String, Value>) -> Result<T, String> {
    serde_json::from_value(Value::Object(keys)).map_err(|error| error.to_string())
}

fn read<T: for<'a> Deserialize<'a>>(verb: &str, value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| format!("`{verb}`: {error}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::BufferType;

    fn what_of(line: &str) -> Result<What, String> {
        parse(line.as_bytes()).map(|request| request.what).map_err(|bad| bad.why)
    }

    #[test]
    fn what_is_documented_is_understood() {
        let some = |line| what_of(line).unwrap_or_else(|why| panic!("{line}: {why}"));
        assert_eq!(some(r#"{"get":"snapshot"}"#), What::Snapshot { buffers: false });
        assert_eq!(some(r#"{"get":"snapshot","buffers":true}"#), What::Snapshot { buffers: true });
        assert_eq!(some(r#"{"get":"failures"}"#), What::Failures);
        assert_eq!(some(r#"{"get":"sync"}"#), What::Sync);
        assert_eq!(some(r#"{"mark":"a"}"#), What::Mark("a".to_owned()));
        assert_eq!(some(r#"{"since":"a"}"#), What::Since("a".to_owned()));
        assert_eq!(some(r#"{"subscribe":"deltas"}"#), What::SubscribeDeltas);
        assert_eq!(some(r#"{"unsubscribe":"deltas"}"#), What::Unsubscribe(Stream::Deltas));
        assert_eq!(
            some(r#"{"subscribe":"snapshots","interval_ms":10}"#),
            What::SubscribeSnapshots { buffers: false, interval_ms: 10 }
        );
        let What::Buffers(filter) =
            some(r#"{"get":"buffers","type":"L1","min_size":4,"chip":0,"sort":"-size","limit":9}"#)
        else {
            panic!("no filter");
        };
        assert_eq!((filter.buffer_type, filter.limit), (Some(BufferType::L1), Some(9)));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, expected) in [
            ("", "no JSON"),
            ("[]", "a request is a JSON object"),
            ("{}", "exactly one of get, mark"),
            (r#"{"get":"sync","mark":"a"}"#, "exactly one of"),
            (r#"{"get":"all"}"#, "`get`: unknown variant `all`"),
            (r#"{"get":"sync","limit":3}"#, "unknown field `limit`"),
            (r#"{"get":"buffers","type":"L2"}"#, "L2"),
            (r#"{"get":"buffers","sort":"colour"}"#, "colour"),
            (r#"{"mark":7}"#, "`mark`: invalid type"),
            (r#"{"subscribe":"snapshots","interval_ms":1}"#, "10 to 3600000"),
            (r#"{"get":"sync","id":[]}"#, "`id` is a string or a number"),
        ] {
            let why = what_of(line).expect_err(line);
            assert!(why.contains(expected), "{line}: {why}");
        }
        assert!(what_of(&format!(r#"{{"mark":"{}"}}"#, "x".repeat(257))).is_err());
    }

    #[test]
    fn the_id_comes_back_with_an_error_too() {
        let bad = parse(br#"{"id":"7","get":"all"}"#).expect_err("wrong");
        assert_eq!(bad.id, Some("7".into()));
    }

    proptest! {
        #[test]
        fn any_line_is_understood_or_refused(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&line);
        }

        #[test]
        fn any_words_in_their_places_are_too(
            verb in "get|mark|since|subscribe|unsubscribe|id|limit|type",
            object in "snapshot|buffers|deltas|sync|-1|L1|\u{7f}",
            key in "limit|sort|type|chip|interval_ms|buffers|x",
            value in any::<i64>(),
        ) {
            let _ = parse(format!(r#"{{"{verb}":"{object}","{key}":{value}}}"#).as_bytes());
        }
    }
}
