//! What a command wrote to its terminal, as lines of text.
//!
//! Knows the little that programs which write line by line use: line ends, carriage returns,
//! tabs, backspaces, and erasing in the line. Every other escape sequence is left out, and no
//! control character gets through.
//!
//! Invariant: no more than [`MOST_LINES`] whole lines and [`MOST_BYTES`] bytes of them are kept,
//! and [`MOST_COLUMNS`] characters of the line that is not whole yet. What had to go is counted.

use std::{collections::VecDeque, fmt::Write as _, sync::Arc};

use vte::{Params, Parser, Perform};

use crate::tui::{OutputTail, TALLEST};

/// Lines that are kept.
pub const MOST_LINES: usize = 2_000;
/// Bytes of lines that are kept.
pub const MOST_BYTES: usize = 256 << 10;
/// Characters of a line; what goes on is on the next one.
pub const MOST_COLUMNS: usize = 4_096;
/// Columns from one tab stop to the next.
const TAB: usize = 8;

/// The last lines of what was written.
#[derive(Default)]
pub struct Transcript {
    parser: Parser,
    lines: Lines,
    /// The first bytes of a character whose rest is still to come.
    begun: Vec<u8>,
}

impl Transcript {
    /// Takes in what was written next; it may end anywhere.
    pub fn take(&mut self, bytes: &[u8]) {
        // The parser is given whole characters: it may lose bytes of one that comes in parts.
        self.begun.extend_from_slice(bytes);
        let bytes = std::mem::take(&mut self.begun);
        let (whole, begun) = bytes.split_at(bytes.len() - begun_character(&bytes));
        self.parser.advance(&mut self.lines, whole);
        self.begun = begun.to_vec();
    }

    /// What is shown of it.
    pub fn tail(&self) -> OutputTail {
        let current = self.lines.current();
        let room = usize::from(TALLEST) - usize::from(current.is_some());
        let skipped = self.lines.whole.len().saturating_sub(room);
        let whole = self.lines.whole.iter().skip(skipped).map(Arc::clone);
        OutputTail { lines: whole.chain(current).collect() }
    }

    /// All that is kept, after a line that says what is not. The last line ends only if it did.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if self.lines.dropped > 0 {
            let _ = writeln!(text, "ttmem: {} earlier lines were not kept", self.lines.dropped);
        }
        for line in &self.lines.whole {
            text.push_str(line);
            text.push('\n');
        }
        text.extend(self.lines.current().as_deref());
        text
    }
}

/// How many bytes at the end begin a UTF-8 character without ending it.
fn begun_character(bytes: &[u8]) -> usize {
    let length = |lead: u8| match lead {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 0,
    };
    let begins =
        |count: &usize| bytes.len() >= *count && length(bytes[bytes.len() - *count]) > *count;
    (1..=3).find(begins).unwrap_or(0)
}

#[derive(Default)]
struct Lines {
    whole: VecDeque<Arc<str>>,
    /// Bytes of the whole lines.
    bytes: usize,
    /// Lines that had to go.
    dropped: u64,
    /// The line that is not whole yet.
    characters: Vec<char>,
    /// Where the next character goes in it; never past its end.
    cursor: usize,
}

impl Lines {
    fn current(&self) -> Option<Arc<str>> {
        let text = || Arc::from(self.characters.iter().collect::<String>());
        (!self.characters.is_empty()).then(text)
    }

    fn put(&mut self, character: char) {
        if self.cursor == MOST_COLUMNS {
            self.end_line();
        }
        match self.characters.get_mut(self.cursor) {
            Some(place) => *place = character,
            None => self.characters.push(character),
        }
        self.cursor += 1;
    }

    fn end_line(&mut self) {
        let line: String = self.characters.drain(..).collect();
        self.cursor = 0;
        self.bytes += line.len();
        self.whole.push_back(line.into());
        while self.whole.len() > MOST_LINES || self.bytes > MOST_BYTES {
            let Some(oldest) = self.whole.pop_front() else { break };
            self.bytes -= oldest.len();
            self.dropped += 1;
        }
    }
}

impl Perform for Lines {
    fn print(&mut self, character: char) {
        if !character.is_control() {
            self.put(character);
        }
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            b'\n' => self.end_line(),
            b'\r' => self.cursor = 0,
            b'\t' => {
                // Over what is there; blanks after its end.
                let stop = (self.cursor / TAB + 1) * TAB;
                while self.cursor < stop && self.cursor < self.characters.len() {
                    self.cursor += 1;
                }
                while self.cursor < stop.min(MOST_COLUMNS) {
                    self.put(' ');
                }
            }
            0x08 => self.cursor = self.cursor.saturating_sub(1),
            _ => {}
        }
    }

    fn csi_dispatch(&mut self, params: &Params, _: &[u8], _: bool, action: char) {
        if action != 'K' {
            return;
        }
        match params.iter().next().and_then(|values| values.first()).copied().unwrap_or(0) {
            0 => self.characters.truncate(self.cursor),
            1 => self.characters.iter_mut().take(self.cursor + 1).for_each(|c| *c = ' '),
            // The cursor stays where it is: what comes next is as far in.
            2 => self.characters = vec![' '; self.cursor],
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn text(written: &str) -> String {
        let mut transcript = Transcript::default();
        transcript.take(written.as_bytes());
        transcript.text()
    }

    #[test]
    fn lines_are_as_a_terminal_shows_them() {
        for (written, expected) in [
            ("one\r\ntwo\r\n", "one\ntwo\n"),
            ("no end", "no end"),
            ("\n\n", "\n\n"),
            ("10%\r20%\r100%\n", "100%\n"),
            ("a longer line\rshort\n", "shorter line\n".replace("shorter", "shortger").as_str()),
            ("a longer line\rshort\x1b[K\n", "short\n"),
            ("abc\x1b[2Kd\n", "   d\n"),
            ("abcd\x08\x08x\n", "abxd\n"),
            ("a\tb\n", "a       b\n"),
            ("abcdefghij\rx\ty\n", "xbcdefghyj\n"),
            ("\x1b[31mred\x1b[0m \x1b]0;title\x07\x1b(Bplain\n", "red plain\n"),
            ("\x1b[2J\x1b[10;10Hhere\n", "here\n"),
            ("bell\x07 zero\0 \u{9b}31m\n", "bell zero 31m\n"),
        ] {
            assert_eq!(text(written), expected, "{written:?}");
        }
    }

    #[test]
    fn a_character_may_come_in_parts() {
        let mut transcript = Transcript::default();
        for byte in "größer \x1b[1mals 日本\n".bytes() {
            transcript.take(&[byte]);
        }
        assert_eq!(transcript.text(), "größer als 日本\n");
    }

    #[test]
    fn what_had_to_go_is_counted() {
        let written: String =
            (0..MOST_LINES + 5).flat_map(|line| [line.to_string(), "\n".to_owned()]).collect();
        let text = text(&written);
        assert!(text.starts_with("ttmem: 5 earlier lines were not kept\n5\n6\n"), "{text:.80}");
        assert_eq!(text.lines().count(), MOST_LINES + 1);
    }

    #[test]
    fn the_tail_ends_with_the_line_that_grows() {
        let mut transcript = Transcript::default();
        transcript.take(b"1\n".repeat(1000).as_slice());
        assert_eq!(transcript.tail().lines.len(), usize::from(TALLEST));
        transcript.take(b"end");
        let tail = transcript.tail();
        assert_eq!(tail.lines.len(), usize::from(TALLEST));
        assert_eq!(&**tail.lines.last().unwrap(), "end");
    }

    /// Bytes that are mostly something to a terminal.
    fn written() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            vec(any::<u8>(), 0..20),
            Just(b"\x1b[K".to_vec()),
            Just(b"\x1b[2K".to_vec()),
            Just(b"\r".to_vec()),
            Just(b"\n".repeat(300)),
            Just(b"\x1b]0;".to_vec()),
            Just("日".repeat(2000).into_bytes()),
            Just(b"\t\x08".to_vec()),
        ];
        vec(piece, 0..200).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_bytes_are_bounded_and_harmless(written in written(), part in 1..999_usize) {
            let mut transcript = Transcript::default();
            for bytes in written.chunks(part) {
                transcript.take(bytes);
                let lines = &transcript.lines;
                prop_assert!(lines.whole.len() <= MOST_LINES && lines.bytes <= MOST_BYTES);
                prop_assert_eq!(lines.whole.iter().map(|l| l.len()).sum::<usize>(), lines.bytes);
                prop_assert!(lines.characters.len() <= MOST_COLUMNS);
                prop_assert!(lines.cursor <= lines.characters.len());
            }
            let tail = transcript.tail();
            prop_assert!(tail.lines.len() <= usize::from(TALLEST));
            prop_assert!(!tail.lines.iter().any(|line| line.contains(char::is_control)));
            let text = transcript.text();
            prop_assert!(!text.contains(|c: char| c.is_control() && c != '\n'));
        }

        /// Nothing of plain text is lost, however it is cut.
        #[test]
        fn plain_text_comes_out_as_it_went_in(
            lines in vec("[ -~äß日]{0,60}", 0..100), part in 1..99_usize,
        ) {
            let written: String = lines.iter().flat_map(|line| [line.as_str(), "\r\n"]).collect();
            let mut transcript = Transcript::default();
            for bytes in written.as_bytes().chunks(part) {
                transcript.take(bytes);
            }
            prop_assert_eq!(transcript.text(), written.replace('\r', ""));
        }
    }
}
