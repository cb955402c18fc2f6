//! Sizes and lifetimes of the buffers of one type, and who allocates.

use serde_json::Value;

use crate::{
    event::BufferType,
    history::{Bin, Tally, ThreadRow, bin_start},
    tui::{
        Action,
        export::Export,
        field::Field,
        table::{Column, Heading, Table},
    },
};

const COLUMNS: &[Column<ThreadRow>] = &[
    Column {
        heading: Heading::number("thread", "tid", 9),
        field: |row| Field::Id(row.tid.map(|tid| tid.0.into())),
    },
    Column {
        heading: Heading::number("alloc/s", "rate", 8),
        field: |row| Field::Rate(Some(row.rate)),
    },
    Column {
        heading: Heading::number("live", "live_buffers", 8),
        field: |row| Field::Count(Some(row.live_buffers)),
    },
    Column {
        heading: Heading::number("live bytes", "live_bytes", 11),
        field: |row| Field::Bytes(Some(row.live_bytes)),
    },
    Column {
        heading: Heading::number("allocs", "allocations", 8),
        field: |row| Field::Count(Some(row.allocations)),
    },
    Column {
        heading: Heading::number("allocated", "allocated_bytes", 10),
        field: |row| Field::Bytes(Some(row.allocated_bytes)),
    },
];

/// A bar of a histogram: where it begins, and how many.
pub type Bar = (u64, Bin);

/// The state of the view.
#[derive(Debug)]
pub struct Histograms {
    /// The buffer type.
    pub buffer_type: BufferType,
    /// What is live, by size in bytes.
    pub live: Vec<Bar>,
    /// All that were allocated, by size in bytes.
    pub allocated: Vec<Bar>,
    /// All that were freed, by how long they lived, ns.
    pub lifetimes: Vec<Bar>,
    /// The threads.
    pub table: Table<ThreadRow>,
    /// Why there is nothing.
    pub missing: Option<String>,
}

impl Default for Histograms {
    fn default() -> Self {
        Self {
            buffer_type: BufferType::Dram,
            live: Vec::new(),
            allocated: Vec::new(),
            lifetimes: Vec::new(),
            table: Table::new(COLUMNS, 3, true),
            missing: None,
        }
    }
}

impl Histograms {
    /// Lines of the bars, with their heading, in a view of `height` lines.
    pub const fn bars(height: u16) -> u16 {
        height * 3 / 5
    }

    /// Takes in what is to be shown in a view of `height` lines.
    pub fn observe(&mut self, height: u16, tally: &Tally, now_ns: u64) {
        let histogram = tally.histogram(self.buffer_type);
        self.live = bars(&histogram.live);
        self.allocated = bars(&histogram.allocated);
        self.lifetimes = bars(&histogram.lifetimes);
        let (mut threads, others) = tally.threads(now_ns);
        threads.extend(others);
        let rows = height.saturating_sub(Self::bars(height) + 1);
        self.table.take(threads, rows.into());
        self.missing = None;
    }

    /// Shows nothing, and why.
    pub fn forget(&mut self, why: String) {
        self.missing = Some(why);
        for bars in [&mut self.live, &mut self.allocated, &mut self.lifetimes] {
            bars.clear();
        }
        self.table.take(Vec::new(), 0);
    }

    /// The bars, and the threads that pass the filter.
    pub fn export(&self) -> Export {
        let columns = vec![
            "what",
            "type",
            "from",
            "tid",
            "buffers",
            "bytes",
            "allocations",
            "allocated_bytes",
            "allocations_per_second",
        ];
        let kind = self.buffer_type.name();
        let bars =
            [("live", &self.live), ("allocated", &self.allocated), ("lifetime", &self.lifetimes)];
        let bar = |what: &'static str, (from, bin): &Bar| -> Vec<Value> {
            let mut row = vec![what.into(), kind.into(), (*from).into(), Value::Null];
            row.extend([bin.buffers.into(), bin.bytes.into()]);
            row.extend([Value::Null, Value::Null, Value::Null]);
            row
        };
        let mut rows: Vec<Vec<Value>> = Vec::new();
        for (what, bars) in bars {
            rows.extend(bars.iter().map(|it| bar(what, it)));
        }
        rows.extend(self.table.rows().map(|row| {
            let mut cells = vec!["thread".into(), Value::Null, Value::Null];
            cells.push(row.tid.map(|tid| tid.0).into());
            cells.extend([row.live_buffers.into(), row.live_bytes.into()]);
            cells.extend([row.allocations.into(), row.allocated_bytes.into(), row.rate.into()]);
            cells
        }));
        Export { view: "histograms", of: Vec::new(), columns, rows }
    }

    /// Takes in a request; `false`: it is none for this view.
    pub fn update(&mut self, action: Action) -> bool {
        let count = BufferType::ALL.len();
        let step = match action {
            Action::NextPool => 1,
            Action::PreviousPool => count - 1,
            _ => return false,
        };
        self.buffer_type = BufferType::ALL[(self.buffer_type.index() + step) % count];
        true
    }
}

/// From the first that is not empty to the last.
fn bars(bins: &[Bin]) -> Vec<Bar> {
    let is_used = |bin: &Bin| bin.buffers > 0;
    let first = bins.iter().position(is_used).unwrap_or(0);
    let behind = bins.iter().rposition(is_used).map_or(first, |last| last + 1);
    (first..behind).map(|place| (bin_start(place), bins[place])).collect()
}
