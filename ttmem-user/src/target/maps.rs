//! What a process has mapped: the lines of `/proc/PID/maps`, and the first ones of `/proc/PID/smaps`.
//!
//! Names come from whoever mapped the files, and are any bytes: they are not taken for text, and
//! nothing is made of what they may look like.
//!
//! Invariant: whatever the bytes are, parsing returns; it never panics.

use std::{
    ffi::OsString,
    io,
    ops::Range,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

/// A mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryMap {
    /// Where it is.
    pub addresses: Range<u64>,
    /// What may be done with it.
    pub permissions: Permissions,
    /// Where in the file it begins, bytes.
    pub offset: u64,
    /// The file's device, major and minor number.
    pub device: (u32, u32),
    /// The file's inode; 0 if there is no file.
    pub inode: u64,
    /// What it is called.
    pub name: Name,
}

/// What a mapping is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// Nothing.
    None,
    /// The kernel's own name in brackets, as `[heap]`.
    Special(Box<[u8]>),
    /// The path of a file, with ` (deleted)` behind it if it has been removed.
    Path(PathBuf),
}

/// What may be done with a mapping, as the kernel writes it: `r-xp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions([u8; 4]);

impl Permissions {
    /// Whether it may be read.
    pub const fn read(self) -> bool {
        self.0[0] == b'r'
    }

    /// Whether it may be written to.
    pub const fn write(self) -> bool {
        self.0[1] == b'w'
    }

    /// Whether it may be run.
    pub const fn execute(self) -> bool {
        self.0[2] == b'x'
    }

    /// Whether what is written there is seen by others.
    pub const fn shared(self) -> bool {
        self.0[3] == b's'
    }
}

impl MemoryMap {
    /// The path of its file.
    pub fn path(&self) -> Option<&Path> {
        match &self.name {
            Name::Path(path) => Some(path),
            Name::None | Name::Special(_) => None,
        }
    }
}

/// Reads all lines of `/proc/PID/maps`.
pub fn parse(text: &[u8]) -> io::Result<Vec<MemoryMap>> {
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let unknown = |line: &[u8]| {
        io::Error::other(format!("a line is not understood: {:?}", String::from_utf8_lossy(line)))
    };
    lines.map(|line| parse_line(line).ok_or_else(|| unknown(line))).collect()
}

/// Reads one line; `None` if it does not describe a mapping.
pub fn parse_line(line: &[u8]) -> Option<MemoryMap> {
    let (addresses, rest) = word(line)?;
    let (permissions, rest) = word(rest)?;
    let (offset, rest) = word(rest)?;
    let (device, rest) = word(rest)?;
    let (inode, rest) = word(rest)?;
    let (start, end) = pair(addresses, b'-')?;
    let (major, minor) = pair(device, b':')?;
    Some(MemoryMap {
        addresses: (start <= end).then_some(start..end)?,
        permissions: Permissions(permissions.try_into().ok()?),
        offset: number(offset, 16)?,
        device: (u32::try_from(major).ok()?, u32::try_from(minor).ok()?),
        inode: number(inode, 10)?,
        name: name(skip_spaces(rest)),
    })
}

fn name(bytes: &[u8]) -> Name {
    match bytes {
        [] => Name::None,
        [b'[', .., b']'] => Name::Special(bytes.into()),
        path => Name::Path(OsString::from_vec(without_escapes(path)).into()),
    }
}

/// A path as it is. The kernel writes the end of a line as an octal number, and nothing else, not
/// even the backslash: whether such a number is part of the name it does not say.
fn without_escapes(path: &[u8]) -> Vec<u8> {
    const NEW_LINE: &[u8] = b"\\012";
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = memchr::memmem::find(rest, NEW_LINE) {
        bytes.extend_from_slice(&rest[..at]);
        bytes.push(b'\n');
        rest = &rest[at + NEW_LINE.len()..];
    }
    bytes.extend_from_slice(rest);
    bytes
}

/// The first word, and what comes behind it.
fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = skip_spaces(text);
    let end = memchr::memchr(b' ', text).unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn skip_spaces(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|byte| *byte != b' ').unwrap_or(text.len());
    &text[start..]
}

/// Two hexadecimal numbers.
fn pair(text: &[u8], between: u8) -> Option<(u64, u64)> {
    let (first, second) = text.split_at(memchr::memchr(between, text)?);
    Some((number(first, 16)?, number(&second[1..], 16)?))
}

fn number(digits: &[u8], radix: u32) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

    use proptest::prelude::*;

    use super::*;

    /// A line as the kernel writes it.
    fn line(name: &[u8]) -> Vec<u8> {
        let mut line = b"7f01aa000-7f01ab000 r-xp 00002000 fd:1f 1234 ".to_vec();
        line.resize(73, b' ');
        line.extend_from_slice(name);
        line
    }

    fn name_in(bytes: &[u8]) -> Name {
        parse_line(&line(bytes)).unwrap().name
    }

    fn path(bytes: &[u8]) -> Name {
        Name::Path(OsStr::from_bytes(bytes).into())
    }

    #[test]
    fn a_line_is_read_field_by_field() {
        let map = parse_line(&line(b"/lib/x.so")).unwrap();
        assert_eq!(map.addresses, 0x7_f01a_a000..0x7_f01a_b000);
        let can = map.permissions;
        assert!(can.read() && !can.write() && can.execute() && !can.shared());
        assert_eq!((map.offset, map.device, map.inode), (0x2000, (0xfd, 0x1f), 1234));
        assert_eq!(map.path(), Some(Path::new("/lib/x.so")));
        let shared = parse_line(b"1000-2000 -w-s 0 0:1 7").unwrap();
        assert!(!shared.permissions.read() && shared.permissions.write());
        assert!(!shared.permissions.execute() && shared.permissions.shared());
        assert_eq!(shared.name, Name::None);
    }

    #[test]
    fn a_name_is_any_bytes() {
        // What looks like System V shared memory, and is none.
        for name in
            [&b"/SYSV"[..], b"/SYSVx", b"/SYSV\xff\xff\xff\xff\xff\xff\xff\xff", b"/\xff", b"/a "]
        {
            assert_eq!(name_in(name), path(name));
        }
        assert_eq!(name_in(b"/SYSV00000000 (deleted)"), path(b"/SYSV00000000 (deleted)"));
        assert_eq!(name_in(b"/a b (deleted)"), path(b"/a b (deleted)"));
        assert_eq!(name_in(b"[heap]"), Name::Special((*b"[heap]").into()));
        assert_eq!(name_in(b"["), path(b"["));
        assert_eq!(name_in(b"anon_inode:[x]"), path(b"anon_inode:[x]"));
        assert_eq!(name_in(b""), Name::None);
    }

    #[test]
    fn only_the_end_of_a_line_is_escaped() {
        assert_eq!(name_in(b"/a\\012\\012b\\012"), path(b"/a\n\nb\n"));
        assert_eq!(name_in(b"/a\\040\\134\\01"), path(b"/a\\040\\134\\01"));
    }

    #[test]
    fn what_is_no_mapping_is_refused() {
        let lines: [&[u8]; 8] = [
            b"Anonymous:             0 kB",
            b"1000-2000 r-xp 0 0:1",
            b"2000-1000 r-xp 0 0:1 7",
            b"1000 r-xp 0 0:1 7",
            b"1000-2000 r-x 0 0:1 7",
            b"1000-2000 r-xp 0 01 7",
            b"1000-2000 r-xp g 0:1 7",
            b"10000000000000000-2 r-xp 0 0:1 7",
        ];
        for line in lines {
            assert_eq!(parse_line(line), None);
            assert!(parse(line).is_err());
        }
        assert_eq!(parse(b"").unwrap(), []);
    }

    #[test]
    fn the_mappings_of_this_process_are_understood() {
        let maps = parse(&std::fs::read("/proc/self/maps").unwrap()).unwrap();
        let here = the_mappings_of_this_process_are_understood as fn() as usize as u64;
        let code = maps.iter().find(|map| map.addresses.contains(&here)).unwrap();
        assert!(code.permissions.execute());
        assert_eq!(code.path(), Some(&*std::env::current_exe().unwrap()));
        assert!(maps.iter().any(|map| map.name == Name::Special((*b"[stack]").into())));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            words in proptest::collection::vec(0_usize..9, 0..12),
        ) {
            let _ = parse(&bytes);
            // The same of what looks more like it.
            let pieces: [&[u8]; 9] =
                [b"1-2", b" ", b"r-xp", b"0:0", b"12", b"-", b"[", b"/SYSV", &bytes];
            let _ = parse(&words.iter().flat_map(|piece| pieces[*piece]).copied().collect::<Vec<_>>());
        }

        #[test]
        fn a_path_comes_out_as_it_went_in(
            bytes in proptest::collection::vec(1_u8.., 0..40),
        ) {
            let bytes = [b"/", &*bytes].concat();
            prop_assume!(memchr::memmem::find(&bytes, b"\\012").is_none());
            let written: Vec<u8> = bytes
                .iter()
                .flat_map(|byte| if *byte == b'\n' { &b"\\012"[..] } else { std::slice::from_ref(byte) })
                .copied()
                .collect();
            prop_assume!(without_escapes(&written) == bytes);
            prop_assert_eq!(name_in(&written), path(&bytes));
        }
    }
}
