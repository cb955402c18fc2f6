//! Tensors with an address of their own on each core, on the real tt-metal with hybrid allocators,
//! against the addresses that it tells.
//!
//! Its memory views say nothing of such tensors. But each core's bank is handed out from its end
//! downwards: as long as nothing was freed, what a core has given away is what lies between its lowest
//! address and the end of its bank.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use e2e::{
    or_skip,
    real::{Program, Real, attach_early, both},
    ttmem::{Attached, Ttmem, now_ns},
};
use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Deserialize)]
struct Checkpoint {
    #[serde(rename = "checkpoint")]
    name: String,
    views: Vec<View>,
    /// By tensor, then chip: the address on each core.
    #[serde(default)]
    per_core: Vec<Vec<BTreeMap<String, u64>>>,
}

#[derive(Debug, Deserialize)]
struct View {
    #[serde(rename = "type")]
    buffer_type: String,
    num_banks: u64,
    total_bytes_per_bank: u64,
    total_bytes_allocated_per_bank: u64,
    total_bytes_free_per_bank: u64,
    blocks: Vec<(u64, u64)>,
}

/// Checkpoints before which nothing was freed.
const GROWING: [&str; 4] = ["lockstep", "per_core", "on different addresses", "small pages"];

impl Checkpoint {
    fn l1(&self) -> Result<&View> {
        let view = self.views.iter().find(|view| view.buffer_type == "L1");
        view.context("no view of L1")
    }

    /// What a chip has given away, from the lowest address on each core.
    fn given_away(&self, chip: usize, end: u64) -> Result<u64> {
        let view = self.l1()?;
        let mut lowest: BTreeMap<&str, u64> = BTreeMap::new();
        for (core, address) in self.per_core.iter().flat_map(|tensor| &tensor[chip]) {
            let lowest = lowest.entry(core).or_insert(*address);
            *lowest = (*lowest).min(*address);
        }
        let others = view.num_banks - lowest.len() as u64;
        let of_cores: u64 = lowest.values().map(|lowest| end - lowest).sum();
        Ok(of_cores + others * view.total_bytes_allocated_per_bank)
    }
}

/// Address on the first core, and number of cores, of each such buffer of a chip.
fn shown_buffers(snapshot: &Value, chip: usize) -> Vec<(u64, u64, u64)> {
    let buffers = snapshot["buffers"].as_array().into_iter().flatten();
    let of_chip = buffers.filter(|buffer| buffer["chips"] == serde_json::json!([chip]));
    let mut shown: Vec<_> = of_chip
        .filter_map(|buffer| {
            let number = |key: &str| buffer[key].as_u64();
            Some((number("address")?, number("cores")?, number("bank_bytes")?))
        })
        .collect();
    shown.sort_unstable();
    shown
}

/// The address on the first core of its row, and how many cores there are.
fn true_buffers(checkpoint: &Checkpoint, chip: usize) -> Result<Vec<(u64, u64)>> {
    let first = |cores: &BTreeMap<String, u64>| {
        let address = *cores.values().next().context("a tensor without cores")?;
        Ok((address, cores.len() as u64))
    };
    let mut buffers = checkpoint
        .per_core
        .iter()
        .map(|tensor| first(&tensor[chip]))
        .collect::<Result<Vec<_>>>()?;
    buffers.sort_unstable();
    Ok(buffers)
}

fn compare(checkpoint: &Checkpoint, snapshot: &Value, who: &str) -> Result<()> {
    let what = format!("{}: {who}", checkpoint.name);
    ensure!(snapshot["exact"] == true, "{what}: {}", snapshot["inexact_because"]);
    let view = checkpoint.l1()?;
    for chip in 0..2 {
        let pool = &snapshot["devices"][chip]["pools"][1];
        let shown = shown_buffers(snapshot, chip);
        let pairs: Vec<_> = shown.iter().map(|(address, cores, _)| (*address, *cores)).collect();
        let truth = true_buffers(checkpoint, chip)?;
        ensure!(pairs == truth, "{what}: {pairs:?}, truth {truth:?}");
        let lockstep = view.total_bytes_allocated_per_bank;
        let of_cores: u64 = shown.iter().map(|(_, cores, block)| cores * block).sum();
        let used = lockstep * view.num_banks + of_cores;
        ensure!(pool["used_bytes"] == used, "{what}: {pool}, the buffers make {used}");
        let capacity = view.total_bytes_per_bank * view.num_banks;
        ensure!(pool["capacity_bytes"] == capacity, "{what}: {pool}, truth {view:?}");
        let count = view.blocks.len() + truth.len();
        ensure!(pool["buffers"] == count, "{what}: {pool}, truth {count} buffers");
        let bank = Value::from(truth.is_empty().then_some(lockstep));
        ensure!(pool["bank_bytes"] == bank, "{what}: {pool}, truth {bank}");
        if GROWING.contains(&&*checkpoint.name) {
            let given = checkpoint.given_away(chip, end_of_bank(snapshot)?)?;
            ensure!(pool["used_bytes"] == given, "{what}: {pool}, truth {given}");
        }
    }
    spaces(snapshot, view).context(what)
}

/// The first byte behind the banks of L1.
fn end_of_bank(snapshot: &Value) -> Result<u64> {
    let row = l1_rows(snapshot).next().context("no row of L1")?;
    let number = |key: &str| row[key].as_u64().with_context(|| format!("no {key}"));
    Ok(number("base")? + number("bank_size")?)
}

fn l1_rows(snapshot: &Value) -> impl Iterator<Item = &Value> {
    let rows = snapshot["allocators"].as_array().into_iter().flatten();
    rows.filter(|row| row["type"] == "L1")
}

/// The mesh's own space is as its view says; of a chip's own allocator nothing is said.
fn spaces(snapshot: &Value, view: &View) -> Result<()> {
    for row in l1_rows(snapshot) {
        if row["mesh"].is_null() {
            let why = "its banks have free lists of their own";
            ensure!(row["free_bank_bytes"].is_null() && row["unknown_because"] == why, "{row}");
        } else {
            let free = view.total_bytes_free_per_bank;
            ensure!(row["free_bank_bytes"] == free, "{row}, truth {view:?}");
        }
    }
    Ok(())
}

fn start(real: &Real, ttmem: &Ttmem) -> Result<(Program, Attached)> {
    let mut program = real.start_script("n300", "per_core.py", &[])?;
    let mut attached = attach_early(ttmem, &program)?;
    program.record::<Checkpoint>()?.context("the script has ended")?;
    attached.settled()?;
    Ok((program, attached))
}

#[test]
fn buffers_with_an_address_per_core_are_counted() {
    let (real, ttmem) = or_skip!(both());
    let per_core = || -> Result<()> {
        let (mut program, mut attached) = start(&real, &ttmem)?;
        let mut most = 0;
        loop {
            program.go_on()?;
            let checkpoint: Checkpoint = program.record()?.context("the script has ended")?;
            if checkpoint.name == "end" {
                break;
            }
            compare(&checkpoint, &attached.at_or_after(now_ns())?, "from the start")?;
            compare(&checkpoint, &ttmem.once(program.pid())?, "attached late")?;
            compare(&checkpoint, &ttmem.snapshot(program.pid())?, "memory")?;
            most = most.max(checkpoint.per_core.len());
            println!("{}: {} tensors", checkpoint.name, checkpoint.per_core.len());
        }
        ensure!(most == 11, "at most {most} tensors with an address per core");
        let end = attached.at_or_after(now_ns())?;
        ensure!(end["exact"] == true, "{}", end["inexact_because"]);
        ensure!(end["devices"][0]["pools"][1]["used_bytes"] == 0, "{}", end["devices"]);
        program.go_on()?;
        ensure!(program.wait()?.success(), "the script failed");
        Ok(())
    };
    per_core().unwrap();
}
