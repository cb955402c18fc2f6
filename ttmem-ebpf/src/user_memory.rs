//! Reading the target's memory. Never faults, never writes.

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use ttmem_common::layout::{CHAIN_STEPS, Chain};

/// The target's memory could not be read.
pub struct Fault;

/// Copies `len` bytes at `address` to `to`; 0, or an error. For those who must not branch.
#[inline(always)]
pub fn read_raw(to: *mut u8, len: u32, address: u64) -> u64 {
    // SAFETY: the verifier proves that `to` has room for `len` bytes; the helper checks `address`.
    unsafe { bpf_probe_read_user(to.cast(), len, address as *const _) as u64 }
}

/// Copies `len` bytes at `address` to `to`.
#[inline(always)]
pub fn read_into(to: *mut u8, len: u32, address: u64) -> Result<(), Fault> {
    let error = read_raw(to, len, address);
    if error == 0 { Ok(()) } else { Err(Fault) }
}

/// Reads a `T` at `address`.
#[inline(always)]
pub fn read<T: Copy + Default>(address: u64) -> Result<T, Fault> {
    let mut value = T::default();
    read_into((&raw mut value).cast(), size_of::<T>() as u32, address)?;
    Ok(value)
}

/// Follows a chain and reads the 4 or 8 bytes at its end.
#[inline(always)]
pub fn read_chain(object: u64, chain: &Chain) -> Result<u64, Fault> {
    read_field(object, chain).map(|(value, _)| value)
}

/// The same, and the object that the value is a field of.
#[inline(always)]
pub fn read_field(object: u64, chain: &Chain) -> Result<(u64, u64), Fault> {
    let len = chain.len as usize;
    let mut at = object;
    for step in 0..CHAIN_STEPS {
        if step >= len {
            break;
        }
        let field = at.wrapping_add(u64::from(chain.offsets[step]));
        if step + 1 == len {
            let value =
                if chain.width == 4 { u64::from(read::<u32>(field)?) } else { read(field)? };
            return Ok((value, at));
        }
        at = read(field)?;
    }
    Err(Fault)
}
