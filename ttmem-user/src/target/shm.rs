//! tt-metal's own totals in shared memory (`/dev/shm/tt_device_<id>_memory`), of one target.
//!
//! They are read through the target's own mapping: it is the very file that the target writes,
//! whatever its name leads to now, and it needs no right but the one to read the target's memory.
//! Foreign bytes: any process of that user may have written anything there.
//!
//! Invariant: a file is believed only if its version is one whose layout is known, if the id in it
//! is the id in its name, and if the object through which the target writes it names both.

use std::path::Path;

use super::{maps::MemoryMap, memory::TargetMemory};
use crate::{
    event::{SharedBytes, SharedFile, SharedTotals},
    units::{Avma, ChipId, Pid},
};

/// The layout versions that are known: alike up to the end of the processes' entries.
const VERSIONS: [u32; 2] = [3, 4];
/// Bytes of a file of these versions.
const SIZE: usize = 8576;
/// Where the id of the chip's ASIC is.
const ASIC: usize = 0x20;
/// Where the totals of all processes begin.
const TOTALS: usize = 0x30;
/// Where the entries of processes begin.
const PROCESSES: usize = 0x358;
/// Bytes of an entry: process id, padding, five totals, time, name.
const PROCESS_SIZE: usize = 0x78;
/// Entries of processes.
const PROCESS_COUNT: usize = 64;
/// In the object that writes a file: its id is first, then the chip, then the mapping's address.
const WRITER_CHIP: u64 = 8;
/// Where the object has the mapping's address.
const WRITER_REGION: u64 = 0x10;

/// A file that the target has mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Its name in `/dev/shm`.
    pub name: String,
    /// The id in the name.
    asic: u64,
    /// Where it is mapped.
    pub start: Avma,
    /// How much of it, bytes.
    size: u64,
}

/// Whose entries are whose.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    /// The target's process id, as it knows itself.
    pub pid: Pid,
    /// Whether the ids of other processes mean something here: no other pid namespace.
    pub same_namespace: bool,
}

/// The files that are mapped.
pub fn mappings(maps: &[MemoryMap]) -> Vec<Mapping> {
    let shared = maps
        .iter()
        .filter(|map| map.offset == 0 && map.permissions.read() && map.permissions.shared());
    shared
        .filter_map(|map| {
            let (name, asic) = name_of(map.path()?)?;
            let size = map.addresses.end.checked_sub(map.addresses.start)?;
            Some(Mapping { name, asic, start: Avma(map.addresses.start), size })
        })
        .collect()
}

/// The name and the id in it, if it is such a file's.
fn name_of(path: &Path) -> Option<(String, u64)> {
    let name = path.strip_prefix("/dev/shm").ok()?.to_str()?;
    // Somebody may have removed it while it is in use.
    let name = name.strip_suffix(" (deleted)").unwrap_or(name);
    let digits = name.strip_prefix("tt_device_")?.strip_suffix("_memory")?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    Some((name.to_owned(), digits.parse().ok().filter(|_| plain)?))
}

/// Reads one file. `pointers`: every word of the target that is the mapping's address.
pub fn read(
    memory: &dyn TargetMemory,
    mapping: &Mapping,
    pointers: impl Iterator<Item = Avma>,
    owner: Owner,
    is_alive: impl Fn(Pid) -> bool,
) -> SharedFile {
    let totals = writer_chip(memory, mapping, pointers).and_then(|chip| {
        if mapping.size < SIZE as u64 {
            return Err(format!("it has {} bytes instead of {SIZE}", mapping.size));
        }
        let mut bytes = vec![0; SIZE];
        memory.read(mapping.start, &mut bytes).map_err(|_| "it cannot be read".to_owned())?;
        parse(&bytes, mapping.asic, chip, owner, is_alive)
    });
    SharedFile { name: mapping.name.clone(), totals }
}

/// The chip for which the target writes the file. The chip's number in the file is that of
/// whoever opened it last.
fn writer_chip(
    memory: &dyn TargetMemory,
    mapping: &Mapping,
    pointers: impl Iterator<Item = Avma>,
) -> Result<ChipId, String> {
    let mut chips = pointers.filter_map(|at| {
        let writer = Avma(at.0.checked_sub(WRITER_REGION)?);
        let names_it = memory.word(writer) == Ok(mapping.asic);
        let chip = names_it.then(|| memory.half(writer.plus(WRITER_CHIP)).ok()).flatten()?;
        i32::try_from(chip).ok().map(ChipId)
    });
    let first = chips.next().ok_or("what writes it was not found in the target")?;
    if chips.all(|chip| chip == first) {
        Ok(first)
    } else {
        Err("several chips are said to write it".to_owned())
    }
}

/// Reads the bytes of a file.
pub fn parse(
    bytes: &[u8],
    asic: u64,
    chip: ChipId,
    owner: Owner,
    is_alive: impl Fn(Pid) -> bool,
) -> Result<SharedTotals, String> {
    let cut = || format!("it has {} bytes instead of {SIZE}", bytes.len());
    let version = half(bytes, 0).ok_or_else(cut)?;
    if !VERSIONS.contains(&version) {
        return Err(format!("its layout has version {version}, which is not known"));
    }
    if bytes.len() < SIZE {
        return Err(cut());
    }
    let found = word(bytes, ASIC).ok_or_else(cut)?;
    if found != asic {
        return Err(format!("it says that it is of chip {found}, and its name says {asic}"));
    }
    let all = totals(bytes, TOTALS).ok_or_else(cut)?;
    let mut own = None;
    let mut ended = [0_u64; 4];
    for entry in (0..PROCESS_COUNT).map(|index| PROCESSES + index * PROCESS_SIZE) {
        let pid = half(bytes, entry).ok_or_else(cut)?;
        let entry = totals(bytes, entry + 8).ok_or_else(cut)?;
        if pid == owner.pid.0 {
            if own.replace(entry).is_some() {
                return Err(format!("it has two entries for process {pid}"));
            }
        } else if owner.same_namespace && is_process(pid) && !is_alive(Pid(pid)) {
            for (sum, more) in ended.iter_mut().zip(entry) {
                *sum = sum.saturating_add(more);
            }
        }
    }
    let ended = owner.same_namespace.then_some(ended);
    Ok(SharedTotals { chip, own_pid: owner.pid, own, all, ended })
}

/// 0 and -1 stand for free entries.
fn is_process(pid: u32) -> bool {
    i32::try_from(pid).is_ok_and(|pid| pid > 0)
}

fn totals(bytes: &[u8], at: usize) -> Option<SharedBytes> {
    Some([word(bytes, at)?, word(bytes, at + 8)?, word(bytes, at + 16)?, word(bytes, at + 24)?])
}

fn half(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Whether a process with this id exists. To be asked in its own pid namespace.
pub fn exists(pid: Pid) -> bool {
    let id = i32::try_from(pid.0).ok().and_then(rustix::process::Pid::from_raw);
    // A process that may not be signalled exists.
    id.is_some_and(|id| rustix::process::test_kill_process(id) != Err(rustix::io::Errno::SRCH))
}

#[cfg(test)]
mod tests;
