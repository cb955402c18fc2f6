//! Images made up, damaged and cut off.

use proptest::prelude::*;

use object::elf;

use super::{
    parse::{CLASS, ENCODING, MACHINE},
    *,
};

fn file() -> Vec<u8> {
    sample::elf(&[("first", 0x1000, &[0xc3, 0x90]), ("second@@V1", 0x2000, &[0x55])])
}

#[test]
fn finds_symbols_bytes_and_offsets() {
    let file = file();
    let image = Image::parse(file.as_slice()).unwrap();
    let first = image.symbol("first").unwrap();
    assert_eq!((first.address, first.size, first.is_function), (Svma(0x1000), 2, true));
    assert_eq!(image.symbol("second").unwrap().address, Svma(0x2000));
    assert_eq!(image.function_at(Svma(0x2000)), Some("second"));
    assert_eq!(image.code_at(Svma(0x1001)), Some(&[0x90][..]));
    assert_eq!(image.constant_at(Svma(0x1000), 2), Some(0x90c3));
    assert_eq!(image.constant_at(Svma(0x1000), 4), None);
    assert_eq!(image.file_offset(Svma(0x1001)), Some(FileOffset(64 + 2 * 56 + 1)));
    assert_eq!(image.bytes_at(Svma(0x1002)), None);
}

#[test]
fn unlikely_parts_are_no_functions_of_their_own() {
    assert!(is_cold_part("_Z1fv.cold"));
    assert!(is_cold_part("_Z1fv.cold.12"));
    assert!(!is_cold_part("_Z1fv.colder"));
    assert!(!is_cold_part("_Z1fv"));
    let file = sample::elf(&[("f", 0x1000, &[0xc3]), ("f.cold", 0x2000, &[0xc3])]);
    let image = Image::parse(file).unwrap();
    assert_eq!(image.symbols_with_prefix("f").len(), 1);
    assert_eq!(image.function_at(Svma(0x2000)), Some("f.cold"));
}

#[test]
fn says_what_a_file_is_that_it_cannot_use() {
    let parse = |bytes: &[u8]| Image::parse(bytes).err();
    assert_eq!(parse(b"#!/bin/sh"), Some(ImageError::NotElf));
    assert_eq!(parse(b""), Some(ImageError::NotElf));
    let changed = |at: usize, to: u8| {
        let mut file = file();
        file[at] = to;
        Image::parse(file).err()
    };
    assert_eq!(changed(CLASS, 1), Some(ImageError::ThirtyTwoBit));
    assert_eq!(changed(ENCODING, 2), Some(ImageError::BigEndian));
    let arm = ImageError::Machine { machine: elf::EM_AARCH64, name: "aarch64" };
    assert_eq!(changed(MACHINE.start, 183), Some(arm));
    let file = file();
    assert!(matches!(parse(&file[..40]), Some(ImageError::Damaged(_))));
    assert!(matches!(parse(&file[..file.len() - 1]), Some(ImageError::Damaged(_))));
}

/// Functions at one address, each with a name of its own that ends where the others do.
fn many_names(count: u32, bytes: usize) -> Vec<u8> {
    let names = [b"\0", &b"x".repeat(bytes)[..], b"\0"].concat();
    sample::elf_of_functions(&names, 1..=count)
}

#[test]
fn names_without_end_are_no_names() {
    const LONG: usize = 1 << 20;
    let names = [b"\0", &b"x".repeat(LONG)[..], b"\0short\0"].concat();
    let places = (1..1000).chain([2 + u32::try_from(LONG).unwrap()]);
    let file = sample::elf_of_functions(&names, places);
    let mut budget = Budget::of_a_file();
    let before = budget.left();
    let parts = Parts::read(&file, &mut budget).unwrap();
    assert!(before - budget.left() < 1000 * (LONG / 20), "only the start of each is looked at");
    assert_eq!((parts.symbols.len(), parts.functions.len()), (1, 1));
    let image = Image::parse(file).unwrap();
    assert_eq!(image.function_at(Svma(0x1000)), Some("short"));
}

#[test]
fn a_file_is_looked_at_as_far_as_its_budget_goes() {
    let file = many_names(2000, 9000);
    let names: usize = (0..2000).map(|at| 9000 - at).sum();
    let mut enough = Budget::of(names + 2001 * 64);
    let parts = Parts::read(&file, &mut enough).unwrap();
    assert_eq!((parts.symbols.len(), enough.left()), (2000, 0));
    let first = parts.functions[0].1.of(&file);
    assert_eq!((parts.functions.len(), first.len()), (1, 7001), "the first by name");
    let too_little = Parts::read(&file, &mut Budget::of(names + 2001 * 64 - 1));
    assert_eq!(too_little.err(), Some(ImageError::TooMuch));
}

#[test]
fn more_segments_than_a_linker_makes_are_refused() {
    let pieces = [("", 0x1000, &[0xc3][..]); 257];
    let refused = Image::parse(sample::elf(&pieces)).err();
    assert!(matches!(refused, Some(ImageError::Damaged(_))), "{refused:?}");
    assert!(Image::parse(sample::elf(&pieces[1..])).is_ok());
}

proptest! {
    #[test]
    fn damaged_files_never_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..40),
        length in any::<prop::sample::Index>(),
        probe in any::<u64>(),
    ) {
        let mut file = file();
        for (at, value) in flips {
            let at = at.index(file.len());
            file[at] = value;
        }
        let keep = length.index(file.len() * 2).min(file.len());
        file.truncate(keep);
        if let Ok(image) = Image::parse(file) {
            for address in [0, 0x1000, 0x2000, probe] {
                let _ = image.file_offset(Svma(address));
                let _ = image.stub_target(Svma(address));
                let _ = image.constant_at(Svma(address), 8);
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.extend_from_slice(&bytes);
        let _ = Image::parse(file);
    }
}
