//! A view as a file: what its rows are, in numbers that programs read.

use serde_json::{Map, Value, json};

/// Name and version of the JSON schema.
pub const SCHEMA: &str = "ttmem.view/1";

/// The rows of a view.
#[derive(Clone, Debug, PartialEq)]
pub struct Export {
    /// The view.
    pub view: &'static str,
    /// What all rows are of, where the view shows one of several: names and values. An object has it
    /// once, lines have it each.
    pub of: Vec<(&'static str, Value)>,
    /// Names of the columns.
    pub columns: Vec<&'static str>,
    /// The values, one for each column. Bytes, nanoseconds, addresses as numbers; null: not known.
    pub rows: Vec<Vec<Value>>,
}

/// How a view is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One JSON object.
    Json,
    /// Comma-separated values with a line of headings (RFC 4180).
    Csv,
}

/// A file to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its name, without a folder.
    pub name: String,
    /// What is in it.
    pub text: String,
}

impl Export {
    /// As a file on process `pid` at `time_ns`.
    pub fn file(&self, kind: Kind, pid: u32, time_ns: u64) -> File {
        let (ending, text) = match kind {
            Kind::Json => ("json", self.json(pid, time_ns)),
            Kind::Csv => ("csv", self.csv()),
        };
        let milliseconds = time_ns / 1_000_000;
        File { name: format!("ttmem-{}-{pid}-{milliseconds}.{ending}", self.view), text }
    }

    fn json(&self, pid: u32, time_ns: u64) -> String {
        let object = |row: &Vec<Value>| -> Map<String, Value> {
            self.columns.iter().map(ToString::to_string).zip(row.iter().cloned()).collect()
        };
        let rows: Vec<Map<String, Value>> = self.rows.iter().map(object).collect();
        let mut view = json!({
            "schema": SCHEMA, "view": self.view, "pid": pid, "time_ns": time_ns, "rows": rows,
        });
        for (name, value) in &self.of {
            view[name] = value.clone();
        }
        format!("{view}\n")
    }

    fn csv(&self) -> String {
        let names: Vec<&str> = self.of.iter().map(|(name, _)| *name).collect();
        let mut text = [&names[..], &self.columns].concat().join(",") + "\r\n";
        for row in &self.rows {
            let of = self.of.iter().map(|(_, value)| value);
            let cells: Vec<String> = of.chain(row).map(cell).collect();
            text.push_str(&cells.join(","));
            text.push_str("\r\n");
        }
        text
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) if text.contains([',', '"', '\n', '\r']) => {
            format!("\"{}\"", text.replace('"', "\"\""))
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn export() -> Export {
        Export {
            view: "buffers",
            of: Vec::new(),
            columns: vec!["size", "what"],
            rows: vec![vec![7.into(), "a \"b\", c".into()], vec![Value::Null, "d".into()]],
        }
    }

    #[test]
    fn json_has_objects_with_numbers() {
        let file = export().file(Kind::Json, 42, 5_000_000);
        assert_eq!(file.name, "ttmem-buffers-42-5.json");
        let json: Value = serde_json::from_str(&file.text).unwrap();
        assert_eq!(json["schema"], SCHEMA);
        assert_eq!(json["rows"][0]["size"], 7);
        assert_eq!(json["rows"][1], json!({"size": null, "what": "d"}));
    }

    #[test]
    fn an_object_and_each_line_say_of_what_they_are() {
        let of = vec![("type", "DRAM".into()), ("chips", "0,2".into())];
        let export = Export { of, ..export() };
        let json: Value = serde_json::from_str(&export.file(Kind::Json, 42, 0).text).unwrap();
        assert_eq!((&json["type"], &json["chips"]), (&"DRAM".into(), &"0,2".into()));
        assert_eq!(json["rows"][1], json!({"size": null, "what": "d"}));
        let text = export.file(Kind::Csv, 42, 0).text;
        let expected = "type,chips,size,what\r\nDRAM,\"0,2\",7,\"a \"\"b\"\", c\"\r\n";
        assert_eq!(text, format!("{expected}DRAM,\"0,2\",,d\r\n"));
    }

    #[test]
    fn csv_is_quoted_where_it_must_be() {
        let file = export().file(Kind::Csv, 42, 0);
        assert_eq!(file.text, "size,what\r\n7,\"a \"\"b\"\", c\"\r\n,d\r\n");
    }
}
