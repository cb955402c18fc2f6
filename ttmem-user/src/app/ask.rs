//! `ttmem ask`.

use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::{Outcome, output};
use crate::{
    cli::args::readers::AskArgs,
    socket::client::Client,
    table::{directory, reader},
};

/// What to do where nobody watches.
pub const START_ONE: &str = "start `sudo ttmem attach --pid N` in another shell, or `ttmem serve`";

/// Runs the command.
pub fn run(args: &AskArgs) -> anyhow::Result<Outcome> {
    let request: Value = serde_json::from_str(&args.request)
        .with_context(|| format!("the question is no JSON: {}", args.request))?;
    let places = places(args.table_dir.as_ref());
    let pid = args.pid.map_or_else(|| the_only_one(&places), Ok)?;
    let mut client = Client::connect(&places, pid)?;
    // In one line, whatever line breaks it was typed with.
    client.send(&request.to_string())?;
    let goes_on = request.get("subscribe").is_some();
    if !goes_on {
        client.finish()?;
    }
    let mut answered = false;
    while let Some(line) = client.line()? {
        output::print(&line)?;
        answered = true;
        let error = serde_json::from_str::<Value>(&line).ok().and_then(|answer| {
            let failed = answer["schema"] == "ttmem.error/1";
            failed.then(|| answer["error"]["message"].as_str().unwrap_or_default().to_owned())
        });
        if let Some(error) = error {
            bail!("process {pid}: {error}");
        }
    }
    ensure!(answered, "process {pid}: the connection was closed without an answer");
    Ok(Outcome::Complete)
}

/// Where to look.
pub fn places(given: Option<&PathBuf>) -> Vec<PathBuf> {
    given.map_or_else(directory::usual_for_readers, |path| vec![path.clone()])
}

/// The processes that are watched.
pub fn watched(places: &[PathBuf]) -> Vec<u32> {
    let mut pids: Vec<u32> = places.iter().flat_map(|place| reader::pids(place)).collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

fn the_only_one(places: &[PathBuf]) -> anyhow::Result<u32> {
    match watched(places)[..] {
        [pid] => Ok(pid),
        [] => bail!("no process is watched: {START_ONE}"),
        ref several => {
            let pids: Vec<String> = several.iter().map(ToString::to_string).collect();
            bail!("several processes are watched, choose one with --pid: {}", pids.join(", "))
        }
    }
}
