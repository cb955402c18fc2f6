//! Which of the live buffers, and in which order.

use std::cmp::Ordering;

use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{
    event::BufferType,
    ledger::snapshot::BufferSnapshot,
    units::{ChipId, Tid},
};

/// A choice among buffers. What is `None` does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    #[serde(rename = "type", deserialize_with = "buffer_type")]
    pub buffer_type: Option<BufferType>,
    pub chip: Option<ChipId>,
    /// Logical bytes.
    pub min_size: Option<u64>,
    pub max_size: Option<u64>,
    pub tid: Option<Tid>,
    /// Of their allocation, ns.
    pub allocated_after_ns: Option<u64>,
    pub pre_attach: Option<bool>,
    pub sort: Sort,
    pub limit: Option<usize>,
}

/// An order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sort {
    key: Key,
    descending: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Key {
    #[default]
    UniqueId,
    Size,
    BankBytes,
    Address,
    AllocatedNs,
}

impl Key {
    const ALL: [(&str, Self); 5] = [
        ("size", Self::Size),
        ("bank_bytes", Self::BankBytes),
        ("address", Self::Address),
        ("allocated_ns", Self::AllocatedNs),
        ("unique_id", Self::UniqueId),
    ];

    fn of(self, buffer: &BufferSnapshot) -> Option<u64> {
        match self {
            Self::UniqueId => buffer.unique_id,
            Self::Size => Some(buffer.size),
            Self::BankBytes => buffer.bank_bytes,
            Self::Address => Some(buffer.address.0),
            Self::AllocatedNs => buffer.allocated_ns,
        }
    }
}

/// What a filter leaves.
#[derive(Debug, PartialEq, Eq)]
pub struct Selected<'a> {
    /// Before the limit.
    pub matched: usize,
    /// Their logical bytes, each once.
    pub matched_bytes: u64,
    /// In order, up to the limit.
    pub buffers: Vec<&'a BufferSnapshot>,
}

impl Filter {
    /// Applies it.
    pub fn select<'a>(&self, all: &'a [BufferSnapshot]) -> Selected<'a> {
        let mut buffers: Vec<_> = all.iter().filter(|buffer| self.matches(buffer)).collect();
        // What `all` is ordered by decides among equals.
        buffers.sort_by(|one, other| self.sort.compare(one, other));
        let matched = buffers.len();
        let sizes = buffers.iter().map(|buffer| buffer.size);
        let matched_bytes = sizes.fold(0, u64::saturating_add);
        buffers.truncate(self.limit.unwrap_or(usize::MAX));
        Selected { matched, matched_bytes, buffers }
    }

    fn matches(&self, buffer: &BufferSnapshot) -> bool {
        self.buffer_type.is_none_or(|wanted| buffer.buffer_type == wanted)
            && self.chip.is_none_or(|chip| buffer.chips.contains(&chip))
            && self.min_size.is_none_or(|least| buffer.size >= least)
            && self.max_size.is_none_or(|most| buffer.size <= most)
            && self.tid.is_none_or(|tid| buffer.tid == Some(tid))
            && self.pre_attach.is_none_or(|wanted| buffer.pre_attach == wanted)
            && self.allocated_after_ns.is_none_or(|time| buffer.allocated_ns > Some(time))
    }
}

impl Sort {
    fn compare(self, one: &BufferSnapshot, other: &BufferSnapshot) -> Ordering {
        match (self.key.of(one), self.key.of(other)) {
            (Some(one), Some(other)) if self.descending => other.cmp(&one),
            (Some(one), Some(other)) => one.cmp(&other),
            (one, other) => one.is_none().cmp(&other.is_none()),
        }
    }
}

impl<'de> Deserialize<'de> for Sort {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let (name, descending) =
            text.strip_prefix('-').map_or((text.as_str(), false), |name| (name, true));
        let found = Key::ALL.into_iter().find(|(known, _)| *known == name);
        let Some((_, key)) = found else {
            let names = Key::ALL.map(|(known, _)| known).join(", ");
            return Err(D::Error::custom(format!("cannot sort by `{name}`, only by {names}")));
        };
        Ok(Self { key, descending })
    }
}

fn buffer_type<'de, D: Deserializer<'de>>(from: D) -> Result<Option<BufferType>, D::Error> {
    let name = String::deserialize(from)?;
    let found = BufferType::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(&name));
    found.map(Some).ok_or_else(|| {
        let names = BufferType::ALL.map(BufferType::name).join(", ");
        D::Error::custom(format!("no buffer type `{name}`, only {names}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::DeviceAddr;

    fn buffer(id: Option<u64>, size: u64, allocated_ns: Option<u64>) -> BufferSnapshot {
        BufferSnapshot {
            unique_id: id,
            buffer_type: if size > 100 { BufferType::Dram } else { BufferType::L1 },
            address: DeviceAddr(size),
            size,
            page_size: 1,
            bank_bytes: None,
            cores: None,
            chips: vec![ChipId(i32::try_from(size % 2).unwrap())],
            mesh: None,
            tid: allocated_ns.map(|_| Tid(5)),
            allocated_ns,
            pre_attach: allocated_ns.is_none(),
            call: None,
        }
    }

    fn sizes(filter: &str, all: &[BufferSnapshot]) -> Vec<u64> {
        let filter: Filter = serde_json::from_str(filter).expect(filter);
        filter.select(all).buffers.iter().map(|buffer| buffer.size).collect()
    }

    #[test]
    fn each_key_chooses() {
        let all = [
            buffer(Some(1), 10, Some(100)),
            buffer(Some(2), 201, None),
            buffer(None, 31, Some(300)),
        ];
        for (filter, expected) in [
            ("{}", &[10, 201, 31][..]),
            (r#"{"type":"l1"}"#, &[10, 31]),
            (r#"{"chip":1}"#, &[201, 31]),
            (r#"{"min_size":31,"max_size":31}"#, &[31]),
            (r#"{"tid":5}"#, &[10, 31]),
            (r#"{"allocated_after_ns":100}"#, &[31]),
            (r#"{"pre_attach":true}"#, &[201]),
            (r#"{"sort":"-size","limit":2}"#, &[201, 31]),
            (r#"{"sort":"-allocated_ns"}"#, &[31, 10, 201]),
            (r#"{"sort":"allocated_ns"}"#, &[10, 31, 201]),
            (r#"{"limit":0}"#, &[]),
        ] {
            assert_eq!(sizes(filter, &all), expected, "{filter}");
        }
        let filter: Filter = serde_json::from_str(r#"{"chip":1,"limit":1}"#).unwrap();
        let selected = filter.select(&all);
        assert_eq!((selected.matched, selected.matched_bytes), (2, 232));
    }
}
