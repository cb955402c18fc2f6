//! The target that demo and tests watch: the real tt-metal on mock devices, if it can be had.
//!
//! Everything up to the chip is real then: the allocators, the op caches, the libraries. Three
//! ways, the first that the machine allows: ttnn in a venv; the wheel's library driven by a
//! program of our own; the stand-in library of `tests/standin`. What was found is written to
//! `target/real-target/real-target.json` for the tests.

pub mod cluster;
pub mod compiler;
mod elf;
mod python;
mod wheel;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, bail};
use serde::Serialize;

pub use cluster::Kind;
pub use python::Venv;
pub use wheel::python_with_pip as any_python_with_pip;

use crate::say::{self, Step};
use crate::{paths, run};

/// The version of the real tt-metal that the rig is made for.
pub const TTNN: &str = "ttnn==0.81.1";

/// What there is to watch.
#[derive(Debug)]
pub enum RealTarget {
    /// ttnn in a venv.
    Python(python::Venv),
    /// The wheel's library and our driver; why there is no venv.
    Driver(wheel::Unpacked, String),
    /// The stand-in library; why not the real one.
    StandIn(String),
    /// Nothing at all; why.
    Nothing(String),
}

/// Prepares the best target that the machine allows, and says which and why.
pub fn ensure() -> Result<RealTarget> {
    say::heading("A target to watch");
    let standin = ensure_standin();
    let found = find(standin.as_ref().err().map(|error| format!("{error:#}")));
    write_clusters()?;
    say::note(&format!("target: {}", found.describe()));
    found.write()?;
    Ok(found)
}

fn find(no_standin: Option<String>) -> RealTarget {
    let no_venv = match python::ensure() {
        Ok(venv) => return RealTarget::Python(venv),
        Err(error) => format!("{error:#}"),
    };
    say::note(&format!("not by Python: {no_venv}"));
    match wheel::ensure() {
        Ok(unpacked) => RealTarget::Driver(unpacked, no_venv),
        Err(error) => {
            let why = format!("{no_venv}; {error:#}");
            match no_standin {
                None => RealTarget::StandIn(why),
                Some(reason) => RealTarget::Nothing(format!("{why}; no stand-in: {reason}")),
            }
        }
    }
}

/// Builds the stand-in library; make decides what is out of date.
fn ensure_standin() -> Result<()> {
    let source = paths::root().join("tests/standin");
    if !source.is_dir() {
        bail!("there is no {}", source.display());
    }
    let step = Step::begin("building", "stand-in library");
    if let Err(error) = run::run(&mut make_standin(&source)) {
        say::warn(&format!("no stand-in library: {error:#}"));
        return Err(error);
    }
    step.done();
    Ok(())
}

fn make_standin(source: &Path) -> Command {
    let mut make = Command::new("make");
    // Relative: to make, a path with a space in it is two.
    make.args(["-s", "-C"]).arg(source).arg("OUT=../../target/standin");
    // Inside a cargo build the jobserver's variables would confuse make.
    make.env_remove("MAKEFLAGS").env_remove("MFLAGS");
    make
}

fn write_clusters() -> Result<()> {
    let dir = paths::real_target().join("clusters");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    for kind in Kind::ALL {
        fs::write(cluster_file(kind), cluster::describe(kind))?;
    }
    Ok(())
}

fn cluster_file(kind: Kind) -> PathBuf {
    paths::real_target().join(format!("clusters/{}.yaml", kind.name()))
}

/// Keeps tt-metal from logging, and the MPI bundled with it from listening on every interface.
pub fn quiet_environment() -> Vec<(String, String)> {
    vec![
        ("TT_LOGGER_LEVEL".to_owned(), "fatal".to_owned()),
        ("OMPI_MCA_btl".to_owned(), "self".to_owned()),
    ]
}

/// The content of `real-target.json`.
#[derive(Serialize)]
struct Found {
    how: &'static str,
    why: Option<String>,
    python: Option<PathBuf>,
    driver: Option<PathBuf>,
    library: Option<PathBuf>,
    clusters: PathBuf,
    /// What a run needs, but for `TT_METAL_MOCK_CLUSTER_DESC_PATH`.
    environment: BTreeMap<String, String>,
}

impl RealTarget {
    /// One line: which way, and why none before it.
    pub fn describe(&self) -> String {
        match self {
            Self::Python(venv) => format!("the real {TTNN} by {}", venv.python.display()),
            Self::Driver(_, why) => format!("the real libtt_metal.so by our own driver ({why})"),
            Self::StandIn(why) => format!("the stand-in library ({why})"),
            Self::Nothing(why) => format!("none ({why})"),
        }
    }

    /// Which way, for a report that others read: without places on this machine.
    pub fn name(&self) -> String {
        match self {
            Self::Python(_) => format!("the real {TTNN}"),
            Self::Driver(..) => "the real libtt_metal.so by our own driver".to_owned(),
            Self::StandIn(_) => "the stand-in library".to_owned(),
            Self::Nothing(_) => "none".to_owned(),
        }
    }

    /// The interpreter that can import ttnn.
    pub fn python(&self) -> Option<&Path> {
        match self {
            Self::Python(venv) => Some(&venv.python),
            _ => None,
        }
    }

    fn site(&self) -> Option<&Path> {
        match self {
            Self::Python(venv) => Some(&venv.site),
            Self::Driver(unpacked, _) => Some(&unpacked.site),
            Self::StandIn(_) | Self::Nothing(_) => None,
        }
    }

    /// Its `libtt_metal.so`.
    pub fn library(&self) -> Option<PathBuf> {
        self.site().map(|site| site.join("ttnn/build/lib/libtt_metal.so"))
    }

    fn common_environment(&self) -> BTreeMap<String, String> {
        let mut variables: BTreeMap<String, String> = quiet_environment().into_iter().collect();
        let cache = paths::real_target().join("cache");
        variables.insert("TT_METAL_CACHE".to_owned(), cache.display().to_string());
        // Without it, `generated/` appears in whatever folder the run is started from.
        let logs = paths::real_target().join("logs");
        variables.insert("TT_METAL_LOGS_PATH".to_owned(), logs.display().to_string());
        if let Some(site) = self.site() {
            let root = site.join("ttnn").display().to_string();
            variables.insert("TT_METAL_RUNTIME_ROOT".to_owned(), root);
        }
        variables
    }

    /// What a run on that machine needs in its environment.
    pub fn environment(&self, kind: Kind) -> BTreeMap<String, String> {
        let mut variables = self.common_environment();
        let file = cluster_file(kind).display().to_string();
        variables.insert("TT_METAL_MOCK_CLUSTER_DESC_PATH".to_owned(), file);
        variables
    }

    /// What the tests are told about it, see `crate::test`.
    pub fn test_environment(&self) -> Vec<(&'static str, PathBuf)> {
        let mut variables = vec![("TTMEM_REAL_DIR", paths::real_target())];
        match self {
            Self::Python(venv) => variables.push(("TTMEM_REAL_PYTHON", venv.python.clone())),
            Self::Driver(unpacked, _) => {
                variables.push(("TTMEM_REAL_DRIVER", unpacked.driver.clone()));
            }
            Self::StandIn(_) | Self::Nothing(_) => {}
        }
        if let Some(library) = self.library() {
            variables.push(("TTMEM_REAL_LIBRARY", library));
        }
        variables
    }

    fn write(&self) -> Result<()> {
        let (how, why) = match self {
            Self::Python(_) => ("python", None),
            Self::Driver(_, why) => ("driver", Some(why.clone())),
            Self::StandIn(why) => ("stand-in", Some(why.clone())),
            Self::Nothing(why) => ("nothing", Some(why.clone())),
        };
        let found = Found {
            how,
            why,
            python: if let Self::Python(venv) = self { Some(venv.python.clone()) } else { None },
            driver: if let Self::Driver(it, _) = self { Some(it.driver.clone()) } else { None },
            library: self.library(),
            clusters: paths::real_target().join("clusters"),
            environment: self.common_environment(),
        };
        let file = paths::real_target().join("real-target.json");
        let text = serde_json::to_string_pretty(&found)? + "\n";
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// The small endless workload, ready to be started; it ends when its standard input does.
    pub fn workload(&self, kind: Kind) -> Result<Command> {
        let folder = paths::root().join("tests/real_target");
        let mut command = match self {
            Self::Python(venv) => {
                let mut command = Command::new(&venv.python);
                command.arg(folder.join("workload.py"));
                command
            }
            Self::Driver(unpacked, _) => {
                let mut command = Command::new(&unpacked.driver);
                command.arg(self.library().unwrap_or_default());
                command
            }
            Self::StandIn(_) => standin_driver(),
            Self::Nothing(why) => bail!("no target to watch: {why}"),
        };
        command.envs(self.environment(kind)).env_remove("PYTHONPATH").env_remove("PYTHONHOME");
        command.current_dir(paths::real_target());
        Ok(command)
    }

    /// What to write to the workload's standard input to set it going.
    pub fn opening_lines(&self) -> &'static str {
        match self {
            Self::StandIn(_) => "open mesh 0 2\nrate 200 1000000\n",
            _ => "",
        }
    }

    /// Whether the workload says `ready` once its devices are open.
    pub fn says_ready(&self) -> bool {
        matches!(self, Self::Python(_) | Self::Driver(..))
    }
}

fn standin_driver() -> Command {
    let dir = paths::standin().join("pimpl");
    let mut command = Command::new(dir.join("driver"));
    let mut libraries = vec![dir];
    libraries.extend(env::var_os("LD_LIBRARY_PATH").iter().flat_map(env::split_paths));
    if let Ok(joined) = env::join_paths(libraries) {
        command.env("LD_LIBRARY_PATH", joined);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_may_have_a_space_in_its_path() {
        let workspace = env::temp_dir().join(format!("ttmem in two {}", std::process::id()));
        let source = workspace.join("tests/standin");
        fs::create_dir_all(&source).unwrap();
        let original = paths::root().join("tests/standin");
        run::capture(Command::new("cp").arg("-r").arg(original.join(".")).arg(&source)).unwrap();
        // What would be done, and not done.
        let said = run::capture(make_standin(&source).arg("-n")).unwrap();
        assert!(said.contains("../../target/standin/pimpl/driver"), "{said}");
        fs::remove_dir_all(workspace).unwrap();
    }
}
