//! Lines of bounded length.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _};

/// Bytes of a line, without its end.
pub const MAX_LINE: usize = 1 << 20;

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A line without its end.
    Whole(Vec<u8>),
    /// One that was too long; it has been passed over.
    TooLong,
}

/// Reads lines. What has been read of one is kept if the reading is given up.
#[derive(Debug)]
pub struct Lines<R> {
    from: R,
    begun: Vec<u8>,
    too_long: bool,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    /// From the start of a stream.
    pub fn new(from: R) -> Self {
        Self { from, begun: Vec::new(), too_long: false }
    }

    /// The next line; `None` at the end. A line without an end is none.
    pub async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let found = self.from.fill_buf().await?;
            if found.is_empty() {
                return Ok(None);
            }
            let end = found.iter().position(|byte| *byte == b'\n');
            let piece = &found[..end.unwrap_or(found.len())];
            if self.begun.len() + piece.len() > MAX_LINE {
                self.too_long = true;
                self.begun = Vec::new();
            } else if !self.too_long {
                self.begun.extend_from_slice(piece);
            }
            let used = piece.len() + usize::from(end.is_some());
            self.from.consume(used);
            if end.is_some() {
                let line = std::mem::take(&mut self.begun);
                let too_long = std::mem::take(&mut self.too_long);
                return Ok(Some(if too_long { Line::TooLong } else { Line::Whole(line) }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_come_whole_or_are_passed_over() {
        let long = "x".repeat(MAX_LINE + 1);
        let longest = "y".repeat(MAX_LINE);
        let text = format!("one\n\n{long}\n{longest}\ntwo\nno end");
        // A small buffer, so that lines come in pieces.
        let mut lines = Lines::new(tokio::io::BufReader::with_capacity(7, text.as_bytes()));
        let whole = |text: &str| Some(Line::Whole(text.as_bytes().to_vec()));
        for expected in
            [whole("one"), whole(""), Some(Line::TooLong), whole(&longest), whole("two"), None]
        {
            assert_eq!(lines.next().await.unwrap(), expected);
        }
    }
}
