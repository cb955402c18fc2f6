//! What is written can be read again.

use proptest::prelude::*;

use super::*;
use crate::history::{
    History,
    group::By,
    sample::{allocated, deltas, freed, steps},
};

fn header() -> Header {
    Header { time_ns: 9, pid: Pid(7), inexact_because: vec!["why, \"not\"".to_owned()] }
}

fn history() -> History {
    let mut history = History::default();
    let first = allocated(1, 1, 1, 4096);
    history.apply(&first);
    history.apply(&allocated(2, 2, 2, 100));
    history.apply(&freed(&first, 3, 1_000));
    history
}

fn text<T: Serialize>(format: Format, kind: &str, rows: Vec<T>) -> String {
    let mut to = Vec::new();
    write(&mut to, format, kind, &header(), rows).unwrap();
    String::from_utf8(to).unwrap()
}

#[test]
fn json_has_its_schema_and_rows() {
    let history = history();
    let rows: Vec<BufferLine> = history.live().iter().map(BufferLine::from).collect();
    let json: serde_json::Value =
        serde_json::from_str(&text(Format::Json, "buffers", rows)).unwrap();
    assert_eq!(json["schema"], "ttmem.export.buffers/1");
    assert_eq!(
        (&json["exact"], &json["pid"], &json["time_ns"]),
        (&false.into(), &7.into(), &9.into())
    );
    assert_eq!(json["inexact_because"][0], "why, \"not\"");
    let row = &json["rows"][0];
    assert_eq!(
        (&row["size"], &row["type"], &row["chips"]),
        (&100.into(), &"L1".into(), &"0".into())
    );
    assert!(row["mesh"].is_null());
    assert_eq!(json["rows"].as_array().unwrap().len(), 1);
}

#[test]
fn csv_has_a_line_of_names() {
    let history = history();
    let rows: Vec<EventLine> = history.changes().map(EventLine::from).collect();
    let csv = text(Format::Csv, "events", rows);
    let expected = "sequence,time_ns,change,cause,tid,buffer,unique_id,type,address,size,used_bytes,chips,allocated_ns
3,1000,freed,event,1,1,1,L1,64,4096,4096,0,1
2,2,allocated,event,1,2,2,L1,128,100,100,0,2
1,1,allocated,event,1,1,1,L1,64,4096,4096,0,1
";
    assert_eq!(csv, expected);
}

#[test]
fn the_other_kinds() {
    let history = history();
    let lines = timeline_lines(history.timeline());
    let csv = text(Format::Csv, "timeline", lines);
    assert_eq!(csv.lines().nth(1), Some("0,L1,1,1000,100,4196,2,100,1,2,1,false"));
    let lines = histogram_lines(BufferType::L1, history.tally().histogram(BufferType::L1));
    let csv = text(Format::Csv, "histogram", lines);
    assert_eq!(
        csv,
        "type,of,from,buffers,bytes\nL1,live_size,64,1,100\nL1,allocated_size,64,1,100\n\
         L1,allocated_size,4096,1,4096\nL1,lifetime,512,1,4096\n"
    );
    let groups = history.live().groups(By::Size, 0, |_| true);
    let csv = text(Format::Csv, "groups", groups.iter().map(GroupLine::from).collect());
    assert_eq!(csv, "by,key,buffers,bytes,used_bytes\nsize,64,1,100,100\n");
    let (threads, _) = history.tally().threads(0);
    let csv = text(Format::Csv, "threads", threads);
    assert_eq!(csv.lines().nth(1), Some("1,1,100,2,4196,0.0"));
}

proptest! {
    #[test]
    fn both_formats_hold_the_same_rows(steps in steps(60)) {
        let mut history = History::default();
        for delta in deltas(&steps) {
            history.apply(&delta);
        }
        let rows: Vec<BufferLine> = history.live().iter().map(BufferLine::from).collect();
        let json: serde_json::Value =
            serde_json::from_str(&text(Format::Json, "buffers", rows.clone())).unwrap();
        let csv = text(Format::Csv, "buffers", rows);
        let mut csv = csv::Reader::from_reader(csv.as_bytes());
        let names: Vec<String> = csv.headers().unwrap().iter().map(str::to_owned).collect();
        let mut records = csv.records();
        for row in json["rows"].as_array().unwrap() {
            let record = records.next().unwrap().unwrap();
            for (name, field) in names.iter().zip(&record) {
                let value = match &row[name] {
                    serde_json::Value::Null => String::new(),
                    serde_json::Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                prop_assert_eq!(field, value, "{}", name);
            }
        }
        prop_assert!(records.next().is_none());
    }
}
