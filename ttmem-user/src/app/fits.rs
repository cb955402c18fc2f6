//! `ttmem fits`: whether a buffer would fit now, from memory alone.

use anyhow::{anyhow, bail};
use serde::Serialize;

use super::{Outcome, output, snapshot};
use crate::{
    cli::args::FitsArgs,
    event::BufferType,
    ledger::{
        fit::{self, Answer, Request},
        snapshot::{Detail, SpaceSnapshot},
    },
    sink::fits,
    units::Pid,
};

/// Name and version of the JSON schema.
const SCHEMA: &str = "ttmem.fits/1";

/// What is answered.
#[derive(Serialize)]
struct Answers<'a> {
    schema: &'static str,
    time_ns: u64,
    pid: Pid,
    exact: bool,
    inexact_because: &'a [String],
    #[serde(rename = "type")]
    buffer_type: BufferType,
    request: Request,
    fits: Option<bool>,
    allocators: &'a [Answer],
}

/// Runs the command.
pub fn run(args: &FitsArgs) -> anyhow::Result<Outcome> {
    let request = request(args)?;
    let snapshot =
        snapshot::take(Pid(args.pid), Detail { buffers: false, map: true, ..Detail::default() })?;
    let asked = |space: &&SpaceSnapshot| is_asked(args, space);
    let answers: Vec<Answer> =
        snapshot.allocators.iter().filter(asked).map(|space| fit::answer(request, space)).collect();
    if answers.is_empty() && snapshot.inexact_because.is_empty() {
        return Err(nobody_to_ask(args));
    }
    let fits = in_all(&answers);
    let text = if args.json {
        let answers = Answers {
            schema: SCHEMA,
            time_ns: snapshot.time_ns,
            pid: snapshot.pid,
            exact: snapshot.exact,
            inexact_because: &snapshot.inexact_because,
            buffer_type: args.buffer_type,
            request,
            fits,
            allocators: &answers,
        };
        serde_json::to_string(&answers)? + "\n"
    } else {
        fits::render(args.buffer_type, &answers, &snapshot.inexact_because)
    };
    output::print(&text)?;
    Ok(outcome(fits, snapshot.exact))
}

/// An answer from numbers that are not exact is shown, and not relied on.
const fn outcome(fits: Option<bool>, exact: bool) -> Outcome {
    match fits {
        Some(true) if exact => Outcome::Complete,
        Some(false) if exact => Outcome::No,
        _ => Outcome::Incomplete,
    }
}

fn request(args: &FitsArgs) -> anyhow::Result<Request> {
    match (args.size, args.total, args.page_size) {
        (Some(size), None, None) => Ok(Request::PerBank { size }),
        (None, Some(total), Some(page_size)) if total.is_multiple_of(page_size) => {
            Ok(Request::Interleaved { total, page_size })
        }
        (_, Some(total), Some(page_size)) => bail!(
            "--total {total} is no multiple of --page-size {page_size}: a buffer has whole pages"
        ),
        _ => bail!("give --size, or --total and --page-size"),
    }
}

fn is_asked(args: &FitsArgs, space: &SpaceSnapshot) -> bool {
    let mesh = args.mesh.is_none_or(|mesh| space.mesh.is_some_and(|of| of.0 == mesh));
    let chip = args.chip.is_none_or(|chip| space.chips.iter().any(|of| of.0 == chip));
    mesh && chip && space.buffer_type == args.buffer_type
}

/// Why there is nobody to ask.
fn nobody_to_ask(args: &FitsArgs) -> anyhow::Error {
    let (pid, buffer_type) = (args.pid, args.buffer_type.name());
    anyhow!(
        "process {pid} has no open allocator of {buffer_type} that was asked for; \
         `ttmem snapshot --pid {pid}` shows those it has"
    )
}

/// Whether it fits in all; `None` if that is not known of one, and does not fail in another, or if none
/// is known.
fn in_all(answers: &[Answer]) -> Option<bool> {
    if answers.iter().any(|answer| answer.fits == Some(false)) {
        return Some(false);
    }
    let all = !answers.is_empty() && answers.iter().all(|answer| answer.fits == Some(true));
    all.then_some(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_told_is_neither_a_yes_nor_a_no() {
        assert_eq!(in_all(&[]), None);
        assert_eq!(outcome(None, true), Outcome::Incomplete);
        assert_eq!(outcome(Some(true), false), Outcome::Incomplete);
        assert_eq!(outcome(Some(true), true), Outcome::Complete);
        assert_eq!(outcome(Some(false), true), Outcome::No);
    }
}
