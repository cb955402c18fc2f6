//! bpftrace, for comparison: the distribution's, and a newer one where it can be had.
//!
//! Debian 12 has 0.17, by which alone ttmem would look ten times better than it is. So the one of
//! the next release is unpacked beside it, by apt, with the libraries that it was built for; nothing
//! of the system changes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use anyhow::{Context, Result, bail};

use crate::say::{self, Step};
use crate::{paths, run, setup};

/// The release whose bpftrace is taken beside the installed one.
const NEWER_RELEASE: &str = "trixie";
const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";

/// A bpftrace that runs here.
#[derive(Debug, Clone)]
pub struct Bpftrace {
    /// As `0.23`.
    pub version: String,
    words: Vec<PathBuf>,
}

impl Bpftrace {
    /// Its command line.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]);
        command
    }

    fn new(words: Vec<PathBuf>) -> Result<Self> {
        let mut found = Self { version: String::new(), words };
        let said = run::capture(found.command().arg("--version"))?;
        found.version = version(&said).with_context(|| format!("no version in {said:?}"))?;
        Ok(found)
    }
}

/// `0.23` of `bpftrace v0.23.2`.
fn version(said: &str) -> Option<String> {
    let (_, version) = said.trim().split_once(" v")?;
    let mut parts = version.split('.');
    Some(format!("{}.{}", parts.next()?, parts.next()?))
}

/// What there is, the newest first; what there is not is said.
pub fn ensure() -> Vec<Bpftrace> {
    say::heading("bpftrace, to compare with");
    setup::apt::ensure_programs(&[("bpftrace", "bpftrace")]);
    let installed = paths::on_path("bpftrace").map(|path| Bpftrace::new(vec![path]));
    let newer = newer().context("no newer bpftrace");
    let mut found = Vec::new();
    for tool in [Some(newer), installed].into_iter().flatten() {
        match tool {
            Ok(tool) => found.push(tool),
            Err(error) => say::warn(&format!("{error:#}")),
        }
    }
    found.dedup_by(|one, other| one.version == other.version);
    for tool in &found {
        say::present(&format!("bpftrace {}", tool.version));
    }
    found
}

fn newer() -> Result<Bpftrace> {
    let folder = paths::tools().join("bpftrace");
    let root = folder.join("root");
    if !root.join(LOADER).is_file() {
        let step = Step::begin("unpacking", &format!("bpftrace of Debian {NEWER_RELEASE}"));
        unpack(&folder, &root)?;
        step.done();
    }
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    let program = root.join("usr/bin/bpftrace");
    Bpftrace::new(vec![root.join(LOADER), "--library-path".into(), libraries, program])
}

/// Downloads the package and all that it depends on, and unpacks them.
fn unpack(folder: &Path, root: &Path) -> Result<()> {
    let made = ["lists/partial", "cache/archives/partial"];
    made.iter().try_for_each(|name| fs::create_dir_all(folder.join(name)))?;
    let source = format!("deb [signed-by={KEYRING}] {} {NEWER_RELEASE} main\n", mirror()?);
    fs::write(folder.join("sources.list"), source)?;
    fs::write(folder.join("status"), "")?;
    run::run(apt(folder).arg("update"))?;
    let install = ["install", "-y", "--no-install-recommends", "--download-only", "bpftrace"];
    run::run(apt(folder).args(install))?;
    let unpacking = folder.join("unpacking");
    match fs::remove_dir_all(&unpacking) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    for package in fs::read_dir(folder.join("cache/archives"))? {
        let package = package?.path();
        if package.extension().is_some_and(|extension| extension == "deb") {
            run::capture(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&unpacking))?;
        }
    }
    // Only what is whole gets the name that is looked for.
    fs::rename(&unpacking, root).with_context(|| format!("cannot make {}", root.display()))
}

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Where this machine gets Debian's packages from.
fn mirror() -> Result<String> {
    let mut targets = Command::new("apt-get");
    targets.args([
        "indextargets",
        "--format",
        "$(REPO_URI)",
        "Created-By: Packages",
        "Origin: Debian",
    ]);
    let said = run::capture(&mut targets)?;
    let Some(mirror) = said.lines().next() else { bail!("this is no Debian") };
    Ok(mirror.to_owned())
}

/// apt-get that knows of nothing but that folder.
fn apt(folder: &Path) -> Command {
    let mut command = Command::new("apt-get");
    command.arg("-q");
    let at = |name: &str| folder.join(name).display().to_string();
    for option in [
        format!("Dir::Etc::SourceList={}", at("sources.list")),
        "Dir::Etc::SourceParts=/dev/null".to_owned(),
        format!("Dir::State::Lists={}", at("lists")),
        format!("Dir::Cache={}", at("cache")),
        format!("Dir::State::status={}", at("status")),
        "Debug::NoLocking=1".to_owned(),
        "APT::Sandbox::User=root".to_owned(),
    ] {
        command.args(["-o", &option]);
    }
    command
}

/// Which fields of a buffer a script may name, and where they are in this library.
#[derive(Debug, Clone)]
pub struct Fields(Vec<(&'static str, u64)>);

/// As the scripts and as `ttmem doctor --json` call them.
const FIELDS: [(&str, &str); 5] = [
    ("DEVICE", "Buffer::device"),
    ("SIZE", "Buffer::size"),
    ("PAGE", "Buffer::page_size"),
    ("ADDRESS", "Buffer::address"),
    ("TYPE", "Buffer::buffer_type"),
];

impl Fields {
    /// From what `ttmem doctor --library --json` says.
    pub fn of(doctor: &serde_json::Value) -> Result<Self> {
        let offset = |name: &str| {
            let fields = doctor["fields"].as_array()?;
            let field = fields.iter().find(|field| field["name"] == name)?;
            let text = field["value"].as_str()?.strip_prefix("+0x")?;
            u64::from_str_radix(text, 16).ok()
        };
        let found = FIELDS.iter().map(|(word, name)| {
            offset(name).map(|at| (*word, at)).with_context(|| format!("no offset of {name}"))
        });
        Ok(Self(found.collect::<Result<_>>()?))
    }
}

/// The script, for that library.
pub fn script(name: &str, library: &Path, symbols: [&str; 2], fields: &Fields) -> Result<String> {
    let file = paths::root().join(format!("tests/bench/scripts/{name}.bt"));
    let text = fs::read_to_string(&file).with_context(|| format!("no {}", file.display()))?;
    Ok(filled(&text, &library.display().to_string(), symbols, fields))
}

fn filled(text: &str, library: &str, [allocate, free]: [&str; 2], fields: &Fields) -> String {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut text = code.collect::<Vec<_>>().join("\n");
    for (word, offset) in &fields.0 {
        text = text.replace(&format!("+ {word}"), &format!("+ {offset}"));
    }
    // The names last: they may contain any word.
    let text = text.replace(":LIBRARY:ALLOCATE", &format!(":{library}:{allocate}"));
    text.replace(":LIBRARY:FREE", &format!(":{library}:{free}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_two_numbers() {
        assert_eq!(version("bpftrace v0.23.2\n").as_deref(), Some("0.23"));
        assert_eq!(version("bpftrace v0.17.0").as_deref(), Some("0.17"));
        assert_eq!(version("nothing"), None);
    }

    #[test]
    fn a_script_is_filled_in() {
        let doctor = serde_json::json!({"fields": FIELDS.map(|(_, name)| {
            serde_json::json!({"name": name, "value": "+0x18"})
        })});
        let fields = Fields::of(&doctor).unwrap();
        let text = "// SIZE\nuprobe:LIBRARY:ALLOCATE { $a + SIZE }\nuprobe:LIBRARY:FREE { }";
        let filled = filled(text, "/lib/SIZE", ["_A", "_F"], &fields);
        assert_eq!(filled, "uprobe:/lib/SIZE:_A { $a + 24 }\nuprobe:/lib/SIZE:_F { }");
        assert!(Fields::of(&serde_json::json!({})).is_err());
    }
}
