//! Sharded fields, decoded from saved machine code of releases and of g++.

use ttmem_common::layout::ABSENT;

use super::*;
use crate::image::{Image, sample};

/// `Buffer::num_dev_pages() const`, 0.78.0, at 0xb68c90.
const NUM_DEV_PAGES_V78: &str = "538b472483c0fe83f804737180bf98000000010f85890000008bb78800000031dbb90000000085f674098b47 \
     7831d2f7f689c18bb78c00000085f674098b477c31d2f7f689c30fafd980bfc0010000010f859c000000488b \
     8728010000488b8fb8010000482b872001000048c1f8044839c1480f42c10fafd889d85bc3488b4f584885c9 \
     7466488b47184889c24809ca48c1ea20746c31d248f7f14889c389d85bc380bfc0010000000f848800000048 \
     8b8f20010000488b9f280100004839d9744a488b87b80100004889de4829ce48c1fe044801f048ffc84889c2 \
     4809f248c1ea20742b31d248f7f6eb2831db89d85bc34883c760e8a539b7ff0fafd889d85bc331d2f7f189c3 \
     89d85bc331c0eb0431d2f7f60faf87b00100004829cb48c1fb04488b8fb80100004839d9480f42d90fafd889 \
     d85bc3e83475b6ff";
/// `Buffer::num_dev_pages() const`, 0.81.1, at 0xc75d70.
const NUM_DEV_PAGES_V81: &str = "53488b7f108b471483c0fe83f804736b80bf88000000010f85830000008b777831dbb90000000085f674098b \
     476831d2f7f689c18b777c85f674098b476c31d2f7f689c30fafd980bfb0010000010f859c000000488b8718 \
     010000488b8fa8010000482b871001000048c1f8044839c1480f42c10fafd889d85bc3488b4f484885c97466 \
     488b47084889c24809ca48c1ea20746c31d248f7f14889c389d85bc380bfb0010000000f8488000000488b8f \
     10010000488b9f180100004839d9744a488b87a80100004889de4829ce48c1fe044801f048ffc84889c24809 \
     f248c1ea20742b31d248f7f6eb2831db89d85bc34883c750e87798b1ff0fafd889d85bc331d2f7f189c389d8 \
     5bc331c0eb0431d2f7f60faf87a00100004829cb48c1fb04488b8fa80100004839d9480f42d90fafd889d85b \
     c3e866bfb0ff";
/// `Buffer::num_cores() const`, 0.81.1, at 0xc75c50.
const NUM_CORES_V81: &str = "53488b7f108b471483c0fe83f803773a48bb000000000100000080bfb0010000017530488b8718010000488b \
     8fa8010000482b871001000048c1f8044839c1480f42c189c04809d85bc331db89c04809d85bc34883c750e8 \
     349ab1ff89c04809d85bc3";

/// `Buffer::num_cores() const`, 0.78.0, at 0xb68b80.
const NUM_CORES_V78: &str = "538b472483c0fe83f803773a48bb000000000100000080bfc0010000017530488b8728010000488b8fb80100 \
     00482b872001000048c1f8044839c1480f42c189c04809d85bc331db89c04809d85bc34883c760e8583bb7ff \
     89c04809d85bc3";

/// `Buffer::num_dev_pages() const` as g++ 12 makes it, at 0xb7d0.
const NUM_DEV_PAGES_GCC: &str = "488b4f108b412483e80283f8030f87bd0000005380b9a0000000000fb6b148010000754c4084f60f84ce0000 \
     00488bb100010000488b91f800000031c04839d6742a488bb9400100004829d631d248c1fe04488d4437ff48 \
     f7f6480faf81380100004839f7480f47fe0fafc75bc366908bb98c00000085ff740c8b818000000031d2f7f7 \
     89c78b999000000085db740f8b818400000031d2f7f30fafc789c34084f6744c488b8140010000488b910001 \
     0000482b91f800000048c1fa044839c2480f46c20fafc35bc30f1f8000000000488b716031c04885f6740d48 \
     8b411831d248f7f6c30f1f00c30f1f8000000000488d7968e8f7cbffffebc9488d3d96580000e859cdffff";
/// `Buffer::num_cores() const` as g++ 12 makes it, at 0xb760.
const NUM_CORES_GCC: &str = "4883ec18488b7f1031d28b472483e80283f803773280bf4801000000743a488b9740010000488b8700010000 \
     482b87f800000048c1f8044839d0480f47c289442408ba010000008854240c488b4424084883c418c30f1f00 \
     4883c768e8ffccffffebdb";

/// `Buffer::num_dev_pages() const`, 0.66.0, at 0x6c0ed0.
const NUM_DEV_PAGES_V66: &str = "538b472483c0fe83f803737180bf98000000010f85890000008bb78800000031dbb90000000085f674098b47 \
     7831d2f7f689c18bb78c00000085f674098b477c31d2f7f689c30fafd980bfb8010000010f859c000000488b \
     8728010000488b8fb0010000482b872001000048c1f8044839c1480f42c10fafd889d85bc3488b4f584885c9 \
     7466488b47184889c24809ca48c1ea20746c31d248f7f14889c389d85bc380bfb8010000000f848800000048 \
     8b8f20010000488b9f280100004839d9744a488b87b00100004889de4829ce48c1fe044801f048ffc84889c2 \
     4809f248c1ea20742b31d248f7f6eb2831db89d85bc34883c760e8b5cadaff0fafd889d85bc331d2f7f189c3 \
     89d85bc331c0eb0431d2f7f60faf87a8010000488b97b00100004829cb48c1fb044839da480f42da0fafd889 \
     d85bc3e8c46cdaff";
/// `Buffer::num_cores() const`, 0.66.0, at 0x6c0dc0.
const NUM_CORES_V66: &str = "538b472483c0fe83f802773a48bb000000000100000080bfb8010000017530488b8728010000488b8fb00100 \
     00482b872001000048c1f8044839c1480f42c189c04809d85bc331db89c04809d85bc34883c760e868ccdaff \
     89c04809d85bc3";

/// `Buffer::num_dev_pages() const`, 0.62.2, at 0x1a2820.
const NUM_DEV_PAGES_V62: &str = "554156538b472483c0fe83f803734d488d5f6080bfa80000000175638bb79800000031edb90000000085f674 \
     098b477831d2f7f689c18bb79c00000085f674098b477c31d2f7f689c50fafe94889dfe82c50f6ff0fafc55b \
     415e5dc3488b4f584885c97460488b47184889c24809ca48c1ea20747a31d248f7f15b415e5dc380bfd80100 \
     00007470488d87c00000004989fe4889c7e8a64cf6ff418b4e2483c1fe83f90277524c89f24180bea8000000 \
     0175194889df4889c3e8c24ff6ff89c14889d8eb2231c05b415e5dc380bad8010000007423488b8a48010000 \
     482b8a4001000048c1e9040fafc15b415e5dc331d2f7f15b415e5dc3e84307f6ff";
/// `Buffer::num_cores() const`, 0.62.2, at 0x1a26f0.
const NUM_CORES_V62: &str = "538b472483c0fe83f802772380bfa800000001752348bb00000000010000004883c760e88851f6ff89c04809 \
     d85bc331db89c04809d85bc380bfd801000000742348bb0000000001000000488b8748010000482b87400100 \
     0048c1e80489c04809d85bc3e80709f6ff";
/// `BufferDistributionSpec::max_num_dev_pages_per_core() const`, 0.62.2.
const PER_CORE_V62: &str = "488b8f88000000482b8f80000000742b48c1f904488b87100100004801c848ffc84889c24809ca48c1ea2074 \
     1931d248f7f1480faf8708010000c331c0480faf8708010000c331d2f7f1480faf8708010000c3";

/// `Buffer::num_dev_pages() const`, 0.60.1, at 0xeb4210.
const NUM_DEV_PAGES_V60: &str = "554156538b472483c0fe83f803734d488d5f6080bfa80000000175638bb79800000031edb90000000085f674 \
     098b477831d2f7f689c18bb79c00000085f674098b477c31d2f7f689c50fafe94889dfe82ca04aff0fafc55b \
     415e5dc3488b4f584885c97460488b47184889c24809ca48c1ea20747a31d248f7f15b415e5dc380bf600100 \
     00007470488d87c00000004989fe4889c7e876d64aff418b4e2483c1fe83f90277524c89f24180bea8000000 \
     0175194889df4889c3e8c29f4aff89c14889d8eb2231c05b415e5dc380ba60010000007423488b8a50010000 \
     482b8a4801000048c1e9040fafc15b415e5dc331d2f7f15b415e5dc3e893c04aff";
/// `Buffer::num_cores() const`, 0.60.1, at 0xeb40e0.
const NUM_CORES_V60: &str = "538b472483c0fe83f802772380bfa800000001752348bb00000000010000004883c760e888a14aff89c04809 \
     d85bc331db89c04809d85bc380bf6001000000742348bb0000000001000000488b8750010000482b87480100 \
     0048c1e80489c04809d85bc3e857c24aff";
/// Goes round for ever; that of 0.60.1 goes round once per dimension.
const LOOP: &str = "ebfe";

/// `CoreRangeSet::num_cores`, or the stub that leads there.
const CORES: &str = "_ZNK2tt8tt_metal12CoreRangeSet9num_coresEv";
const THROW: &str = "_ZSt27__throw_bad_optional_accessv";
const PER_CORE: &str = "_ZNK2tt8tt_metal22BufferDistributionSpec26max_num_dev_pages_per_coreEv";

/// Where one version has its functions: num_dev_pages, num_cores, and the two callees.
struct Version {
    at: [u64; 4],
    num_cores: &'static str,
    /// Where the pages per core are counted, if in a function of its own.
    per_core: Option<(u64, &'static str)>,
    implementation: u32,
    memory_layout: u32,
}

const V81: Version = Version {
    at: [0xc7_5d70, 0xc7_5c50, 0x78_f6e0, 0x78_1e10],
    num_cores: NUM_CORES_V81,
    per_core: None,
    implementation: 0x10,
    memory_layout: 0x14,
};
const V78: Version = Version {
    at: [0xb6_8c90, 0xb6_8b80, 0x6d_c730, 0x6d_0300],
    num_cores: NUM_CORES_V78,
    per_core: None,
    implementation: ABSENT,
    memory_layout: 0x24,
};

const GCC: Version = Version {
    at: [0xb7d0, 0xb760, 0x84c0, 0x8630],
    num_cores: NUM_CORES_GCC,
    per_core: None,
    implementation: 0x10,
    memory_layout: 0x24,
};

const V66: Version = Version {
    at: [0x6c_0ed0, 0x6c_0dc0, 0x46_da80, 0x46_7cd0],
    num_cores: NUM_CORES_V66,
    per_core: None,
    implementation: ABSENT,
    memory_layout: 0x24,
};
const V62: Version = Version {
    at: [0x1a_2820, 0x1a_26f0, 0x10_78a0, 0x10_3060],
    num_cores: NUM_CORES_V62,
    per_core: Some((0x10_7560, PER_CORE_V62)),
    implementation: ABSENT,
    memory_layout: 0x24,
};
const V60: Version = Version {
    at: [0xeb_4210, 0xeb_40e0, 0x35_e290, 0x36_03a0],
    num_cores: NUM_CORES_V60,
    per_core: Some((0x36_1920, LOOP)),
    implementation: ABSENT,
    memory_layout: 0x24,
};

fn decode(code: &[u8], version: &Version) -> Result<BufferLayout, Refusal> {
    let [pages, cores, core_range_set, throw] = version.at;
    let num_cores = sample::hex(version.num_cores);
    let per_core = version.per_core.map(|(at, code)| (at, sample::hex(code)));
    let mut pieces = vec![
        (NUM_DEV_PAGES, pages, code),
        (NUM_CORES, cores, &*num_cores),
        (CORES, core_range_set, &[0xc3]),
        (THROW, throw, &[0xc3]),
    ];
    pieces.extend(per_core.as_ref().map(|(at, code)| (PER_CORE, *at, &**code)));
    let image = Image::parse(sample::elf(&pieces)).map_err(|error| error.to_string())?;
    let mut layout = BufferLayout { memory_layout: version.memory_layout, ..BufferLayout::ABSENT };
    let home = Home { image: &image, implementation: version.implementation };
    resolve(&home, &mut Facts::default(), &mut layout)?;
    Ok(layout)
}

fn shard_fields(layout: &BufferLayout) -> [u32; 8] {
    [
        layout.shard_spec_present,
        layout.shard_shape,
        layout.page_shape,
        layout.distribution_present,
        layout.cores_begin,
        layout.cores_end,
        layout.shard_count,
        layout.shard_pages,
    ]
}

#[test]
fn decodes_the_fields_behind_a_pointer() {
    let code = sample::hex(NUM_DEV_PAGES_V81);
    let layout = decode(&code, &V81).unwrap();
    let expected = [0x88, 0x68, 0x78, 0x1b0, 0x110, 0x118, 0x1a8, 0x1a0];
    assert_eq!(shard_fields(&layout), expected);
}

#[test]
fn decodes_the_fields_inside_the_buffer() {
    let code = sample::hex(NUM_DEV_PAGES_V78);
    let layout = decode(&code, &V78).unwrap();
    let expected = [0x98, 0x78, 0x88, 0x1c0, 0x120, 0x128, 0x1b8, 0x1b0];
    assert_eq!(shard_fields(&layout), expected);
}

#[test]
fn decodes_versions_with_fewer_sharded_layouts() {
    let layout = decode(&sample::hex(NUM_DEV_PAGES_V66), &V66).unwrap();
    let expected = [0x98, 0x78, 0x88, 0x1b8, 0x120, 0x128, 0x1b0, 0x1a8];
    assert_eq!((shard_fields(&layout), layout.last_sharded), (expected, 4));
    let layout = decode(&sample::hex(NUM_DEV_PAGES_V62), &V62).unwrap();
    let expected = [0xa8, 0x78, 0x98, 0x1d8, 0x140, 0x148, 0x1d0, 0x1c8];
    assert_eq!((shard_fields(&layout), layout.last_sharded), (expected, 4));
    let layout = decode(&sample::hex(NUM_DEV_PAGES_V81), &V81).unwrap();
    assert_eq!(layout.last_sharded, 5);
    // The two functions have to agree on the range.
    let code = sample::hex(NUM_DEV_PAGES_V66);
    let of_v78 = Version { num_cores: NUM_CORES_V78, ..V66 };
    let refusal = decode(&code, &of_v78).unwrap_err();
    assert_eq!(refusal, "num_cores() and num_dev_pages() disagree on what is sharded");
}

#[test]
fn a_shard_spec_is_decoded_where_a_distribution_is_not() {
    let code = sample::hex(NUM_DEV_PAGES_V60);
    let layout = decode(&code, &V60).unwrap();
    let expected = [0xa8, 0x78, 0x98, ABSENT, ABSENT, ABSENT, ABSENT, ABSENT];
    assert_eq!((shard_fields(&layout), layout.last_sharded), (expected, 4));
    // Whatever one byte is changed to, no other flag is taken for that of the shard spec.
    let mut refused = 0;
    for at in 0..code.len() {
        for change in [0x01, 0x08, 0x40, 0xff] {
            let mut changed = code.clone();
            changed[at] ^= change;
            let Ok(layout) = decode(&changed, &V60) else {
                refused += 1;
                continue;
            };
            assert_eq!(layout.shard_spec_present, 0xa8, "byte {at} ^ {change:#x}");
        }
    }
    assert!(refused > code.len(), "only {refused} changes were refused");
}

#[test]
fn what_is_not_understood_of_a_shard_spec_is_refused() {
    // The product with the cores becomes an endless loop: imul eax,ebp → jmp to itself.
    let mut code = sample::hex(NUM_DEV_PAGES_V62);
    let product = code.windows(3).position(|bytes| bytes == [0x0f, 0xaf, 0xc5]).unwrap();
    code[product..product + 2].copy_from_slice(&[0xeb, 0xfe]);
    let refusal = decode(&code, &V62).unwrap_err();
    assert_eq!(refusal, "shapes was not found");
    // So does the way of an interleaved buffer: test rcx,rcx → jmp to itself.
    let mut code = sample::hex(NUM_DEV_PAGES_V62);
    let pages = code.windows(3).position(|bytes| bytes == [0x48, 0x85, 0xc9]).unwrap();
    code[pages..pages + 2].copy_from_slice(&[0xeb, 0xfe]);
    let refusal = decode(&code, &V62).unwrap_err();
    assert!(refusal.starts_with("num_dev_pages() was not understood"), "{refusal}");
}

#[test]
fn decodes_what_gcc_makes() {
    let code = sample::hex(NUM_DEV_PAGES_GCC);
    let layout = decode(&code, &GCC).unwrap();
    let expected = [0xa0, 0x80, 0x8c, 0x148, 0xf8, 0x100, 0x140, 0x138];
    assert_eq!(shard_fields(&layout), expected);
    // A page height of 0 makes the product 0; that another field is 0 does not.
    let mut changed = code;
    let test = changed.windows(4).position(|bytes| bytes == [0x85, 0xff, 0x74, 0x0c]).unwrap();
    changed[test + 1] = 0xc0;
    let refusal = decode(&changed, &GCC).unwrap_err();
    assert!(refusal.contains("a formula that is not known"), "{refusal}");
}

#[test]
fn finds_the_layout_by_its_range_check() {
    let code = sample::hex(NUM_CORES_V81);
    let file = sample::elf(&[(NUM_CORES, 0xc7_5c50, &code), (CORES, 0x78_f6e0, &[0xc3])]);
    let image = Image::parse(file).unwrap();
    let home = Home { image: &image, implementation: 0x10 };
    let mut facts = Facts::default();
    assert_eq!(layout_field(&home, &mut facts), Ok(0x14));
    assert_eq!(facts.0[0].value, "2..=5");
    let elsewhere = Home { image: &image, implementation: 0x18 };
    assert!(layout_field(&elsewhere, &mut facts).is_err());
}

/// Whatever one byte is changed to: it is refused, or the fields still fit together.
#[test]
fn a_changed_byte_is_refused_or_still_makes_sense() {
    let code = sample::hex(NUM_DEV_PAGES_V81);
    let original = decode(&code, &V81).unwrap();
    let mut refused = 0;
    for at in 0..code.len() {
        for change in [0x01, 0x08, 0x40, 0xff] {
            let mut changed = code.clone();
            changed[at] ^= change;
            let Ok(layout) = decode(&changed, &V81) else {
                refused += 1;
                continue;
            };
            // A field that is read in one place only may move; those that several places
            // read must not.
            assert_eq!(layout.cores_begin, original.cores_begin, "byte {at} ^ {change:#x}");
            assert_eq!(layout.shard_count, original.shard_count, "byte {at} ^ {change:#x}");
            assert_eq!(layout.cores_end, original.cores_end, "byte {at} ^ {change:#x}");
        }
    }
    assert!(refused > code.len(), "only {refused} changes were refused");
}
