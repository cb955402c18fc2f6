//! What goes between this program and the process with Tracy's client in it.
//!
//! Orders there: a length of four bytes, a kind, and what it takes. News back: nine bytes each.
//! Times, threads and call stacks are left out, for Tracy's C interface takes none of them. Neither
//! end trusts the other: what makes no sense is an error, and no length is believed beyond a bound.

use crate::tracy::{
    op::{At, Format, Name, Op, Severity},
    wire::encoder::cut_at,
};

/// The longest text that Tracy takes, bytes, with room to spare.
const MAX_TEXT: usize = 60_000;
/// The longest order, bytes, without its length.
const MAX_ORDER: usize = MAX_TEXT + 16;
/// Length of a piece of news, bytes.
pub const NEWS_LEN: usize = 9;

/// Something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order<'a> {
    /// What follows is for this connection, which knows nothing yet.
    Begin(u64),
    /// The text of a name; before its first use.
    Name(Name, &'a str),
    /// To be shown.
    Op(Op<'a>),
}

/// Something has happened there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Viewers can connect to this port.
    Listening(u16),
    /// No port could be listened on.
    NoPort,
    /// A viewer is there; each connection has a number of its own.
    Connected(u64),
    /// None is there any more.
    Disconnected,
}

/// What has come makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what has come makes no sense")]
pub struct Malformed;

impl Order<'_> {
    /// Appends it.
    pub fn write(&self, to: &mut Vec<u8>) {
        let start = to.len();
        to.extend([0; 4]);
        match self {
            Self::Begin(connection) => {
                to.push(0);
                to.extend(connection.to_le_bytes());
            }
            Self::Name(name, text) => {
                to.push(1);
                to.extend(name.0.to_le_bytes());
                to.extend(cut(text));
            }
            Self::Op(op) => write_op(op, to),
        }
        let len = u32::try_from(to.len() - start - 4).unwrap_or(u32::MAX);
        to[start..start + 4].copy_from_slice(&len.to_le_bytes());
    }
}

fn cut(text: &str) -> &[u8] {
    &text.as_bytes()[..cut_at(text, MAX_TEXT)]
}

fn write_op(op: &Op<'_>, to: &mut Vec<u8>) {
    match op {
        Op::Alloc { pool, address, size, .. } => {
            to.push(2);
            to.extend(pool.0.to_le_bytes());
            to.extend(address.to_le_bytes());
            to.extend(size.to_le_bytes());
        }
        Op::Free { pool, address, .. } => {
            to.push(3);
            to.extend(pool.0.to_le_bytes());
            to.extend(address.to_le_bytes());
        }
        Op::Plot { plot, format } => {
            to.push(4);
            to.extend(plot.0.to_le_bytes());
            to.push(u8::from(*format == Format::Memory));
        }
        Op::Point { plot, value, .. } => {
            to.push(5);
            to.extend(plot.0.to_le_bytes());
            to.extend(value.to_le_bytes());
        }
        Op::Message { severity, text, .. } => {
            to.push(6);
            to.push(match severity {
                Severity::Info => 0,
                Severity::Warning => 1,
                Severity::Error => 2,
            });
            to.extend(cut(text));
        }
        Op::AppInfo { text } => {
            to.push(7);
            to.extend(cut(text));
        }
    }
}

/// Takes the next order off the front; `None` if it has not come to its end.
pub fn next<'a>(bytes: &mut &'a [u8]) -> Result<Option<Order<'a>>, Malformed> {
    let Some((len, rest)) = bytes.split_first_chunk() else { return Ok(None) };
    let len = u32::from_le_bytes(*len) as usize;
    if len > MAX_ORDER {
        return Err(Malformed);
    }
    let Some((body, rest)) = rest.split_at_checked(len) else { return Ok(None) };
    *bytes = rest;
    read(body).map(Some)
}

fn read(body: &[u8]) -> Result<Order<'_>, Malformed> {
    let (kind, body) = body.split_first().ok_or(Malformed)?;
    let mut body = Body(body);
    let at = At::default();
    let order = match kind {
        0 => Order::Begin(body.u64()?),
        1 => Order::Name(body.name()?, body.text()?),
        2 => {
            let (pool, address, size) = (body.name()?, body.u64()?, body.u64()?);
            Order::Op(Op::Alloc { pool, at, address, size, allocated_ns: 0 })
        }
        3 => Order::Op(Op::Free { pool: body.name()?, at, address: body.u64()? }),
        4 => {
            let (plot, format) = (body.name()?, body.u8()?);
            let format = match format {
                0 => Format::Number,
                1 => Format::Memory,
                _ => return Err(Malformed),
            };
            Order::Op(Op::Plot { plot, format })
        }
        5 => {
            let (plot, value) = (body.name()?, body.u64()?.cast_signed());
            Order::Op(Op::Point { plot, at, value })
        }
        6 => {
            let severity = match body.u8()? {
                0 => Severity::Info,
                1 => Severity::Warning,
                2 => Severity::Error,
                _ => return Err(Malformed),
            };
            Order::Op(Op::Message { at, severity, text: body.text()? })
        }
        7 => Order::Op(Op::AppInfo { text: body.text()? }),
        _ => return Err(Malformed),
    };
    if body.0.is_empty() { Ok(order) } else { Err(Malformed) }
}

struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn take<const LEN: usize>(&mut self) -> Result<[u8; LEN], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.take().map(u8::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.take().map(u64::from_le_bytes)
    }

    fn name(&mut self) -> Result<Name, Malformed> {
        self.take().map(u32::from_le_bytes).map(Name)
    }

    fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(std::mem::take(&mut self.0)).map_err(|_| Malformed)
    }
}

impl News {
    /// As bytes.
    pub fn bytes(self) -> [u8; NEWS_LEN] {
        let (kind, value) = match self {
            Self::Listening(port) => (0, port.into()),
            Self::NoPort => (1, 0),
            Self::Connected(connection) => (2, connection),
            Self::Disconnected => (3, 0),
        };
        let mut bytes = [kind; NEWS_LEN];
        bytes[1..].copy_from_slice(&value.to_le_bytes());
        bytes
    }

    /// From bytes.
    pub fn read(bytes: [u8; NEWS_LEN]) -> Result<Self, Malformed> {
        let [kind, value @ ..] = bytes;
        let value = u64::from_le_bytes(value);
        match kind {
            0 => u16::try_from(value).map(Self::Listening).map_err(|_| Malformed),
            1 => Ok(Self::NoPort),
            2 => Ok(Self::Connected(value)),
            3 => Ok(Self::Disconnected),
            _ => Err(Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An order of each kind.
    fn orders(number: u64, text: &str) -> [Order<'_>; 8] {
        let (at, allocated_ns) = (At::default(), 0);
        let name = Name(u32::try_from(number >> 32).unwrap());
        [
            Order::Begin(number),
            Order::Name(name, text),
            Order::Op(Op::Alloc { pool: name, at, address: number, size: !number, allocated_ns }),
            Order::Op(Op::Free { pool: name, at, address: number }),
            Order::Op(Op::Plot { plot: name, format: Format::Memory }),
            Order::Op(Op::Point { plot: name, at, value: number.cast_signed() }),
            Order::Op(Op::Message { at, severity: Severity::Error, text }),
            Order::Op(Op::AppInfo { text }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_however_it_is_cut(
            number in any::<u64>(), text in ".{0,40}", cut in any::<prop::sample::Index>(),
        ) {
            let expected = orders(number, &text);
            let mut bytes = Vec::new();
            for order in &expected {
                order.write(&mut bytes);
            }
            let cut = cut.index(bytes.len());
            let mut first = &bytes[..cut];
            let mut got = Vec::new();
            while let Some(order) = next(&mut first).unwrap() {
                got.push(order);
            }
            let mut rest = &bytes[cut - first.len()..];
            while let Some(order) = next(&mut rest).unwrap() {
                got.push(order);
            }
            prop_assert!(rest.is_empty());
            prop_assert_eq!(got, expected);
        }

        #[test]
        fn foreign_bytes_are_refused_or_make_sense(
            mut bytes in prop::collection::vec(any::<u8>(), 0..200), short in any::<bool>(),
        ) {
            if short && bytes.len() > 8 {
                // A length that fits, and a kind that there is: what follows is looked at.
                let len = u32::try_from(bytes.len() - 4).unwrap();
                bytes[..4].copy_from_slice(&len.to_le_bytes());
                bytes[4] %= 9;
            }
            let mut left = &bytes[..];
            while let Ok(Some(order)) = next(&mut left) {
                let mut again = Vec::new();
                order.write(&mut again);
                prop_assert_eq!(next(&mut &again[..]), Ok(Some(order)));
            }
        }

        #[test]
        fn news_is_refused_or_read_as_it_was_written(bytes in any::<[u8; NEWS_LEN]>()) {
            if let Ok(news) = News::read(bytes) {
                prop_assert_eq!(News::read(news.bytes()), Ok(news));
            }
        }
    }

    #[test]
    fn a_long_text_is_cut_and_a_long_order_refused() {
        let text = "é".repeat(MAX_TEXT);
        let mut bytes = Vec::new();
        Order::Op(Op::AppInfo { text: &text }).write(&mut bytes);
        assert!(matches!(next(&mut &bytes[..]), Ok(Some(Order::Op(Op::AppInfo { text })))
            if text.len() == MAX_TEXT));
        let len = u32::try_from(MAX_ORDER + 1).unwrap();
        assert_eq!(next(&mut &len.to_le_bytes()[..]), Err(Malformed));
        for news in [News::Listening(8086), News::NoPort, News::Connected(7), News::Disconnected] {
            assert_eq!(News::read(news.bytes()), Ok(news));
        }
    }
}
