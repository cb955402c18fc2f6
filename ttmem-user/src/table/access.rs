//! Who may read a shared file besides its owner.
//!
//! The user of the watched process gets an entry of its own in the file's access list (ACL): its
//! group would let in strangers wherever users share one.

use std::{io, path::Path};

use rustix::{
    fs::{Gid, Mode, Uid, XattrFlags, chmod, chown, setxattr},
    io::Errno,
};

/// Version of the list's form (include/uapi/linux/posix_acl_xattr.h).
const VERSION: u32 = 2;
const USER_OBJECT: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJECT: u16 = 0x04;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
const NOBODY: u32 = u32::MAX;

/// Who may read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readers {
    /// A user.
    pub user: Option<u32>,
    /// A group.
    pub group: Option<u32>,
}

/// What readers do with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A table: they read.
    Read,
    /// A socket: they connect, which takes the right to write.
    Connect,
}

impl Purpose {
    const fn rights(self) -> u16 {
        match self {
            Self::Read => 4,
            Self::Connect => 6,
        }
    }

    /// The mode of the file: its group may do something only if one was chosen. Else it is the
    /// primary group of ttmem's user, in which there may be anybody.
    fn mode(self, readers: Readers) -> Mode {
        let rights = readers.group.map_or(0, |_| u32::from(self.rights()));
        Mode::from_raw_mode(0o600 | rights << 3)
    }
}

/// Lets the readers in, and nobody else. By path, since a socket's file has no descriptor: nobody
/// else may be able to put another file there.
pub fn grant(path: &Path, readers: Readers, purpose: Purpose) -> io::Result<()> {
    if let Some(group) = readers.group {
        chown(path, None, Some(Gid::from_raw(group)))?;
    }
    chmod(path, purpose.mode(readers))?;
    let own = rustix::process::geteuid();
    let Some(user) = readers.user.filter(|user| *user != 0 && Uid::from_raw(*user) != own) else {
        return Ok(());
    };
    let list = list(user, purpose.rights(), readers.group.is_some());
    match setxattr(path, "system.posix_acl_access", &list, XattrFlags::empty()) {
        Ok(()) => Ok(()),
        Err(Errno::NOTSUP) => Err(io::Error::other(
            "its file system keeps no access lists, so the process's user could not read it: \
             give another directory with --table-dir, or a group with --group",
        )),
        Err(error) => Err(error.into()),
    }
}

/// The list in the form of the extended attribute, little-endian.
fn list(user: u32, rights: u16, group: bool) -> Vec<u8> {
    let group_rights = if group { rights } else { 0 };
    let entries = [
        (USER_OBJECT, 6, NOBODY),
        (USER, rights, user),
        (GROUP_OBJECT, group_rights, NOBODY),
        (MASK, rights, NOBODY),
        (OTHER, 0, NOBODY),
    ];
    let mut bytes = VERSION.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(u16::to_le_bytes(rights));
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use rustix::fs::{fgetxattr, fstat};

    use super::*;

    #[test]
    fn a_user_gets_an_entry_and_others_nothing() {
        let file = tempfile::NamedTempFile::new_in("/dev/shm").expect("a file");
        let readers = Readers { user: Some(12_345), group: None };
        grant(file.path(), readers, Purpose::Read).expect("granted");
        let mut held = [0; 256];
        let len = fgetxattr(file.as_file(), "system.posix_acl_access", &mut held).expect("a list");
        assert_eq!(held[..len], list(12_345, 4, false));
        assert_eq!(mode_of(&file), 0o640, "what it says of the group is the list's mask");
    }

    fn mode_of(file: &tempfile::NamedTempFile) -> u32 {
        fstat(file.as_file()).expect("a mode").st_mode & 0o777
    }

    #[test]
    fn a_group_is_let_in_only_if_it_was_chosen() {
        let own = rustix::process::geteuid().as_raw();
        let group = Some(rustix::process::getegid().as_raw());
        for (user, group, purpose, mode) in [
            (None, None, Purpose::Connect, 0o600),
            (Some(0), None, Purpose::Read, 0o600),
            (Some(own), None, Purpose::Read, 0o600),
            (None, group, Purpose::Read, 0o640),
            (Some(own), group, Purpose::Connect, 0o660),
        ] {
            let file = tempfile::NamedTempFile::new_in("/dev/shm").expect("a file");
            grant(file.path(), Readers { user, group }, purpose).expect("granted");
            assert_eq!(mode_of(&file), mode, "{user:?} {group:?} {purpose:?}");
        }
    }
}
