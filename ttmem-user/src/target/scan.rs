//! Searches a target's writable memory for words with given values: objects by their vtables.
//!
//! Only pages that are present are read, so the target grows by nothing.

use std::{
    fs::File,
    ops::Range,
    os::unix::{ffi::OsStrExt as _, fs::FileExt as _},
};

use super::{
    maps::{MemoryMap, Name},
    memory::TargetMemory,
    pages::PAGE_BYTES,
};
use crate::units::Avma;

const PAGE: u64 = PAGE_BYTES as u64;
/// Bytes read in one go.
const CHUNK: u64 = 1 << 20;
/// Pages whose entries are read in one go, for 8 MiB: a process may have reserved terabytes.
const PIECE_PAGES: usize = 2048;
/// Bits of a pagemap entry: in memory, or swapped out.
const PRESENT_OR_SWAPPED: u64 = 0b11 << 62;
/// Mappings without a file that hold none of the objects that are looked for.
const STACK_AND_KERNEL: [&[u8]; 4] = [b"[stack]", b"[vdso]", b"[vvar]", b"[vsyscall]"];

/// The mappings in which objects can be: private, writable, and not the image of a file.
pub fn regions(maps: &[MemoryMap]) -> Vec<Range<u64>> {
    maps.iter()
        .filter(|map| {
            let can = map.permissions;
            can.read() && can.write() && !can.shared()
        })
        .filter(|map| match &map.name {
            Name::None => true,
            Name::Special(name) => !STACK_AND_KERNEL.contains(&&**name),
            Name::Path(path) => path.as_os_str().as_bytes().ends_with(b"(deleted)"),
        })
        .map(|map| map.addresses.clone())
        .collect()
}

/// Runs of present pages of a region; all of it from where that cannot be told.
pub fn present(pagemap: &File, region: &Range<u64>) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    let mut add = |run: Range<u64>| match runs.last_mut() {
        Some(last) if last.end == run.start => last.end = run.end,
        _ => runs.push(run),
    };
    let mut entries = [0; 8 * PIECE_PAGES];
    let mut at = region.start;
    while at < region.end {
        let left = usize::try_from((region.end - at) / PAGE).unwrap_or(usize::MAX);
        let pages = left.clamp(1, PIECE_PAGES);
        let end = at + pages as u64 * PAGE;
        let piece = &mut entries[..8 * pages];
        if pagemap.read_exact_at(piece, at / PAGE * 8).is_err() {
            add(at..region.end);
            break;
        }
        for (page, entry) in (0_u64..).zip(piece.chunks_exact(8)) {
            let entry = u64::from_le_bytes(entry.try_into().unwrap_or([0xff; 8]));
            if entry & PRESENT_OR_SWAPPED != 0 {
                let start = at + page * PAGE;
                add(start..start + PAGE);
            }
        }
        at = end;
    }
    runs
}

/// How many words are looked for at most. A target has some hundred; one that maps the same file again
/// and again may show any number at no cost.
const MOST_WORDS: usize = 1 << 16;

/// Every aligned word with one of the `wanted` values, and where it is; an error if there are more than
/// a target can have.
pub fn find_words(
    memory: &dyn TargetMemory,
    runs: &[Range<u64>],
    wanted: &[u64],
) -> Result<Vec<(Avma, u64)>, String> {
    let (Some(&low), Some(&high)) = (wanted.iter().min(), wanted.iter().max()) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    let mut buffer = Vec::new();
    for run in runs {
        let mut at = run.start;
        while at < run.end {
            let len = CHUNK.min(run.end - at);
            buffer.resize(usize::try_from(len).unwrap_or(0), 0);
            if memory.read(Avma(at), &mut buffer).is_ok() {
                search(&buffer, at, low..=high, wanted, &mut found);
            } else {
                search_by_page(memory, at..at + len, low..=high, wanted, &mut found);
            }
            if found.len() > MOST_WORDS {
                return Err(format!(
                    "more than {MOST_WORDS} words of its memory look like an object"
                ));
            }
            at += len;
        }
    }
    Ok(found)
}

/// Part of a chunk may have been unmapped meanwhile.
fn search_by_page(
    memory: &dyn TargetMemory,
    chunk: Range<u64>,
    span: std::ops::RangeInclusive<u64>,
    wanted: &[u64],
    found: &mut Vec<(Avma, u64)>,
) {
    let mut page = [0; PAGE_BYTES];
    for at in chunk.step_by(PAGE_BYTES) {
        if memory.read(Avma(at), &mut page).is_ok() {
            search(&page, at, span.clone(), wanted, found);
        }
    }
}

fn search(
    bytes: &[u8],
    start: u64,
    span: std::ops::RangeInclusive<u64>,
    wanted: &[u64],
    found: &mut Vec<(Avma, u64)>,
) {
    /// Words that are tested together: one branch for all of them.
    const BLOCK: usize = 64;
    let (low, width) = (*span.start(), span.end() - span.start());
    let near = |word: &[u8]| value(word).wrapping_sub(low) <= width;
    for (block, words) in (0_u64..).zip(bytes.chunks(BLOCK * 8)) {
        let any = words.chunks_exact(8).fold(false, |any, word| any | near(word));
        if !any {
            continue;
        }
        for (index, word) in (0_u64..).zip(words.chunks_exact(8)) {
            let word = value(word);
            if wanted.contains(&word) {
                found.push((Avma(start + block * BLOCK as u64 * 8 + index * 8), word));
            }
        }
    }
}

fn value(word: &[u8]) -> u64 {
    u64::from_le_bytes(word.try_into().unwrap_or([0; 8]))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;
    use crate::target::memory::SavedMemory;

    #[expect(clippy::single_range_in_vec_init, reason = "one run of pages")]
    const RUNS: [Range<u64>; 1] = [0x10000..0x13000];

    #[test]
    fn words_are_found_where_they_are() {
        let mut bytes = vec![0; 3 * PAGE_BYTES];
        for at in [0, 8, 512, 4096, 12280] {
            bytes[at..at + 8].copy_from_slice(&0x7f00_1234_5678_u64.to_le_bytes());
        }
        bytes[1028..1036].copy_from_slice(&0x7f00_1234_5678_u64.to_le_bytes()); // not aligned
        let mut memory = SavedMemory::default();
        memory.add(Avma(0x10000), bytes);
        let found = find_words(&memory, &RUNS, &[0x7f00_1234_5678, 0x7f00_1234_5690]).unwrap();
        let places: Vec<u64> = found.iter().map(|(at, _)| at.0 - 0x10000).collect();
        assert_eq!(places, [0, 8, 512, 4096, 12280]);
    }

    #[test]
    fn an_unreadable_page_hides_only_itself() {
        let mut memory = SavedMemory::default();
        memory.add(Avma(0x10000), vec![1; PAGE_BYTES]);
        memory.add(Avma(0x12000), vec![1; PAGE_BYTES]);
        let found = find_words(&memory, &RUNS, &[0x0101_0101_0101_0101]).unwrap();
        assert_eq!(found.len(), 1024);
    }

    #[test]
    fn more_than_there_can_be_are_refused() {
        let mut memory = SavedMemory::default();
        memory.add(Avma(0x10000), vec![1; 8 * (MOST_WORDS + 1)]);
        let run = |words: usize| {
            let runs = vec![0x10000..0x10000 + 8 * words as u64; 1];
            find_words(&memory, &runs, &[0x0101_0101_0101_0101]).map(|found| found.len())
        };
        assert_eq!(run(MOST_WORDS), Ok(MOST_WORDS));
        assert!(run(MOST_WORDS + 1).is_err());
    }

    #[test]
    fn present_pages_of_this_process() {
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        let boxed = vec![1_u8; 64 << 10];
        let start = boxed.as_ptr() as u64 & !(PAGE - 1);
        let runs = present(&pagemap, &(start..start + (32 << 10)));
        assert_eq!(runs.len(), 1);
        assert_eq!(runs[0], start..start + (32 << 10));
        assert_eq!(present(&pagemap, &(0x1000..0x3000)), []);
    }

    #[test]
    fn what_spans_pieces_is_one_run_and_what_cannot_be_read_is_taken_as_present() {
        let mut file = tempfile::tempfile().unwrap();
        let pages = 3 * PIECE_PAGES as u64 / 2;
        // Present but for the first page and one in the second piece.
        for page in 0..pages {
            let absent = page == 0 || page == PIECE_PAGES as u64 + 5;
            let entry = if absent { 0 } else { PRESENT_OR_SWAPPED };
            file.write_all(&entry.to_le_bytes()).unwrap();
        }
        let hole = (PIECE_PAGES as u64 + 5) * PAGE;
        let end = pages * PAGE;
        let runs = [PAGE..hole, hole + PAGE..end];
        assert_eq!(present(&file, &(0..end)), runs);
        // The second piece ends behind the file: it is all taken as present.
        let beyond = present(&file, &(0..end + PAGE));
        assert_eq!(beyond, vec![PAGE..end + PAGE; 1]);
    }

    proptest! {
        #[test]
        fn a_search_agrees_with_a_simple_one(
            words in proptest::collection::vec(0_u64..40, 0..300),
            wanted in proptest::collection::vec(0_u64..40, 1..4),
        ) {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let mut found = Vec::new();
            let (low, high) = (*wanted.iter().min().unwrap(), *wanted.iter().max().unwrap());
            search(&bytes, 0, low..=high, &wanted, &mut found);
            let simple: Vec<(Avma, u64)> = (0_u64..)
                .zip(&words)
                .filter(|(_, word)| wanted.contains(word))
                .map(|(index, word)| (Avma(index * 8), *word))
                .collect();
            prop_assert_eq!(found, simple);
        }
    }
}
