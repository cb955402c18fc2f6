//! `FreeListOpt` as two compilers made it, whole and damaged.

use ttmem_common::layout::ABSENT;

use super::*;
use crate::image::sample;

/// `get_statistics()` of tt-metal 0.81.1, made by clang, which does two blocks at once.
const CLANG: &str = "4889f84c8b4e48488b56404c89c94829d14929d1745141574156534c8b9eb80000004c8b46584c8b96a00000\
     004983f908753f31db31d231ff31c941f6c1080f84b900000041803c1b000f84ae00000041803c1a004d8b04\
     d80f84950000004c01c7e99700000031c931ff31d2e99100000048c1f90349befeffffffffffff7f4921ce31\
     db31d231ff31c9eb160f1f004c01fa4939cf490f47cf4883c3024939de749841803c1b00740e41803c1a004d\
     8b3cd8742b4c01ff41807c1b010074da41807c1a01004d8b7cd80874c34c01ffebc866666666662e0f1f8400\
     000000004c01fa4939cf490f47cf41807c1b010075ceeba64c01c24939c8490f47c85b415e415f4885ff488b\
     7608480f44ce480f44d6488930488978084889501048894818c3";
/// What g++ 12 makes of the same loop over another layout.
const GCC: &str = "488b5670488b4668534889d14829c148c1f9034839c274704c8b4e384531c031c04531db31dbeb140f1f8400\
     000000004801d34883c0014839c8733041803c010074f04c8b9680000000488b565041803c0200488b14c275\
     d74901d34939d04c0f42c24883c0014839c872d0488b460848895f084c895f105b4889074889f84c894718c3\
     0f1f40004531c04531db31dbebda";
/// Stores rsi, rdx, rcx, r8 at +8, +0x10, +0x18, +0x20.
const STORES: &str = "488977084889571048894f184c894720c3";
/// mov rdx,[rdi+0x28]; test rdx,rdx; je to the end; mov qword [rdi+0x28],0; ret
const RESETS: &str = "488b57284885d2740848c7472800000000c3";
/// sub [rdi+8],rsi; add [rdi+0x28],rsi; ret
const SHRINKS: &str = "4829770848017728c3";

fn with<T>(functions: &[(&str, &str)], look: impl FnOnce(&Image<'_>) -> T) -> T {
    let codes: Vec<Vec<u8>> = functions.iter().map(|(_, digits)| sample::hex(digits)).collect();
    let places = (1..).map(|number: u64| number * 0x1000);
    let pieces: Vec<sample::Piece<'_>> = functions
        .iter()
        .zip(&codes)
        .zip(places)
        .map(|((f, code), at)| (f.0, at, &**code))
        .collect();
    look(&Image::parse(sample::elf(&pieces)).unwrap())
}

fn flags_of(statistics: &str, sizes: u32) -> Result<(u32, u32, u32), Refusal> {
    with(&[(STATISTICS, statistics)], |image| {
        decode(image, sizes).map(|flags| (flags.addresses, flags.exists, flags.allocated))
    })
}

fn start_of(reset: &str, shrink: &str) -> Result<(u32, u32), Refusal> {
    let constructor = format!("{CONSTRUCTOR}NS2_12SearchPolicyE");
    with(&[(&constructor, STORES), (RESET, reset), (SHRINK, shrink)], |image| {
        Ok((base(image)?, shrunk(image)?))
    })
}

#[test]
fn decodes_what_clang_and_gcc_make() {
    assert_eq!(flags_of(CLANG, 0x58), Ok((0x40, 0xb8, 0xa0)));
    assert_eq!(flags_of(GCC, 0x50), Ok((0x68, 0x38, 0x80)));
    assert_eq!(start_of(RESETS, SHRINKS), Ok((0x10, 0x28)));
}

#[test]
fn every_pool_with_a_free_list_gets_its_start() {
    let bank_size = Chain::new(&[0x30, 0x3b0, 0, 8], 8).unwrap();
    let unknown = super::super::allocator::UNKNOWN;
    let mut layouts = [PoolLayout { bank_size, ..unknown }; BUFFER_TYPES];
    layouts[3].bank_size = Chain::new(&[0x38, 8], 8).unwrap();
    let mut lists = [Chain::new(&[0x30, 0x3b0, 0], 8).unwrap(); BUFFER_TYPES];
    lists[2] = Chain::ABSENT;
    let constructor = format!("{CONSTRUCTOR}NS2_12SearchPolicyE");
    let functions = [(&*constructor, STORES), (RESET, RESETS), (SHRINK, SHRINKS)];
    with(&functions, |image| bases(image, &mut Facts::default(), &mut layouts, &lists));
    let starts = layouts.map(|layout| (layout.base, layout.shrunk));
    let (known, unknown) = ((0x10, 0x28), (ABSENT, ABSENT));
    assert_eq!(starts, [known, known, unknown, unknown, known], "no list, or another's size");
}

#[test]
fn both_functions_must_mean_the_same_field() {
    // add [rdi+0x30],rsi
    let reason = start_of(RESETS, "4829770848017730c3").unwrap_err();
    assert_eq!(reason, "shrink_size() adds to +0x30, not to +0x28");
    assert_eq!(start_of(RESETS, "c3").unwrap_err(), "what shrink_size() adds to was not found");
    let reason = start_of("c3", SHRINKS).unwrap_err();
    assert_eq!(reason, "what reset_size() looks at first was not found");
}

#[test]
fn the_sizes_must_be_those_of_the_table() {
    let reason = flags_of(CLANG, 0x60).unwrap_err();
    assert_eq!(reason, "which blocks get_statistics() counts was not found");
    assert!(flags_of("c3", 0x58).is_err());
}

/// Whatever one byte is changed to: two different vectors of flags, or a refusal.
#[test]
fn a_changed_byte_is_refused_or_still_makes_sense() {
    let mut refused = 0;
    let original = sample::hex(CLANG);
    for at in 0..original.len() {
        let mut code = original.clone();
        code[at] ^= 0x08;
        let file = sample::elf(&[(STATISTICS, 0x1000, &code)]);
        match decode(&Image::parse(file).unwrap(), 0x58) {
            Ok(flags) => {
                let places = [flags.addresses, flags.exists, flags.allocated, 0x58];
                assert!((1..4).all(|one| !places[..one].contains(&places[one])), "{at}: {flags:?}");
            }
            Err(_) => refused += 1,
        }
    }
    assert!(refused * 8 > original.len(), "only {refused} of {} were refused", original.len());
}
