//! What programs keep in L1: the programs as rows.

use serde_json::Value;

use crate::{
    format::UNKNOWN,
    ledger::snapshot::{ProgramSnapshot, Snapshot},
    tui::{
        export::Export,
        field::Field,
        table::{Column, Heading, Table, Tabular as _},
    },
};

/// The columns.
pub const COLUMNS: &[Column<ProgramSnapshot>] = &[
    Column {
        heading: Heading::words("program", "program", 14),
        field: |row| Field::text(row.program.to_string()),
    },
    Column {
        heading: Heading::number("bytes/core", "core_bytes", 11),
        field: |row| Field::Bytes(row.core_bytes),
    },
    Column {
        heading: Heading::number("per chip", "chip_bytes", 9),
        field: |row| Field::Bytes(row.chip_bytes),
    },
    Column { heading: Heading::number("cores", "cores", 5), field: |row| Field::Count(row.cores) },
    Column {
        heading: Heading::number("CBs", "buffers", 4),
        field: |row| Field::Count(Some(row.buffers.len() as u64)),
    },
    Column { heading: Heading::number("end", "end", 10), field: |row| Field::Address(row.end) },
    Column {
        heading: Heading::words("chips", "chips", 9),
        field: |row| Field::text(chips(&row.chips)),
    },
    Column {
        heading: Heading::number("age", "placed_ns", 6),
        field: |row| Field::Since(Some(row.placed_ns)),
    },
    Column {
        heading: Heading::number("runs", "dispatches", 6),
        field: |row| Field::Count(row.dispatches),
    },
    Column {
        heading: Heading::number("thread", "tid", 8),
        field: |row| Field::Id(Some(row.tid.0.into())),
    },
];

/// Chips as they are written: `0-7`, `0,2,5`, `0-3,8`.
pub fn chips(chips: &[crate::units::ChipId]) -> String {
    // A mesh has them in the order of its rows and columns.
    let mut ids: Vec<i32> = chips.iter().map(|chip| chip.0).collect();
    ids.sort_unstable();
    let mut runs: Vec<(i32, i32)> = Vec::new();
    for id in ids {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(id) => *last = id,
            _ => runs.push((id, id)),
        }
    }
    let text = |(first, last): (i32, i32)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    let text: Vec<String> = runs.into_iter().map(text).collect();
    if text.is_empty() { UNKNOWN.to_owned() } else { text.join(",") }
}

/// The state of the view.
#[derive(Debug)]
pub struct Circular {
    /// The programs.
    pub table: Table<ProgramSnapshot>,
}

impl Default for Circular {
    fn default() -> Self {
        Self { table: Table::new(COLUMNS, 1, true) }
    }
}

impl Circular {
    /// Lines for the chips above the programs, in a view of `height` lines.
    pub fn chip_lines(height: u16, snapshot: &Snapshot) -> u16 {
        let wanted = u16::try_from(snapshot.devices.len()).unwrap_or(u16::MAX).saturating_add(1);
        wanted.min(height / 2)
    }

    /// The chips, and the programs that pass the filter.
    pub fn export(&self, snapshot: &Snapshot) -> Export {
        let programs = self.table.export("programs");
        let of_programs = programs.columns.len();
        let mut columns = vec!["what"];
        columns.extend(programs.columns);
        columns.extend([
            "core_capacity_bytes",
            "headroom_bytes",
            "bounding_program",
            "lowest_buffer",
        ]);
        let mut rows = Vec::new();
        for chip in &snapshot.devices {
            let circular = &chip.circular;
            let value = |column: &&str| match *column {
                "core_bytes" => circular.core_bytes.into(),
                "buffers" => circular.buffers.into(),
                "end" => circular.headroom.circular_end.map(|end| end.0).into(),
                "chips" => chip.chip.to_string().into(),
                _ => Value::Null,
            };
            let mut row = vec!["chip".into()];
            row.extend(columns[1..=of_programs].iter().map(value));
            let headroom = &circular.headroom;
            row.extend([circular.core_capacity_bytes.into(), headroom.bytes.into()]);
            row.push(headroom.program.map(|program| program.to_string()).into());
            row.push(headroom.lowest_buffer.map(|lowest| lowest.0).into());
            rows.push(row);
        }
        rows.extend(programs.rows.into_iter().map(|row| {
            let mut cells = vec![Value::from("program")];
            cells.extend(row);
            cells.resize(columns.len(), Value::Null);
            cells
        }));
        Export { view: "programs", of: Vec::new(), columns, rows }
    }

    /// Takes in what is to be shown in a view of `height` lines.
    pub fn observe(&mut self, height: u16, snapshot: &Snapshot) {
        let rows = height.saturating_sub(Self::chip_lines(height, snapshot) + 1);
        self.table.take(snapshot.programs.clone().unwrap_or_default(), rows.into());
    }
}

#[cfg(test)]
mod tests {
    use crate::units::ChipId;

    #[test]
    fn runs_of_chips_are_short() {
        let text = |all: &[i32]| super::chips(&all.iter().copied().map(ChipId).collect::<Vec<_>>());
        assert_eq!(text(&[]), "–");
        assert_eq!(text(&[3]), "3");
        assert_eq!(text(&[0, 1, 2, 3, 8, 10, 11]), "0-3,8,10-11");
        assert_eq!(text(&[4, 0, 2, 6, 7, 3, 1, 5]), "0-7");
        assert_eq!(text(&[i32::MAX, i32::MIN]), "-2147483648,2147483647");
    }
}
