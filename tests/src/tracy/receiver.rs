//! A Tracy server of our own: it asks as a viewer does, and takes no nonsense.
//!
//! What it insists on is what Tracy's `TracyWorker.cpp` does, with its assertions on.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::table::items;
use crate::ttmem::PATIENCE;

/// The version of the protocol that both backends speak.
const VERSION: u32 = 82;
const WELCOME: usize = 1170;
/// Before this version the welcome has one field more.
const NO_DELAY: u32 = 75;
const FRAME: usize = 256 * 1024;
/// What a frame may take when it is compressed.
const BLOCK: usize = FRAME + FRAME / 255 + 16;
/// Sizes are kept in 47 bits.
const SIZE_LIMIT: u64 = 1 << 47;
/// Frames of the C++ client refer to so much of what came before.
const DICTIONARY: usize = 64 * 1024;
/// How often it is looked whether time is up.
const TICK: Duration = Duration::from_millis(100);

/// Items that take the text before them.
const WITH_TEXT: [&str; 13] = [
    "Message",
    "MessageColor",
    "MessageCallstack",
    "MessageColorCallstack",
    "MessageAppInfo",
    "ZoneText",
    "ZoneName",
    "LockName",
    "GpuContextName",
    "GpuAnnotationName",
    "CallstackFrameSize",
    "CallstackFrame",
    "SymbolInformation",
];

const TEXT: u8 = 1;
const THREAD: u8 = 2;
const PLOT: u8 = 4;
const DISCONNECT: u8 = 9;
const FRAMES: u8 = 10;
const SYMBOL: u8 = 11;

/// A pool, as it is told of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// Sizes by address of what is live.
    pub live: BTreeMap<u64, u64>,
    /// Call stacks by address of what is live, where there is one.
    stacks: BTreeMap<u64, Vec<u64>>,
    /// Allocations.
    pub came: u64,
    /// Frees.
    pub went: u64,
    /// Frees of what was never announced.
    pub unknown: u64,
    /// How often all was discarded.
    pub discarded: u64,
    /// The time of the first and the last event, in the client's units.
    pub times: Option<(i64, i64)>,
}

/// All that was sent.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The program's name and its process id.
    pub program: (String, u64),
    /// When the trace begins, in the client's units.
    pub begun: i64,
    /// Pools by name.
    pub pools: BTreeMap<String, Pool>,
    /// The last values of plots, and how many there were.
    pub plots: BTreeMap<String, (i64, u64)>,
    /// Threads by id.
    pub threads: BTreeMap<u64, String>,
    /// Messages in their order.
    pub messages: Vec<String>,
    /// How much they matter, where the version has that.
    pub severities: Vec<u8>,
    /// Lines about the whole trace.
    pub about: Vec<String>,
    /// Events of pools, in all.
    pub events: u64,
}

impl Seen {
    /// A message with this text in it.
    pub fn has_message(&self, text: &str) -> bool {
        self.messages.iter().any(|message| message.contains(text))
    }
}

/// A connection.
pub struct Receiver {
    stream: TcpStream,
    version: u32,
    items: Vec<(&'static str, usize)>,
    inbox: Vec<u8>,
    before: Vec<u8>,
    texts: BTreeMap<(u8, u64), String>,
    asked: BTreeSet<(u8, u64)>,
    pools: BTreeMap<u64, Pool>,
    plots: BTreeMap<u64, (i64, u64)>,
    /// Of the next event.
    pool: Option<u64>,
    /// The stack of the next event: sent, and said to be its.
    stack: (Option<Vec<u64>>, bool),
    /// Of which address frames are sent, and how many more.
    frames: (u64, u8),
    serial: i64,
    /// For the next item that takes texts.
    single: Option<String>,
    second: Option<String>,
    seen: Seen,
    strict: bool,
    terminated: bool,
    closed: bool,
}

impl Receiver {
    /// Connects, as a viewer does.
    pub fn connect(port: u16) -> Result<Self> {
        Self::connect_as(port, VERSION)
    }

    /// Connects as a viewer of that version of the protocol.
    pub fn connect_as(port: u16, version: u32) -> Result<Self> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"TracyPrf")?;
        stream.write_all(&version.to_le_bytes())?;
        let mut status = [0];
        stream.read_exact(&mut status).context("no answer to the handshake")?;
        ensure!(status == [1], "refused with {}", status[0]);
        let delay = if version < NO_DELAY { 8 } else { 0 };
        let mut welcome = vec![0; delay + WELCOME + 16];
        stream.read_exact(&mut welcome)?;
        ensure!(f64::from_le_bytes(welcome[..8].try_into()?) > 0.0, "no unit of time");
        let (begun, ended) = (signed(&welcome, 8), signed(&welcome, 16));
        ensure!(ended >= begun, "time goes back by {} at the start", begun - ended);
        welcome.drain(24..24 + delay);
        stream.set_read_timeout(Some(TICK))?;
        let text = |bytes: &[u8]| {
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            String::from_utf8_lossy(&bytes[..end]).into_owned()
        };
        let program = (text(&welcome[82..146]), number(&welcome, 48));
        let seen = Seen { program, begun, ..Seen::default() };
        Ok(Self {
            stream,
            version,
            items: items(version),
            inbox: Vec::new(),
            before: Vec::new(),
            texts: BTreeMap::new(),
            asked: BTreeSet::new(),
            pools: BTreeMap::new(),
            plots: BTreeMap::new(),
            pool: None,
            stack: (None, false),
            frames: (0, 0),
            serial: 0,
            single: None,
            second: None,
            seen,
            strict: true,
            terminated: false,
            closed: false,
        })
    }

    /// Counts frees of what was never announced, instead of failing.
    #[must_use]
    pub fn lenient(mut self) -> Self {
        self.strict = false;
        self
    }

    /// What has been sent so far.
    pub fn seen(&mut self) -> &Seen {
        let name = |kind, key: u64| {
            self.texts.get(&(kind, key)).cloned().unwrap_or_else(|| format!("{key:#x}"))
        };
        self.seen.pools =
            self.pools.iter().map(|(key, pool)| (name(TEXT, *key), pool.clone())).collect();
        self.seen.plots = self.plots.iter().map(|(key, it)| (name(PLOT, *key), *it)).collect();
        let threads = self.texts.iter().filter(|((kind, _), _)| *kind == THREAD);
        self.seen.threads = threads.map(|((_, tid), text)| (*tid, text.clone())).collect();
        &self.seen
    }

    /// The functions of the call stack of what is live at an address of a pool, the innermost first.
    pub fn functions(&self, pool: &str, address: u64) -> Vec<&str> {
        let is_it = |key: &u64| self.texts.get(&(TEXT, *key)).is_some_and(|name| name == pool);
        let pool = self.pools.iter().find(|(key, _)| is_it(key)).map(|(_, pool)| pool);
        let stack = pool.and_then(|pool| pool.stacks.get(&address)).into_iter().flatten();
        stack.filter_map(|at| self.texts.get(&(FRAMES, *at)).map(String::as_str)).collect()
    }

    /// Reads until something holds.
    pub fn until(&mut self, what: &str, holds: impl Fn(&Seen) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.is_answered() || !holds(self.seen()) {
            ensure!(Instant::now() < deadline, "not seen: {what}; {:?}", self.seen());
            ensure!(!self.closed, "closed before {what} was seen: {:?}", self.seen());
            self.read()?;
        }
        Ok(())
    }

    /// Reads until the program ends the connection; all that was sent.
    pub fn until_end(mut self) -> Result<Seen> {
        let deadline = Instant::now() + PATIENCE;
        while !(self.closed || self.terminated && self.is_answered()) {
            ensure!(Instant::now() < deadline, "it does not end");
            self.read()?;
        }
        // Says that no more will be asked; nobody may be there any more.
        let _ = self.stream.write_all(&[0; 13]);
        Ok(self.seen().clone())
    }

    /// Ends the connection as a viewer does.
    pub fn disconnect(mut self) -> Result<Seen> {
        self.ask(DISCONNECT, 0)?;
        self.until_end()
    }

    fn is_answered(&self) -> bool {
        self.asked.iter().all(|key| self.texts.contains_key(key))
    }

    fn ask(&mut self, kind: u8, pointer: u64) -> Result<()> {
        if kind != DISCONNECT && !self.asked.insert((kind, pointer)) {
            return Ok(());
        }
        let mut query = vec![kind];
        query.extend(pointer.to_le_bytes());
        query.extend([0; 4]);
        match self.stream.write_all(&query) {
            Err(_) if self.terminated => Ok(()),
            sent => Ok(sent?),
        }
    }

    fn read(&mut self) -> Result<()> {
        let mut bytes = vec![0; 65_536];
        match self.stream.read(&mut bytes) {
            Ok(0) => self.closed = true,
            Ok(len) => self.inbox.extend(&bytes[..len]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => self.closed = true,
            Err(error) => return Err(error.into()),
        }
        while let Some(len) = self.inbox.first_chunk::<4>().map(|len| u32::from_le_bytes(*len)) {
            let len = len as usize;
            ensure!(len <= BLOCK, "a frame of {len} bytes");
            if self.inbox.len() < 4 + len {
                break;
            }
            let mut frame = vec![0; FRAME];
            let block = &self.inbox[4..4 + len];
            let got = lz4_flex::block::decompress_into_with_dict(block, &mut frame, &self.before)?;
            frame.truncate(got);
            self.inbox.drain(..4 + len);
            self.before.extend(&frame);
            let old = self.before.len().saturating_sub(DICTIONARY);
            self.before.drain(..old);
            self.take_frame(&frame)?;
        }
        Ok(())
    }

    fn take_frame(&mut self, frame: &[u8]) -> Result<()> {
        let mut left = frame;
        while let Some(kind) = left.first() {
            let (name, len) = *self.items.get(usize::from(*kind)).context("no such item")?;
            // From this version on, lengths below 256 have an item of their own.
            let short_strings = if self.version >= 80 { 256 } else { 0 };
            let len = match name {
                "SingleStringData8" | "SecondStringData8" => 2 + usize::from(left[1]),
                "SingleStringData" | "SecondStringData" => 3 + short_strings + short(left, 1),
                "FrameImageData" | "SymbolCode" | "SourceCode" => 13 + word(left, 9) as usize,
                "StringData"
                | "ThreadName"
                | "PlotName"
                | "FrameName"
                | "FiberName"
                | "ExternalName"
                | "ExternalThreadName"
                | "SourceLocationPayload"
                | "CallstackPayload"
                | "CallstackAllocPayload" => 11 + short(left, 9),
                _ => len,
            };
            ensure!(left.len() >= len, "{name} is cut off");
            let (item, rest) = left.split_at(len);
            self.take_item(name, item).with_context(|| name.to_owned())?;
            left = rest;
        }
        Ok(())
    }

    fn take_item(&mut self, name: &str, item: &[u8]) -> Result<()> {
        let text = |from: usize| String::from_utf8_lossy(&item[from..]).into_owned();
        let single = if WITH_TEXT.contains(&name) {
            Some(self.single.take().context("no text before it")?)
        } else {
            None
        };
        match name {
            "SingleStringData8" => set(&mut self.single, text(2))?,
            "SingleStringData" => set(&mut self.single, text(3))?,
            "SecondStringData8" => set(&mut self.second, text(2))?,
            "SecondStringData" => set(&mut self.second, text(3))?,
            "CallstackPayload" => {
                let addresses = item[11..].chunks_exact(8).map(|bytes| number(bytes, 0));
                let addresses: Vec<u64> = addresses.collect();
                ensure!(!addresses.is_empty() && number(item, 1) != 0, "an empty stack");
                for address in &addresses {
                    self.ask(FRAMES, *address)?;
                }
                ensure!(self.stack.0.replace(addresses).is_none(), "a second stack");
            }
            "CallstackSerial" => {
                ensure!(self.stack.0.is_some() && !self.stack.1, "no stack before it");
                self.stack.1 = true;
            }
            "CallstackFrameSize" => {
                ensure!(self.frames.1 == 0, "{} frames are missing", self.frames.1);
                self.frames = (number(item, 1), item[9]);
                ensure!(self.frames.1 == 1, "{} frames at one address", self.frames.1);
                ensure!(single.is_some_and(|image| !image.is_empty()), "no image");
            }
            "CallstackFrame" => {
                self.second.take().context("no second text before it")?;
                self.frames.1 = self.frames.1.checked_sub(1).context("a frame too many")?;
                self.ask(SYMBOL, number(item, 5))?;
                self.answer(FRAMES, self.frames.0, single.unwrap_or_default())?;
            }
            "SymbolInformation" => {
                self.answer(SYMBOL, number(item, 5), single.unwrap_or_default())?;
            }
            "StringData" => self.answer(TEXT, number(item, 1), text(11))?,
            "ThreadName" => self.answer(THREAD, number(item, 1), text(11))?,
            "PlotName" => self.answer(PLOT, number(item, 1), text(11))?,
            "MemNamePayload" => {
                let pool = number(item, 1);
                ensure!(pool != 0, "no name");
                ensure!(self.pool.replace(pool).is_none(), "a second name before an event");
                self.ask(TEXT, pool)?;
            }
            "MemAllocNamed"
            | "MemAllocCallstackNamed"
            | "MemFreeNamed"
            | "MemFreeCallstackNamed" => {
                let (stack, is_its) = std::mem::take(&mut self.stack);
                let wanted = name.contains("Callstack");
                ensure!(wanted == is_its && stack.is_some() == is_its, "its stack: {stack:?}");
                self.take_event(name.starts_with("MemAlloc"), item, stack)?;
            }
            "MemDiscard" => self.discard(item)?,
            "MemAlloc" | "MemFree" | "MemAllocCallstack" | "MemFreeCallstack" => {
                bail!("an event of no pool")
            }
            "PlotConfig" => self.ask(PLOT, number(item, 1))?,
            "PlotDataInt" => {
                let key = number(item, 1);
                self.ask(PLOT, key)?;
                let plot = self.plots.entry(key).or_default();
                *plot = (signed(item, 17), plot.1 + 1);
            }
            "Message" | "MessageColor" => {
                self.seen.messages.extend(single);
                if self.version >= 77 {
                    let metadata = item.last().copied().unwrap_or(u8::MAX);
                    ensure!(metadata & 15 < 2 && metadata >> 4 < 6, "of kind {metadata:#x}");
                    self.seen.severities.push(metadata >> 4);
                }
            }
            "MessageAppInfo" => self.seen.about.extend(single),
            "Terminate" => self.terminated = true,
            _ => {}
        }
        Ok(())
    }

    /// An answer to something that was asked, and that nobody has answered.
    fn answer(&mut self, kind: u8, key: u64, text: String) -> Result<()> {
        ensure!(self.asked.contains(&(kind, key)), "{text:?} is {key:#x}, which nobody asked");
        ensure!(self.texts.insert((kind, key), text).is_none(), "{key:#x} is answered twice");
        Ok(())
    }

    fn take_event(&mut self, came: bool, item: &[u8], stack: Option<Vec<u64>>) -> Result<()> {
        self.serial += signed(item, 1);
        self.ask(THREAD, word(item, 9).into())?;
        let address = number(item, 13);
        let name = self.pool.take().context("no name before it")?;
        let pool = self.pools.entry(name).or_default();
        pool.at(self.serial, self.seen.begun)?;
        self.seen.events += 1;
        if came {
            let size = u64::from(word(item, 21)) | (short(item, 25) as u64) << 32;
            ensure!(size < SIZE_LIMIT, "{size} bytes");
            let twice = pool.live.insert(address, size);
            pool.stacks.extend(stack.map(|stack| (address, stack)));
            ensure!(twice.is_none(), "a second allocation at {address:#x}");
            pool.came += 1;
        } else if pool.live.remove(&address).is_some() {
            pool.stacks.remove(&address);
            pool.went += 1;
        } else {
            ensure!(!self.strict, "a free of {address:#x}, which was never announced");
            pool.unknown += 1;
        }
        Ok(())
    }

    fn discard(&mut self, item: &[u8]) -> Result<()> {
        ensure!(self.pool.is_none(), "a name before it");
        self.serial += signed(item, 1);
        self.ask(THREAD, word(item, 9).into())?;
        // Tracy leaves out the whole item then, and with it what its time adds to all later ones.
        let pool = self.pools.get_mut(&number(item, 13)).context("of an unknown pool")?;
        pool.at(self.serial, self.seen.begun)?;
        pool.live.clear();
        pool.stacks.clear();
        pool.discarded += 1;
        Ok(())
    }
}

impl Pool {
    /// Something happens now.
    fn at(&mut self, now: i64, begun: i64) -> Result<()> {
        ensure!(now >= begun, "{} before the trace begins", begun - now);
        let (first, last) = self.times.unwrap_or((now, now));
        ensure!(now >= last, "time goes back by {}", last - now);
        self.times = Some((first, now));
        Ok(())
    }
}

/// A text for the next item. There must be none.
fn set(text: &mut Option<String>, new: String) -> Result<()> {
    ensure!(text.is_none(), "nothing has taken {text:?}");
    *text = Some(new);
    Ok(())
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default())
}

fn signed(bytes: &[u8], at: usize) -> i64 {
    i64::from_le_bytes(bytes[at..at + 8].try_into().unwrap_or_default())
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap_or_default())
}

fn short(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}
