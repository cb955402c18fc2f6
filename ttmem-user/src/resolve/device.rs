//! How to tell devices from meshes, and where their ids and chips are.

use ttmem_common::layout::{ABSENT, Chain, DeviceLayout};

use super::{
    field::{Facts, Field, Refusal, agreed, paths, returned},
    symbolic::{
        exec::{Call, Executor, Path, Target},
        expr::{Expr, Op, Relation, Value, base_and_offset, load},
    },
};
use crate::{image::Image, units::Svma};

/// From a vtable's symbol to what objects point to: past the offset to top and the type.
const VTABLE_HEAD: u64 = 16;

/// The vtable symbol of `Device`.
const DEVICE: &str = "_ZTVN2tt8tt_metal6DeviceE";
/// The vtable symbol of `MeshDevice`.
const MESH_DEVICE: &str = "_ZTVN2tt8tt_metal11distributed10MeshDeviceE";
/// The vtable symbol of what `MeshDevice` keeps its fields in.
const MESH_DEVICE_IMPL: &str = "_ZTVN2tt8tt_metal11distributed14MeshDeviceImplE";

/// A layout of which nothing is known.
pub const UNKNOWN: DeviceLayout = DeviceLayout {
    device_vptr: 0,
    mesh_vptr: 0,
    chip_id: Chain::ABSENT,
    mesh_id: Chain::ABSENT,
    mesh_devices_begin: Chain::ABSENT,
    mesh_devices_end: Chain::ABSENT,
    mesh_devices_stride: 0,
    mesh_devices_local: ABSENT,
};

/// The first word of a class's objects.
pub fn vptr(image: &Image<'_>, vtable: &str) -> Result<Svma, Refusal> {
    let symbol = image.symbol(vtable).filter(|symbol| !symbol.is_function);
    Ok(symbol.ok_or_else(|| format!("there is no {vtable}"))?.address.plus(VTABLE_HEAD))
}

/// The virtual call that a function ends in, if it does nothing else: object and slot.
fn forwarded(paths: &[Path]) -> Option<(&Value, i64)> {
    let [path] = paths else { return None };
    let mut calls = path.calls();
    let call = calls.next()?;
    let Target::Virtual { object, slot } = &call.target else { return None };
    // The object itself has to be the callee's `this`.
    (calls.next().is_none() && call.arguments[0] == *object).then_some((object, *slot))
}

/// Runs a member function of `MeshDevice`, and, if it only forwards to the same function of what
/// it keeps its fields in, that one.
pub fn mesh_paths(
    image: &Image<'_>,
    function: &str,
    inline: &[&'static str],
) -> Result<Vec<Path>, Refusal> {
    let name = format!("_ZNK2tt8tt_metal11distributed10MeshDevice{function}");
    let own = paths(image, &Executor::new(image).inline(inline), &name)?;
    let Some((object, slot)) = forwarded(&own) else { return Ok(own) };
    let slot = u64::try_from(slot).map_err(|_| format!("{name} calls vtable slot {slot}"))?;
    let table = vptr(image, MESH_DEVICE_IMPL)?;
    let target = image.address_in_slot(table.plus(slot));
    let target = target.ok_or_else(|| format!("slot {slot:#x} of MeshDeviceImpl is empty"))?;
    let expected = format!("_ZNK2tt8tt_metal11distributed14MeshDeviceImpl{function}");
    if image.symbol(&expected).map(|symbol| symbol.address) != Some(target) {
        return Err(format!("slot {slot:#x} of MeshDeviceImpl is not {expected}"));
    }
    Ok(Executor::new(image).inline(inline).argument(0, object).run(target))
}

/// `Device::id()`, found by name and through the vtable slot that `MeshDevice::id()` has.
fn chip_id(image: &Image<'_>) -> Result<Field, Refusal> {
    let by_name = image.symbol("_ZNK2tt8tt_metal6Device2idEv").map(|symbol| symbol.address);
    let mesh =
        paths(image, &Executor::new(image), "_ZNK2tt8tt_metal11distributed10MeshDevice2idEv")?;
    let by_slot = forwarded(&mesh).and_then(|(_, slot)| {
        let slot = u64::try_from(slot).ok()?;
        image.address_in_slot(vptr(image, DEVICE).ok()?.plus(slot))
    });
    let found = by_name.into_iter().chain(by_slot);
    let function = agreed("Device::id()", found)?;
    let value = returned(&Executor::new(image).run(function), "Device::id()")?;
    let field = Field::of(&value, 0).filter(|field| field.width == 4);
    field.ok_or_else(|| format!("Device::id() returns {value}"))
}

fn mesh_id(image: &Image<'_>) -> Result<Field, Refusal> {
    let value = returned(&mesh_paths(image, "2idEv", &[])?, "MeshDevice::id()")?;
    let field = Field::of(&value, 0).filter(|field| field.width == 4);
    field.ok_or_else(|| format!("MeshDevice::id() returns {value}"))
}

/// The vector of a mesh's devices.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Devices {
    begin: Field,
    end: Field,
    stride: u32,
    local: u32,
}

/// What `get_devices()` and `get_device_ids()` leave to others.
const DEVICES: [&str; 4] = [
    "_ZNK2tt8tt_metal11distributed14MeshDeviceImpl11get_devicesEv",
    "_ZNK2tt8tt_metal11distributed14MeshDeviceImpl14get_device_idsEv",
    "_ZNK2tt8tt_metal11distributed14MeshDeviceView11get_devicesEv",
    "_ZN2tt8tt_metal11distributed14extract_localsISt6vectorINS1_11MaybeRemoteIPNS0_7IDevice",
];

/// The vector that `get_devices()` copies: as a whole, or, up to 0.80, those elements that belong
/// to this host.
fn mesh_devices(image: &Image<'_>) -> Result<Devices, Refusal> {
    let name = "_ZNK2tt8tt_metal11distributed10MeshDevice11get_devicesEv";
    // The result is returned in memory, so that `this` is the second argument.
    let found = paths(image, &Executor::new(image).inline(&DEVICES), name)?;
    let filtered: Vec<Devices> = found.iter().filter_map(filtered).collect();
    let devices = if filtered.is_empty() {
        // Every copy has to be understood: one that is not may be the one that counts.
        let copies = found.iter().flat_map(Path::calls).filter(|call| {
            matches!(&call.target, Target::Named(name) if matches!(&**name, "memcpy" | "memmove"))
        });
        let vector = agreed("the vector that get_devices() copies", copies.map(copied))?;
        vector.ok_or("get_devices() copies something else than a vector of the mesh")?
    } else {
        agreed("the vector that get_devices() picks from", filtered)?
    };
    check_against_ids(image, &devices)?;
    Ok(devices)
}

/// A copy of (end - begin) bytes from begin on.
fn copied(call: &Call) -> Option<Devices> {
    let Expr::Binary(Op::Sub, end, begin) = &*call.arguments[2] else { return None };
    let (first, end) = (Field::of(begin, 1)?, Field::of(end, 1)?);
    let is_vector = *begin == call.arguments[1] && first.width == 8 && end.width == 8;
    is_vector.then_some(Devices { begin: first, end, stride: 8, local: ABSENT })
}

/// A loop over a vector that takes an element's first word if a byte of it is 1, then goes on.
fn filtered(path: &Path) -> Option<Devices> {
    let (element, begin, local) = path.conditions.iter().find_map(|condition| {
        let Expr::Load { address, width: 1 } = &*condition.left else { return None };
        let (element, local) = base_and_offset(address);
        let begin = Field::of(element, 1).filter(|begin| begin.width == 8)?;
        let is_flag = condition.relation == Relation::Equal && *condition.right == Expr::Const(1);
        is_flag.then_some((element, begin, u32::try_from(local).ok()?))
    })?;
    let (end, stride) = path.conditions.iter().find_map(|condition| {
        let sides = [(&condition.left, &condition.right), (&condition.right, &condition.left)];
        sides.into_iter().find_map(|(next, end)| {
            let (from, stride) = base_and_offset(next);
            let end = Field::of(end, 1).filter(|end| end.width == 8)?;
            (from == element && stride > 0).then_some((end, u32::try_from(stride).ok()?))
        })
    })?;
    path.loads.contains(&load(element, 8)).then_some(Devices { begin, end, stride, local })
}

/// `get_device_ids()` goes over the same vector, in the versions that have it.
fn check_against_ids(image: &Image<'_>, devices: &Devices) -> Result<(), Refusal> {
    let name = "_ZNK2tt8tt_metal11distributed10MeshDevice14get_device_idsEv";
    if image.symbol(name).is_none() {
        return Ok(());
    }
    let found = paths(image, &Executor::new(image).inline(&DEVICES), name)?;
    let loads: Vec<Field> =
        found.iter().flat_map(|path| &path.loads).filter_map(|load| Field::of(load, 1)).collect();
    if loads.contains(&devices.begin) && loads.contains(&devices.end) {
        return Ok(());
    }
    let Devices { begin, end, .. } = devices;
    Err(format!("get_devices() reads {begin} to {end}, get_device_ids() does not"))
}

/// Decodes everything; what fails is named in the returned list.
pub fn resolve(image: &Image<'_>, facts: &mut Facts) -> (DeviceLayout, Vec<(String, Refusal)>) {
    let mut layout = UNKNOWN;
    let mut failed = Vec::new();
    let mut chain = |name: &str, field: Result<Field, Refusal>, from: &str| {
        let chain = field.and_then(|field| {
            let chain = field.chain()?;
            facts.note(name, &field, from);
            Ok(chain)
        });
        chain.unwrap_or_else(|reason| {
            failed.push((name.to_owned(), reason));
            Chain::ABSENT
        })
    };
    layout.chip_id = chain("Device::id", chip_id(image), "Device::id");
    layout.mesh_id = chain("MeshDevice::id", mesh_id(image), "MeshDevice::id");
    let devices = mesh_devices(image);
    let begin = devices.clone().map(|devices| devices.begin);
    layout.mesh_devices_begin = chain("MeshDevice devices begin", begin, "get_devices");
    if let Ok(Devices { end, stride, local, .. }) = devices {
        layout.mesh_devices_end = chain("MeshDevice devices end", Ok(end), "get_devices");
        (layout.mesh_devices_stride, layout.mesh_devices_local) = (stride, local);
        let place = if local == ABSENT { "none".into() } else { format!("+{local:#x}") };
        let element = format!("{stride} bytes, local flag {place}");
        facts.note("MeshDevice devices element", &element, "get_devices");
    }
    for (name, table, place) in [
        ("Device vtable", DEVICE, &mut layout.device_vptr),
        ("MeshDevice vtable", MESH_DEVICE, &mut layout.mesh_vptr),
    ] {
        match vptr(image, table) {
            Ok(address) => {
                facts.note(name, &address, table);
                *place = address.0;
            }
            Err(reason) => failed.push((name.to_owned(), reason)),
        }
    }
    (layout, failed)
}

/// What a returned reference to an owning pointer refers to: the pointer stored there.
fn owner(value: &Value) -> Option<Field> {
    Field::of(&load(value, 8), 0)
}

/// `Device` → its allocator.
pub fn device_allocator(image: &Image<'_>) -> Result<Field, Refusal> {
    let name = "_ZNK2tt8tt_metal6Device14allocator_implEv";
    let value = returned(&paths(image, &Executor::new(image), name)?, name)?;
    // `this + offset`: it lies in the device itself, so this is a reference, not the allocator.
    let field = owner(&value).filter(|field| field.steps.len() == 1);
    field.ok_or_else(|| format!("{name} returns {value}"))
}

/// `MeshDevice` → its default allocator. It overrides the function that `Device` overrides, so
/// it returns a reference as well.
pub fn mesh_allocator(image: &Image<'_>) -> Result<Field, Refusal> {
    device_allocator(image)?;
    let inline = [
        "_ZNK2tt8tt_metal23SubDeviceManagerTracker30get_default_sub_device_managerEv",
        "_ZNK2tt8tt_metal16SubDeviceManager9allocatorEN",
    ];
    let found = mesh_paths(image, "14allocator_implEv", &inline)?;
    let value = returned(&found, "MeshDevice::allocator_impl()")?;
    owner(&value).ok_or_else(|| format!("MeshDevice::allocator_impl() returns {value}"))
}

#[cfg(test)]
mod tests;
