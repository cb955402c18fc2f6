//! What is to be in the pools: what ttmem reads from the target's memory, without any probe.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};

use super::{receiver::Seen, saved::Trace};
use crate::ttmem::Ttmem;

/// Address and bytes of each bank of what is live, in order, by pool; those of several allocators
/// of a chip and type together.
pub type Pools = BTreeMap<String, Vec<(u64, u64)>>;

/// What is live in a process now.
pub fn live_in(ttmem: &Ttmem, pid: u32) -> Result<Pools> {
    let snapshot = ttmem.snapshot(pid)?;
    ensure!(snapshot["exact"] == true, "{}", snapshot["inexact_because"]);
    let mut pools = Pools::new();
    for buffer in snapshot["buffers"].as_array().context("no buffers")? {
        let number =
            |name: &str| buffer[name].as_u64().with_context(|| format!("{name}: {buffer}"));
        let event = (number("address")?, number("bank_bytes")?);
        let kind = buffer["type"].as_str().context("no type")?;
        for chip in buffer["chips"].as_array().context("no chips")? {
            pools.entry(format!("TT_Dev{chip}_{kind}")).or_default().push(event);
        }
    }
    Ok(sorted(pools))
}

/// What a receiver has been told is live, but circular buffers.
pub fn live_seen(seen: &Seen) -> Pools {
    let mut pools = Pools::new();
    for (name, pool) in &seen.pools {
        if !pool.live.is_empty() {
            add(&mut pools, name, pool.live.iter().map(|(address, size)| (*address, *size)));
        }
    }
    sorted(pools)
}

/// What is live at the end of a saved trace, but circular buffers.
pub fn live_saved(trace: &Trace) -> Pools {
    let mut pools = Pools::new();
    for name in trace.pools.keys() {
        let live = trace.live(name);
        if !live.is_empty() {
            add(&mut pools, name, live);
        }
    }
    sorted(pools)
}

fn add(pools: &mut Pools, name: &str, live: impl IntoIterator<Item = (u64, u64)>) {
    let base = name.split('#').next().unwrap_or(name);
    if !base.ends_with("_CB") {
        pools.entry(base.to_owned()).or_default().extend(live);
    }
}

fn sorted(mut pools: Pools) -> Pools {
    for live in pools.values_mut() {
        live.sort_unstable();
    }
    pools
}
