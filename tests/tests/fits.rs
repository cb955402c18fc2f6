//! `ttmem fits` against what happens when the buffer is then allocated.

use std::process::Output;

use anyhow::{Context as _, Result, ensure};
use e2e::{or_skip, real::both, standin::Standin, ttmem::Ttmem};
use serde_json::Value;

const FITS: i32 = 0;
const DOES_NOT: i32 = 3;

/// The exit code, and what was answered.
fn ask(ttmem: &Ttmem, pid: u32, options: &[&str]) -> Result<(i32, Value)> {
    let pid = pid.to_string();
    let mut arguments = vec!["fits", "--pid", &pid, "--json"];
    arguments.extend(options);
    let Output { status, stdout, stderr } = ttmem.run(&arguments)?;
    let answer = serde_json::from_slice(&stdout)
        .with_context(|| format!("{options:?}: {}", String::from_utf8_lossy(&stderr)))?;
    Ok((status.code().context("killed")?, answer))
}

fn largest(ttmem: &Ttmem, pid: u32, buffer_type: &str) -> Result<(u64, u64)> {
    let (_, answer) = ask(ttmem, pid, &["--type", buffer_type, "--size", "1"])?;
    let row = &answer["allocators"][0];
    let banks = row["largest_free_bank_bytes"].as_u64().context("no largest hole")?;
    Ok((banks, row["bank_size"].as_u64().context("no size")?))
}

#[test]
fn what_fits_can_be_allocated_and_what_does_not_cannot() {
    let ttmem = or_skip!(Ttmem::locate());
    for variant in ["pimpl", "inline"] {
        let standin = or_skip!(Standin::locate(variant));
        let mut driver = standin.start_with_holes().unwrap();
        let pid = driver.pid();
        for buffer_type in ["L1", "DRAM", "L1_SMALL", "TRACE"] {
            let (hole, _) = largest(&ttmem, pid, buffer_type).unwrap();
            // One page per bank, and one byte more.
            for (bytes, code) in [(hole, FITS), (hole + 1, DOES_NOT)] {
                let size = bytes.to_string();
                let options = ["--type", buffer_type, "--size", &size];
                assert_eq!(ask(&ttmem, pid, &options).unwrap().0, code, "{buffer_type} {bytes}");
                let total = ["--type", buffer_type, "--total", &size, "--page-size", &size];
                assert_eq!(ask(&ttmem, pid, &total).unwrap().0, code, "{buffer_type} {bytes}");
                let name = format!("{buffer_type}{code}");
                let answer = driver.ask(&format!("alloc {name} m {buffer_type} {bytes} {bytes}"));
                let allocated = answer.unwrap().starts_with("ok ");
                assert_eq!(allocated, code == FITS, "{buffer_type} {bytes}");
                if allocated {
                    driver.ok(&format!("free {name}")).unwrap();
                }
            }
        }
    }
}

#[test]
fn releasing_what_is_in_the_way_makes_room() {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate("pimpl"));
    let mut driver = standin.start_with_holes().unwrap();
    let pid = driver.pid();
    let (hole, bank) = largest(&ttmem, pid, "L1").unwrap();
    // More than the rest of the bank: the last hole and what lies before it.
    let wanted = (hole + 32_768).to_string();
    let options = ["--type", "L1", "--size", &wanted, "--mesh", "0", "--chip", "1"];
    let (code, answer) = ask(&ttmem, pid, &options).unwrap();
    assert_eq!((code, &answer["fits"]), (DOES_NOT, &Value::from(false)), "{answer}");
    let way = &answer["allocators"][0]["in_the_way"];
    assert_eq!(way["bank_bytes"], 32_768, "{answer}");
    let ids: Vec<u64> =
        way["buffers"].as_array().unwrap().iter().filter_map(|b| b["unique_id"].as_u64()).collect();
    assert_eq!(ids, [3], "{answer}");
    driver.ok("free d").unwrap();
    assert_eq!(ask(&ttmem, pid, &options).unwrap().0, FITS);
    let too_much = (bank + 1).to_string();
    let (code, answer) = ask(&ttmem, pid, &["--type", "L1", "--size", &too_much]).unwrap();
    assert_eq!(code, DOES_NOT);
    assert_eq!(answer["allocators"][0]["in_the_way"], Value::Null);
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate("pimpl"));
    let driver = standin.start_with_holes().unwrap();
    let pid = driver.pid().to_string();
    for (options, says) in [
        (&["--type", "L1", "--size", "1", "--mesh", "7"][..], "no open allocator"),
        (&["--type", "L1", "--size", "1", "--chip", "7"], "no open allocator"),
        (&["--type", "L1", "--total", "100", "--page-size", "33"], "no multiple"),
        (&["--type", "L2", "--size", "1"], "one of DRAM"),
    ] {
        let mut arguments = vec!["fits", "--pid", &pid];
        arguments.extend(options);
        let output = ttmem.run(&arguments).unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{options:?}");
        assert!(error.contains(says), "{options:?}: {error}");
        assert!(output.stdout.is_empty(), "{options:?}");
    }
}

/// What the real allocator says of its largest hole is what fits, to the byte.
fn real_holes() -> Result<(), String> {
    let (real, ttmem) = both()?;
    let compare = || -> Result<()> {
        let mut program = real.start("n300", &["--mesh", "1x2"])?;
        let holes = program.until("interleaved/holes")?;
        let mut asked = 0;
        for space in holes.spaces() {
            for (bytes, code) in [(space.largest, FITS), (space.largest + 1, DOES_NOT)] {
                let bytes = bytes.to_string();
                let options = ["--type", space.buffer_type.as_str(), "--size", &bytes];
                let (status, answer) = ask(&ttmem, program.pid(), &options)?;
                ensure!(status == code, "{options:?}: {status} instead of {code}: {answer}");
                asked += 1;
            }
        }
        println!("{asked} answers right");
        ensure!(asked == 8, "{asked} only");
        ensure!(program.finish()?.success(), "the script failed");
        Ok(())
    };
    compare().unwrap();
    Ok(())
}

#[test]
fn the_largest_hole_of_the_real_allocator_fits() {
    or_skip!(real_holes());
}
