//! A connection after the handshake: operations out, questions in. It does no input or output
//! itself.
//!
//! A question is answered from what has been announced and from nothing else: whatever it asks
//! for, no other memory of this program is looked at.

use super::{
    encoder::{Encoder, Frame, name_of},
    protocol::{Item, Protocol},
};
use crate::tracy::op::{Names, Op};

/// Length of a question, bytes.
const QUERY: usize = 13;
/// What waits to be sent, bytes; beyond it the viewer has fallen behind.
pub const MAX_WAITING: usize = 8 << 20;
/// Beyond this nothing more is read from it: whoever only asks must listen, too.
const MAX_ANSWERS: usize = 4 << 20;

/// What questions are answered from.
pub trait Answers {
    /// Names of pools and plots.
    fn names(&self) -> &Names;
    /// The name of a thread.
    fn thread(&self, tid: u32) -> String;
    /// What an address of a call stack is: its image, and the functions there, innermost first.
    fn frames(&mut self, address: u64) -> (String, Vec<Frame>);
}

/// Tracy's questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Query {
    Terminate,
    Text,
    Thread,
    PlotName,
    FrameName,
    FiberName,
    ExternalName,
    Disconnect,
    CallstackFrame,
    Symbol,
    SymbolCode,
    SourceCode,
    Other,
}

impl Query {
    const fn of(number: u8) -> Self {
        match number {
            0 => Self::Terminate,
            1 => Self::Text,
            2 => Self::Thread,
            4 => Self::PlotName,
            5 => Self::FrameName,
            7 => Self::FiberName,
            8 => Self::ExternalName,
            9 => Self::Disconnect,
            10 => Self::CallstackFrame,
            11 => Self::Symbol,
            12 => Self::SymbolCode,
            13 => Self::SourceCode,
            _ => Self::Other,
        }
    }
}

/// A viewer that is being served.
pub struct Session {
    encoder: Encoder,
    /// How much of the finished frames has been sent.
    sent: usize,
    inbox: Vec<u8>,
    ending: bool,
    over: bool,
}

impl Session {
    /// After `welcome` has been sent.
    pub fn new(protocol: Protocol) -> Self {
        let encoder = Encoder::new(protocol);
        Self { encoder, sent: 0, inbox: Vec::new(), ending: false, over: false }
    }

    /// Adds an operation, and the stack of an allocation; after the end has been announced there are
    /// none.
    pub fn record(&mut self, op: &Op<'_>, stack: &[u64]) {
        if !self.ending {
            self.encoder.op(op, stack);
        }
    }

    /// Makes what has been recorded ready to be sent.
    pub fn flush(&mut self) {
        self.encoder.flush();
    }

    /// A sign of life.
    pub fn keep_alive(&mut self) {
        self.encoder.item(Item::KeepAlive, &[]);
        self.flush();
    }

    /// What is to be sent.
    pub fn outgoing(&mut self) -> &[u8] {
        &self.encoder.ready()[self.sent..]
    }

    /// So much of it has been sent.
    pub fn has_sent(&mut self, len: usize) {
        self.sent += len;
        let ready = self.encoder.ready();
        if self.sent >= ready.len() {
            ready.clear();
            self.sent = 0;
        } else if self.sent > MAX_WAITING / 2 {
            ready.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Whether more waits than should.
    pub fn is_behind(&mut self) -> bool {
        self.outgoing().len() > MAX_WAITING
    }

    /// Whether questions are to be read.
    pub fn is_listening(&mut self) -> bool {
        !self.over && self.outgoing().len() < MAX_ANSWERS
    }

    /// Says that there is no more to come. The viewer goes on asking, and ends the connection.
    pub fn end(&mut self) {
        if !self.ending {
            self.ending = true;
            self.flush();
            self.encoder.item(Item::Terminate, &[]);
            self.flush();
        }
    }

    /// Whether the viewer has ended it.
    pub const fn is_over(&self) -> bool {
        self.over
    }

    /// Takes in what the viewer has sent.
    pub fn receive(&mut self, bytes: &[u8], answers: &mut impl Answers) {
        self.inbox.extend_from_slice(bytes);
        let inbox = std::mem::take(&mut self.inbox);
        let mut queries = inbox.chunks_exact(QUERY);
        for query in &mut queries {
            if self.over {
                return;
            }
            let mut pointer = [0; 8];
            pointer.copy_from_slice(&query[1..9]);
            self.answer(Query::of(query[0]), u64::from_le_bytes(pointer), answers);
        }
        self.inbox.extend_from_slice(queries.remainder());
        self.flush();
    }

    fn answer(&mut self, query: Query, pointer: u64, answers: &mut impl Answers) {
        let encoder = &mut self.encoder;
        match query {
            Query::Terminate => self.over = true,
            Query::Disconnect => self.end(),
            Query::Text => encoder.text_of(Item::StringData, pointer, named(answers, pointer)),
            Query::PlotName => encoder.text_of(Item::PlotName, pointer, named(answers, pointer)),
            Query::FrameName => encoder.text_of(Item::FrameName, pointer, named(answers, pointer)),
            Query::FiberName => encoder.text_of(Item::FiberName, pointer, named(answers, pointer)),
            Query::Thread => {
                let name = u32::try_from(pointer).map(|tid| answers.thread(tid));
                let name = name.unwrap_or_else(|_| "?".to_owned());
                encoder.text_of(Item::ThreadName, pointer, &name);
            }
            Query::ExternalName => {
                encoder.text_of(Item::ExternalThreadName, pointer, "?");
                encoder.text_of(Item::ExternalName, pointer, "?");
            }
            Query::CallstackFrame => {
                let (image, frames) = answers.frames(pointer);
                encoder.frames_of(pointer, &image, &frames);
            }
            Query::Symbol => {
                let (_, frames) = answers.frames(pointer);
                encoder.symbol(pointer, frames.first().unwrap_or(&unknown_frame(pointer)));
            }
            Query::SymbolCode => encoder.item(Item::AckSymbolCodeNotAvailable, &[]),
            Query::SourceCode => {
                let [low @ .., _, _, _, _] = pointer.to_le_bytes();
                encoder.item(Item::AckSourceCodeNotAvailable, &[&low]);
            }
            Query::Other => encoder.item(Item::AckServerQueryNoop, &[]),
        }
    }
}

fn named(answers: &impl Answers, key: u64) -> &str {
    name_of(key).and_then(|name| answers.names().text(name)).unwrap_or("?")
}

/// What is said of an address of which nothing is known.
pub fn unknown_frame(address: u64) -> Frame {
    let function = format!("{address:#x}");
    Frame { function, file: "[unknown]".to_owned(), line: 0, symbol: address }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tracy::{op::Name, wire::encoder::key_of};

    struct Known(Names);

    impl Answers for Known {
        fn names(&self) -> &Names {
            &self.0
        }
        fn thread(&self, tid: u32) -> String {
            format!("thread {tid}")
        }
        fn frames(&mut self, address: u64) -> (String, Vec<Frame>) {
            ("image".to_owned(), vec![unknown_frame(address)])
        }
    }

    fn known() -> Known {
        let mut names = Names::default();
        names.intern("TT_Dev0_DRAM");
        Known(names)
    }

    fn query(kind: u8, pointer: u64) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend(pointer.to_le_bytes());
        bytes.extend([0; 4]);
        bytes
    }

    /// All that was answered.
    fn answered(session: &mut Session) -> Vec<u8> {
        let mut left = session.outgoing().to_vec();
        let mut all = Vec::new();
        while !left.is_empty() {
            let len = u32::from_le_bytes(left[..4].try_into().unwrap()) as usize;
            all.extend(lz4_flex::block::decompress(&left[4..4 + len], 256 << 10).unwrap());
            left.drain(..4 + len);
        }
        all
    }

    fn session() -> Session {
        Session::new(Protocol::new(82, false))
    }

    #[test]
    fn a_name_is_answered_and_nothing_else_is_looked_at() {
        let secret = String::from("a secret of this process");
        for (pointer, expected) in [
            (key_of(Name(0)), "TT_Dev0_DRAM"),
            (key_of(Name(1)), "?"),
            (secret.as_ptr() as u64, "?"),
            (0, "?"),
        ] {
            let mut session = session();
            session.receive(&query(1, pointer), &mut known());
            let answer = answered(&mut session);
            assert!(answer.ends_with(expected.as_bytes()), "{answer:?}");
            assert_eq!(answer.len(), 11 + expected.len());
        }
    }

    #[test]
    fn the_end_is_said_once_and_is_the_viewers_to_take() {
        let mut session = session();
        session.receive(&query(9, 0), &mut known());
        session.receive(&query(9, 0), &mut known());
        let terminate = Protocol::new(82, false).number(Item::Terminate);
        assert_eq!(answered(&mut session), [terminate]);
        session.record(&Op::AppInfo { text: "too late" }, &[]);
        session.receive(&query(2, 5), &mut known());
        assert!(answered(&mut session).ends_with(b"thread 5"));
        assert!(!session.is_over());
        session.receive(&query(0, 0), &mut known());
        assert!(session.is_over());
    }

    #[test]
    fn who_does_not_listen_is_behind_and_not_heard() {
        let mut session = session();
        let mut seed = 1_u64;
        while session.is_listening() {
            // Texts that do not compress.
            for _ in 0..1000 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                session.receive(&query(1, seed), &mut known());
            }
        }
        assert!(!session.is_behind());
        let sent = session.outgoing().len();
        session.has_sent(sent);
        assert!(session.is_listening() && session.outgoing().is_empty());
    }

    proptest! {
        #[test]
        fn whatever_is_asked_is_answered_in_whole_frames(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
            cut in 0..400_usize,
            version in proptest::sample::select(vec![66_u32, 69, 72, 74, 76, 82]),
        ) {
            let mut session = Session::new(Protocol::new(version, false));
            let (first, second) = bytes.split_at(cut.min(bytes.len()));
            session.receive(first, &mut known());
            session.receive(second, &mut known());
            let answers = answered(&mut session);
            prop_assert!(answers.len() < 100_000);
            prop_assert_eq!(session.is_over(), bytes.chunks_exact(QUERY).any(|query| query[0] == 0));
        }
    }
}
