//! `ttmem doctor --library`: files that are no library of tt-metal are refused in one line; damaged
//! code is refused field by field, and never taken for another field.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Output},
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    or_skip,
    refusal::{elf32_that_waits, end_of, refused, sane},
    standin::{Random, Standin},
    ttmem::Ttmem,
};
use serde_json::Value;

fn doctor(ttmem: &Ttmem, library: &Path) -> Result<Output> {
    let mut command = ttmem.command(&["doctor", "--library"]);
    command.arg(library);
    end_of(command)
}

#[test]
fn what_is_no_library_of_tt_metal() {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate("pimpl"));
    let library = fs::read(standin.library()).unwrap();
    let mut aarch64 = library.clone();
    aarch64[18..20].copy_from_slice(&183_u16.to_le_bytes());
    let mut sections_lost = library.clone();
    sections_lost[0x28..0x30].fill(0);
    sections_lost[0x3c..0x40].fill(0);
    let other = fs::read("/proc/self/exe").unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [
        ("empty", &[][..]),
        ("text", b"no library at all\n"),
        ("header-only", &library[..64]),
        ("program-headers-only", &library[..0x200]),
        ("half", &library[..library.len() / 2]),
        ("32-bit", &elf32_that_waits()),
        ("aarch64", &aarch64),
        ("without-sections", &sections_lost),
        ("another-program", &other),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        let output = doctor(&ttmem, &path).unwrap();
        refused(&output, &[&path.display().to_string()]).with_context(|| name).unwrap();
        println!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    let missing = folder.path().join("missing");
    refused(&doctor(&ttmem, &missing).unwrap(), &["missing", "No such file"]).unwrap();
    refused(&doctor(&ttmem, folder.path()).unwrap(), &["directory"]).unwrap();
}

/// The exit code with `--json`, which is that without, and the probes and fields that are missing.
fn missing(ttmem: &Ttmem, library: &Path) -> Result<(Option<i32>, Vec<String>)> {
    let mut command = ttmem.command(&["doctor", "--json", "--library"]);
    command.arg(library);
    let output = end_of(command)?;
    let text = std::str::from_utf8(&output.stdout)?;
    ensure!(text.lines().count() == 1 && output.stderr.is_empty(), "{output:?}");
    let line: Value = serde_json::from_str(text)?;
    ensure!(line["schema"] == "ttmem.doctor/1", "{line}");
    let code = output.status.code();
    ensure!(doctor(ttmem, library)?.status.code() == code, "another code than without: {line}");
    let unresolved = line["unresolved"].as_array().context("no list")?.iter();
    let names = unresolved.map(|of| of["probe"].as_str().map(str::to_owned).context("no name"));
    Ok((code, names.collect::<Result<_>>()?))
}

#[test]
fn the_exit_code_says_whether_something_is_missing() {
    let ttmem = or_skip!(Ttmem::locate());
    for variant in ["pimpl", "inline", "old", "cet", "stripped"] {
        let library = or_skip!(Standin::locate(variant)).library();
        assert_eq!(missing(&ttmem, &library).unwrap(), (Some(0), vec![]), "{variant}");
    }
    let whole = fs::read(or_skip!(Standin::locate("pimpl")).library()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("libtt_metal.so");
    // Failures alone are lacking without them, and only that is noted.
    for (name, code, probe) in
        [("deallocate_buffersEv", 2, "bulk_free"), ("8tt_throw", 0, "failure")]
    {
        let mut bytes = whole.clone();
        assert!(renamed(&mut bytes, name) > 0, "there is no {name}");
        fs::write(&copy, bytes).unwrap();
        let (found, names) = missing(&ttmem, &copy).unwrap();
        assert_eq!(found, Some(code), "{name}: {names:?}");
        assert!(names.iter().any(|name| name == probe), "{name}: {names:?}");
    }
}

/// Changes the first letter of a name wherever it is in a file; how often that was.
fn renamed(bytes: &mut [u8], name: &str) -> usize {
    let all: Vec<usize> =
        (0..bytes.len()).filter(|at| bytes[*at..].starts_with(name.as_bytes())).collect();
    for at in &all {
        bytes[*at] ^= 1;
    }
    all.len()
}

/// A function of a library: its place in the file.
#[derive(Clone, Debug)]
struct Function {
    name: String,
    offset: usize,
    len: usize,
}

/// The functions of a library whose addresses are file offsets.
fn functions(library: &Path) -> Result<Vec<Function>> {
    let mut nm = Command::new("nm");
    nm.args(["--dynamic", "--defined-only", "--print-size"]).arg(library);
    let output = end_of(nm).context("nm")?;
    ensure!(output.status.success(), "nm: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let mut found = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [address, len, "T" | "t" | "W", name] = words[..] else { continue };
        let offset = usize::from_str_radix(address, 16)?;
        found.push(Function { name: name.into(), offset, len: usize::from_str_radix(len, 16)? });
    }
    ensure!(!found.is_empty(), "no functions in {}", library.display());
    Ok(found)
}

/// Parts of the mangled names of everything that is decoded.
const DECODED: [&str; 9] = [
    "6Buffer",
    "BufferImpl",
    "MeshDevice",
    "6Device",
    "AllocatorImpl",
    "GraphTracker",
    "BankManager",
    "FreeListOpt",
    "SubDeviceManager",
];

fn decoded_functions(library: &Path) -> Result<Vec<Function>> {
    let mut all = functions(library)?;
    all.retain(|function| DECODED.iter().any(|part| function.name.contains(part)));
    Ok(all)
}

/// Every `ok` line below "Fields": what was found, without the functions that it was found in.
fn facts(report: &str) -> BTreeSet<String> {
    let fields = report.lines().skip_while(|line| *line != "Fields");
    let found = fields.filter_map(|line| line.strip_prefix("  ok       "));
    found
        .filter_map(|line| line.rsplit_once("   ["))
        .map(|(fact, _)| fact.to_owned())
        .filter(|fact| !fact.contains(" absent"))
        .collect()
}

fn report(ttmem: &Ttmem, library: &Path) -> Result<String> {
    let output = doctor(ttmem, library)?;
    sane(&output, &[0, 2])?;
    ensure!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// Each function in turn is overwritten by bytes that are no instruction: nothing may then be
/// decoded that is not what the whole library says.
#[test]
fn a_function_that_is_no_code_is_refused_and_nothing_is_made_up() {
    let ttmem = or_skip!(Ttmem::locate());
    for variant in ["pimpl", "old"] {
        let standin = or_skip!(Standin::locate(variant));
        overwrite_each_function(&ttmem, &standin);
    }
}

fn overwrite_each_function(ttmem: &Ttmem, standin: &Standin) {
    let whole = fs::read(standin.library()).unwrap();
    let truth = facts(&report(ttmem, &standin.library()).unwrap());
    assert!(truth.len() > 10, "{truth:?}");
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("libtt_metal.so");
    let functions = decoded_functions(&standin.library()).unwrap();
    let mut refused = 0;
    for function in &functions {
        let mut bytes = whole.clone();
        // 0x06 was `push es`; there is no such instruction in 64-bit code.
        bytes[function.offset..function.offset + function.len].fill(0x06);
        fs::write(&copy, &bytes).unwrap();
        let found = facts(&report(ttmem, &copy).with_context(|| function.name.clone()).unwrap());
        let made_up: Vec<&String> = found.difference(&truth).collect();
        assert!(made_up.is_empty(), "with {} damaged: {made_up:?}", function.name);
        refused += usize::from(found != truth);
    }
    assert!(refused > 0, "no function matters");
    println!(
        "{} functions overwritten, {refused} of them cost a field, of {} fields none changed",
        functions.len(),
        truth.len()
    );
}

/// Damaged files that are tried.
const DAMAGED: usize = 300;

#[test]
fn damaged_code_is_never_fatal() {
    let ttmem = or_skip!(Ttmem::locate());
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("libtt_metal.so");
    let mut random = Random(1);
    let variants = ["pimpl", "old", "cet"];
    for variant in variants {
        let standin = or_skip!(Standin::locate(variant));
        let whole = fs::read(standin.library()).unwrap();
        let functions = decoded_functions(&standin.library()).unwrap();
        for _ in 0..DAMAGED / variants.len() {
            let mut bytes = whole.clone();
            for function in &functions {
                damage(&mut bytes, function, &mut random);
            }
            fs::write(&copy, &bytes).unwrap();
            report(&ttmem, &copy).unwrap();
        }
    }
    println!("{DAMAGED} damaged libraries were examined to the end");
}

/// Changes one to four bytes of a function in four.
fn damage(bytes: &mut [u8], function: &Function, random: &mut Random) {
    if random.below(4) != 0 || function.len == 0 {
        return;
    }
    for _ in 0..=random.below(4) {
        let at = usize::try_from(random.below(function.len as u64)).unwrap_or(0);
        bytes[function.offset + at] = u8::try_from(random.below(256)).unwrap_or(0);
    }
}

/// The same for everything else in the file: headers, tables, names.
#[test]
fn damaged_tables_are_never_fatal() {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate("pimpl"));
    let whole = fs::read(standin.library()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("libtt_metal.so");
    let mut random = Random(2);
    for round in 0..DAMAGED {
        let mut bytes = whole.clone();
        // Half of the rounds: headers and symbol tables, where most is decided.
        let bound = if round % 2 == 0 { 0x4000 } else { bytes.len() } as u64;
        for _ in 0..16 {
            let at = usize::try_from(random.below(bound)).unwrap();
            bytes[at] = u8::try_from(random.below(256)).unwrap();
        }
        fs::write(&copy, &bytes).unwrap();
        let output = doctor(&ttmem, &copy).unwrap();
        sane(&output, &[0, 1, 2]).with_context(|| format!("round {round}")).unwrap();
        if output.status.code() == Some(1) {
            refused(&output, &[]).unwrap();
        }
    }
}
