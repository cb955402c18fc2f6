//! What others may read of what this program knows: where, and who.

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, anyhow};
use nix::unistd::{Group, Uid};

use super::privileges;
use crate::{
    cli::config::Sharing,
    ledger::snapshot::ProcessLabel,
    pipeline::{Control, now_ns},
    socket::{self, Allowed, End, FillIn, NewSocket, Server},
    stderr::remark,
    table::{
        access::{Purpose, Readers, grant},
        agent::Identity,
        directory::{self, Directory, DirectoryError},
        left_behind,
        writer::Writer,
    },
    target::process::{Process, ProcessError},
};

/// Shares what is known of each target.
pub struct Share {
    directory: Arc<Directory>,
    group: Option<u32>,
    server: Server,
}

impl Share {
    /// Prepares the directory, and the thread that answers. That there is no usual directory is
    /// no reason not to watch.
    pub fn open(
        sharing: Option<&Sharing>,
        control: &Arc<Control>,
        fill_in: Option<FillIn>,
    ) -> anyhow::Result<Option<Self>> {
        let Some(sharing) = sharing else { return Ok(None) };
        let group = sharing.group.as_deref().map(group_id).transpose()?;
        let directory = match directory(sharing) {
            Ok(directory) => Arc::new(directory),
            Err(error) if sharing.needed => return Err(error.into()),
            Err(error) => {
                remark!("ttmem: nobody else can read the numbers: {error}");
                return Ok(None);
            }
        };
        let server = Server::start(Arc::clone(control), fill_in, privileges::drop_all)
            .context("cannot start the thread that answers on sockets")?;
        Ok(Some(Self { directory, group, server }))
    }

    /// Whether a group gets files.
    pub const fn has_group(&self) -> bool {
        self.group.is_some()
    }

    /// Makes the table and the socket of a target.
    pub fn prepare(
        &self,
        process: &Process,
        label: &ProcessLabel,
    ) -> anyhow::Result<(Writer, NewSocket)> {
        let pid = process.pid();
        let identity = Identity::of(pid.0).ok_or(ProcessError::Ended(pid))?;
        let readers = Readers { user: process.user(), group: self.group };
        let table = Writer::create(&self.directory, identity, label, readers, now_ns())?;
        let rights = |path: &Path| grant(path, readers, Purpose::Connect);
        let name = socket::file_name(pid.0);
        let (listener, file) = self.directory.place_socket(&name, rights)?;
        let own = Uid::effective().as_raw();
        let allowed = Allowed { own, user: readers.user, group: readers.group };
        Ok((table, NewSocket { serial: label.serial, pid, listener, allowed, file }))
    }

    /// Answers questions about a target from here on.
    pub fn open_socket(&self, socket: NewSocket) {
        self.server.open(socket);
    }

    /// A target is gone.
    pub fn close(&self, serial: u64, end: End) {
        self.server.close(serial, end);
    }
}

fn directory(sharing: &Sharing) -> Result<Directory, DirectoryError> {
    let directory = match &sharing.directory {
        Some(path) => Directory::create(path)?,
        None => Directory::create(&directory::usual()?)?,
    };
    left_behind::sweep(&directory)?;
    Ok(directory)
}

fn group_id(name: &str) -> anyhow::Result<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let found = Group::from_name(name).with_context(|| format!("cannot look up group {name}"))?;
    Ok(found.ok_or_else(|| anyhow!("there is no group {name}"))?.gid.as_raw())
}
