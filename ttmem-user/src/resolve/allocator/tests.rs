//! Allocator functions as two compilers made them, whole and damaged.

use super::*;
use crate::image::sample;

const BANK_SIZE: &str = "_ZNK2tt8tt_metal13AllocatorImpl13get_bank_sizeERKNS0_10BufferTypeE";
const BANKS: &str = "_ZNK2tt8tt_metal13AllocatorImpl13get_num_banksERKNS0_10BufferTypeE";
const ALIGNMENT: &str = "_ZNK2tt8tt_metal13AllocatorImpl13get_alignmentENS0_10BufferTypeE";
const COUNT: &str = "_ZNK2tt8tt_metal13AllocatorImpl25get_num_allocated_buffersEv";
const COPY: &str = "_ZNK2tt8tt_metal13AllocatorImpl21get_allocated_buffersEv";
const BLOCK_SIZE: &str = "_ZNK2tt8tt_metal9allocator11FreeListOpt19get_allocation_sizeEm";
const LIST: &str = "_ZN2tt8tt_metal9allocator11FreeListOptC1EmmmmNS2_12SearchPolicyE";
const ALLOCATE: &str = "_ZN2tt8tt_metal9allocator11FreeListOpt8allocateEmbm";
/// Stores rsi, rdx, rcx, r8 at +8, +0x10, +0x18, +0x20: what both compilers make of the start.
const STORES: &str = "488977084889571048894f184c894720c3";
/// Takes the larger of rsi and [rdi+0x18], and adds [rdi+0x20]: the start of `allocate()`.
const ROUNDS: &str = "488b47184839c6480f47c6488b7720488d0430c3";
const FREE: &str = "_ZN2tt8tt_metal13AllocatorImpl17deallocate_bufferEPNS0_6BufferE";
const THROW_ERROR: &str = "_ZN2tt8tt_metal11throw_errorEPKc";

type Library = Vec<(&'static str, u64, Vec<u8>)>;

fn library(functions: &[(&'static str, u64, &str)]) -> Library {
    functions.iter().map(|(name, at, digits)| (*name, *at, sample::hex(digits))).collect()
}

/// tt-metal 0.81.1, made by clang.
fn clang() -> Library {
    library(&[
        (
            BANK_SIZE,
            0xa7_f830,
            "41574156534883ec104989f74989fe488d5f084889dfe885dfd2ff85c00f8500010000418b0741b9180000004c\
             8d053dd3c4ff488d0dfe0fc9ff488d15208dc7ffbec5010000488d3de58cc7ff4883f8040f87c70000004c8d15\
             9610bfff496304824c01d0ffe0498b4630eb10498b4640eb0a498b4648eb04498b4638c7442408000000008378\
             58007428488b80b0030000488b004885c0745d4c8b70084889dfe84adfd2ff4c89f04883c4105b415e415fc348\
             8d4424084c8d54240c41c70200000000488d3ddd0fc7ff488d15a160c9ff488d0da3b3cbff4c8d05bd86cdff41\
             b92b000000bee4000000415250e8cd27d0ff4883c41041b91a0000004c8d050600c9ff488d0d8fa0c6ff488d15\
             6160c9ffbece000000488d3d8a0fc7ffe8ed16d0ff89c7e896d5d2ff",
        ),
        ("", 0x67_0924, "73ef400085ef40002af0400079ef40007fef4000"),
        (
            BANKS,
            0xa7_dae0,
            "8b0eb01bd2e84883f9047717a8017413488d05c137bfff488b04c8488b04078b4020c3e83835d0ff",
        ),
        (
            "",
            0x67_12b8,
            "30000000000000003800000000000000000000000000000040000000000000004800000000000000\
             2c000000000000004001000000000000000000000000000040010000000000002c00000000000000",
        ),
        (
            COUNT,
            0xa7_f7e0,
            "415653504989fe488d5f084889dfe8dddfd2ff85c0751a4d8bb6480100004889dfe81ae0d2ff4c89f04883c408\
             5b415ec389c7e8d8d6d2ff",
        ),
        // lea rdi,[rsi+0x130]; jmp to what copies a set
        (COPY, 0xa7_f730, "488dbe30010000e9e483d0ff"),
        ("_ZNSt10_HashtableIPN2tt8tt_metal6BufferE", 0x78_7b20, "c3"),
        (
            BLOCK_SIZE,
            0xa7_78b0,
            "482b771089f0c1e80c8d044031f025ff010000488b8fe8000000488d1440488b04d1488b4cd1084839c874120f\
             1f4000483930740c4883c0104839c875f231d2c3488b4008488b4f58488b04c1b201c3",
        ),
        (LIST, 0xa7_3a80, STORES),
        (ALLOCATE, 0xa7_5070, ROUNDS),
        (FREE, 0xa7_0000, "c3"),
        ("_ZN2tt6assert6detail8tt_throwIJEEEvPKciS4_S4_", 0x78_1040, "c3"),
        ("_ZN2tt6assert6detail8tt_throwIJjjEEEvPKciS4_S4_", 0x78_20f0, "c3"),
        ("_ZSt20__throw_system_errori", 0x7a_cef0, "c3"),
        ("pthread_mutex_lock", 0x7a_d7d0, "c3"),
        ("pthread_mutex_unlock", 0x7a_d820, "c3"),
    ])
}

/// What g++ 12 makes.
fn gcc() -> Library {
    library(&[
        (
            BANK_SIZE,
            0x9eb0,
            "41544c8d6708554889fd4c89e7534889f3e8bae6ffff85c00f8584000000833b0477738b03488d154471000048\
             6304824801d0ffe00f1f00488b4560488b804001000031db488b004885c07404488b58084c89e7e807e4ffff48\
             89d85b5d415cc30f1f8000000000488b4540ebce6690488b4548ebc6662e0f1f840000000000488b4558ebb666\
             2e0f1f840000000000488b4550eba6488d3db3700000e8dee6ffff89c7e847e3ffff4889c3e915e9ffff",
        ),
        // The unlikely part of the function before: unlock, then unwind on.
        ("", 0x8876, "4c89e7e892faffff4889dfe81afeffff"),
        (
            BANKS,
            0x9e80,
            "8b0683f8047713488d15f2710000488b04c2488b04078b4028c350488d3d5e710000e889e7ffff",
        ),
        (
            ALIGNMENT,
            0x9f70,
            "488b87e800000083fe04771189f6488d15bb700000488b14f28b0410c350488d3d6b700000e896e6ffff",
        ),
        // Places of the five cases of the switch, of the alignments, of the bank managers.
        (
            "",
            0x1_1020,
            "008fffff108fffff208fffffc88efffff88effff000000000000000000000000\
             24000000000000002c00000000000000280000000000000030000000000000002000000000000000\
             0000000000000000000000000000000000000000000000004800000000000000\
             5800000000000000500000000000000060000000000000004000000000000000",
        ),
        (
            COUNT,
            0x9fa0,
            "55488d6f08534889fb4889ef4883ec08e8cbe5ffff85c07519488b9bc80000004889efe848e3ffff4883c40848\
             89d85b5dc389c7e8c7e2ffff",
        ),
        // mov rax,[rsi+0xb8]; mov rdx,[rsi+0xc8]; ret
        (COPY, 0xa340, "488b86b8000000488b96c8000000c3"),
        (
            BLOCK_SIZE,
            0xd460,
            "482b771089f0c1e80c8d044031f025ff010000488d1440488b4778488d14d0488b02488b52084839c2750eeb3b\
             0f1f004883c0104839c2742f48393075f2488b5008488b4748488b04d048894424e8b801000000884424f0488b\
             4424e8488b5424f0c30f1f44000031c0884424f0488b4424e8488b5424f0c3",
        ),
        (LIST, 0xd5c0, STORES),
        (ALLOCATE, 0xd700, ROUNDS),
        (FREE, 0x9000, "c3"),
        // The error always throws: call 0x8670.
        (THROW_ERROR, 0x8630, "e83b000000"),
        ("__cxa_throw", 0x8670, "c3"),
        ("_Unwind_Resume", 0x86a0, "c3"),
        ("_ZSt20__throw_system_errori", 0x82a0, "c3"),
        ("pthread_mutex_lock", 0x8580, "c3"),
        ("pthread_mutex_unlock", 0x8310, "c3"),
    ])
}

fn with<T>(library: &Library, look: impl FnOnce(&Image<'_>) -> T) -> T {
    let pieces: Vec<sample::Piece<'_>> =
        library.iter().map(|(name, at, code)| (*name, *at, &**code)).collect();
    look(&Image::parse(sample::elf(&pieces)).unwrap())
}

fn replaced(mut library: Library, name: &str, digits: &str) -> Library {
    library.iter_mut().find(|function| function.0 == name).unwrap().2 = sample::hex(digits);
    library
}

fn steps(chain: &Chain) -> &[u32] {
    chain.steps()
}

fn decoded(library: &Library) -> Pools {
    with(library, |image| pools(image, &mut Facts::default()))
}

/// The table of allocated blocks, with free lists of which it only counts that they exist.
fn table(image: &Image<'_>) -> Result<(u32, u32, u32), Refusal> {
    let free_list = [Chain::new(&[0x30, 0], 8).unwrap(); BUFFER_TYPES];
    blocks(image, free_list).map(|blocks| (blocks.base, blocks.buckets, blocks.sizes))
}

#[test]
fn decodes_what_gcc_makes() {
    let pools = decoded(&gcc());
    assert_eq!(pools.failed, []);
    for (number, manager, alignment) in
        [(0, 0x48, 0x24), (1, 0x58, 0x2c), (2, 0x50, 0x28), (3, 0x60, 0x30), (4, 0x40, 0x20)]
    {
        let pool = &pools.layouts[number];
        assert_eq!(steps(&pool.banks), [manager, 0x28]);
        assert_eq!(steps(&pool.alignment), [0xe8, alignment]);
        assert_eq!(steps(&pool.bank_size), [manager, 0x140, 0, 8]);
        assert_eq!(steps(&pools.free_lists[number]), [manager, 0x140, 0]);
    }
    with(&gcc(), |image| {
        assert_eq!(live_set(image), Ok(0xb0));
        assert_eq!(table(image), Ok((0x10, 0x78, 0x48)));
    });
}

#[test]
fn decodes_what_clang_makes() {
    let pools = decoded(&clang());
    for (number, manager) in [(0, 0x30), (1, 0x38), (3, 0x40), (4, 0x48)] {
        let pool = &pools.layouts[number];
        assert_eq!(steps(&pool.banks), [manager, 0x20]);
        assert_eq!(steps(&pool.bank_size), [manager, 0x3b0, 0, 8]);
        assert_eq!(steps(&pool.block_minimum), [manager, 0x3b0, 0, 0x18]);
        assert_eq!(steps(&pool.block_unit), [manager, 0x3b0, 0, 0x20]);
    }
    // It throws for SYSTEM_MEMORY, which is no failure; the alignment is not in the sample.
    assert!(!pools.layouts[2].banks.exists() && !pools.layouts[2].bank_size.exists());
    assert!(pools.failed.iter().all(|(name, _)| name.ends_with("alignment")));
    with(&clang(), |image| {
        assert_eq!(live_set(image), Ok(0x130));
        assert_eq!(table(image), Ok((0x10, 0xe8, 0x58)));
    });
}

#[test]
fn block_sizes_need_a_constructor_and_an_allocation_that_agree() {
    let failure = |name, code| {
        let pools = decoded(&replaced(gcc(), name, code));
        assert!(!pools.layouts[0].block_unit.exists());
        assert_eq!(pools.failed.len(), 1);
        pools.failed[0].1.clone()
    };
    // The size goes to +0x28.
    let reason = failure(LIST, "488977284889571048894f184c894720c3");
    assert_eq!(reason, "the constructor stores the size elsewhere than it is read");
    // r8 is not stored.
    let reason = failure(LIST, "488977084889571048894f18c3");
    assert!(reason.contains("argument 4"), "{reason}");
    // Reads +0x28 in place of +0x20.
    let reason = failure(ALLOCATE, "488b47184839c6480f47c6488b7728488d0430c3");
    assert!(reason.ends_with("does not read what the constructor stored"), "{reason}");
}

#[test]
fn an_error_that_may_return_ends_no_path() {
    let pools = decoded(&replaced(gcc(), THROW_ERROR, "c3"));
    // The type is known, so that the error is not reached.
    assert_eq!(pools.failed, []);
    // cmp esi,2; jne to the error, with which the function ends
    let code = "83fe02750b8b87e8000000c30f1f4000e8abe6ffff";
    let pools = decoded(&replaced(replaced(gcc(), THROW_ERROR, "c3"), ALIGNMENT, code));
    let (name, reason) = &pools.failed[0];
    assert_eq!(name, "AllocatorImpl DRAM alignment");
    assert!(reason.contains("was not understood"), "{reason}");
    assert_eq!(steps(&pools.layouts[2].alignment), [0xe8]);
    // The same with an error that throws: absent, not failed.
    let pools = decoded(&replaced(gcc(), ALIGNMENT, code));
    assert_eq!(pools.failed, []);
    assert!(!pools.layouts[0].alignment.exists());
}

#[test]
fn zero_counts_only_for_want_of_an_object() {
    // mov rax,[rdi+8]; xor ecx,ecx; test rax,rax; je over: mov rcx,[rax+0x10]; mov rax,rcx; ret
    let code = "488b470831c94885c07404488b48104889c8c3";
    let pools = decoded(&replaced(gcc(), BANK_SIZE, code));
    assert_eq!(steps(&pools.layouts[0].bank_size), [8, 0x10]);
    // The same, but it is another field that is 0: test [rdi+0x20]
    let code = "488b470831c948837f20007404488b48104889c8c3";
    let pools = decoded(&replaced(gcc(), BANK_SIZE, code));
    let reason = &pools.failed[0].1;
    assert!(reason.ends_with("returns different fields on different paths"), "{reason}");
}

#[test]
fn says_why_something_is_refused() {
    let refused = |name, code| with(&replaced(gcc(), name, code), live_set).unwrap_err();
    assert!(refused(COUNT, "31c0c3").ends_with("returns 0"));
    assert!(refused(COUNT, "488b4710c3").contains("returns u64[Add(arg0, 0x10)]"));
    assert!(refused(COPY, "488b86b0000000c3").ends_with("does not copy a set at +0xb0"));
    let table = |code| with(&replaced(gcc(), BLOCK_SIZE, code), table).unwrap_err();
    assert_eq!(table("488b4748488b04f0c3"), "the block table was not found");
    with(&gcc(), |image| {
        let without = blocks(image, [Chain::ABSENT; BUFFER_TYPES]);
        assert_eq!(without, Err("the free lists were not found".into()));
    });
    // mov rax,[rdi+8]: 8 bytes where 4 are expected
    let pools = decoded(&replaced(gcc(), ALIGNMENT, "488b4708c3"));
    assert_eq!(pools.failed.len(), BUFFER_TYPES);
    assert!(pools.failed[2].1.contains("returns u64[Add(arg0, 8)] for SYSTEM_MEMORY"));
}

/// Whatever one byte is changed to: chains keep their shape, or are refused.
#[test]
fn a_changed_byte_is_refused_or_still_makes_sense() {
    let original = gcc();
    let (mut changes, mut refused) = (0, 0);
    for function in 0..8 {
        for at in 0..original[function].2.len() {
            let mut library = original.clone();
            library[function].2[at] ^= 0x08;
            changes += 1;
            let pools = decoded(&library);
            let (set, blocks) = with(&library, |image| (live_set(image), table(image)));
            let is_whole = pools.failed.is_empty() && set.is_ok() && blocks.is_ok();
            refused += usize::from(!is_whole);
            for (pool, free_list) in pools.layouts.iter().zip(&pools.free_lists) {
                assert!(!pool.bank_size.exists() || pool.bank_size.width == 8);
                assert!(!pool.banks.exists() || pool.banks.width == 4);
                let owner = steps(&pool.bank_size).split_last().map_or(&[][..], |last| last.1);
                assert_eq!(steps(free_list), owner, "{function} {at}");
            }
        }
    }
    assert!(refused * 4 > changes, "only {refused} of {changes} changes were refused");
}
