//! The interpreters of Python that the machine has.

use std::{
    collections::BTreeMap,
    env, fmt, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Their names end in one of these.
const MINORS: std::ops::RangeInclusive<u32> = 8..=14;

/// Those whose functions ttmem understands.
const UNDERSTOOD: [u32; 3] = [10, 12, 13];

/// What an interpreter says of itself, if it is CPython and can call C.
const WHO: &str = "\
import ctypes, sys
assert sys.implementation.name == 'cpython'
print(*sys.version_info[:3], sys.executable)
";

/// An interpreter.
#[derive(Clone, Debug)]
pub struct Interpreter {
    /// Its program.
    pub path: PathBuf,
    /// The second number of its version, behind 3.
    pub minor: u32,
    /// The third one.
    pub micro: u32,
}

impl Interpreter {
    /// The version that a name leads to; `None`: it is none, or does not run.
    fn named(path: &Path) -> Option<Self> {
        let mut command = command(path);
        let said = command.args(["-c", WHO]).stdin(Stdio::null()).stderr(Stdio::null()).output();
        let said = said.ok().filter(|said| said.status.success())?;
        let said = String::from_utf8(said.stdout).ok()?;
        let mut words = said.trim_end().splitn(4, ' ');
        let mut number = || words.next()?.parse().ok();
        let (3, minor, micro) = (number()?, number()?, number()?) else { return None };
        // A name may be that of a script which chooses one.
        Some(Self { path: words.next()?.into(), minor, micro })
    }

    /// Whether ttmem understands its functions.
    pub fn is_understood(&self) -> bool {
        UNDERSTOOD.contains(&self.minor)
    }

    /// A command line that neither looks at the user's settings nor writes beside the sources.
    pub fn command(&self) -> Command {
        command(&self.path)
    }
}

impl fmt::Display for Interpreter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, minor, micro } = self;
        write!(f, "Python 3.{minor}.{micro} ({})", path.display())
    }
}

fn command(path: &Path) -> Command {
    let mut command = Command::new(path);
    command.args(["-I", "-B"]);
    command
}

/// Each version that is on the search path, or that pyenv has, once; or why the test cannot run:
/// ttmem understands none of them.
pub fn all() -> Result<Vec<Interpreter>, String> {
    let mut folders: Vec<PathBuf> = env::var_os("PATH").iter().flat_map(env::split_paths).collect();
    if let Some(home) = env::var_os("HOME") {
        let versions = fs::read_dir(Path::new(&home).join(".pyenv/versions"));
        folders.extend(versions.into_iter().flatten().flatten().map(|it| it.path().join("bin")));
    }
    let names = || MINORS.map(|minor| format!("python3.{minor}"));
    let paths = folders.iter().flat_map(|folder| names().map(|name| folder.join(name)));
    let mut found = BTreeMap::new();
    for one in paths.filter(|path| path.exists()).filter_map(|path| Interpreter::named(&path)) {
        found.entry((one.minor, one.micro)).or_insert(one);
    }
    let found: Vec<_> = found.into_values().collect();
    if found.iter().any(Interpreter::is_understood) {
        Ok(found)
    } else {
        Err("there is no Python 3.10, 3.12 or 3.13 with ctypes".to_owned())
    }
}
