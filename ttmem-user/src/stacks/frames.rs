//! The unwind information of one file, read entry by entry when it is asked for.
//!
//! A file may claim any amount of it. So no more than one entry is in memory at a time, and what an
//! address belongs to is looked for in the file's own index (`.eh_frame_hdr`).
//!
//! Invariant: whatever the bytes are, every function returns soon; none panics.

use std::{fs::File, ops::Range, os::unix::fs::FileExt as _};

use gimli::{
    BaseAddresses, EhFrame, EhFrameOffset, EndianSlice, FrameDescriptionEntry, LittleEndian,
    UnwindSection as _, constants,
};

use crate::units::Svma;

/// Pieces of an entry.
pub type Slice<'a> = EndianSlice<'a, LittleEndian>;

/// Entries longer than this are none: a few hundred bytes are long.
const LONGEST_ENTRY: usize = 1 << 16;
/// Entries of the index that are read at once.
const AT_ONCE: usize = 64;
/// Bytes of one of them: where a function begins, and where its entry is, both from the index's own
/// address on.
const INDEX_ENTRY: u64 = 8;

/// A section: where it is in the file, and in memory as the file states it.
#[derive(Clone, Debug)]
pub struct Section {
    /// Offsets in the file.
    pub file: Range<u64>,
    /// Its address.
    pub address: u64,
}

/// Where the unwind information of a file is.
#[derive(Debug)]
pub struct Frames {
    entries: Section,
    /// The index's address, and where its entries are.
    index: (u64, Range<u64>),
    /// What entries may refer to beside themselves.
    bases: BaseAddresses,
}

/// An entry, with what it has in common with others in front of it.
#[derive(Debug)]
pub struct Entry {
    bytes: Box<[u8]>,
    /// Where in `bytes` it begins.
    at: usize,
    bases: BaseAddresses,
}

impl Frames {
    /// Of a file with these sections; `None`: they are of no kind that any linker makes.
    pub fn new(
        file: &File,
        entries: Section,
        index: &Section,
        bases: BaseAddresses,
    ) -> Option<Self> {
        let mut head = [0; 4];
        file.read_exact_at(&mut head, index.file.start).ok()?;
        let [1, pointer, count_kind, table_kind] = head else { return None };
        let expected = constants::DW_EH_PE_datarel.0 | constants::DW_EH_PE_sdata4.0;
        if count_kind != constants::DW_EH_PE_udata4.0 || table_kind != expected {
            return None;
        }
        let pointer_bytes = match pointer & 0x0f {
            0x03 | 0x0b => 4,
            0x00 | 0x04 | 0x0c => 8,
            _ => return None,
        };
        let count_at = index.file.start.checked_add(4 + pointer_bytes)?;
        let mut count = [0; 4];
        file.read_exact_at(&mut count, count_at).ok()?;
        let start = count_at.checked_add(4)?;
        let end = start.checked_add(u64::from(u32::from_le_bytes(count)) * INDEX_ENTRY)?;
        (end <= index.file.end).then_some(Self {
            entries,
            index: (index.address, start..end),
            bases,
        })
    }

    /// The entry for an address; `None` if there is none.
    pub fn entry(&self, file: &File, at: Svma) -> Option<Entry> {
        let (base, places) = &self.index;
        let count = (places.end - places.start) / INDEX_ENTRY;
        let from_base = |word: [u8; 4]| base.wrapping_add_signed(i32::from_le_bytes(word).into());
        // How many begin at the address or before it.
        let (mut least, mut most) = (0, count);
        let mut piece = [[0; 8]; AT_ONCE];
        let mut found = None;
        while least < most {
            // The last ones are looked at together.
            let (first, read) = match usize::try_from(most - least) {
                Ok(left) if left <= AT_ONCE => (least, left),
                _ => (least + (most - least) / 2, 1),
            };
            let piece = piece.get_mut(..read)?;
            let at_once = places.start + first * INDEX_ENTRY;
            file.read_exact_at(piece.as_flattened_mut(), at_once).ok()?;
            for (place, [a, b, c, d, entry @ ..]) in (first..).zip(piece.iter()) {
                if from_base([*a, *b, *c, *d]) > at.0 {
                    most = place;
                    break;
                }
                found = Some(from_base(*entry));
                least = place + 1;
            }
        }
        self.read(file, found?, at)
    }

    /// The entry at an address, if it is for `at`.
    fn read(&self, file: &File, address: u64, at: Svma) -> Option<Entry> {
        let offset = address.checked_sub(self.entries.address)?;
        let mut own = self.read_one(file, offset)?;
        // What it has in common with others is so many bytes before the word that says so.
        let back = u32::from_le_bytes(own.get(4..8)?.try_into().ok()?);
        let common = self.read_one(file, offset.checked_add(4)?.checked_sub(back.into())?)?;
        // Both are put together; pointers stay relative to where the entry was.
        let here = u32::try_from(common.len() + 4).ok()?;
        own.get_mut(4..8)?.copy_from_slice(&here.to_le_bytes());
        let section = address.wrapping_sub(common.len() as u64);
        let bases = self.bases.clone().set_eh_frame(section);
        let entry = Entry { at: common.len(), bytes: [common, own].concat().into(), bases };
        entry.parse()?.contains(at.0).then_some(entry)
    }

    /// Reads an entry as it is in the section, its length in front.
    fn read_one(&self, file: &File, offset: u64) -> Option<Vec<u8>> {
        let Range { start, end } = self.entries.file;
        let start = start.checked_add(offset)?;
        let mut length = [0; 4];
        file.read_exact_at(&mut length, start).ok()?;
        let length = usize::try_from(u32::from_le_bytes(length)).ok()?;
        let all = length.checked_add(4).filter(|all| *all <= LONGEST_ENTRY && length > 0)?;
        if start.checked_add(all as u64)? > end {
            return None;
        }
        let mut bytes = vec![0; all];
        file.read_exact_at(&mut bytes, start).ok()?;
        Some(bytes)
    }
}

impl Entry {
    /// The bytes that expressions of it are in.
    pub fn section(&self) -> EhFrame<Slice<'_>> {
        EhFrame::new(&self.bytes, LittleEndian)
    }

    /// Where it is, as the file states it.
    pub const fn bases(&self) -> &BaseAddresses {
        &self.bases
    }

    /// What it says.
    pub fn parse(&self) -> Option<FrameDescriptionEntry<Slice<'_>>> {
        let section = self.section();
        let at = EhFrameOffset(self.at);
        section.fde_from_offset(&self.bases, at, EhFrame::cie_from_offset).ok()
    }

    /// Bytes of memory that it takes.
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
impl Entry {
    /// Nothing but bytes in which expressions are.
    pub fn of_expressions(bytes: &[u8]) -> Self {
        Self { bytes: bytes.into(), at: 0, bases: BaseAddresses::default() }
    }
}
