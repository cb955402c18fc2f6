//! On saved machine code of 0.66.0. The expected distances are what its unwind tables say.

use super::*;
use crate::image::sample::{self, Piece};

const BANK_MANAGER_CODE: &str = include_str!("code/bank_manager_0_66.hex");
const ALLOCATOR_CODE: &str = include_str!("code/allocator_0_66.hex");
/// The table of the allocator's `switch` over the buffer type, at 0x3ef2dc.
const SWITCH: &str = "ee332600 2c342600 b0342600 f5332600 25342600";
const BANK_MANAGER_NAME: &str = "_ZN2tt8tt_metal11BankManager15allocate_bufferEmmbRKNS0_12CoreRangeSetESt8optionalIjEN4ttsl10\
    StrongTypeIjNS0_14AllocatorIDTagEEE";
const ALLOCATOR_NAME: &str = "_ZN2tt8tt_metal13AllocatorImpl15allocate_bufferEPNS0_6BufferE";
const FREE_NAME: &str = "_ZN2tt8tt_metal13AllocatorImpl17deallocate_bufferEPNS0_6BufferE";
const THROW: &str = "_ZN2tt6assert6detail8tt_throwIJmSt17basic_string_viewIcSt11char_traitsIcEEjmmmmmEEEvPKciS8_S8_N3fmt3v1\
    17fstringIJDpRKT_EE1tESF_";
const OTHER_THROW: &str =
    "_ZN2tt6assert6detail8tt_throwIJEEEvPKciS4_S4_N3fmt3v117fstringIJDpRKT_EE1tESB_";
const PLAIN: &str = "Out of Memory: Not enough space to allocate {} B {} buffer across {} banks, where each bank needs to \
    store {} B, but bank size is {} B (allocated: {} B, free: {} B, largest free block: {} B)";
const DEPENDENT: &str = "Out of Memory: Not enough space after considering dependencies to allocate {} B {} across {} banks \
    ({} B per bank), bank size is {} B (allocated: {} B, free: {} B, largest free block: {} B)";

/// 0.66.0, with other texts or other code of the allocator.
fn resolved(plain: &str, allocator: &[u8]) -> (Failures, Facts) {
    let (bank_manager, switch) = (sample::hex(BANK_MANAGER_CODE), sample::hex(SWITCH));
    // The stub through which the allocator calls the bank manager.
    let stub = sample::hex("ff2500000000 0000000000000000");
    let ret = [0xc3];
    let mut pieces: Vec<Piece<'_>> = vec![
        (BANK_MANAGER_NAME, 0x65_27c0, &bank_manager),
        (ALLOCATOR_NAME, 0x65_2610, allocator),
        (FREE_NAME, 0x65_2ed0, &ret),
        (THROW, 0x46_b710, &ret),
        (OTHER_THROW, 0x46_67d0, &ret),
        ("", 0x46_b6d0, &stub),
        ("", 0x3e_f2dc, &switch),
        ("", 0x43_0c8a, plain.as_bytes()),
        ("", 0x45_d01d, DEPENDENT.as_bytes()),
    ];
    // What does not return.
    let ends = [
        ("_ZN2tt6assert6detail8tt_throwIJmEEEv", 0x46_6d10),
        ("_ZN2tt6assert6detail8tt_throwIJmjEEEv", 0x46_7150),
        ("_ZN2tt6assert6detail8tt_throwIJjjEEEv", 0x46_7a70),
        ("_ZSt27__throw_bad_optional_accessv", 0x46_7cd0),
        ("_ZSt20__throw_system_errori", 0x47_f270),
        ("_Unwind_Resume", 0x47_f920),
    ];
    pieces.extend(ends.iter().map(|(name, address)| (*name, *address, &ret[..])));
    let file = sample::elf_with_slots(&pieces, &[(0x46_b6d6, 0x65_27c0)]);
    let image = Image::parse(file).unwrap();
    let mut facts = Facts::default();
    (resolve(&image, &mut facts), facts)
}

fn as_it_is() -> (Failures, Facts) {
    resolved(PLAIN, &sample::hex(ALLOCATOR_CODE))
}

#[test]
fn finds_both_throws_and_every_number() {
    let (failures, facts) = as_it_is();
    assert_eq!(failures.refused, []);
    let points: Vec<_> = failures.points.iter().map(|point| point.address).collect();
    assert_eq!(points, [Svma(0x46_b710)], "one function, however often it is called");
    let sites = failures.layout.sites;
    assert_eq!(sites.map(|site| site.return_address), [0x65_2a32, 0x65_2e63, 0, 0]);
    assert_eq!(sites.map(|site| site.to_caller), [288, 288, ABSENT, ABSENT]);
    for site in &sites[..2] {
        assert_eq!(site.places, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(site.widths, [8, 16, 4, 8, 8, 8, 8, 8]);
    }
    assert!(facts.0.iter().any(|fact| fact.value.contains("largest free block")));
}

#[test]
fn finds_the_buffer_on_the_callers_stack() {
    let callers = as_it_is().0.layout.callers;
    assert_eq!((callers[0].return_address, callers[0].to_buffer), (0x65_2731, 0x10));
    assert!(callers[1..].iter().all(|caller| caller.return_address == 0));
}

#[test]
fn a_text_that_is_not_the_one_is_no_failure() {
    let other = PLAIN.replace("Not enough", "Much too little");
    let (failures, _) = resolved(&other, &sample::hex(ALLOCATOR_CODE));
    assert_eq!(failures.layout.sites.map(|site| site.return_address), [0x65_2a32, 0, 0, 0]);
    // What the text does not name is not known; what cannot be is refused.
    let unnamed = PLAIN.replace("(allocated: ", "(occupied_: ");
    let (failures, _) = resolved(&unnamed, &sample::hex(ALLOCATOR_CODE));
    assert_eq!(failures.layout.sites[1].places, [1, 2, 3, 4, 5, 0, 7, 8]);
    let odd = PLAIN.replace("{} banks", "{x banks");
    let (failures, _) = resolved(&odd, &sample::hex(ALLOCATOR_CODE));
    assert_eq!(failures.refused[0].0, "failure");
}

#[test]
fn a_throw_of_that_kind_whose_text_is_not_there_is_refused() {
    let (failures, _) = resolved("x", &sample::hex(ALLOCATOR_CODE));
    assert_eq!(failures.layout.sites[0].return_address, 0x65_2a32);
    let reason = "what is thrown at 0x652e5e was not understood".to_owned();
    assert_eq!(failures.refused, [("failure".to_owned(), reason)]);
}

#[test]
fn without_the_functions_nothing_is_known() {
    let image = Image::parse(sample::elf(&[(FREE_NAME, 0x1000, &[0xc3])])).unwrap();
    let failures = resolve(&image, &mut Facts::default());
    assert!(failures.points.is_empty());
    assert_eq!(failures.layout, FailureLayout::ABSENT);
    assert!(failures.refused[0].1.starts_with("there is no function"), "{:?}", failures.refused);
}

/// The code after the store: whatever it does, the buffer is where it is, or nowhere.
#[test]
fn a_changed_byte_gives_the_same_place_or_none() {
    let code = sample::hex(ALLOCATOR_CODE);
    let right = as_it_is().0.layout.callers[0].to_buffer;
    let mut refused = 0;
    for at in 0x19..0x11c {
        let mut changed = code.clone();
        changed[at] ^= 0x08;
        match resolved(PLAIN, &changed).0.layout.callers[0].to_buffer {
            0 => refused += 1,
            found => assert_eq!(found, right, "{at:#x}"),
        }
    }
    assert!(refused > 0);
}

/// push rbx; sub rsp,0x10; mov [rsp+8],rsi; BEFORE; call BankManager; AFTER; add rsp,0x10; pop; ret
fn caller(before: &str, after: &str) -> Result<u32, Refusal> {
    let mut code = sample::hex("53 4883ec10 4889742408");
    code.extend(sample::hex(before));
    let distance = 0x2000 - (0x1000 + i64::try_from(code.len()).unwrap() + 5);
    code.push(0xe8);
    code.extend_from_slice(&distance.to_le_bytes()[..4]);
    code.extend(sample::hex(after));
    code.extend(sample::hex("4883c410 5b c3"));
    let ret = [0xc3];
    let pieces = [
        (ALLOCATOR_NAME, 0x1000, &*code),
        (BANK_MANAGER_NAME, 0x2000, &ret),
        (FREE_NAME, 0x3000, &ret),
    ];
    let image = Image::parse(sample::elf(&pieces)).unwrap();
    callers(&image, &mut Facts::default()).map(|callers| callers[0].to_buffer)
}

#[test]
fn the_place_must_be_written_once_before_the_call() {
    assert_eq!(caller("", ""), Ok(0x10));
    // push rax between: one word further
    assert_eq!(caller("50", "58"), Ok(0x18));
    // mov [rsp+8],rax; mov [rsp+4],rax; mov byte [rsp+15],1; movups [rsp],xmm0
    for other in ["4889442408", "4889442404", "c644240f01", "0f110424"] {
        assert!(caller(other, "").is_err(), "{other}");
        assert_eq!(caller("", other), Ok(0x10), "{other}");
    }
    // mov [rsp],rax; mov [rsp+16],rax: beside it
    for beside in ["48890424", "4889442410"] {
        assert_eq!(caller(beside, ""), Ok(0x10), "{beside}");
    }
    // lea rdi,[rsp+8]: whoever gets that can write there
    assert!(caller("488d7c2408", "").is_err());
    assert_eq!(caller("", "488d7c2408"), Ok(0x10));
    // jmp rax: anything can come next
    assert!(caller("7502 ffe0", "").is_err());
    // a loop from behind the call to before it: test eax,eax; jne
    assert!(caller("", "4889442408 85c0 75f2").is_err());
}
