//! Lines of JSON: what the sockets answer, of all processes as it comes.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
    path::PathBuf,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{
    START_ONE, Watch,
    newest::{Newest, Next},
};
use crate::{
    app::{Outcome, ask::watched, event_loop, output::NotWritten, signals},
    format::one_line,
    socket::client::{Client, ClientError},
    stderr::remark,
    units::ChipId,
};

/// How often it is looked for processes that have come.
const LOOK: Duration = Duration::from_millis(500);

impl Watch {
    /// Prints what the sockets answer: once, or until it is over or this program is to end.
    pub(super) fn json(&self, once: bool) -> anyhow::Result<Outcome> {
        event_loop()?.block_on(run(self.printer(once)))
    }

    pub(super) fn printer(&self, once: bool) -> Printer {
        Printer {
            places: self.tables.places.clone(),
            pids: self.tables.pids.clone(),
            chips: self.tables.chips.clone(),
            refresh: self.refresh,
            once,
            shown: Arc::default(),
        }
    }
}

/// Whoever reads may take no more, and then the writing lasts for ever: a thread that is not waited for
/// does it.
async fn run(printer: Printer) -> anyhow::Result<Outcome> {
    let mut quit = pin!(signals::quit()?);
    let shown = Arc::clone(&printer.shown);
    let (done, is_done) = oneshot::channel();
    let print = move || done.send(printer.print_to(&mut io::stdout()));
    thread::Builder::new()
        .name("ttmem-json".to_owned())
        .spawn(print)
        .context("cannot start a thread")?;
    tokio::select! {
        done = is_done => done.context("the thread that prints is gone")??,
        () = &mut quit => {}
    }
    Ok(lock(&shown).outcome())
}

/// What is to be printed, and what was.
pub(super) struct Printer {
    places: Vec<PathBuf>,
    /// Only these; none: all that there are, and those that come.
    pids: Vec<u32>,
    /// Only these; none: all.
    chips: Vec<ChipId>,
    refresh: Duration,
    once: bool,
    shown: Arc<Mutex<Shown>>,
}

/// What the exit code depends on.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// By process, whether its last line was exact.
    exact: BTreeMap<u32, bool>,
    /// Those that do not answer, and why.
    left_out: BTreeMap<u32, String>,
}

impl Shown {
    fn outcome(&self) -> Outcome {
        let complete = self.left_out.is_empty() && self.exact.values().all(|exact| *exact);
        if complete { Outcome::Complete } else { Outcome::Incomplete }
    }
}

fn lock(shown: &Mutex<Shown>) -> MutexGuard<'_, Shown> {
    shown.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Printer {
    /// What has been printed means for the exit code.
    #[cfg(test)]
    pub(super) fn outcome(&self) -> Outcome {
        lock(&self.shown).outcome()
    }

    /// Prints until that is over: where all processes are wanted others may always come.
    pub(super) fn print_to(&self, out: &mut impl Write) -> anyhow::Result<()> {
        let newest = Arc::default();
        let mut asked = BTreeSet::new();
        self.ask_others(&mut asked, &newest)?;
        if asked.is_empty() && lock(&self.shown).left_out.is_empty() {
            bail!("nothing is watched: {START_ONE}");
        }
        let others_may_come = !self.once && self.pids.is_empty();
        let mut next_look = Instant::now() + LOOK;
        while others_may_come || !asked.is_empty() {
            match newest.next(next_look) {
                Some(Next::Answer(pid, answer)) => self.print(pid, answer, out)?,
                Some(Next::Over(pid, why)) => {
                    asked.remove(&pid);
                    if let Err(why) = why {
                        self.leave_out(pid, why)?;
                    }
                }
                None => {}
            }
            if Instant::now() >= next_look {
                if others_may_come {
                    self.ask_others(&mut asked, &newest)?;
                }
                next_look = Instant::now() + LOOK;
            }
        }
        Ok(())
    }

    /// The processes to ask.
    fn chosen(&self) -> Vec<u32> {
        if self.pids.is_empty() { watched(&self.places) } else { self.pids.clone() }
    }

    /// Asks those that have not been asked yet.
    fn ask_others(
        &self,
        asked: &mut BTreeSet<u32>,
        newest: &Arc<Newest<Answer>>,
    ) -> anyhow::Result<()> {
        let chosen = self.chosen();
        lock(&self.shown).left_out.retain(|pid, _| chosen.contains(pid));
        for pid in chosen {
            if asked.contains(&pid) {
                continue;
            }
            match Client::connect(&self.places, pid) {
                Ok(client) => {
                    asked.insert(pid);
                    let (request, once) = (self.request(), self.once);
                    let newest = Arc::clone(newest);
                    thread::Builder::new()
                        .name("ttmem-asks".to_owned())
                        .spawn(move || ask(pid, client, &request, once, &newest))
                        .context("cannot start a thread")?;
                }
                // It has gone since the directory was read.
                Err(ClientError::NotThere { .. }) if !self.chosen().contains(&pid) => {}
                Err(error) => self.leave_out(pid, error.into())?,
            }
        }
        Ok(())
    }

    fn request(&self) -> String {
        let request = if self.once {
            json!({"get": "snapshot"})
        } else {
            let interval_ms = u64::try_from(self.refresh.as_millis()).unwrap_or(u64::MAX);
            json!({"subscribe": "snapshots", "interval_ms": interval_ms})
        };
        request.to_string()
    }

    /// One process has no answer: that is an error only if it was asked for. It is said once.
    fn leave_out(&self, pid: u32, why: anyhow::Error) -> anyhow::Result<()> {
        if !self.pids.is_empty() {
            return Err(why);
        }
        let why = one_line(&format!("{why:#}"));
        let before = lock(&self.shown).left_out.insert(pid, why.clone());
        if before.as_ref() != Some(&why) {
            remark!("ttmem: process {pid} is left out: {why}");
        }
        Ok(())
    }

    fn print(&self, pid: u32, answer: Answer, out: &mut impl Write) -> anyhow::Result<()> {
        let Answer { line, mut snapshot } = answer;
        let is_exact = snapshot["exact"] == true;
        if self.chips.is_empty() {
            out.write_all(line.as_bytes())
        } else {
            self.keep_chips(&mut snapshot);
            writeln!(out, "{snapshot}")
        }
        .and_then(|()| out.flush())
        .map_err(NotWritten::to_stdout)?;
        let mut shown = lock(&self.shown);
        shown.exact.insert(pid, is_exact);
        shown.left_out.remove(&pid);
        Ok(())
    }

    /// Leaves the other devices out, and the allocators that have none of those that are kept.
    fn keep_chips(&self, snapshot: &mut Value) {
        let is_kept = |id: &Value| self.chips.iter().any(|chip| *id == chip.0);
        if let Some(devices) = snapshot["devices"].as_array_mut() {
            devices.retain(|device| is_kept(&device["chip"]));
        }
        if let Some(allocators) = snapshot["allocators"].as_array_mut() {
            let chips = |allocator: &Value| allocator["chips"].as_array().cloned();
            allocators.retain(|it| chips(it).is_none_or(|chips| chips.iter().any(is_kept)));
        }
    }
}

/// A line with a snapshot, and the snapshot in it.
#[derive(Debug)]
struct Answer {
    line: String,
    snapshot: Value,
}

/// Asks, and passes on what comes back.
fn ask(pid: u32, mut client: Client, request: &str, once: bool, newest: &Newest<Answer>) {
    let mut all = || {
        client.send(request)?;
        while let Some(answer) = next_answer(&mut client)? {
            newest.answer(pid, answer);
            if once {
                break;
            }
        }
        Ok(())
    };
    newest.over(pid, all());
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
