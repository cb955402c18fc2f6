//! On the machine code of 0.81.1, changed and not.

use super::*;
use crate::image::sample;

/// `get_per_core_addresses(const Buffer&)`.
const GET_ADDRESSES: &str = "50e8000000004805c001000059c3";
const AT: u64 = 0x1000;

/// The getter as if it were inline: `lea rax, [rdi+0x1c0]; ret`.
const INLINE_GETTER: &str = "488d87c0010000c3";
/// Looks at the flag, the number of elements and that of buckets: `cmp byte [rdi+0x1b8], 0; je; mov
/// r9, [rdi+0x1d8]; test r9, r9; je; mov r8, [rdi+0x1c8]; mov rax, r8; ret`.
const LOOK_UP: &str =
    "80bfb801000000741d4c8b8fd80100004d85c974114c8b87c80100004c89c0c3909090909090c3";
const LOOK_UP_NAME: &str = "_ZN2tt8tt_metal12experimental19per_core_allocation20get_per_core_addressERKNS0_6BufferENS_7xy_pairE";

fn counted(getter: &str, look_up: &str) -> Result<u32, Refusal> {
    let (getter, look_up) = (sample::hex(getter), sample::hex(look_up));
    let pieces = [(ADDRESSES, AT, &*getter), (LOOK_UP_NAME, AT + 0x100, &*look_up)];
    let image = Image::parse(sample::elf(&pieces)).unwrap();
    count(&Home { image: &image, implementation: ABSENT }, 0x1b8)
}

#[test]
fn the_count_is_that_of_the_map_which_is_looked_up() {
    assert_eq!(counted(INLINE_GETTER, LOOK_UP), Ok(0x1d8));
}

#[test]
fn a_map_elsewhere_or_of_other_buffers_is_refused() {
    // Another place is returned than is looked up.
    let refusal = counted("488d87c8010000c3", LOOK_UP).unwrap_err();
    assert!(refusal.contains("looks up no map at +0x1c8"), "{refusal}");
    // Another flag is looked at.
    let refusal = counted(INLINE_GETTER, &LOOK_UP.replacen("b801", "b901", 1)).unwrap_err();
    assert!(refusal.contains("looks up no map"), "{refusal}");
    // Not a place in the buffer: `xor eax, eax; ret`.
    let refusal = counted("31c0c3", LOOK_UP).unwrap_err();
    assert!(refusal.contains("returns 0"), "{refusal}");
    // The real one, whose call leads nowhere here.
    assert!(counted(GET_ADDRESSES, LOOK_UP).is_err());
}
