//! What cannot work is refused: one line that names the object and says what to do, exit code 1,
//! nothing on standard output. And never a panic, whatever it is given.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    or_skip,
    refusal::{
        Program, compile, elf32_that_waits, end_of, first_line, output_within, refused, sane,
    },
    standin::{Driver, Standin},
    ttmem::Ttmem,
};
use serde_json::Value;

/// The symbol that tells tt-metal from other libraries.
const ALLOCATE: &str = "_ZN2tt8tt_metal12GraphTracker14track_allocateEPKNS0_6BufferE";

/// The commands that look at a process, without a pid.
const PROCESS_COMMANDS: [&[&str]; 2] =
    [&["attach", "--once", "--format", "json", "--pid"], &["snapshot", "--json", "--pid"]];

fn refused_process(ttmem: &Ttmem, pid: u32, expected: &[&str]) -> Result<()> {
    for command in PROCESS_COMMANDS {
        let pid = pid.to_string();
        let arguments = [command, &[pid.as_str()]].concat();
        let output = end_of(ttmem.command(&arguments))?;
        refused(&output, expected).with_context(|| format!("{arguments:?}"))?;
    }
    Ok(())
}

/// A pid that no process has: that of one which has ended and was waited for.
fn unused_pid() -> Result<u32> {
    let mut child = Command::new("true").spawn()?;
    child.wait()?;
    Ok(child.id())
}

#[test]
fn no_such_process() {
    let ttmem = or_skip!(Ttmem::locate());
    let unused = unused_pid().unwrap();
    for pid in [unused, 0, u32::MAX] {
        refused_process(&ttmem, pid, &["no process with pid", &pid.to_string()]).unwrap();
    }
}

#[test]
fn a_thread_is_no_process() {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate("pimpl"));
    let mut driver = standin.start().unwrap();
    let thread = thread_of(&mut driver).unwrap();
    let advice = format!("use --pid {}", driver.pid());
    refused_process(&ttmem, thread, &[&thread.to_string(), "thread", &advice]).unwrap();
}

/// A thread of a driver under load: it lives until the driver does not.
fn thread_of(driver: &mut Driver) -> Result<u32> {
    driver.ok("open mesh 0 1")?;
    driver.tell("churn 1 4000000000 1")?;
    let leader = driver.pid().to_string();
    loop {
        for entry in fs::read_dir(format!("/proc/{leader}/task"))? {
            let name = entry?.file_name().into_string().ok().context("no number")?;
            if name != leader {
                return Ok(name.parse()?);
            }
        }
        std::thread::yield_now();
    }
}

#[test]
fn somebody_elses_process() {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate("pimpl"));
    let driver = standin.start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let copy = copy_for_everybody(&ttmem, folder.path()).unwrap();
    for command in PROCESS_COMMANDS {
        let mut unprivileged = Command::new("setpriv");
        unprivileged
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"])
            .arg(&copy)
            .args(command)
            .arg(driver.pid().to_string())
            .current_dir("/");
        let output = end_of(unprivileged).unwrap();
        refused(&output, &["not allowed", &driver.pid().to_string(), "sudo"]).unwrap();
    }
}

/// The folder of the build may be closed to others.
fn copy_for_everybody(ttmem: &Ttmem, folder: &Path) -> Result<PathBuf> {
    let copy = folder.join("ttmem");
    fs::copy(ttmem.path(), &copy)?;
    for path in [folder, &copy] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(copy)
}

#[test]
fn a_process_without_tt_metal() {
    let ttmem = or_skip!(Ttmem::locate());
    let program = Program::start(Path::new("cat"), &[]).unwrap();
    let pid = program.pid().to_string();
    let expected = ["has no tt-metal", &pid, "cat", "GraphTracker::track_allocate"];
    refused_process(&ttmem, program.pid(), &expected).unwrap();
    // Only `attach` can wait.
    let is_advised = |command: &[&str]| {
        let output = end_of(ttmem.command(&[command, &["--pid", &pid]].concat())).unwrap();
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).contains("--wait")
    };
    assert!(is_advised(&["attach", "--once"]));
    assert!(!is_advised(&["snapshot"]) && !is_advised(&["doctor"]));
    assert!(!is_advised(&["fits", "--type", "L1", "--size", "1K"]));
}

#[test]
fn where_no_process_is_chosen_those_that_can_be_are_listed() {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate("pimpl"));
    let driver = standin.start().unwrap();
    let output = end_of(ttmem.command(&["attach"])).unwrap();
    let listed = format!("{} (", driver.pid());
    refused(&output, &["which process?", "--pid", "--name", "--all", &listed]).unwrap();
}

/// Opens every library that it is given, says so, and waits for the end of its input.
const OPENS_LIBRARIES: &str = r#"
#include <dlfcn.h>
#include <stdio.h>
int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        if (!dlopen(argv[i], RTLD_NOW | RTLD_LOCAL)) {
            puts(dlerror());
            return 1;
        }
    puts("ready");
    fflush(stdout);
    while (getchar() != EOF) {}
}
"#;

#[test]
fn two_libraries_in_one_process() {
    let ttmem = or_skip!(Ttmem::locate());
    let pimpl = or_skip!(Standin::locate("pimpl")).library();
    let inline = or_skip!(Standin::locate("inline")).library();
    let folder = tempfile::tempdir().unwrap();
    let opener = compile(folder.path(), "opener", OPENS_LIBRARIES, &["-ldl"]).unwrap();
    let program = Program::start_ready(&opener, &[&pimpl, &inline]).unwrap();
    let names = [&pimpl, &inline].map(|path| path.display().to_string());
    let expected = ["two tt-metal libraries", &names[0], &names[1]];
    refused_process(&ttmem, program.pid(), &expected).unwrap();
}

#[test]
fn a_library_without_what_is_needed() {
    let ttmem = or_skip!(Ttmem::locate());
    let folder = tempfile::tempdir().unwrap();
    let source = format!("void {ALLOCATE}(void *self, const void *buffer) {{}}");
    let library = compile(folder.path(), "liballocate.so", &source, &["-shared", "-fPIC"]).unwrap();
    let opener = compile(folder.path(), "opener", OPENS_LIBRARIES, &["-ldl"]).unwrap();
    let program = Program::start_ready(&opener, &[&library]).unwrap();
    let path = library.display().to_string();
    let attach = ["attach", "--once", "--pid", &program.pid().to_string()];
    let output = end_of(ttmem.command(&attach)).unwrap();
    // Bulk free is the first of the essential probes.
    refused(&output, &["cannot watch", &path, "probe bulk_free", "ttmem doctor --pid"]).unwrap();
    let doctor = end_of(ttmem.command(&["doctor", "--library", &path])).unwrap();
    sane(&doctor, &[2]).unwrap();
    let report = String::from_utf8_lossy(&doctor.stdout);
    for probe in ["allocate", "free", "bulk_free"] {
        let start = format!("  MISSING  {probe} ");
        assert!(report.lines().any(|line| line.starts_with(&start)), "{report}");
    }
}

#[test]
fn a_32_bit_process() {
    let ttmem = or_skip!(Ttmem::locate());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pauses32");
    fs::write(&path, elf32_that_waits()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let program = Program::start(&path, &[]);
    let program = or_skip!(program.map_err(|error| format!("no 32-bit programs here: {error:#}")));
    let pid = program.pid().to_string();
    refused_process(&ttmem, program.pid(), &[&pid, "32-bit", "ttmem can only"]).unwrap();
}

/// Rounds of the race between the target's end and the attach.
const ROUNDS: u64 = 20;

#[test]
fn a_target_that_ends_during_the_attach() {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate("pimpl"));
    let mut codes = [0; 3];
    for round in 0..ROUNDS {
        let code = race(&ttmem, &standin, Duration::from_millis(round * 15)).unwrap();
        codes[usize::try_from(code).unwrap()] += 1;
    }
    println!("{ROUNDS} targets that ended during the attach: exit codes 0, 1, 2: {codes:?}");
}

/// Lets the target end some time after ttmem was started; ttmem's exit code.
fn race(ttmem: &Ttmem, standin: &Standin, lead: Duration) -> Result<i32> {
    let mut driver = standin.start()?;
    driver.all_ok(&["open mesh 0 2 name=m", "alloc a m DRAM 4096 2048"])?;
    let pid = driver.pid().to_string();
    let mut command = ttmem.command(&["attach", "--format", "json", "--pid", &pid]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // The lead varies on purpose: it is the moment of the end, nothing waits for it to be enough.
    driver.ok(&format!("sleep {}", lead.as_millis()))?;
    driver.end_with("quit")?;
    let output = output_within(child)?;
    sane(&output, &[0, 1, 2])?;
    let code = output.status.code().context("no exit code")?;
    if code == 1 {
        refused(&output, &[&pid])?;
    } else {
        let text = String::from_utf8_lossy(&output.stdout);
        let last: Value = serde_json::from_str(text.lines().last().context("no snapshot")?)?;
        ensure!(last["state"] == "exited", "{last}");
        ensure!((code == 0) == (last["exact"] == true), "exit code {code} with {last}");
    }
    Ok(code)
}

#[test]
fn bad_options() {
    let ttmem = or_skip!(Ttmem::locate());
    for arguments in [
        &["attach", "--pid", "x"][..],
        &["attach", "--pid", "-1"],
        &["attach", "--pid", "1", "--refresh", "0"],
        &["attach", "--pid", "1", "--ring-size", "1"],
        &["attach", "--pid", "1", "--duration", "nan"],
        &["attach", "--pid", "1", "--format", "xml"],
        &["attach", "--pid", "1", "--no-such-option"],
        &["snapshot"],
        &["doctor", "--pid", "1", "--library", "x"],
        &["no-such-command"],
    ] {
        let output = end_of(ttmem.command(arguments)).unwrap();
        sane(&output, &[1]).unwrap();
        assert!(output.stdout.is_empty(), "{arguments:?}: {output:?}");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.starts_with("error: ") && text.contains("--help"), "{arguments:?}: {text}");
    }
}

#[test]
fn no_terminal_for_the_live_view() {
    let ttmem = or_skip!(Ttmem::locate());
    let pid = std::process::id().to_string();
    let output = end_of(ttmem.command(&["attach", "--pid", &pid])).unwrap();
    refused(&output, &["terminal", "--headless"]).unwrap();
}

#[test]
fn whoever_reads_may_stop() {
    let ttmem = or_skip!(Ttmem::locate());
    let standin = or_skip!(Standin::locate("pimpl"));
    let mut driver = standin.start().unwrap();
    driver.ok("open mesh 0 2").unwrap();
    for format in ["json", "text"] {
        let pid = driver.pid().to_string();
        let attach = ["attach", "--pid", &pid, "--format", format, "--refresh", "20"];
        let mut command = ttmem.command(&attach);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let line = first_line(child.stdout.take().unwrap()).unwrap();
        assert!(!line.is_empty());
        let output = output_within(child).unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
    }
    assert!(driver.end_with("quit").unwrap().success());
}
