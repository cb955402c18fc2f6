//! Operations → bytes, in frames as the viewer wants them.
//!
//! A frame is the length of a compressed block, and the block; it holds whole items only. Times
//! are differences to the one before: one series for pools, and one for the thread that plots and
//! messages are on.

use super::{
    lz4::{Alike, Compressor},
    protocol::{Item, Protocol},
};
use crate::tracy::op::{At, Format, Name, Op, Severity};

/// The most that one block holds, bytes before it is compressed.
const FRAME: usize = 256 * 1024;
/// Names are pointers to the viewer: these look like some, and show whose they are.
const NAMES: u64 = 0x7470_0000_0000;
/// Frames of a call stack; the viewer takes at most so many.
const MAX_STACK: usize = 255;
/// The longest text, bytes: its length is 16 bits.
const MAX_TEXT: usize = 60_000;

/// The viewer's key of a name.
pub const fn key_of(name: Name) -> u64 {
    NAMES | (name.0 as u64) << 4
}

/// The name of a key, if it can be one.
pub fn name_of(key: u64) -> Option<Name> {
    let number = (key ^ NAMES) >> 4;
    let name = Name(u32::try_from(number).ok()?);
    (key_of(name) == key).then_some(name)
}

/// One level of a resolved call stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The function.
    pub function: String,
    /// Its source file; empty if not known.
    pub file: String,
    /// The line; 0 if not known.
    pub line: u32,
    /// Address of the function; 0 if it was inlined.
    pub symbol: u64,
}

/// Puts operations into frames.
pub struct Encoder {
    protocol: Protocol,
    raw: Vec<u8>,
    /// What in it is like something before it.
    alike: Vec<Alike>,
    /// Where the last allocation and the last free of a pool are in it.
    last: [Option<usize>; 2],
    compressor: Compressor,
    /// Compressed frames.
    ready: Vec<u8>,
    serial_ns: i64,
    thread_ns: i64,
    thread: u32,
}

impl Encoder {
    /// At the start of a connection.
    pub fn new(protocol: Protocol) -> Self {
        Self {
            protocol,
            raw: Vec::with_capacity(FRAME),
            alike: Vec::new(),
            last: [None; 2],
            compressor: Compressor::new(FRAME),
            ready: Vec::new(),
            serial_ns: 0,
            thread_ns: 0,
            thread: 0,
        }
    }

    /// Adds an operation; an allocation with its call stack, the innermost frame first, if there is
    /// one.
    pub fn op(&mut self, op: &Op<'_>, stack: &[u64]) {
        match *op {
            Op::Alloc { pool, at, address, size, .. } => {
                let [low @ .., _, _] = size.to_le_bytes();
                let items = (Item::MemAllocNamed, Item::MemAllocCallstackNamed);
                self.memory(pool, at, address, stack, items, &low);
            }
            Op::Free { pool, at, address } => {
                let items = (Item::MemFreeNamed, Item::MemFreeCallstackNamed);
                self.memory(pool, at, address, &[], items, &[]);
            }
            Op::Plot { plot, format } => self.plot(plot, format),
            Op::Point { plot, at, value } => {
                self.room(32);
                self.thread_context(at.tid);
                let delta = self.thread_delta(at.time_ns);
                let number = self.protocol.number(Item::PlotDataInt);
                let mut item = [0; 25];
                item[0] = number;
                item[1..9].copy_from_slice(&key_of(plot).to_le_bytes());
                item[9..17].copy_from_slice(&delta.to_le_bytes());
                item[17..].copy_from_slice(&value.to_le_bytes());
                self.raw.extend_from_slice(&item);
            }
            Op::Message { at, severity, text } => self.message(at, severity, text),
            Op::AppInfo { text } => {
                self.text_before(text, false);
                self.item(Item::MessageAppInfo, &[&0_i64.to_le_bytes()]);
            }
        }
    }

    fn memory(
        &mut self,
        pool: Name,
        at: At,
        address: u64,
        stack: &[u64],
        (plain, with_stack): (Item, Item),
        size: &[u8],
    ) {
        self.room(64 + 8 * MAX_STACK);
        let item = if stack.is_empty() {
            plain
        } else {
            self.stack(stack);
            with_stack
        };
        let time = signed(at.time_ns);
        let delta = time.wrapping_sub(self.serial_ns);
        self.serial_ns = time;
        // One piece: this is what there is most of.
        let mut bytes = [0; 36];
        bytes[0] = self.protocol.number(Item::MemNamePayload);
        bytes[1..9].copy_from_slice(&key_of(pool).to_le_bytes());
        bytes[9] = self.protocol.number(item);
        bytes[10..18].copy_from_slice(&delta.to_le_bytes());
        bytes[18..22].copy_from_slice(&at.tid.to_le_bytes());
        bytes[22..30].copy_from_slice(&address.to_le_bytes());
        bytes[30..30 + size.len()].copy_from_slice(size);
        let (at, len) = (self.raw.len(), 30 + size.len());
        let last = &mut self.last[usize::from(size.is_empty())];
        if let Some(before) = last.replace(at) {
            self.alike.push(Alike { at, before, len });
        }
        // A copy of a fixed length is the fastest; what is too much goes again.
        self.raw.extend_from_slice(&bytes);
        self.raw.truncate(at + len);
    }

    /// The stack of the next event of a pool.
    fn stack(&mut self, stack: &[u64]) {
        let stack = &stack[..stack.len().min(MAX_STACK)];
        let len = u16::try_from(stack.len() * 8).unwrap_or(u16::MAX);
        self.item(Item::CallstackPayload, &[&1_u64.to_le_bytes(), &len.to_le_bytes()]);
        for address in stack {
            self.raw.extend_from_slice(&address.to_le_bytes());
        }
        self.item(Item::CallstackSerial, &[]);
    }

    fn plot(&mut self, plot: Name, format: Format) {
        let kind = match format {
            Format::Number => 0_u8,
            Format::Memory => 1,
        };
        // A step from point to point, with the area filled, in a colour of the viewer's choice.
        let rest = [kind, 1, 1, 0, 0, 0, 0];
        self.item(Item::PlotConfig, &[&key_of(plot).to_le_bytes(), &rest]);
    }

    fn message(&mut self, at: At, severity: Severity, text: &str) {
        self.room(16);
        self.thread_context(at.tid);
        self.text_before(text, false);
        let time = signed(at.time_ns).to_le_bytes();
        let level: u8 = match severity {
            Severity::Info => 2,
            Severity::Warning => 3,
            Severity::Error => 4,
        };
        let level = [level << 4];
        let level: &[u8] = if self.protocol.has_severity() { &level } else { &[] };
        self.item(Item::Message, &[&time, level]);
    }

    fn thread_context(&mut self, tid: u32) {
        if self.thread != tid {
            self.item(Item::ThreadContext, &[&tid.to_le_bytes()]);
            self.thread = tid;
            self.thread_ns = 0;
        }
    }

    fn thread_delta(&mut self, time_ns: u64) -> i64 {
        let time = signed(time_ns);
        let delta = time.wrapping_sub(self.thread_ns);
        self.thread_ns = time;
        delta
    }

    /// A text that the next item takes.
    pub fn text_before(&mut self, text: &str, second: bool) {
        let text = cut(text);
        let (short, long) = if second {
            (Item::SecondStringData8, Item::SecondStringData)
        } else {
            (Item::SingleStringData8, Item::SingleStringData)
        };
        match (u8::try_from(text.len()), self.protocol.has_short_strings()) {
            (Ok(len), true) => self.item(short, &[&[len], text]),
            (_, is_shifted) => {
                let len = text.len() - if is_shifted { 256 } else { 0 };
                let len = u16::try_from(len).unwrap_or(u16::MAX).to_le_bytes();
                self.item(long, &[&len, text]);
            }
        }
    }

    /// A text that was asked for by its key.
    pub fn text_of(&mut self, item: Item, key: u64, text: &str) {
        let text = cut(text);
        let len = u16::try_from(text.len()).unwrap_or(u16::MAX);
        self.item(item, &[&key.to_le_bytes(), &len.to_le_bytes(), text]);
    }

    /// What an address of a call stack is, innermost first.
    pub fn frames_of(&mut self, address: u64, image: &str, frames: &[Frame]) {
        let count = u8::try_from(frames.len()).unwrap_or(u8::MAX);
        self.text_before(image, false);
        self.item(Item::CallstackFrameSize, &[&address.to_le_bytes(), &[count]]);
        for frame in frames.iter().take(count.into()) {
            self.text_before(&frame.function, false);
            self.text_before(&frame.file, true);
            let (line, symbol) = (frame.line.to_le_bytes(), frame.symbol.to_le_bytes());
            self.item(Item::CallstackFrame, &[&line, &symbol, &0_u32.to_le_bytes()]);
        }
    }

    /// Where a function is.
    pub fn symbol(&mut self, address: u64, frame: &Frame) {
        self.text_before(&frame.file, false);
        let (line, address) = (frame.line.to_le_bytes(), address.to_le_bytes());
        self.item(Item::SymbolInformation, &[&line, &address]);
    }

    /// Any other item.
    pub fn item(&mut self, item: Item, parts: &[&[u8]]) {
        self.room(1 + parts.iter().map(|part| part.len()).sum::<usize>());
        self.raw.push(self.protocol.number(item));
        for part in parts {
            self.raw.extend_from_slice(part);
        }
    }

    /// An item must not be cut by the end of a frame.
    fn room(&mut self, len: usize) {
        if self.raw.len() + len > FRAME {
            self.flush();
        }
    }

    /// Ends the frame.
    pub fn flush(&mut self) {
        if self.raw.is_empty() {
            return;
        }
        let block = self.compressor.compress(&self.raw, &self.alike);
        let len = u32::try_from(block.len()).unwrap_or(0);
        self.ready.extend_from_slice(&len.to_le_bytes());
        self.ready.extend_from_slice(block);
        self.alike.clear();
        self.last = [None; 2];
        self.raw.clear();
    }

    /// Finished frames, which are the caller's to send.
    pub const fn ready(&mut self) -> &mut Vec<u8> {
        &mut self.ready
    }
}

fn signed(time_ns: u64) -> i64 {
    i64::try_from(time_ns).unwrap_or(i64::MAX)
}

/// Where to cut a text so that at most so many bytes are left, and no letter is cut.
pub fn cut_at(text: &str, most: usize) -> usize {
    let most = most.min(text.len());
    (0..=most).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

fn cut(text: &str) -> &[u8] {
    &text.as_bytes()[..cut_at(text, MAX_TEXT)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(version: u32, add: impl Fn(&mut Encoder)) -> Vec<u8> {
        let mut encoder = Encoder::new(Protocol::new(version, false));
        add(&mut encoder);
        encoder.flush();
        let ready = encoder.ready();
        let len = u32::from_le_bytes(ready[..4].try_into().unwrap()) as usize;
        assert_eq!(ready.len(), 4 + len);
        lz4_flex::block::decompress(&ready[4..], FRAME).unwrap()
    }

    fn at(time_ns: u64, tid: u32) -> At {
        At { time_ns, tid }
    }

    #[test]
    fn an_allocation_is_a_name_and_an_event() {
        let alloc = Op::Alloc {
            pool: Name(1),
            at: at(1000, 7),
            address: 0xabc,
            size: 0x0102_0304_0506,
            allocated_ns: 0,
        };
        let free = Op::Free { pool: Name(1), at: at(990, 8), address: 0xabc };
        let found = raw(82, |encoder| [alloc, free].iter().for_each(|op| encoder.op(op, &[])));
        let mut expected = vec![116, 0x10, 0, 0, 0, 0x70, 0x74, 0, 0, 36];
        expected.extend(1000_i64.to_le_bytes());
        expected.extend([7, 0, 0, 0, 0xbc, 0x0a, 0, 0, 0, 0, 0, 0, 6, 5, 4, 3, 2, 1]);
        expected.extend([116, 0x10, 0, 0, 0, 0x70, 0x74, 0, 0, 38]);
        expected.extend((-10_i64).to_le_bytes());
        expected.extend([8, 0, 0, 0, 0xbc, 0x0a, 0, 0, 0, 0, 0, 0]);
        assert_eq!(found, expected);
    }

    #[test]
    fn a_stack_comes_before_its_event() {
        const STACK: &[u64] = &[0x7f00_0000_1000, 0x10];
        let op = Op::Alloc { pool: Name(0), at: at(1, 7), address: 0, size: 1, allocated_ns: 0 };
        let found = raw(72, |encoder| encoder.op(&op, STACK));
        let protocol = Protocol::new(72, false);
        let number = |item| protocol.number(item);
        let mut expected = vec![number(Item::CallstackPayload), 1, 0, 0, 0, 0, 0, 0, 0, 16, 0];
        expected.extend(0x7f00_0000_1000_u64.to_le_bytes());
        expected.extend(0x10_u64.to_le_bytes());
        expected.extend([number(Item::CallstackSerial), number(Item::MemNamePayload)]);
        assert_eq!(found[..expected.len()], expected);
        assert_eq!(found[expected.len() + 8], number(Item::MemAllocCallstackNamed));
    }

    #[test]
    fn a_message_says_its_thread_once_and_its_level_where_that_is_known() {
        let op = Op::Message { at: at(5, 9), severity: Severity::Warning, text: "hé" };
        for (version, metadata) in [(76, 0), (82, 1)] {
            let found = raw(version, |encoder| [op, op].iter().for_each(|op| encoder.op(op, &[])));
            let text_len = if version == 82 { 2 + 3 } else { 3 + 3 };
            assert_eq!(found.len(), 5 + 2 * (text_len + 9 + metadata), "{version}");
            let level = found.last().unwrap();
            assert_eq!(*level == 0x30, version == 82);
        }
    }

    #[test]
    fn frames_hold_whole_items_and_no_more_than_fits() {
        let mut encoder = Encoder::new(Protocol::new(66, false));
        let text = "x".repeat(70_000);
        for _ in 0..20 {
            encoder.op(&Op::AppInfo { text: &text }, &[]);
        }
        encoder.flush();
        let mut left = encoder.ready().as_slice();
        let mut count = 0;
        while !left.is_empty() {
            let len = u32::from_le_bytes(left[..4].try_into().unwrap()) as usize;
            let block = lz4_flex::block::decompress(&left[4..4 + len], FRAME).unwrap();
            assert_eq!(block[0], Protocol::new(66, false).number(Item::SingleStringData));
            left = &left[4 + len..];
            count += 1;
        }
        assert_eq!(count, 5, "four texts of 60,000 bytes each");
    }

    #[test]
    fn long_texts_have_long_lengths() {
        for (version, len, head) in [(82, 255, 2), (82, 256, 3), (82, 300, 3), (72, 20, 3)] {
            let text = "y".repeat(len);
            let found = raw(version, |encoder| encoder.text_before(&text, false));
            assert_eq!(found.len(), head + len, "{version}, {len}");
        }
        let found = raw(82, |encoder| encoder.text_before(&"y".repeat(300), true));
        assert_eq!(found[1..3], [44, 0], "what is beyond 256");
    }

    #[test]
    fn keys_are_names_and_nothing_else() {
        for name in [Name(0), Name(1), Name(u32::MAX)] {
            assert_eq!(name_of(key_of(name)), Some(name));
        }
        for key in [0, 1, u64::MAX, NAMES + 1, NAMES - 16, 0xffff_8880_0000_0000] {
            assert_eq!(name_of(key), None, "{key:#x}");
        }
    }
}
