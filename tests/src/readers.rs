//! Readers of the shared table in C, C++ and Python: compiling, running and asking them.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    skip,
    standin::Driver,
    ttmem::{Attached, PATIENCE, Ttmem, ended_within, readable_within},
};

const STRICT: [&str; 7] =
    ["-O2", "-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion", "-Wshadow"];

/// What reads hostile tables may not as much as look beside its memory.
const SANITIZED: [&str; 2] = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

/// The languages that have an `ask`.
pub const LANGUAGES: [Language; 3] = [Language::C, Language::Cpp, Language::Python];

/// A language of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// `include/ttmem.h`.
    C,
    /// `include/ttmem.hpp`.
    Cpp,
    /// `python/ttmem`.
    Python,
}

/// The project's folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// An interpreter with `python/ttmem` and pytest, which can import ttnn where there is one.
pub fn python() -> Result<PathBuf, String> {
    skip::path_from("TTMEM_READERS_PYTHON")
}

/// A folder that any user may look into and only this one may write to.
pub fn open_to_all(folder: &Path) -> Result<PathBuf> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))?;
    Ok(folder.to_owned())
}

/// Compiles a C or C++ file of the project into a folder; the program.
pub fn compile(source: &str, folder: &Path) -> Result<PathBuf> {
    compile_with(source, folder, &[])
}

fn compile_with(source: &str, folder: &Path, options: &[&str]) -> Result<PathBuf> {
    let file = root().join(source);
    let stem = file.file_stem().context("no name")?.to_string_lossy().into_owned();
    let is_c = file.extension().is_some_and(|ending| ending == "c");
    let program = folder.join(format!("{stem}-{}", if is_c { "c" } else { "cpp" }));
    let (compiler, standard) = if is_c { ("gcc", "-std=c11") } else { ("g++", "-std=c++17") };
    let mut command = Command::new(compiler);
    command.args(STRICT).args(options).arg(standard).arg("-I").arg(root().join("include"));
    let output = command.arg(&file).arg("-o").arg(&program).output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(program)
}

/// A ttmem that watches a process, keeps its tables in a folder, and knows the older buffers.
pub fn share(ttmem: &Ttmem, pid: u32, tables: &Path) -> Result<Attached> {
    let folder = tables.to_str().context("not UTF-8")?;
    let mut attached = ttmem.attach(pid, &["--table-dir", folder, "--refresh", "50"])?;
    attached.settled()?;
    Ok(attached)
}

/// The table of a process.
pub fn table_of(tables: &Path, driver: &Driver) -> PathBuf {
    tables.join(format!("{}.table", driver.pid()))
}

/// A program that asks as its input says, `tests/readers/ask.*`. Killed when dropped.
#[derive(Debug)]
pub struct Asker {
    /// What it is written in.
    pub language: Language,
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

/// How to start one of each language.
#[derive(Clone, Debug)]
pub struct Askers {
    c: PathBuf,
    cpp: PathBuf,
    python: PathBuf,
}

impl Askers {
    /// Compiles what has to be.
    pub fn build(folder: &Path, python: PathBuf) -> Result<Self> {
        let c = compile_with("tests/readers/ask.c", folder, &SANITIZED)?;
        let cpp = compile_with("tests/readers/ask.cpp", folder, &SANITIZED)?;
        Ok(Self { c, cpp, python })
    }

    /// The same, where other users may start them.
    pub fn copied(&self, folder: &Path) -> Result<Self> {
        let copy = |program: &Path| -> Result<PathBuf> {
            let to = folder.join(program.file_name().context("no name")?);
            fs::copy(program, &to)?;
            Ok(to)
        };
        Ok(Self { c: copy(&self.c)?, cpp: copy(&self.cpp)?, python: self.python.clone() })
    }

    /// One of each language.
    pub fn start_all(&self) -> Result<Vec<Asker>> {
        LANGUAGES.iter().map(|language| self.start(*language, None)).collect()
    }

    /// One of a language, in the namespaces of a process.
    pub fn start_beside(&self, language: Language, pid: u32) -> Result<Asker> {
        let mut command = Command::new("nsenter");
        command.args(["--target", &pid.to_string(), "--pid", "--mount"]);
        command.arg(self.program(language));
        if language == Language::Python {
            command.arg(root().join("tests/readers/ask.py"));
        }
        Asker::start(language, command)
    }

    fn program(&self, language: Language) -> &Path {
        match language {
            Language::C => &self.c,
            Language::Cpp => &self.cpp,
            Language::Python => &self.python,
        }
    }

    /// One of a language, with the rights of a user and no more.
    pub fn start(&self, language: Language, user: Option<u32>) -> Result<Asker> {
        let program = self.program(language);
        let is_python = language == Language::Python;
        let mut command = match user {
            Some(user) if !is_python => by(user, program),
            _ => Command::new(program),
        };
        if is_python {
            // That user could not even start an interpreter in root's home.
            command.arg(root().join("tests/readers/ask.py"));
            command.args(user.map(|user| format!("--as={user}")));
        }
        Asker::start(language, command)
    }
}

/// A program with the rights of a user and no more.
pub fn by(user: u32, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    let rights = [format!("--reuid={user}"), format!("--regid={user}")];
    command.args(rights).args(["--clear-groups", "--inh-caps=-all"]).arg(program);
    command
}

impl Asker {
    fn start(language: Language, mut command: Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let stdin = child.stdin.take().context("no pipe")?;
        let stdout = BufReader::new(child.stdout.take().context("no pipe")?);
        Ok(Self { language, child, stdin, stdout })
    }

    /// The answer to a line.
    pub fn ask(&mut self, line: &str) -> Result<String> {
        let language = self.language;
        let context = || format!("{language:?} after {line:?}");
        writeln!(self.stdin, "{line}").with_context(context)?;
        if self.stdout.buffer().is_empty() {
            readable_within(self.stdout.get_ref(), PATIENCE).with_context(context)?;
        }
        let mut answer = String::new();
        ensure!(self.stdout.read_line(&mut answer)? > 0, "{} it has ended", context());
        Ok(answer.trim_end().to_owned())
    }

    /// Opens the table of a process.
    pub fn open(&mut self, pid: u32, tables: &Path) -> Result<String> {
        self.ask(&format!("open {pid} {}", tables.display()))
    }

    /// Fails unless the answer has all these words.
    pub fn expect(&mut self, line: &str, words: &[&str]) -> Result<String> {
        let answer = self.ask(line)?;
        let language = self.language;
        for word in words {
            ensure!(answer.contains(word), "{language:?} {line:?}: no {word:?} in {answer:?}");
        }
        Ok(answer)
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A started program whose output is read line by line. Killed when dropped.
#[derive(Debug)]
pub struct Spoken {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// Its input, if it was kept.
    pub stdin: Option<ChildStdin>,
}

impl Spoken {
    /// Starts it.
    pub fn start(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().context("no pipe")?);
        Ok(Self { child, stdout, stdin })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line; `None` at the end.
    pub fn line(&mut self) -> Result<Option<String>> {
        if self.stdout.buffer().is_empty() {
            readable_within(self.stdout.get_ref(), PATIENCE).context("it says nothing")?;
        }
        let mut line = String::new();
        Ok((self.stdout.read_line(&mut line)? > 0).then(|| line.trim_end().to_owned()))
    }

    /// The first line with that in it.
    pub fn until(&mut self, words: &str) -> Result<String> {
        loop {
            let line = self.line()?.with_context(|| format!("it ended before {words:?}"))?;
            if line.contains(words) {
                return Ok(line);
            }
        }
    }

    /// The rest of what it says, and whether it ended well.
    pub fn rest(mut self) -> Result<(Vec<String>, bool)> {
        drop(self.stdin.take());
        let mut lines = Vec::new();
        while let Some(line) = self.line()? {
            lines.push(line);
        }
        Ok((lines, ended_within(&mut self.child, PATIENCE)?.success()))
    }

    /// Kills it at once.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Spoken {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
