//! Where the probes go.
//!
//! Every probe sits at the start of an exported function whose arguments are known from its mangled
//! name: on its first instruction, or on one shortly behind that the kernel can emulate, if that
//! one is always reached and the arguments are still where they were (`prologue.rs`).

use ttmem_common::probe::ProbeId;

use super::{field::Refusal, plan::AttachPoint, prologue};
use crate::image::Image;

/// The function that every buffer allocation passes through; no other library has it.
pub const ALLOCATE: &str = "_ZN2tt8tt_metal12GraphTracker14track_allocateEPKNS0_6BufferE";

/// `SubDeviceManagerTracker`'s constructor, up to the parameters that are read.
const DEVICE_OPEN: [&str; 2] = [
    "EPNS0_7IDeviceEOSt10unique_ptrINS0_13AllocatorImplE",
    "EPNS0_7IDeviceEOSt10unique_ptrINS0_9AllocatorE",
];

/// The class of allocators, as it occurs in mangled names: it was renamed in 0.66.
pub fn allocator_class(image: &Image<'_>) -> Option<&'static str> {
    ["13AllocatorImpl", "9Allocator"].into_iter().find(|class| {
        image.symbol(&format!("_ZN2tt8tt_metal{class}17deallocate_bufferEPNS0_6BufferE")).is_some()
    })
}

fn symbol_of(image: &Image<'_>, probe: ProbeId) -> Result<String, Refusal> {
    let class = || allocator_class(image).ok_or("there is no deallocate_buffer(Buffer*)");
    match probe {
        ProbeId::Allocate => Ok(ALLOCATE.to_owned()),
        ProbeId::Free => {
            Ok(format!("_ZN2tt8tt_metal{}17deallocate_bufferEPNS0_6BufferE", class()?))
        }
        ProbeId::Resize => {
            Ok(format!("_ZN2tt8tt_metal{}21shrink_allocator_sizeERKNS0_10BufferTypeEmb", class()?))
        }
        ProbeId::BulkFree => Ok(format!("_ZN2tt8tt_metal{}18deallocate_buffersEv", class()?)),
        ProbeId::DeviceOpen => DEVICE_OPEN
            .iter()
            .flat_map(|parameters| ["C1", "C2"].map(|kind| (kind, parameters)))
            .find_map(|(kind, parameters)| {
                let prefix = format!("_ZN2tt8tt_metal23SubDeviceManagerTracker{kind}{parameters}");
                let found = image.symbols_with_prefix(&prefix);
                found.first().map(|(name, _)| (*name).to_owned())
            })
            .ok_or_else(|| {
                "there is no SubDeviceManagerTracker(IDevice*, unique_ptr<allocator>&&, …)".into()
            }),
        ProbeId::Failure => Err("its place is decoded, and has no name of its own".into()),
        _ => super::circular::symbol_of(image, probe),
    }
}

/// Where one probe goes.
pub fn attach_point(image: &Image<'_>, probe: ProbeId) -> Result<AttachPoint, Refusal> {
    point_at(image, probe, symbol_of(image, probe)?)
}

/// The point of a probe on the function of a name.
pub fn point_at(image: &Image<'_>, probe: ProbeId, symbol: String) -> Result<AttachPoint, Refusal> {
    let found = image.symbol(&symbol).filter(|found| found.is_function);
    let function = found.ok_or_else(|| format!("there is no function {symbol}"))?;
    let (address, cost) = prologue::best_place(image, function)?;
    let offset =
        image.file_offset(address).ok_or_else(|| format!("{address} is not in the file"))?;
    let behind_entry = address.0 - function.address.0;
    Ok(AttachPoint { probe, symbol, address, behind_entry, offset, cost })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{image::sample, resolve::plan::InstructionCost, units::Svma};

    const FREE: &str = "_ZN2tt8tt_metal13AllocatorImpl17deallocate_bufferEPNS0_6BufferE";
    const OLD_FREE: &str = "_ZN2tt8tt_metal9Allocator17deallocate_bufferEPNS0_6BufferE";
    const OPEN: &str = "_ZN2tt8tt_metal23SubDeviceManagerTrackerC2EPNS0_7IDeviceEOSt10unique_ptr\
                        INS0_13AllocatorImplESt14default_deleteIS5_EE";

    fn point(pieces: &[sample::Piece<'_>], probe: ProbeId) -> Result<AttachPoint, Refusal> {
        attach_point(&Image::parse(sample::elf(pieces)).unwrap(), probe)
    }

    fn cost_of(code: &str) -> Result<InstructionCost, Refusal> {
        let code = sample::hex(code);
        point(&[(ALLOCATE, 0x1000, &code)], ProbeId::Allocate).map(|point| point.cost)
    }

    #[test]
    fn knows_what_the_kernel_emulates() {
        use InstructionCost::{Emulated, SingleStepped};
        // push rbp; push r15; nop; nop with an operand; jmp; call; je
        for code in ["55", "4157", "90", "0f1f4000", "eb00", "e900000000", "e800000000", "7400"] {
            assert_eq!(cost_of(code), Ok(Emulated), "{code}");
        }
        // endbr64; mov; sub; push of a constant and of memory; an indirect jump; a nop with a
        // segment
        for code in ["f30f1efa", "4889f8", "4883ec08", "6a01", "ff37", "ffe0", "2e0f1f4000"] {
            assert_eq!(cost_of(code), Ok(SingleStepped), "{code}");
        }
        assert!(cost_of("06").unwrap_err().starts_with("there is no instruction"));
    }

    #[test]
    fn finds_the_allocator_under_either_name() {
        let code = [0x55];
        let point = |name| point(&[(name, 0x2000, &code)], ProbeId::Free);
        assert_eq!(point(FREE).unwrap().address, Svma(0x2000));
        assert_eq!(point(OLD_FREE).unwrap().symbol, OLD_FREE);
        assert_eq!(point("other"), Err("there is no deallocate_buffer(Buffer*)".into()));
    }

    #[test]
    fn an_unlikely_part_is_no_constructor() {
        let cold = format!("{OPEN}.cold");
        let pieces = [(OPEN, 0x2000, &[0x55][..]), (&*cold, 0x1000, &[0x55])];
        assert_eq!(point(&pieces, ProbeId::DeviceOpen).unwrap().address, Svma(0x2000));
        let refusal = point(&pieces[1..], ProbeId::DeviceOpen).unwrap_err();
        assert!(refusal.starts_with("there is no SubDeviceManagerTracker"), "{refusal}");
    }

    #[test]
    fn says_what_is_missing() {
        let missing = point(&[(FREE, 0x2000, &[0x55])], ProbeId::BulkFree).unwrap_err();
        assert!(missing.ends_with("13AllocatorImpl18deallocate_buffersEv"), "{missing}");
        let missing = point(&[(FREE, 0x2000, &[0x55])], ProbeId::Allocate).unwrap_err();
        assert_eq!(missing, format!("there is no function {ALLOCATE}"));
    }
}
