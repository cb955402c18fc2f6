use proptest::prelude::*;

use super::*;
use crate::target::memory::SavedMemory;

const ASIC_ID: u64 = 0x500_0000_0005;
const OWNER: Owner = Owner { pid: Pid(77), same_namespace: true };

/// A file as tt-metal writes it, with these entries.
fn file(entries: &[(u32, SharedBytes)]) -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    let mut put = |at: usize, value: u64, width: usize| {
        bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
    };
    put(0, 3, 4);
    put(ASIC, ASIC_ID, 8);
    for (index, (pid, totals)) in entries.iter().enumerate() {
        let entry = PROCESSES + index * PROCESS_SIZE;
        put(entry, u64::from(*pid), 4);
        for (nth, total) in totals.iter().enumerate() {
            put(entry + 8 + nth * 8, *total, 8);
        }
    }
    let sum = |nth: usize| entries.iter().map(|(_, totals)| totals[nth]).sum();
    (0..4).for_each(|nth| put(TOTALS + nth * 8, sum(nth), 8));
    bytes
}

fn parsed(bytes: &[u8]) -> Result<SharedTotals, String> {
    parse(bytes, ASIC_ID, ChipId(1), OWNER, |pid| pid != Pid(9))
}

#[test]
fn each_process_has_its_own_totals() {
    let bytes = file(&[(5, [1, 2, 3, 4]), (77, [10, 20, 30, 40]), (9, [100, 0, 0, 7])]);
    let totals = parsed(&bytes).unwrap();
    assert_eq!(totals.own, Some([10, 20, 30, 40]));
    assert_eq!(totals.all, [111, 22, 33, 51]);
    assert_eq!(totals.ended, Some([100, 0, 0, 7]));
    let elsewhere = Owner { same_namespace: false, ..OWNER };
    let totals = parse(&bytes, ASIC_ID, ChipId(1), elsewhere, |_| false).unwrap();
    assert_eq!(totals.ended, None, "the ids of others mean nothing there");
    assert_eq!(parsed(&file(&[(5, [1; 4])])).unwrap().own, None);
}

#[test]
fn what_is_not_known_is_refused() {
    let good = file(&[(77, [1; 4])]);
    let refused = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        parsed(&bytes).unwrap_err()
    };
    assert_eq!(refused(0, 2), "its layout has version 2, which is not known");
    assert!(refused(ASIC, 6).starts_with("it says that it is of chip"));
    let twice = parsed(&file(&[(77, [1; 4]), (77, [2; 4])]));
    assert_eq!(twice.unwrap_err(), "it has two entries for process 77");
    assert!(parsed(&[]).is_err());
}

#[test]
fn every_truncation_is_refused() {
    let good = file(&[(77, [1; 4])]);
    assert!(parsed(&good).is_ok());
    for length in 0..good.len() {
        assert!(parsed(&good[..length]).is_err(), "{length}");
    }
}

#[test]
fn names_are_taken_apart() {
    let name = |path: &str| name_of(Path::new(path)).map(|(_, asic)| asic);
    assert_eq!(name("/dev/shm/tt_device_5497558138885_memory"), Some(5_497_558_138_885));
    assert_eq!(name("/dev/shm/tt_device_7_memory (deleted)"), Some(7));
    for other in [
        "/dev/shm/tt_device__memory",
        "/dev/shm/tt_device_+7_memory",
        "/dev/shm/tt_device_99999999999999999999999_memory",
        "/dev/shm/x/tt_device_7_memory",
        "/tmp/tt_device_7_memory",
    ] {
        assert_eq!(name(other), None, "{other}");
    }
}

#[test]
fn the_chip_is_that_of_the_object_that_writes() {
    let mapping = Mapping {
        name: "tt_device_memory".to_owned(),
        asic: ASIC_ID,
        start: Avma(0x7000),
        size: 0x3000,
    };
    let mut memory = SavedMemory::default();
    memory.add(Avma(0x7000), file(&[(77, [5; 4])]));
    memory.add_word(Avma(0x100), ASIC_ID);
    memory.add_word(Avma(0x108), 0x1_0000_0003);
    memory.add_word(Avma(0x200), ASIC_ID + 1);
    memory.add_word(Avma(0x208), 4);
    let read_by = |memory: &SavedMemory, pointers: &[u64]| {
        let pointers = pointers.iter().map(|&at| Avma(at));
        read(memory, &mapping, pointers, OWNER, |_| true).totals
    };
    let found = read_by(&memory, &[0x8, 0x210, 0x110, 0x9000]).unwrap();
    assert_eq!((found.chip, found.own), (ChipId(3), Some([5; 4])));
    assert_eq!(
        read_by(&memory, &[0x210]).unwrap_err(),
        "what writes it was not found in the target"
    );
    memory.add_word(Avma(0x200), ASIC_ID);
    assert_eq!(
        read_by(&memory, &[0x110, 0x210]).unwrap_err(),
        "several chips are said to write it"
    );
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..9000)) {
        let _ = parsed(&bytes);
    }

    #[test]
    fn a_file_with_anything_behind_its_header_is_parsed_within_it(
        mut bytes in proptest::collection::vec(any::<u8>(), SIZE..SIZE + 64),
        version in 0_u32..6,
    ) {
        bytes[..4].copy_from_slice(&version.to_le_bytes());
        bytes[ASIC..ASIC + 8].copy_from_slice(&ASIC_ID.to_le_bytes());
        let result = parsed(&bytes);
        prop_assert!(VERSIONS.contains(&version) || result.is_err());
    }

    #[test]
    fn entries_are_added_up_as_a_list_is(
        entries in proptest::collection::vec((1_u32..12, any::<[u32; 4]>()), 0..=PROCESS_COUNT),
    ) {
        let entries: Vec<(u32, SharedBytes)> =
            entries.iter().map(|(pid, totals)| (*pid, totals.map(u64::from))).collect();
        let totals = parsed(&file(&entries)).unwrap();
        let of = |wanted: fn(u32) -> bool, nth: usize| -> u64 {
            entries.iter().filter(|(pid, _)| wanted(*pid)).map(|(_, totals)| totals[nth]).sum()
        };
        for nth in 0..4 {
            prop_assert_eq!(totals.all[nth], of(|_| true, nth));
            prop_assert_eq!(totals.ended.unwrap()[nth], of(|pid| pid == 9, nth));
        }
        prop_assert_eq!(totals.own, None);
    }
}
