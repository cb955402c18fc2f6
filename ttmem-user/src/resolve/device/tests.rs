//! Functions of devices and meshes as two compilers made them, whole and damaged.

use super::*;
use crate::image::sample;

/// Where the samples have their vtables, and the words that objects begin with.
const DEVICE_AT: u64 = 0x10_0000;
const IMPL_AT: u64 = 0x10_1000;
const MESH_AT: u64 = 0x10_2000;

const IMPL_ID: &str = "_ZNK2tt8tt_metal11distributed14MeshDeviceImpl2idEv";
const IMPL_ALLOCATOR: &str = "_ZNK2tt8tt_metal11distributed14MeshDeviceImpl14allocator_implEv";

/// One library: functions with their code, and what slots of vtables hold.
struct Library {
    functions: Vec<(&'static str, u64, Vec<u8>)>,
    slots: Vec<(u64, u64)>,
}

impl Library {
    fn new(functions: &[(&'static str, u64, &str)], slots: &[(u64, u64)]) -> Self {
        let tables = [(DEVICE, DEVICE_AT), (MESH_DEVICE_IMPL, IMPL_AT), (MESH_DEVICE, MESH_AT)];
        let code = functions.iter().map(|(name, at, digits)| (*name, *at, sample::hex(digits)));
        let tables = tables.map(|(name, at)| (name, at, vec![0; 0x200]));
        Self { functions: code.chain(tables).collect(), slots: slots.to_vec() }
    }

    /// tt-metal 0.81.1, made by clang.
    fn clang() -> Self {
        let slots = [
            (DEVICE_AT + 16 + 0x18, 0xcb_9280),
            (IMPL_AT + 16 + 0x18, 0xec_9c40),
            (IMPL_AT + 16 + 0xc8, 0xec_ed40),
        ];
        Self::new(
            &[
                (
                    "_ZNK2tt8tt_metal11distributed10MeshDevice2idEv",
                    0xec_eff0,
                    "488b7f18488b07ff6018",
                ),
                (IMPL_ID, 0xec_9c40, "8b4768c3"),
                ("", 0xcb_9280, "8b4718c3"),
                (
                    "_ZNK2tt8tt_metal11distributed10MeshDevice11get_devicesEv",
                    0xeb_1780,
                    "41574156415453504889fb4c8b66184d8b7c24784d8bb424800000004d39f774274d29fe743e4c89f7e8\
                     82bb8fff4889034e8d24304889c74c89fe4c89f2e88dc88fff4d89e6eb26498b7c2470e83e1f8eff4d8b\
                     7c24784d8bb424800000004d29fe75c248c703000000004531e44c8973104c8963084889d84883c4085b\
                     415c415e415fc3",
                ),
                ("_ZNK2tt8tt_metal11distributed14MeshDeviceView11num_devicesEv", 0x79_3710, "c3"),
                ("_Znwm", 0x7a_d330, "c3"),
                ("memcpy", 0x7a_e050, "c3"),
                ("_ZNK2tt8tt_metal6Device14allocator_implEv", 0xcb_4650, "488d8748020000c3"),
                (
                    "_ZNK2tt8tt_metal11distributed10MeshDevice14allocator_implEv",
                    0xec_f2d0,
                    "488b7f18488b07ffa0c8000000",
                ),
                (
                    IMPL_ALLOCATOR,
                    0xec_ed40,
                    "4883ec18488b87f80100004885c074164889c7e8d8f68bff4889c731f64883c418e98af68bff488b07ff\
                     501889442414488d44241448890424488d3d93aa84ff488d150a9882ff488d0dda1a84ff4c8d052b8b88\
                     ff41b91d010000bee3040000e85b458bff",
                ),
                // The tracker's, here where the stub is; then the manager's: lea rax,[rax+rsi*8].
                (
                    "_ZNK2tt8tt_metal23SubDeviceManagerTracker30get_default_sub_device_managerEv",
                    0x78_e430,
                    "488b4748c3",
                ),
                (
                    "_ZNK2tt8tt_metal16SubDeviceManager9allocatorEN4ttsl10StrongType",
                    0x78_e3f0,
                    "488b4f704889f0488d04c1c3",
                ),
                ("_ZN2tt6assert6detail8tt_throwIJiEEEvPKciS4_S4_", 0x78_3300, "c3"),
            ],
            &slots,
        )
    }

    /// What g++ 12 makes; `Device::id` has no symbol.
    fn gcc() -> Self {
        let slots = [
            (DEVICE_AT + 16 + 0x18, 0xcff0),
            (IMPL_AT + 16 + 0x18, 0xe550),
            (IMPL_AT + 16 + 0x40, 0xe5b0),
        ];
        Self::new(
            &[
                (
                    "_ZNK2tt8tt_metal11distributed10MeshDevice2idEv",
                    0xe5f0,
                    "f30f1efa488b7f20488b07ff6018",
                ),
                (IMPL_ID, 0xe550, "8b8780000000c3"),
                ("", 0xcff0, "8b4724c3"),
                // The callee, called by way of nothing, lies where its stub was: 0xe710.
                (
                    "_ZNK2tt8tt_metal11distributed10MeshDevice11get_devicesEv",
                    0xe950,
                    "53488b76204889fbe8b3fdffff4889d85bc3",
                ),
                (
                    "_ZNK2tt8tt_metal11distributed14MeshDeviceImpl11get_devicesEv",
                    0xe710,
                    "4154660fefc04989f45553488bae980000004889fb482bae9000000048c74710000000000f1107746748\
                     b8f8ffffffffffff7f4839e872604889efe8609cffff4889c166480f6ec14801cd660f6cc048896b100f\
                     1103498b842498000000498bb424900000004889c54829f54839f0740e4889cf4889eae8849effff4889\
                     c14801e94889d848894b085b5d415cc3669031c9ebaf0f1f4000e8739bffff",
                ),
                ("_ZSt28__throw_bad_array_new_lengthv", 0x8320, "c3"),
                ("_Znwm", 0x83b0, "c3"),
                ("memmove", 0x8610, "c3"),
                ("_ZNK2tt8tt_metal6Device14allocator_implEv", 0xcb00, "488d87c0010000c3"),
                (
                    "_ZNK2tt8tt_metal11distributed10MeshDevice14allocator_implEv",
                    0xe5a0,
                    "488b7f20488b07ff6040",
                ),
                (
                    IMPL_ALLOCATOR,
                    0xe5b0,
                    "4883ec08488bbfe80100004885ff7413e86ba1ffff31f64883c4084889c7e90de8ffff488d3d2c2e0000\
                     e851a0ffff",
                ),
                (
                    "_ZNK2tt8tt_metal23SubDeviceManagerTracker30get_default_sub_device_managerEv",
                    0x8730,
                    "488b4730c3",
                ),
                (
                    "_ZNK2tt8tt_metal16SubDeviceManager9allocatorEN4ttsl10StrongType",
                    0xcde0,
                    "488b4710482b4708400fb6f648c1f8034839c6730c488b8780000000488d04f0c350488d3def440000e8\
                     22b8ffff",
                ),
                // The error always throws: call 0x8670.
                ("_ZN2tt8tt_metal11throw_errorEPKc", 0x8630, "e83b000000"),
                ("__cxa_throw", 0x8670, "c3"),
            ],
            &slots,
        )
    }

    fn with<T>(&self, look: impl FnOnce(&Image<'_>) -> T) -> T {
        let pieces: Vec<sample::Piece<'_>> =
            self.functions.iter().map(|(name, at, code)| (*name, *at, &**code)).collect();
        look(&Image::parse(sample::elf_with_slots(&pieces, &self.slots)).unwrap())
    }

    fn replaced(mut self, name: &str, digits: &str) -> Self {
        let found = self.functions.iter_mut().find(|function| function.0 == name).unwrap();
        found.2 = sample::hex(digits);
        self
    }
}

fn layout(image: &Image<'_>) -> (DeviceLayout, Vec<(String, Refusal)>) {
    resolve(image, &mut Facts::default())
}

fn chain(offsets: &[u32], width: u32) -> Chain {
    Chain::new(offsets, width).unwrap()
}

fn steps(field: Result<Field, Refusal>) -> Vec<u32> {
    field.unwrap().steps
}

#[test]
fn decodes_what_clang_makes() {
    let (layout, failed) = Library::clang().with(layout);
    assert_eq!(failed, []);
    assert_eq!(layout.chip_id, chain(&[0x18], 4));
    assert_eq!(layout.mesh_id, chain(&[0x18, 0x68], 4));
    assert_eq!(layout.mesh_devices_begin, chain(&[0x18, 0x78], 8));
    assert_eq!(layout.mesh_devices_end, chain(&[0x18, 0x80], 8));
    assert_eq!((layout.mesh_devices_stride, layout.mesh_devices_local), (8, ABSENT));
    assert_eq!((layout.device_vptr, layout.mesh_vptr), (DEVICE_AT + 16, MESH_AT + 16));
    Library::clang().with(|image| {
        assert_eq!(steps(device_allocator(image)), [0x248]);
        assert_eq!(steps(mesh_allocator(image)), [0x18, 0x1f8, 0x48, 0x70, 0]);
    });
}

#[test]
fn decodes_what_gcc_makes() {
    let (layout, failed) = Library::gcc().with(layout);
    assert_eq!(failed, []);
    assert_eq!(layout.chip_id, chain(&[0x24], 4));
    assert_eq!(layout.mesh_id, chain(&[0x20, 0x80], 4));
    assert_eq!(layout.mesh_devices_begin, chain(&[0x20, 0x90], 8));
    assert_eq!(layout.mesh_devices_end, chain(&[0x20, 0x98], 8));
    Library::gcc().with(|image| {
        assert_eq!(steps(device_allocator(image)), [0x1c0]);
        assert_eq!(steps(mesh_allocator(image)), [0x20, 0x1e8, 0x30, 0x80, 0]);
    });
}

fn refusal(library: &Library, name: &str) -> Refusal {
    let (_, failed) = library.with(layout);
    let found = failed.into_iter().find(|entry| entry.0 == name);
    found.unwrap_or_else(|| panic!("{name} was not refused")).1
}

#[test]
fn says_why_an_id_is_refused() {
    // A symbol that the vtable does not lead to.
    let mut library = Library::gcc();
    library.functions.push(("_ZNK2tt8tt_metal6Device2idEv", 0xd100, sample::hex("8b4724c3")));
    assert!(refusal(&library, "Device::id").contains("ambiguous"));
    // An id of 8 bytes.
    let library = Library::gcc().replaced(IMPL_ID, "488b8780000000c3");
    assert!(refusal(&library, "MeshDevice::id").starts_with("MeshDevice::id() returns u64["));
    // A slot that leads to another function.
    let mut library = Library::gcc();
    library.slots[1].1 = 0xcff0;
    assert!(refusal(&library, "MeshDevice::id").contains("is not _ZNK2tt8tt_metal11distributed14"));
    library.slots.clear();
    assert!(refusal(&library, "MeshDevice::id").contains("is empty"));
    assert_eq!(refusal(&library, "Device::id"), "Device::id() was not found");
}

#[test]
fn says_why_a_vector_is_refused() {
    // lea rsi,[rsi+0x90]; mov edx,8; a copy of something that is no vector
    let impl_devices = "_ZNK2tt8tt_metal11distributed14MeshDeviceImpl11get_devicesEv";
    // 0xe710: lea rsi,[rsi+0x90]; mov edx,8; jmp 0x8610
    let code = "488db690000000ba08000000e9ef9effff";
    let library = Library::gcc().replaced(impl_devices, code);
    let reason = refusal(&library, "MeshDevice devices begin");
    assert_eq!(reason, "get_devices() copies something else than a vector of the mesh");
    let library = Library::gcc().replaced(impl_devices, "c3");
    let reason = refusal(&library, "MeshDevice devices begin");
    assert_eq!(reason, "the vector that get_devices() copies was not found");
}

#[test]
fn an_allocator_is_only_followed_as_a_reference() {
    // mov rax,[rdi+0x1c0]; ret
    let library =
        Library::gcc().replaced("_ZNK2tt8tt_metal6Device14allocator_implEv", "488b87c0010000c3");
    library.with(|image| {
        assert!(device_allocator(image).is_err());
        assert!(mesh_allocator(image).is_err());
    });
    // An error that returns is no reason to leave the path out.
    let library = Library::gcc().replaced("_ZN2tt8tt_metal11throw_errorEPKc", "c3");
    library.with(|image| {
        let reason = mesh_allocator(image).unwrap_err();
        assert!(reason.contains("was not understood"), "{reason}");
    });
}

/// Whatever one byte is changed to: the vector keeps its shape or is refused.
#[test]
fn a_changed_byte_is_refused_or_still_makes_sense() {
    let (mut changes, mut refused) = (0, 0);
    for library in [Library::clang, Library::gcc] {
        // All but the vtables, of which only the slots count.
        for function in 0..library().functions.len() - 3 {
            for at in 0..library().functions[function].2.len() {
                for change in [0x08, 0xff] {
                    let mut library = library();
                    library.functions[function].2[at] ^= change;
                    changes += 1;
                    let (layout, failed) = library.with(layout);
                    refused += usize::from(!failed.is_empty());
                    let (begin, end) = (layout.mesh_devices_begin, layout.mesh_devices_end);
                    assert_eq!(begin.len, end.len);
                    for chain in [begin, end, layout.chip_id, layout.mesh_id] {
                        assert!(chain.len <= 2, "{chain:?}");
                    }
                }
            }
        }
    }
    assert!(refused > 200, "only {refused} of {changes} changes were refused");
}
