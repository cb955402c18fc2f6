//! Lines of JSON: what the sockets answer, of all processes as it comes.

use std::{
    io::{self, Write},
    sync::mpsc,
    thread,
};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::{START_ONE, Watch};
use crate::{
    app::{Outcome, output::NotWritten},
    format::one_line,
    socket::client::{Client, ClientError},
    stderr::remark,
};

impl Watch {
    /// Prints what the sockets answer.
    pub(super) fn json(&self, once: bool) -> anyhow::Result<Outcome> {
        self.json_to(&mut io::stdout().lock(), once)
    }

    pub(super) fn json_to(&self, out: &mut impl Write, once: bool) -> anyhow::Result<Outcome> {
        let (clients, outcome) = self.clients()?;
        let request = if once {
            json!({"get": "snapshot"})
        } else {
            let interval_ms = u64::try_from(self.refresh.as_millis()).unwrap_or(u64::MAX);
            json!({"subscribe": "snapshots", "interval_ms": interval_ms})
        };
        let (to, answers) = mpsc::channel();
        for (pid, client) in clients {
            let (request, to) = (request.to_string(), to.clone());
            // Whoever prints may have ended.
            let take = move |answer| to.send((pid, answer)).is_ok();
            thread::spawn(move || pass_on(client, &request, once, take));
        }
        drop(to);
        self.print_json(&answers, outcome, out)
    }

    /// A connection to each process, and whether that is all.
    fn clients(&self) -> anyhow::Result<(Vec<(u32, Client)>, Outcome)> {
        let (mut clients, mut outcome) = (Vec::new(), Outcome::Complete);
        for pid in self.chosen() {
            match Client::connect(&self.places, pid) {
                Ok(client) => clients.push((pid, client)),
                // It has gone since the directory was read.
                Err(ClientError::NotThere { .. }) if !self.chosen().contains(&pid) => {}
                Err(error) => outcome = self.leave_out(pid, error.into())?,
            }
        }
        if clients.is_empty() && outcome == Outcome::Complete {
            bail!("nothing is watched: {START_ONE}");
        }
        Ok((clients, outcome))
    }

    /// One process has no answer: that is an error only if it was asked for.
    fn leave_out(&self, pid: u32, why: anyhow::Error) -> anyhow::Result<Outcome> {
        if !self.pids.is_empty() {
            return Err(why);
        }
        let why = format!("{why:#}");
        remark!("ttmem: process {pid} is left out: {}", one_line(&why));
        Ok(Outcome::Incomplete)
    }

    fn print_json(
        &self,
        answers: &mpsc::Receiver<(u32, anyhow::Result<Answer>)>,
        mut outcome: Outcome,
        out: &mut impl Write,
    ) -> anyhow::Result<Outcome> {
        for (pid, answer) in answers {
            let Answer { line, mut snapshot } = match answer {
                Ok(answer) => answer,
                Err(error) => {
                    outcome = self.leave_out(pid, error)?;
                    continue;
                }
            };
            if snapshot["exact"] != true {
                outcome = Outcome::Incomplete;
            }
            if self.chips.is_empty() {
                out.write_all(line.as_bytes())
            } else {
                self.keep_chips(&mut snapshot);
                writeln!(out, "{snapshot}")
            }
            .and_then(|()| out.flush())
            .map_err(NotWritten::to_stdout)?;
        }
        Ok(outcome)
    }

    fn keep_chips(&self, snapshot: &mut Value) {
        if let Some(devices) = snapshot["devices"].as_array_mut() {
            devices.retain(|device| self.chips.iter().any(|chip| device["chip"] == chip.0));
        }
    }
}

/// A line with a snapshot, and the snapshot in it.
struct Answer {
    line: String,
    snapshot: Value,
}

/// Asks, and passes on what comes back, up to the first error, or until nobody takes it.
fn pass_on(
    mut client: Client,
    request: &str,
    once: bool,
    take: impl Fn(anyhow::Result<Answer>) -> bool,
) {
    if let Err(error) = client.send(request) {
        take(Err(error.into()));
        return;
    }
    while let Some(answer) = next_answer(&mut client).transpose() {
        let broken = answer.is_err();
        if !take(answer) || once || broken {
            return;
        }
    }
}

/// The next one; `None` after the last.
fn next_answer(client: &mut Client) -> anyhow::Result<Option<Answer>> {
    let Some(line) = client.line()? else { return Ok(None) };
    let snapshot: Value = serde_json::from_str(&line).context("a broken answer")?;
    match snapshot["schema"].as_str() {
        Some("ttmem.error/1") => bail!("{}", snapshot["error"]["message"]),
        Some("ttmem.end/1") => Ok(None),
        _ => Ok(Some(Answer { line, snapshot })),
    }
}
