//! What others may read of what this program knows: where, and who.

use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use nix::unistd::Group;

use crate::{
    cli::config::Sharing,
    ledger::snapshot::ProcessLabel,
    pipeline::now_ns,
    table::{
        access::Readers,
        agent::Identity,
        directory::{self, Directory, DirectoryError},
        writer::Writer,
    },
    target::process::{Process, ProcessError},
};

/// Shares what is known of each target.
pub struct Share {
    directory: Arc<Directory>,
    group: Option<u32>,
}

impl Share {
    /// Prepares the directory. That there is no usual one is no reason not to watch.
    pub fn open(sharing: Option<&Sharing>) -> anyhow::Result<Option<Self>> {
        let Some(sharing) = sharing else { return Ok(None) };
        let group = sharing.group.as_deref().map(group_id).transpose()?;
        let asked_for = sharing.directory.is_some() || group.is_some();
        match directory(sharing) {
            Ok(directory) => Ok(Some(Self { directory: Arc::new(directory), group })),
            Err(error) if asked_for => Err(error.into()),
            Err(error) => {
                eprintln!("ttmem: nobody else can read the numbers: {error}");
                Ok(None)
            }
        }
    }

    /// Whether a group gets files.
    pub const fn has_group(&self) -> bool {
        self.group.is_some()
    }

    /// Makes the table of a target.
    pub fn table(&self, process: &Process, label: &ProcessLabel) -> anyhow::Result<Writer> {
        let identity = Identity::of(process.pid().0).ok_or(ProcessError::Ended(process.pid()))?;
        let readers = Readers { user: process.user(), group: self.group };
        Ok(Writer::create(Arc::clone(&self.directory), identity, label, readers, now_ns())?)
    }
}

fn directory(sharing: &Sharing) -> Result<Directory, DirectoryError> {
    let directory = match &sharing.directory {
        Some(path) => Directory::create(path)?,
        None => Directory::create(&directory::usual()?)?,
    };
    Ok(directory)
}

fn group_id(name: &str) -> anyhow::Result<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let found = Group::from_name(name).with_context(|| format!("cannot look up group {name}"))?;
    Ok(found.ok_or_else(|| anyhow!("there is no group {name}"))?.gid.as_raw())
}
