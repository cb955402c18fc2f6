//! Call stacks under each version of Python that the machine has. The stand-in is asked by ctypes.

use std::{fs, path::Path, time::Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::{
    interpreters::{self, Interpreter},
    or_skip,
    real::Program,
    stacks::{MOST_PYTHON, Made, Told, are_in_order, by_address, functions, python_functions},
    standin::Standin,
    ttmem::{Ttmem, now_ns},
};
use serde_json::Value;

/// The evaluation loop, by which a stack leads through Python.
const LOOP: &str = "_PyEval_EvalFrameDefault";

/// Why stacks end early: that of a few functions is copied whole, but there may be too many.
const COPIED: &str = "the copied bytes of the stack end there";
const DEEP: &str = "there are more frames than are kept";

/// What each allocation ends in.
const NATIVE: [&str; 2] = ["tt::tt_metal::GraphTracker::track_allocate", "standin_allocate"];

#[test]
fn whole_stacks_have_the_functions_that_each_python_says() {
    let (ttmem, standin) = or_skip!(both());
    of_each(&ttmem, &standin, &or_skip!(interpreters::all()), Bytes("64K"));
}

#[test]
fn cut_stacks_have_the_functions_that_each_python_says() {
    let (ttmem, standin) = or_skip!(both());
    of_each(&ttmem, &standin, &or_skip!(interpreters::all()), Bytes("1K"));
}

fn both() -> Result<(Ttmem, Standin), String> {
    Ok((Ttmem::locate()?, Standin::locate("pimpl")?))
}

/// Bytes of each stack that are copied.
#[derive(Clone, Copy)]
struct Bytes(&'static str);

impl Bytes {
    /// Whether they are all that there are.
    fn are_all(self) -> bool {
        self.0 == "64K"
    }
}

/// Each version has its say, also behind one that failed.
fn of_each(ttmem: &Ttmem, standin: &Standin, interpreters: &[Interpreter], bytes: Bytes) {
    let mut failed = Vec::new();
    for interpreter in interpreters {
        let start = Instant::now();
        match functions_of(ttmem, standin, interpreter, bytes) {
            Ok(made) => println!("{interpreter}: {made} buffers, {:?}", start.elapsed()),
            Err(error) => failed.push(format!("{interpreter}: {error:#}")),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

/// Compares all buffers; how many there were.
fn functions_of(
    ttmem: &Ttmem,
    standin: &Standin,
    interpreter: &Interpreter,
    bytes: Bytes,
) -> Result<usize> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("standin/python/stacks.py");
    let mut command = interpreter.command();
    command.arg(script).arg(standin.entry());
    let mut program = Program::spawn(command)?;
    let told: Told = program.record()?.context("no start")?;
    ensure!(told.checkpoint == "start", "{told:?}");
    let options = ["--buffers", "-r", "20", "--no-table", "--stacks", "--stack-bytes", bytes.0];
    let mut watch = ttmem.attach(program.pid(), &options)?;
    watch.settled()?;
    program.go_on()?;
    let told: Told = program.record()?.context("the script ended early")?;
    let snapshot = watch.at_or_after(now_ns())?;
    compare(&snapshot, &told.made, interpreter, bytes)?;
    program.go_on()?;
    program.record::<Value>()?.context("no end")?;
    let snapshot = watch.at_or_after(now_ns())?;
    ensure!(snapshot["exact"] == true && by_address(&snapshot)?.is_empty(), "{snapshot:#}");
    program.go_on()?;
    ensure!(program.wait()?.success());
    watch.finish()?;
    Ok(told.made.len())
}

/// Compares all buffers, and what is counted of them.
fn compare(snapshot: &Value, all: &[Made], interpreter: &Interpreter, bytes: Bytes) -> Result<()> {
    ensure!(snapshot["exact"] == true, "{}", snapshot["inexact_because"]);
    let by_address = by_address(snapshot)?;
    let in_native_threads = all.iter().filter(|made| made.stack.is_empty()).count();
    ensure!(in_native_threads == 4 && all.len() > 200, "{} made", all.len());
    ensure!(by_address.len() == all.len(), "{} of {}", by_address.len(), all.len());
    let mut wrong: Vec<String> = Vec::new();
    for made in all {
        let buffer = by_address.get(&made.address).context("it is not there")?;
        let is_right = native(buffer, made, interpreter, bytes).and_then(|()| {
            if interpreter.is_understood() {
                understood(buffer, made)
            } else {
                not_understood(buffer, interpreter)
            }
        });
        if let Err(error) = is_right {
            wrong.push(format!("{}: {error:#}\n{:?}\n{}", made.how, made.stack, shown(buffer)));
        }
    }
    ensure!(wrong.is_empty(), "{} are wrong, the first is {}", wrong.len(), wrong[0]);
    let stacks = &snapshot["stacks"];
    ensure!(stacks["lost"] == 0 && stacks["seen"] == all.len(), "{stacks}");
    let unknown = stacks["python_unknown"].as_object().context("no count")?;
    let expected = if interpreter.is_understood() {
        "too_many_functions"
    } else {
        "interpreter_not_understood"
    };
    ensure!(unknown.keys().all(|kind| kind == expected), "{stacks}");
    Ok(())
}

/// What does not depend on Python.
fn native(buffer: &Value, made: &Made, interpreter: &Interpreter, bytes: Bytes) -> Result<()> {
    let names = functions(buffer)?;
    ensure!(are_in_order(&names, &NATIVE), "what allocates");
    ensure!(buffer["stack_unknown"].is_null());
    let cut = &buffer["stack_cut"];
    if !bytes.are_all() {
        ensure!(made.stack.is_empty() || cut == COPIED, "{cut}");
        return Ok(());
    }
    if made.stack.len() > MOST_PYTHON && cut == DEEP {
        return Ok(());
    }
    let beyond = &buffer["frames_beyond_cut"];
    ensure!(cut.is_null() && beyond == 0, "{cut}, {beyond} behind");
    let is_main = made.stack.last().is_some_and(|function| function.2 == "<module>");
    let last = buffer["stack"].as_array().and_then(|frames| frames.last());
    let module = last.and_then(|frame| frame["module"].as_str());
    // It has a name only where the program has not been stripped.
    let program = fs::canonicalize(&interpreter.path)?;
    ensure!(!is_main || module == program.to_str(), "{module:?} is where the program begins");
    Ok(())
}

/// Whether a buffer's functions are those that Python says.
fn understood(buffer: &Value, made: &Made) -> Result<()> {
    let seen = python_functions(buffer)?;
    let why = &buffer["python_unknown"];
    if made.stack.len() <= MOST_PYTHON {
        ensure!(why.is_null(), "{why}");
        ensure!(seen == made.stack);
    } else {
        ensure!(why == "there are more Python functions than are kept", "{why}");
        ensure!(made.stack.starts_with(&seen));
        // Some versions have a frame that is no function's behind each that C has called.
        ensure!((MOST_PYTHON / 2 - 2..=MOST_PYTHON).contains(&seen.len()), "{}", seen.len());
    }
    Ok(())
}

/// Whether a buffer says that the version is not understood, if it can be seen that it was Python.
fn not_understood(buffer: &Value, interpreter: &Interpreter) -> Result<()> {
    ensure!(python_functions(buffer)?.is_empty(), "there are functions");
    let why = &buffer["python_unknown"];
    if !functions(buffer)?.contains(&LOOP) {
        ensure!(why.is_null(), "{why}");
        return Ok(());
    }
    let version = match interpreter.minor {
        ..10 => "it is older than Python 3.10; ".to_owned(),
        minor => format!("it is Python 3.{minor}; "),
    };
    ensure!(why.as_str().is_some_and(|why| why.contains(&version)), "{why}");
    Ok(())
}

/// What was seen of a buffer, a line for each frame.
fn shown(buffer: &Value) -> String {
    let frames = buffer["stack"].as_array().into_iter().flatten().map(Value::to_string);
    let keys = ["python_unknown", "stack_cut", "frames_beyond_cut", "site"];
    let rest = keys.map(|key| format!("{key}: {}", buffer[key]));
    frames.chain(rest).collect::<Vec<_>>().join("\n")
}
