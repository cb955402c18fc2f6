//! Where the running kernel keeps a field, by its own description of its types (BTF).
//!
//! Rules: the kernel's `Documentation/bpf/btf.rst`.
//!
//! Invariant: whatever the bytes are, it ends; none panics.

use std::sync::OnceLock;

/// The description of the kernel's own types.
const PATH: &str = "/sys/kernel/btf/vmlinux";

const STRUCT: u32 = 4;
const UNION: u32 = 5;
/// Bytes of a type before what its kind adds.
const HEAD: usize = 12;
/// Bytes of a member of a struct.
const MEMBER: usize = 12;

/// What follows if the kernel does not say it.
pub const NO_THREADS: &str = "the kernel does not say where it keeps which thread is which \
                              (/sys/kernel/btf/vmlinux)";

/// Offset of the `fs` base in a task, in bytes: of `thread.fsbase` in `struct task_struct`. `None`: the
/// kernel does not say.
pub fn fs_base() -> Option<u32> {
    // It stays the same kernel, and this takes some milliseconds.
    static FOUND: OnceLock<Option<u32>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let bytes = std::fs::read(PATH).inspect_err(|error| log::debug!("{PATH}: {error}")).ok()?;
        Types::parse(&bytes)?.offset_of(&[("task_struct", "thread"), ("thread_struct", "fsbase")])
    })
}

/// The types of a description.
struct Types<'a> {
    types: &'a [u8],
    names: &'a [u8],
}

impl<'a> Types<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        const MAGIC: [u8; 2] = [0x9f, 0xeb];
        if bytes.get(..2)? != MAGIC {
            return None;
        }
        let [head, types, types_len, names, names_len] =
            [4, 8, 12, 16, 20].map(|at| Some(half(bytes, at)? as usize));
        let behind = bytes.get(head?..)?;
        let piece = |from: usize, len: usize| behind.get(from..from.checked_add(len)?);
        Some(Self { types: piece(types?, types_len?)?, names: piece(names?, names_len?)? })
    }

    /// Where a member of the first struct is whose member is in the next one, and so on, in bytes.
    fn offset_of(&self, path: &[(&str, &str)]) -> Option<u32> {
        path.iter().try_fold(0_u32, |sum, (of, member)| sum.checked_add(self.member(of, member)?))
    }

    /// Where a member of a struct is, in bytes.
    fn member(&self, of: &str, member: &str) -> Option<u32> {
        let mut rest = self.types;
        while let Some(info) = half(rest, 4) {
            let (kind, count) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
            let behind = rest.get(HEAD..)?;
            if kind == STRUCT && self.is_named(half(rest, 0)?, of) {
                let members = behind.get(..count.checked_mul(MEMBER)?)?;
                return members.chunks_exact(MEMBER).find_map(|found| {
                    if !self.is_named(half(found, 0)?, member) {
                        return None;
                    }
                    // With bit fields in the struct the upper byte is a width.
                    let bits = half(found, 8)?;
                    let bits = if info >> 31 == 0 { bits } else { bits & 0xff_ffff };
                    (bits % 8 == 0).then_some(bits / 8)
                });
            }
            rest = behind.get(added(kind, count)?..)?;
        }
        None
    }

    fn is_named(&self, name: u32, expected: &str) -> bool {
        let name = self.names.get(name as usize..).unwrap_or_default();
        name.strip_prefix(expected.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    }
}

/// Bytes that a type of a kind has behind its head; `None`: there is no such kind.
const fn added(kind: u32, count: usize) -> Option<usize> {
    Some(match kind {
        // Integers, variables, tags of declarations.
        1 | 14 | 17 => 4,
        // Pointers, forward declarations, other names, qualifiers, functions, floats, tags of types.
        2 | 7..=12 | 16 | 18 => 0,
        // Arrays.
        3 => 12,
        // Structs, unions, sections of data, enumerations of 64 bits.
        STRUCT | UNION | 15 | 19 => count * 12,
        // Enumerations, prototypes.
        6 | 13 => count * 8,
        _ => return None,
    })
}

fn half(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A description of two structs, with another type in front of each.
    fn sample() -> Vec<u8> {
        let names = b"\0task_struct\0pid\0thread\0thread_struct\0fsbase\0";
        let number = |count: usize| u32::try_from(count).unwrap();
        let name = |name: &str| number(memchr::memmem::find(names, name.as_bytes()).unwrap());
        let structure = |count: u32, bit_fields: bool| {
            STRUCT << 24 | count | if bit_fields { 1 << 31 } else { 0 }
        };
        let integer = [name("pid\0"), 1 << 24, 4, 0x20];
        let types: Vec<u32> = [
            &integer[..],
            &[name("task_struct\0"), structure(2, true), 4096],
            &[name("pid\0"), 1, 3 << 24 | 8],
            &[name("thread\0"), 3, 64 * 8],
            &integer,
            &[name("thread_struct\0"), structure(1, false), 64],
            &[name("fsbase\0"), 1, 24 * 8],
        ]
        .concat();
        let len = number(types.len() * 4);
        let head = [0x0001_eb9f, 24, 0, len, len, number(names.len())];
        let words = head.into_iter().chain(types).flat_map(u32::to_le_bytes);
        words.chain(names.iter().copied()).collect()
    }

    const FS_BASE: [(&str, &str); 2] = [("task_struct", "thread"), ("thread_struct", "fsbase")];

    #[test]
    fn a_field_is_found_in_the_struct_that_holds_it() {
        let sample = sample();
        let types = Types::parse(&sample).unwrap();
        assert_eq!(types.offset_of(&FS_BASE), Some(64 + 24));
        assert_eq!(types.offset_of(&[("task_struct", "pid")]), Some(1));
        assert_eq!(types.offset_of(&[("task_struct", "thre")]), None);
        assert_eq!(types.offset_of(&[("thread", "fsbase")]), None, "a member is no struct");
    }

    #[test]
    fn this_kernel_says_where_it_is() {
        let Some(offset) = fs_base() else { return assert!(!std::path::Path::new(PATH).exists()) };
        assert!(offset > 0 && offset % 8 == 0, "{offset}");
    }

    proptest! {
        #[test]
        fn damaged_bytes_are_read_or_refused(at in 0..300_usize, value: u8, end in 0..400_usize) {
            let mut bytes = sample();
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
            bytes.truncate(end);
            if let Some(types) = Types::parse(&bytes) {
                let _ = types.offset_of(&FS_BASE);
            }
        }
    }
}
