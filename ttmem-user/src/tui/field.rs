//! One value of a table: how it is shown, ordered and exported.
//!
//! Invariant: what is not known is shown as `–`, exported as null, and comes last in any order.

use std::borrow::Cow;

use serde_json::Value;

use crate::{
    format::{self, UNKNOWN, one_line},
    units::DeviceAddr,
};

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Field<'a> {
    /// A number of bytes.
    Bytes(Option<u64>),
    /// A number of bytes with its sign.
    Growth(Option<i64>),
    /// A count.
    Count(Option<u64>),
    /// Something per second.
    Rate(Option<f64>),
    /// A number that names something.
    Id(Option<u64>),
    /// An address.
    Address(Option<DeviceAddr>),
    /// An instant, CLOCK_MONOTONIC nanoseconds; shown as how long ago it was.
    Since(Option<u64>),
    /// How long something took, nanoseconds.
    Lasted(Option<u64>),
    /// Whether something is so, and the word for that.
    Flag(Option<bool>, &'static str),
    /// Words.
    Text(Cow<'a, str>),
    /// Nothing that could be known.
    Blank,
}

impl<'a> Field<'a> {
    /// Words, or not known.
    pub fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Self::Text(text.into())
    }

    /// As it is shown at `now_ns`.
    pub fn shown(&self, now_ns: u64) -> String {
        let known = match self {
            Self::Bytes(bytes) => bytes.map(format::bytes),
            Self::Growth(growth) => growth.map(format::growth),
            Self::Count(count) => count.map(format::count),
            Self::Rate(rate) => rate.map(format::rate),
            Self::Id(id) => id.map(|id| id.to_string()),
            Self::Address(address) => address.map(|address| address.to_string()),
            Self::Since(then) => then.map(|then| format::age(now_ns.saturating_sub(then))),
            Self::Lasted(ns) => ns.map(format::duration),
            Self::Flag(is, word) => is.map(|is| if is { word } else { "" }.to_owned()),
            Self::Text(text) => Some(one_line(text)),
            Self::Blank => Some(String::new()),
        };
        known.unwrap_or_else(|| UNKNOWN.to_owned())
    }

    /// A number that grows with it; `None`: not known.
    pub fn rank(&self) -> Option<u64> {
        match self {
            Self::Bytes(number) | Self::Count(number) | Self::Id(number) | Self::Lasted(number) => {
                *number
            }
            // The older one is the larger one.
            Self::Since(then) => then.map(|then| u64::MAX - then),
            Self::Growth(growth) => growth.map(|growth| growth.cast_unsigned() ^ (1 << 63)),
            Self::Rate(rate) => rate.map(|rate| rate.max(0.0).to_bits()),
            Self::Address(address) => address.map(|address| address.0),
            Self::Flag(is, _) => is.map(u64::from),
            Self::Blank => None,
            Self::Text(text) => {
                let mut start = [0; 8];
                let bytes = text.as_bytes();
                let length = bytes.len().min(8);
                start[..length].copy_from_slice(&bytes[..length]);
                Some(u64::from_be_bytes(start))
            }
        }
    }

    /// As it is exported.
    pub fn json(&self) -> Value {
        match self {
            Self::Bytes(number)
            | Self::Count(number)
            | Self::Id(number)
            | Self::Lasted(number)
            | Self::Since(number) => (*number).into(),
            Self::Growth(growth) => (*growth).into(),
            Self::Rate(rate) => (*rate).into(),
            Self::Address(address) => address.map(|address| address.0).into(),
            Self::Flag(is, _) => (*is).into(),
            Self::Blank => Value::Null,
            Self::Text(text) if text == UNKNOWN => Value::Null,
            Self::Text(text) => Value::String(text.clone().into_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_grow_with_what_is_shown() {
        let growths = [i64::MIN, -5, -1, 0, 1, 7, i64::MAX];
        let ranks = growths.map(|growth| Field::Growth(Some(growth)).rank());
        assert!(ranks.is_sorted());
        assert!(Field::Since(Some(1)).rank() > Field::Since(Some(2)).rank());
        assert!(Field::text("DRAM").rank() < Field::text("L1").rank());
        assert_eq!(Field::Bytes(None).rank(), None);
    }

    #[test]
    fn what_is_not_known_is_a_dash_and_null() {
        for field in [Field::Bytes(None), Field::Growth(None), Field::Since(None), Field::text("–")]
        {
            assert_eq!(field.shown(9), "–");
            assert_eq!(field.json(), Value::Null);
        }
        assert_eq!(Field::Growth(Some(-2048)).shown(0), "-2.0 KiB");
        assert_eq!(Field::Since(Some(1_000_000_000)).shown(4_500_000_000), "3.5s");
    }
}
