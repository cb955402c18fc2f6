//! The functions that show how cores are kept, as compilers made them, whole and damaged.

use super::*;
use crate::image::sample;

const COUNT: &str = "_ZNK2tt8tt_metal12CoreRangeSet4sizeEv";
const INTERSECTS: &str = "_ZNK2tt8tt_metal9CoreRange10intersectsERKS1_";
const TRACK: &str =
    "_ZN2tt8tt_metal12GraphTracker17track_allocate_cbERKNS0_12CoreRangeSetEmmbPKNS0_7IDeviceE";

/// `(end - begin) >> 5`.
const SIZE: &str = "488b4708482b0748c1f805c3";
/// tt-metal 0.81.1: three early ends, and a comparison as the result.
const BY_BRANCHES: &str =
    "488b4f1031c0483b0e721e488b4e1048390f7715488b4e0848394f18720b488b4708483b46180f96c0c3";
/// tt-metal 0.62.2: one early end, and a product of comparisons as the result.
const BY_PRODUCT: &str = "488b4710483b06730331c0c3488b4608488b4e1848394f080f96c148394718488b070f93c2483b46100f96c020d020c8c3";
/// What asks whether the range at +8 of an allocator intersects another, and then marks.
const CALLER: &str = "53eb00498d7e084889dee8f1efffff84c074104c89f74c89e64c89eae8df0f000090905bc3";

fn resolved(pieces: &[sample::Piece<'_>]) -> (Circular, Facts) {
    let file = sample::elf(pieces);
    let image = Image::parse(file).unwrap();
    let mut facts = Facts::default();
    let circular = resolve(&image, &mut facts);
    (circular, facts)
}

fn with(size: &str, intersects: &str) -> Circular {
    let (size, intersects) = (sample::hex(size), sample::hex(intersects));
    resolved(&[(TRACK, 0x1000, &[0x55]), (COUNT, 0x2000, &size), (INTERSECTS, 0x3000, &intersects)])
        .0
}

#[test]
fn ranges_are_found_and_checked() {
    assert_eq!(with(SIZE, BY_PRODUCT).check(ProbeId::Circular), Ok(()));
    let circular = with(SIZE, BY_BRANCHES);
    assert_eq!(circular.check(ProbeId::Circular), Ok(()));
    assert_eq!((circular.layout.ranges_begin, circular.layout.ranges_end), (0, 8));
    assert!(!circular.exists(ProbeId::Dataflow), "this library has no dataflow buffers");
    assert!(circular.exists(ProbeId::Circular));
}

#[test]
fn ranges_of_another_size_are_refused() {
    let refusal = with("488b4708482b0748c1f804c3", BY_BRANCHES).check(ProbeId::Circular);
    assert!(refusal.unwrap_err().contains("is no number of 32-byte ranges"));
}

#[test]
fn ranges_of_another_layout_are_refused() {
    // The end's row at 0x14 instead of 0x18.
    let moved = BY_BRANCHES.replacen("48394f18", "48394f14", 1);
    let refusal = with(SIZE, &moved).check(ProbeId::Circular).unwrap_err();
    assert!(refusal.contains("a range of cores is not as expected"), "{refusal}");
}

#[test]
fn every_truncation_is_refused() {
    for code in [SIZE, BY_BRANCHES] {
        let whole = code.split_whitespace().collect::<String>();
        for length in (2..whole.len()).step_by(2) {
            let part = &whole[..length];
            let circular = if code == SIZE { with(part, BY_BRANCHES) } else { with(SIZE, part) };
            assert!(circular.check(ProbeId::Circular).is_err(), "{part}");
        }
    }
}

#[test]
fn unknown_parameters_are_refused() {
    let other = "_ZN2tt8tt_metal12GraphTracker17track_allocate_cbERKNS0_12CoreRangeSetEm";
    let (circular, _) = resolved(&[(other, 0x1000, &[0x55])]);
    let refusal = circular.check(ProbeId::Circular).unwrap_err();
    assert!(refusal.ends_with("has parameters that are not known"), "{refusal}");
    let (circular, _) = resolved(&[("other", 0x1000, &[0x55])]);
    let refusal = circular.check(ProbeId::Circular).unwrap_err();
    assert_eq!(refusal, "there is no GraphTracker::track_allocate_cb(…)");
}

#[test]
fn a_program_leads_to_its_implementation() {
    let accessor = sample::hex("488b4708488b80f0000000c3");
    let (circular, _) = resolved(&[(ASKS_IMPLEMENTATION, 0x1000, &accessor)]);
    assert_eq!(circular.check(ProbeId::Dispatch), Ok(()));
    assert_eq!(circular.layout.program_implementation, 8);
    let (circular, _) = resolved(&[("other", 0x1000, &accessor)]);
    assert!(circular.check(ProbeId::Dispatch).is_err());
}

#[test]
fn an_allocators_range_is_what_is_compared_before_it_is_marked() {
    let (size, intersects, caller) =
        (sample::hex(SIZE), sample::hex(BY_BRANCHES), sample::hex(CALLER));
    let pieces: [sample::Piece<'_>; 5] = [
        (TRACK, 0x1000, &[0x55]),
        (COUNT, 0x2000, &size),
        (INTERSECTS, 0x3000, &intersects),
        (DATAFLOW_CONTEXT, 0x4000, &caller),
        (MARK, 0x5000, &[0xc3]),
    ];
    let (circular, facts) = resolved(&pieces);
    assert_eq!(circular.check(ProbeId::Dataflow), Ok(()));
    assert_eq!(circular.layout.allocator_range, 8);
    assert!(facts.0.iter().any(|fact| fact.name == "CircularBufferAllocator cores"));
    let (circular, _) = resolved(&pieces[..4]);
    assert!(circular.exists(ProbeId::Dataflow));
    let refusal = circular.check(ProbeId::Dataflow).unwrap_err();
    assert!(refusal.ends_with("passes to mark_address was not found"), "{refusal}");
}
