//! Programs to be refused, and what a refusal looks like.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
};

use crate::ttmem::{PATIENCE, ended_within, readable_within};
use anyhow::{Context as _, Result, ensure};

/// Runs a command to its end, which must come.
pub fn end_of(mut command: Command) -> Result<Output> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    output_within(command.spawn()?)
}

/// What a started command writes to its end, which must come.
pub fn output_within(mut child: Child) -> Result<Output> {
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    // Both pipes are read at once: a full one would stop the writer.
    let errors = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stderr.map_or(Ok(0), |mut pipe| pipe.read_to_end(&mut bytes)).map(|_| bytes)
    });
    let output = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stdout.map_or(Ok(0), |mut pipe| pipe.read_to_end(&mut bytes)).map(|_| bytes)
    });
    let ended = ended_within(&mut child, PATIENCE);
    if ended.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let join = |reader: std::thread::JoinHandle<std::io::Result<Vec<u8>>>| {
        reader.join().ok().context("a reader failed")?.context("cannot read")
    };
    let (stdout, stderr) = (join(output)?, join(errors)?);
    Ok(Output { status: ended?, stdout, stderr })
}

/// The first line of a pipe, which is then closed.
pub fn first_line(pipe: ChildStdout) -> Result<String> {
    readable_within(&pipe, PATIENCE)?;
    let mut line = String::new();
    BufReader::new(pipe).read_line(&mut line)?;
    Ok(line)
}

/// An end with one of these exit codes, and no panic.
pub fn sane(output: &Output, codes: &[i32]) -> Result<()> {
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(!text.contains("panicked"), "it panicked: {text}");
    let code = output.status.code();
    ensure!(code.is_some_and(|code| codes.contains(&code)), "{:?}: {text}", output.status);
    Ok(())
}

/// One line on standard error that holds every expected word, nothing else, exit code 1.
pub fn refused(output: &Output, expected: &[&str]) -> Result<()> {
    sane(output, &[1])?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.stdout.is_empty(), "it printed {}", String::from_utf8_lossy(&output.stdout));
    ensure!(text.lines().count() == 1 && text.ends_with('\n'), "not one line: {text:?}");
    ensure!(text.starts_with("ttmem: "), "{text}");
    for word in expected {
        ensure!(text.contains(word), "{word:?} is missing in: {text}");
    }
    Ok(())
}

/// A program that waits until its input ends. Killed when dropped.
#[derive(Debug)]
pub struct Program {
    child: Child,
}

impl Program {
    /// Starts it.
    pub fn start(path: &Path, arguments: &[&PathBuf]) -> Result<Self> {
        let mut command = Command::new(path);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(Self { child: command.spawn()? })
    }

    /// Starts it, and waits until it says that it is ready.
    pub fn start_ready(path: &Path, arguments: &[&PathBuf]) -> Result<Self> {
        let mut program = Self::start(path, arguments)?;
        let output = program.child.stdout.take().context("no pipe")?;
        let line = first_line(output)?;
        ensure!(line == "ready\n", "{line}");
        Ok(program)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Compiles a C program or library.
pub fn compile(folder: &Path, name: &str, source: &str, options: &[&str]) -> Result<PathBuf> {
    let (input, output) = (folder.join(format!("{name}.c")), folder.join(name));
    std::fs::write(&input, source)?;
    let mut compiler = Command::new("cc");
    compiler.arg(&input).arg("-o").arg(&output).args(options);
    let ended = end_of(compiler).context("cc")?;
    ensure!(ended.status.success(), "cc: {}", String::from_utf8_lossy(&ended.stderr));
    Ok(output)
}

/// A static 32-bit x86 program that calls pause() for ever.
pub fn elf32_that_waits() -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    const HEADERS: u32 = 52 + 32;
    // mov eax, 29 (pause); int 0x80; jmp to the start
    let code = [0xb8, 29, 0, 0, 0, 0xcd, 0x80, 0xeb, 0xf7];
    let size = HEADERS + 9;
    let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    for half in [2_u16, 3] {
        file.extend(half.to_le_bytes());
    }
    for word in [1, BASE + HEADERS, 52, 0, 0] {
        file.extend(word.to_le_bytes());
    }
    for half in [52_u16, 32, 1, 40, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    for word in [1, 0, BASE, BASE, size, size, 5, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file
}
