//! `Buffer`'s functions as two compilers made them, whole and damaged.

use super::*;
use crate::image::sample;

/// Symbol, address, code.
type Function = (&'static str, u64, &'static str);

/// Fields behind a pointer, as clang made them: tt-metal 0.81.1.
const CLANG: [Function; 21] = [
    (
        "_ZNK2tt8tt_metal6Buffer7addressEv",
        0xc7_a3b0,
        "488b47108078380074048b4040c350488d3d48d7acff488d15d6b5a9ff488d0d3353adff4c8d \
             05b7d2aaff41b93e000000be14030000e8556cb0ff",
    ),
    ("_ZNK2tt8tt_metal6Buffer9page_sizeEv", 0xc7_8060, "488b4710488b4048c3"),
    ("_ZNK2tt8tt_metal6Buffer4sizeEv", 0xc7_5c10, "488b4710488b4008c3"),
    ("_ZNK2tt8tt_metal6Buffer6deviceEv", 0xc7_a360, "488b4710488b00c3"),
    ("_ZNK2tt8tt_metal6Buffer11buffer_typeEv", 0xc7_a380, "488b47108b4010c3"),
    ("_ZNK2tt8tt_metal6Buffer13buffer_layoutEv", 0xc7_5ef0, "488b47108b4014c3"),
    ("_ZNK2tt8tt_metal6Buffer9unique_idEv", 0xc7_a3a0, "488b4710488b8018020000c3"),
    ("_ZNK2tt8tt_metal6Buffer12is_allocatedEv", 0xc7_a370, "488b4710807838010f94c0c3"),
    ("_ZNK2tt8tt_metal6Buffer7is_dramEv", 0xc7_a550, "488b4710f74010fbffffff0f94c0c3"),
    (
        "_ZNK2tt8tt_metal6Buffer9num_pagesEv",
        0xc7_a3f0,
        "488b4710488b48484885c97416488b40084889c24809ca48c1ea20740931d248f7f1c331c0c3 \
             31d2f7f1c3",
    ),
    (
        "_ZNK2tt8tt_metal6Buffer9num_coresEv",
        0xc7_5c50,
        "53488b7f108b471483c0fe83f803773a48bb000000000100000080bfb0010000017530488b87 \
             18010000488b8fa8010000482b871001000048c1f8044839c1480f42c189c04809d85bc331db \
             89c04809d85bc34883c750e8349ab1ff89c04809d85bc3",
    ),
    (
        "_ZN2tt8tt_metal10BufferImpl13allocate_implERNS0_6BufferE",
        0xc7_7200,
        "55415741564154534883ec204889f34989fee84976b2ff4889c74889dee8be76b2ff84c07412 \
             49c746400000000041c6463901e9c30000004d8b3e4d8b6620410fb646284c89642410884424 \
             18a8017415498b074c89ffff90780100004939c40f85b6000000498b7e304889dee84e06b1ff \
             49894640498b3ee8c270b1ff89c7e8cb70b1ff4889c7e8f373b1ff807804037568c6056e84ab \
             0001418b461085c0743883f803740583f801754f498b3e488b07ff501889c5458b7e404889df \
             e8fd5cb1ff428d1438498b8e1802000089ef4489fee8f8a0b0ffeb21498b3e488b07ff501841 \
             8b7640418b560801f2498b8e1802000089c7e8f5a0b0ff41c6463801e85b75b2ff4889c74889 \
             de4883c4205b415c415e415f5de98475b2ff488d7c2410e8ea4801004889c3498b074c89ffff \
             90780100004889442408488d442408488d3dc807adff488d1556e6a9ff488d0de62dacff4c8d \
             05799ba7ff41b969000000be810100005053e8635cb1ff83fa0175124889c7e8665bb3ffe811 \
             62b3ffe977ffffff4889c7e87463b3ff",
    ),
    // What they call.
    ("_ZN2tt6assert6detail8tt_throwIJEEEvPKciS4_S4_", 0x78_1040, "c3"),
    ("_ZNK2tt8tt_metal12CoreRangeSet9num_coresEv", 0x78_f6e0, "c3"),
    ("_ZN2tt8tt_metal13AllocatorImpl15allocate_bufferEPNS0_6BufferE", 0x78_78c0, "c3"),
    ("_ZN2tt8tt_metal12GraphTracker8instanceEv", 0x79_e860, "c3"),
    ("_ZN2tt8tt_metal12GraphTracker14track_allocateEPKNS0_6BufferE", 0x79_e8a0, "c3"),
    ("_ZN2tt8tt_metal12GraphTracker13hook_allocateEPKNS0_6BufferE", 0x79_e8e0, "c3"),
    ("_ZN2tt6assert6detail8tt_throwIJN4ttsl10StrongTypeImE", 0x78_cfd0, "c3"),
    ("_ZNK2tt8tt_metal6Buffer21aligned_size_per_bankEv", 0x78_cfc0, "c3"),
    ("_Unwind_Resume", 0x7a_d700, "c3"),
];

/// Fields behind a pointer, as g++ 12 makes them.
const GCC: [Function; 22] = [
    (
        "_ZNK2tt8tt_metal6Buffer7addressEv",
        0xb6a0,
        "488b47108078500074048b4058c350488d3d725a0000e875cfffff",
    ),
    ("_ZNK2tt8tt_metal6Buffer9page_sizeEv", 0xb6c0, "488b4710488b4060c3"),
    ("_ZNK2tt8tt_metal6Buffer4sizeEv", 0xb650, "488b4710488b4018c3"),
    ("_ZNK2tt8tt_metal6Buffer6deviceEv", 0xb640, "488b4710488b4010c3"),
    ("_ZNK2tt8tt_metal6Buffer11buffer_typeEv", 0xb660, "488b47108b4020c3"),
    ("_ZNK2tt8tt_metal6Buffer13buffer_layoutEv", 0xb670, "488b47108b4024c3"),
    ("_ZNK2tt8tt_metal6Buffer9unique_idEv", 0xb680, "488b4710488b8080010000c3"),
    ("_ZNK2tt8tt_metal6Buffer12is_allocatedEv", 0xb6d0, "488b4710807850010f94c0c3"),
    ("_ZNK2tt8tt_metal6Buffer7is_dramEv", 0xb6e0, "488b4710f74020fbffffff0f94c0c3"),
    (
        "_ZNK2tt8tt_metal6Buffer9num_pagesEv",
        0xb740,
        "488b571031c0488b4a604885c97501c3488b421831d248f7f1c3",
    ),
    (
        "_ZNK2tt8tt_metal6Buffer9num_coresEv",
        0xb760,
        "4883ec18488b7f1031d28b472483e80283f803773280bf4801000000743a488b974001000048 \
             8b8700010000482b87f800000048c1f8044839d0480f47c289442408ba010000008854240c48 \
             8b4424084883c418c30f1f004883c768e8ffccffffebdb",
    ),
    (
        "_ZN2tt8tt_metal10BufferImpl13allocate_implERNS0_6BufferE",
        0xc210,
        "554889f5534889fb4883ec08e81fc3ffff4889ee4889c7e8a4c4ffff84c0743048c743580000 \
             0000c6435101c6435001e8fbc2ffff4883c4084889ee5b4889c75de94abfffff662e0f1f8400 \
             00000000488b7b404889eee8f4c1ffff48894358ebca",
    ),
    // Stores what it is given, and goes by its unlikely part: jmp 0x8a00.
    (
        "_ZN2tt8tt_metal10BufferImplC2EPNS0_7IDeviceEmmNS0_10BufferTypeE",
        0xd000,
        "4889771048895718e9f3b9ffff",
    ),
    // mov [rdi+0x60],rcx; mov [rdi+0x20],r8d; jmp 0xd010; there: ret
    (
        "_ZN2tt8tt_metal10BufferImplC2EPNS0_7IDeviceEmmNS0_10BufferTypeE.cold",
        0x8a00,
        "48894f6044894720e903460000",
    ),
    ("", 0xd010, "c3"),
    // What they call. The error always throws: call 0x8670.
    ("_ZN2tt8tt_metal11throw_errorEPKc", 0x8630, "e83b000000"),
    ("__cxa_throw", 0x8670, "c3"),
    ("_ZNK2tt8tt_metal12CoreRangeSet9num_coresEv", 0x84c0, "c3"),
    ("_ZN2tt8tt_metal13AllocatorImpl15allocate_bufferEPNS0_6BufferE", 0x8460, "c3"),
    ("_ZN2tt8tt_metal12GraphTracker8instanceEv", 0x8540, "c3"),
    ("_ZN2tt8tt_metal12GraphTracker14track_allocateEPKNS0_6BufferE", 0x81a0, "c3"),
    ("_ZN2tt8tt_metal12GraphTracker13hook_allocateEPKNS0_6BufferE", 0x86d0, "c3"),
];

fn code(functions: &[Function]) -> Vec<(&'static str, u64, Vec<u8>)> {
    functions.iter().map(|(name, at, digits)| (*name, *at, sample::hex(digits))).collect()
}

fn decode(functions: &[(&str, u64, Vec<u8>)]) -> Result<BufferLayout, Refusal> {
    let pieces: Vec<sample::Piece<'_>> =
        functions.iter().map(|(name, at, code)| (*name, *at, &**code)).collect();
    let image = Image::parse(sample::elf(&pieces)).map_err(|error| error.to_string())?;
    let mut layout = BufferLayout::ABSENT;
    essential(&home(&image)?, &mut Facts::default(), &mut layout)?;
    Ok(layout)
}

/// The code of all functions, one of them replaced.
fn replaced(functions: &[Function], name: &str, digits: &str) -> Vec<(&'static str, u64, Vec<u8>)> {
    let mut all = code(functions);
    let found = all.iter_mut().find(|function| function.0.ends_with(name)).unwrap();
    found.2 = sample::hex(digits);
    all
}

#[test]
fn decodes_what_clang_makes() {
    let expected = BufferLayout {
        implementation: 0x10,
        device: 0,
        size: 8,
        page_size: 0x48,
        address: 0x40,
        buffer_type: 0x10,
        memory_layout: 0x14,
        allocator: 0x30,
        status: 0x38,
        hooked: 0x39,
        unique_id: 0x218,
        ..BufferLayout::ABSENT
    };
    assert_eq!(decode(&code(&CLANG)), Ok(expected));
}

#[test]
fn decodes_what_gcc_makes() {
    let expected = BufferLayout {
        implementation: 0x10,
        device: 0x10,
        size: 0x18,
        page_size: 0x60,
        address: 0x58,
        buffer_type: 0x20,
        memory_layout: 0x24,
        allocator: 0x40,
        status: 0x50,
        hooked: 0x51,
        unique_id: 0x180,
        ..BufferLayout::ABSENT
    };
    assert_eq!(decode(&code(&GCC)), Ok(expected));
    // The unlikely part belongs to the constructor: what it stores there has to fit as well.
    let cold = "C2EPNS0_7IDeviceEmmNS0_10BufferTypeE.cold";
    let moved = decode(&replaced(&GCC, cold, "48894f6844894720e903460000"));
    assert_eq!(moved, Err("Buffer::page_size is ambiguous: 60 or 68".into()));
}

#[test]
fn says_why_a_field_is_refused() {
    let refusal = |name, digits| decode(&replaced(&CLANG, name, digits)).unwrap_err();
    // The size elsewhere than where num_pages() has it.
    let size = refusal("Buffer4sizeEv", "488b4710488b4020c3");
    assert_eq!(size, "Buffer::size is ambiguous: 20 or 8");
    // A device behind another pointer, of 4 bytes, and none at all.
    let device = refusal("Buffer6deviceEv", "488b4718488b00c3");
    assert!(device.contains("is not where the others are"), "{device}");
    let device = refusal("Buffer6deviceEv", "488b47108b00c3");
    assert!(device.contains("is not where the others are"), "{device}");
    let device = refusal("Buffer6deviceEv", "31c0c3");
    assert!(device.contains("does not return a field, but 0"), "{device}");
    // A comparison with 2 instead of 1.
    let status = refusal("Buffer12is_allocatedEv", "488b4710807838020f94c0c3");
    assert!(status.contains("is not a comparison with 1"), "{status}");
    // An allocation that calls nothing.
    let allocation = refusal("13allocate_implERNS0_6BufferE", "c3");
    assert_eq!(allocation, "what allocate_impl sets was not found");
}

#[test]
fn an_allocator_that_is_not_always_the_field_is_refused() {
    let name = "BufferImpl13allocate_implERNS0_6BufferE";
    let (_, _, whole) = GCC.into_iter().find(|(found, ..)| found.ends_with(name)).unwrap();
    // mov rdi,rbp; mov rsi,rbp; call allocate_buffer; jmp to where it went on.
    let other = whole.replace("48894358ebca", "488943584889ef4889eee8e5c1ffffebbf");
    assert_ne!(other, whole);
    let refusal = decode(&replaced(&GCC, name, &other)).unwrap_err();
    assert!(
        refusal.contains("calls 15allocate_bufferEPNS0_6BufferE with is ambiguous"),
        "{refusal}"
    );
}

#[test]
fn a_missing_function_is_named() {
    for (missing, reason) in [
        ("Buffer9page_sizeEv", "there is no function _ZNK2tt8tt_metal6Buffer9page_sizeEv"),
        ("Buffer6deviceEv", "Buffer::device was not found"),
        ("allocate_implERNS0_6BufferE", "there is no function _ZN2tt8tt_metal10BufferImpl13alloc"),
        ("Buffer7is_dramEv", "Buffer::buffer_type: there is no function _ZNK2tt8tt_metal6Buffer7"),
    ] {
        let mut functions = code(&CLANG);
        functions.retain(|function| !function.0.ends_with(missing));
        let refusal = decode(&functions).unwrap_err();
        assert!(refusal.starts_with(reason), "{refusal}");
    }
}

#[test]
fn the_unique_id_may_be_absent() {
    let mut functions = code(&CLANG);
    functions.retain(|function| !function.0.ends_with("9unique_idEv"));
    assert_eq!(decode(&functions).unwrap().unique_id, ABSENT);
}

/// Fields inside the buffer, without accessors for device and size.
#[test]
fn the_constructor_shows_what_has_no_accessor() {
    let functions = [
        ("_ZNK2tt8tt_metal6Buffer7addressEv", 0x1000, "8b4770c3"),
        ("_ZNK2tt8tt_metal6Buffer9page_sizeEv", 0x1020, "488b4778c3"),
        ("_ZNK2tt8tt_metal6Buffer12is_allocatedEv", 0x1040, "807f68010f94c0c3"),
        ("_ZNK2tt8tt_metal6Buffer7is_dramEv", 0x1060, "f74738fbffffff0f94c0c3"),
        (
            "_ZNK2tt8tt_metal6Buffer9num_pagesEv",
            0x1080,
            "488b4f7831c04885c97409488b473031d248f7f1c3",
        ),
        // mov eax,[rdi+0x3c]; sub eax,2; cmp eax,3; ja to the last ret; ret; ret
        ("_ZNK2tt8tt_metal6Buffer9num_coresEv", 0x10c0, "8b473c83e80283f8037701c3c3"),
        // mov [rdi+0x28],rsi; mov [rdi+0x30],rdx; mov [rdi+0x78],rcx; mov [rdi+0x38],r8d; ret
        (
            "_ZN2tt8tt_metal6BufferC2EPNS0_7IDeviceEmmNS0_10BufferTypeE",
            0x1100,
            "488977284889573048894f7844894738c3",
        ),
        (
            "_ZN2tt8tt_metal6Buffer13allocate_implEv",
            0x1_bf60,
            "534889fbe887c5ffff4889de4889c7e8fcc6ffff84c0742848c7437000000000c6436901c6436801e863c5ff\
             ff4889de5b4889c7e9e7c1ffff0f1f8000000000488b7b584889dee884c4ffff48894370ebd2",
        ),
        ("_ZN2tt8tt_metal13AllocatorImpl15allocate_bufferEPNS0_6BufferE", 0x1_8430, "c3"),
        ("_ZN2tt8tt_metal12GraphTracker8instanceEv", 0x1_84f0, "c3"),
        ("_ZN2tt8tt_metal12GraphTracker14track_allocateEPKNS0_6BufferE", 0x1_8180, "c3"),
        ("_ZN2tt8tt_metal12GraphTracker13hook_allocateEPKNS0_6BufferE", 0x1_8670, "c3"),
    ];
    let layout = decode(&code(&functions)).unwrap();
    assert_eq!((layout.implementation, layout.device, layout.size), (ABSENT, 0x28, 0x30));
    assert_eq!((layout.status, layout.hooked, layout.allocator), (0x68, 0x69, 0x58));
    let mut without = code(&functions);
    without.retain(|function| !function.0.contains("BufferC2E"));
    assert_eq!(decode(&without), Err("Buffer::device was not found".into()));
}

/// Whatever one byte is changed to: it is refused, or what several functions show is unchanged.
#[test]
fn a_changed_byte_is_refused_or_still_makes_sense() {
    let original = decode(&code(&GCC)).unwrap();
    let shown = |layout: &BufferLayout| {
        let BufferLayout { implementation, device, size, page_size, .. } = *layout;
        let BufferLayout { address, buffer_type, memory_layout, status, .. } = *layout;
        [implementation, device, size, page_size, address, buffer_type, memory_layout, status]
    };
    let (mut changes, mut refused) = (0, 0);
    for function in 0..12 {
        for at in 0..GCC[function].2.len() / 2 {
            for change in [0x01, 0x08, 0xff] {
                let mut functions = code(&GCC);
                let Some(byte) = functions[function].2.get_mut(at) else { continue };
                *byte ^= change;
                changes += 1;
                match decode(&functions) {
                    Ok(layout) => {
                        let name = GCC[function].0;
                        assert_eq!(shown(&layout), shown(&original), "{name} {at} {change:#x}");
                    }
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(refused * 3 > changes, "only {refused} of {changes} changes were refused");
}
