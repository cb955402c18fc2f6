//! Lines of bounded length, which take a bounded time.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _},
    time::{Instant, timeout_at},
};

/// Bytes of a line, without its end.
pub const MAX_LINE: usize = 1 << 20;
/// How long a line may take from its first byte to its end. Before it a client may rest.
pub const LINE_TIME: Duration = Duration::from_secs(5);

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// A line without its end.
    Whole(Vec<u8>),
    /// One that was too long; it has been passed over.
    TooLong,
    /// One that did not end in time. No other comes after it.
    TooSlow,
}

/// Reads lines. What has been read of one is kept if the reading is given up.
#[derive(Debug)]
pub struct Lines<R> {
    from: R,
    begun: Vec<u8>,
    /// When what has no end yet must have one.
    until: Option<Instant>,
    too_long: bool,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    /// From the start of a stream.
    pub fn new(from: R) -> Self {
        Self { from, begun: Vec::new(), until: None, too_long: false }
    }

    /// The next line; `None` at the end. A line without an end is none.
    pub async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let found = match self.until {
                None => self.from.fill_buf().await?,
                Some(until) => match timeout_at(until, self.from.fill_buf()).await {
                    Ok(found) => found?,
                    Err(_) => return Ok(Some(Line::TooSlow)),
                },
            };
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
            if end.is_none() {
                self.until.get_or_insert_with(|| Instant::now() + LINE_TIME);
            } else {
                self.until = None;
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

    #[tokio::test(start_paused = true)]
    async fn a_line_must_end_in_time_but_may_begin_late() {
        use tokio::{io::AsyncWriteExt as _, time::sleep};
        let (mut client, server) = tokio::io::duplex(64);
        let mut lines = Lines::new(tokio::io::BufReader::new(server));
        let second = Duration::from_secs(1);
        let client = async move {
            for (bytes, then) in [("on", 4), ("e\n", 1000), ("tw", 4), ("o\nth", 3), ("r", 1)] {
                client.write_all(bytes.as_bytes()).await.unwrap();
                sleep(second * then).await;
            }
            // What goes on coming does not prolong it.
            client.write_all(b"ee").await.unwrap();
            sleep(second * 3600).await;
        };
        let client = tokio::spawn(client);
        for expected in ["one", "two"] {
            assert_eq!(lines.next().await.unwrap(), Some(Line::Whole(expected.into())));
        }
        let third = Instant::now();
        assert_eq!(lines.next().await.unwrap(), Some(Line::TooSlow));
        assert_eq!(third.elapsed(), LINE_TIME);
        client.abort();
    }
}
