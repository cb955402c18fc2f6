//! Audits of the real ttnn: what the probes, the memory and tt-metal's shared memory say.

use std::{fs, os::unix::fs::FileExt as _, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    or_skip,
    real::{Program, both},
    ttmem::{Attached, Ttmem, now_ns},
};
use serde_json::Value;

/// A process id above every limit that Linux allows.
const NOBODY: u32 = 0x4000_0001;
/// Where entries of processes begin, and their size, bytes.
const ENTRIES: std::ops::Range<u64> = 0x358..0x2158;
const ENTRY: usize = 0x78;

/// With something live, and waiting.
fn at_rest(ttmem: &Ttmem, environment: &[(&str, &str)]) -> Result<(Program, Attached)> {
    let real = e2e::real::Real::locate().map_err(anyhow::Error::msg)?;
    let mut program = real.start_with_own_shm("n300", &["--mesh", "1x2"], environment)?;
    program.until("interleaved/all")?;
    let watch = ttmem.attach(program.pid(), &["-r", "50", "--audit", "0.2"])?;
    Ok((program, watch))
}

/// The first audit of a reading after now that fits.
fn audit(watch: &mut Attached, fits: impl Fn(&Value) -> bool) -> Result<Value> {
    let now = now_ns();
    let line = watch.find(|line| {
        let audit = &line["audit"];
        audit["last_ns"].as_u64() > Some(now) && fits(audit)
    })?;
    Ok(line["audit"].clone())
}

fn rows(audit: &Value) -> &[Value] {
    audit["rows"].as_array().map_or(&[], Vec::as_slice)
}

/// Those of which tt-metal keeps totals.
fn kept(audit: &Value) -> impl Iterator<Item = &Value> {
    rows(audit).iter().filter(|row| row["type"] != "SYSTEM_MEMORY")
}

/// Its files, by the only way there is to its `/dev/shm`.
fn files(program: &Program) -> Result<Vec<PathBuf>> {
    let folder = format!("/proc/{}/root/dev/shm", program.pid());
    let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let ours = |path: &PathBuf| path.to_string_lossy().contains("tt_device_");
    Ok(names.into_iter().filter(ours).collect())
}

#[test]
fn three_figures_agree_at_rest() {
    let (_, ttmem) = or_skip!(both());
    let (_program, mut watch) = at_rest(&ttmem, &[]).unwrap();
    let audit = audit(&mut watch, |_| true).unwrap();
    assert_eq!(audit["shm_unknown_because"], Value::Null, "{audit}");
    let mut bytes = 0;
    for row in kept(&audit) {
        assert_eq!(row["verdict"], "agree", "{row}");
        assert_eq!(row["probes_logical_bytes"], row["memory_logical_bytes"], "{row}");
        assert_eq!(row["probes_logical_bytes"], row["shm_bytes"], "{row}");
        assert_eq!(row["likely_reason"], Value::Null, "{row}");
        bytes += row["shm_bytes"].as_u64().unwrap();
    }
    println!("{bytes} bytes agree: {audit}");
    assert!(bytes > 0);
    let chips: std::collections::BTreeSet<i64> =
        rows(&audit).iter().filter_map(|row| row["chip"].as_i64()).collect();
    assert_eq!(chips.into_iter().collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn without_tracking_the_third_is_null() {
    let (_, ttmem) = or_skip!(both());
    let (_program, mut watch) =
        at_rest(&ttmem, &[("TT_METAL_SHM_TRACKING_DISABLED", "1")]).unwrap();
    let audit = audit(&mut watch, |_| true).unwrap();
    let reason = audit["shm_unknown_because"].as_str().unwrap();
    assert!(reason.contains("TT_METAL_SHM_TRACKING_DISABLED"), "{reason}");
    assert!(!rows(&audit).is_empty());
    for row in rows(&audit) {
        assert_eq!(
            (&row["shm_bytes"], &row["verdict"]),
            (&Value::Null, &"agree_without_shm".into())
        );
    }
}

fn planted(program: &Program) -> Result<()> {
    let mut entry = [0; ENTRY];
    entry[..4].copy_from_slice(&NOBODY.to_le_bytes());
    entry[8..16].copy_from_slice(&12345_u64.to_le_bytes());
    let files = files(program)?;
    ensure!(files.len() == 2, "{files:?}");
    for path in files {
        let file = fs::File::options().read(true).write(true).open(path)?;
        let mut pid = [0; 4];
        let free = ENTRIES
            .step_by(ENTRY)
            .find(|at| file.read_exact_at(&mut pid, *at).is_ok() && u32::from_le_bytes(pid) == 0);
        file.write_all_at(&entry, free.context("no free entry")?)?;
    }
    Ok(())
}

#[test]
fn a_ghost_is_named() {
    let (_, ttmem) = or_skip!(both());
    let (program, mut watch) = at_rest(&ttmem, &[]).unwrap();
    planted(&program).unwrap();
    let ghosts = audit(&mut watch, |_| true).unwrap();
    for row in kept(&ghosts) {
        assert_eq!(row["verdict"], "agree", "{row}");
        let is_dram = row["type"] == "DRAM";
        assert_eq!(row["shm_ended_bytes"], if is_dram { 12345 } else { 0 });
        let reason = row["likely_reason"].as_str();
        assert_eq!(reason.is_some_and(|reason| reason.starts_with("ghosts: 12345 ")), is_dram);
    }
}

/// As an earlier process with the same id would have left it.
#[test]
fn more_in_its_own_entry_differs_with_a_reason() {
    let (_, ttmem) = or_skip!(both());
    let (program, mut watch) = at_rest(&ttmem, &[]).unwrap();
    for path in files(&program).unwrap() {
        let file = fs::File::options().read(true).write(true).open(path).unwrap();
        let (mut pid, mut bytes) = ([0; 4], [0; 8]);
        let own = ENTRIES.step_by(ENTRY).find(|at| {
            file.read_exact_at(&mut pid, *at).is_ok() && u32::from_le_bytes(pid) == program.pid()
        });
        let l1 = own.unwrap() + 16;
        file.read_exact_at(&mut bytes, l1).unwrap();
        file.write_all_at(&(u64::from_le_bytes(bytes) + 1).to_le_bytes(), l1).unwrap();
    }
    let l1 = |row: &&Value| row["type"] == "L1";
    let differ =
        |audit: &Value| rows(audit).iter().filter(l1).all(|row| row["verdict"] == "differ");
    let audit = audit(&mut watch, differ).unwrap();
    for row in rows(&audit).iter().filter(l1) {
        assert!(row["likely_reason"].as_str().unwrap().starts_with("a ghost: "), "{row}");
    }
    assert!(kept(&audit).filter(|row| !l1(row)).all(|row| row["verdict"] == "agree"));
}

#[test]
fn garbage_is_refused() {
    let (_, ttmem) = or_skip!(both());
    let (program, mut watch) = at_rest(&ttmem, &[]).unwrap();
    for path in files(&program).unwrap() {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.write_all_at(&[0xa5; 8576], 0).unwrap();
    }
    let audit = audit(&mut watch, |_| true).unwrap();
    for row in kept(&audit) {
        assert_eq!(row["shm_bytes"], Value::Null);
        let reason = row["shm_unknown_because"].as_str().unwrap();
        assert!(reason.contains("version 2779096485, which is not known"), "{reason}");
    }
    // A file of another size than its version's; what is gone is not read.
    for path in files(&program).unwrap() {
        fs::File::options().write(true).open(path).unwrap().set_len(0).unwrap();
    }
    let cut = |audit: &Value| {
        kept(audit).all(|row| {
            row["shm_unknown_because"].as_str().is_some_and(|why| why.ends_with("cannot be read"))
        })
    };
    self::audit(&mut watch, cut).unwrap();
}
