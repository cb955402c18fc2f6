//! Loads the eBPF side, or says why the kernel will not have it.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
};

use aya::{Ebpf, EbpfLoader, maps::Map, programs::ProgramError};
use ttmem_common::{
    control::CONTROL_WORDS,
    cpu_ring::CHUNK,
    layout::MAX_SLOTS,
    loss::LOSS_STRIDE,
    witness::{ROWS, WITNESS_WORDS},
};

use super::{
    Attacher, Records, StackRecords, btf, cpu_rings::CpuRings, merge::Merge, multi, perf,
    ring::Ring, support,
};
use crate::{units::FileOffset, words::Words};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ttmem-ebpf"));

/// Name of the one program.
pub(super) const PROGRAM: &str = "ttmem";

/// Why the kernel side does not work.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The eBPF object or what aya makes of it.
    #[error("cannot load the eBPF side: {0}")]
    Object(String),
    /// The kernel is too old.
    #[error("kernel {found} is too old: attach cookies need {needed} or newer")]
    TooOld {
        /// The running kernel.
        found: support::KernelVersion,
        /// What is needed.
        needed: support::KernelVersion,
    },
    /// The kernel is locked down.
    #[error(
        "the kernel is locked down ({0}): eBPF may not read a program's memory; boot with lockdown=integrity or none"
    )]
    LockedDown(String),
    /// This process's clock is not the kernel's.
    #[error(
        "this time namespace has a monotonic clock of its own ({0} from the kernel's, which records have): run ttmem outside of it"
    )]
    ClockOffset(String),
    /// The kernel has no uprobes.
    #[error("this kernel has no uprobes: use one built with CONFIG_UPROBE_EVENTS")]
    NoUprobes,
    /// No right to load eBPF programs.
    #[error(
        "not allowed to load or attach eBPF programs: run ttmem with sudo, or with CAP_BPF and CAP_PERFMON"
    )]
    NotAllowed,
    /// The kernel refused a program or map.
    #[error("the kernel refused {what}: {source}")]
    Load {
        /// What it refused.
        what: &'static str,
        /// Its reason.
        source: io::Error,
    },
    /// The verifier refused a program.
    #[error("the kernel refused {what}: {source}; the verifier says: {}", last_lines(log))]
    Verifier {
        /// What it refused.
        what: &'static str,
        /// Its reason.
        source: io::Error,
        /// The verifier's log.
        log: String,
    },
    /// The kernel refused the link.
    #[error("failed to attach {} probes to {}: {source}", points, path.display())]
    AttachMulti {
        /// The image.
        path: PathBuf,
        /// How many probes.
        points: usize,
        /// Its reason.
        source: io::Error,
    },
    /// The kernel refused one probe.
    #[error("failed to attach a probe at {}+{offset}: {source}", path.display())]
    AttachPerf {
        /// The image.
        path: PathBuf,
        /// Where.
        offset: FileOffset,
        /// Its reason.
        source: ProgramError,
    },
}

/// How to load.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// Bytes for records on their way, in all rings together; a power of two, at least a page.
    pub ring_bytes: u32,
    /// How call stacks are recorded, if they are.
    pub stacks: Option<StackOptions>,
    /// Let the eBPF side write diagnostics to the log.
    pub debug: bool,
    /// Use perf events even where a `uprobe_multi` link would do.
    pub perf_events: bool,
    /// Let every other hit do as if it had preempted another one.
    pub pretend_preempting: bool,
}

/// How call stacks are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StackOptions {
    /// Bytes of a stack that are copied; a multiple of `STACK_PIECE`, and not 0.
    pub bytes: u32,
    /// Size of their ring buffer in bytes; a power of two, at least a page.
    pub ring_bytes: u32,
}

/// The loaded eBPF side: what attaches, and what delivers records.
pub struct Kernel {
    /// Attaches to targets and detaches; needs capabilities.
    pub attacher: Attacher,
    /// Delivers what the probes recorded; needs none.
    pub records: Records,
    /// Delivers the call stacks, if they are recorded; needs none.
    pub stacks: Option<StackRecords>,
}

impl Kernel {
    /// Loads programs and maps.
    pub fn load(options: LoadOptions) -> Result<Self, KernelError> {
        check_kernel(
            support::running(),
            support::lockdown(),
            support::clock_offset(),
            support::has_uprobes(),
        )?;
        let cpus = possible_cpus();
        let (namespace_dev, namespace_ino) = support::pid_namespace().unwrap_or((0, 0));
        let page = u32::try_from(rustix::param::page_size()).unwrap_or(4096);
        let room = Room::of(options.ring_bytes, cpus, page);
        let stack_bytes = options.stacks.map_or(0, |stacks| stacks.bytes);
        let fs_base = options.stacks.and_then(|_| btf::fs_base()).unwrap_or(0);
        let pretend_preempting = u32::from(options.pretend_preempting);
        let log_level: u8 = if options.debug { 0xff } else { 0 };
        let mut ebpf = EbpfLoader::new()
            // Nothing is relocated against kernel types; reading them would take 60 ms.
            .btf(None)
            .map_max_entries("EVENTS", room.shared_bytes)
            .map_max_entries("CPUS", cpus)
            .map_max_entries("CHUNKS", cpus * room.chunks_each)
            .map_max_entries("STACKS", options.stacks.map_or(page, |stacks| stacks.ring_bytes))
            .map_max_entries("LOSS", cpus * LOSS_STRIDE)
            .map_max_entries("WITNESS", cpus * ROWS * MAX_SLOTS)
            .override_global("PID_NS_DEV", &namespace_dev, true)
            .override_global("PID_NS_INO", &namespace_ino, true)
            .override_global("STACK_BYTES", &stack_bytes, true)
            .override_global("FS_BASE", &fs_base, true)
            .override_global("PRETEND_PREEMPTING", &pretend_preempting, true)
            .override_global("AYA_LOG_LEVEL", &log_level, false)
            .load(&without_line_info(OBJECT))
            .map_err(|error| load_error(&error))?;
        let multi = if support::has_dependable_multi() && !options.perf_events {
            Some(multi::load(&ebpf, OBJECT)?)
        } else {
            perf::load(&mut ebpf)?;
            None
        };
        let (states, chunks) = (map_fd(&ebpf, "CPUS")?, map_fd(&ebpf, "CHUNKS")?);
        let own = CpuRings::map(states.as_fd(), chunks.as_fd(), cpus, room.chunks_each).map_err(
            |source| KernelError::Load { what: "the mapping of the CPUs' rings", source },
        )?;
        let rings = Merge::new(own, map_ring(&ebpf, "EVENTS", room.shared_bytes)?);
        let control = || map_words(&ebpf, "CONTROL", CONTROL_WORDS);
        let loss = || map_words(&ebpf, "LOSS", cpus * LOSS_STRIDE);
        let stacks = options.stacks.map(|stacks| {
            let ring = map_ring(&ebpf, "STACKS", stacks.ring_bytes)?;
            Ok::<_, KernelError>(StackRecords::new(ring, control()?, loss()?, cpus))
        });
        let (stacks, control, loss) = (stacks.transpose()?, control()?, loss()?);
        let rows = cpus * ROWS * MAX_SLOTS;
        let witness = map_words(&ebpf, "WITNESS", rows * WITNESS_WORDS)?;
        Ok(Self {
            attacher: Attacher::new(ebpf, multi),
            records: Records::new(rings, control, loss, witness, cpus),
            stacks,
        })
    }
}

/// How the room for records on their way is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    /// Bytes of the ring buffer of all.
    shared_bytes: u32,
    /// Chunks of the ring of each CPU, a power of two.
    chunks_each: u32,
}

impl Room {
    /// One half for all, one for the CPUs' own; at least the least that there can be.
    fn of(bytes: u32, cpus: u32, page: u32) -> Self {
        let most = (bytes / 2 / CHUNK / cpus.max(1)).max(1);
        let chunks_each = 1 << most.ilog2();
        Self { shared_bytes: (bytes / 2).max(page), chunks_each }
    }
}

/// The object without the section that says which line of source an instruction is of.
///
/// aya 0.14 puts functions together in a way that leaves two entries for one instruction, which
/// the kernel refuses. Under another name nobody looks for the section.
fn without_line_info(object: &[u8]) -> Vec<u8> {
    const NAME: &[u8] = b".BTF.ext\0";
    const OTHER: &[u8] = b".no.line\0";
    let mut object = object.to_vec();
    let found: Vec<usize> = memchr::memmem::find_iter(&object, NAME).collect();
    for at in found {
        object[at..at + NAME.len()].copy_from_slice(OTHER);
    }
    object
}

/// The end of a verifier's log, where the reason is, in one line.
fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.starts_with("processed ")).collect();
    lines[lines.len().saturating_sub(3)..].join("; ")
}

/// Refuses where nothing could work, with the reason that the kernel's own refusal lacks.
fn check_kernel(
    release: Option<support::KernelVersion>,
    lockdown: Option<String>,
    clock_offset: Option<String>,
    has_uprobes: bool,
) -> Result<(), KernelError> {
    if let Some(found) = release
        && found < support::OLDEST
    {
        return Err(KernelError::TooOld { found, needed: support::OLDEST });
    }
    if let Some(mode) = lockdown {
        return Err(KernelError::LockedDown(mode));
    }
    if let Some(offset) = clock_offset {
        return Err(KernelError::ClockOffset(offset));
    }
    if has_uprobes { Ok(()) } else { Err(KernelError::NoUprobes) }
}

fn load_error(error: &aya::EbpfError) -> KernelError {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(current) = cause {
        if let Some(io) = current.downcast_ref::<io::Error>()
            && io.kind() == io::ErrorKind::PermissionDenied
        {
            return KernelError::NotAllowed;
        }
        cause = current.source();
    }
    KernelError::Object(error.to_string())
}

fn map_fd(ebpf: &Ebpf, name: &'static str) -> Result<OwnedFd, KernelError> {
    let Some(Map::Array(data) | Map::RingBuf(data)) = ebpf.map(name) else {
        return Err(KernelError::Object(format!("no map {name}")));
    };
    data.fd()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|source| KernelError::Load { what: name, source })
}

fn map_ring(ebpf: &Ebpf, name: &'static str, size: u32) -> Result<Ring, KernelError> {
    Ring::map(map_fd(ebpf, name)?, size)
        .map_err(|source| KernelError::Load { what: "a ring buffer's mapping", source })
}

fn map_words(ebpf: &Ebpf, name: &'static str, words: u32) -> Result<Words, KernelError> {
    let fd = map_fd(ebpf, name)?;
    Words::map(fd.as_fd(), words as usize * 8)
        .map_err(|source| KernelError::Load { what: name, source })
}

/// Number of CPUs that could ever be there: the highest id plus one.
pub(super) fn possible_cpus() -> u32 {
    aya::util::nr_cpus().ok().and_then(|count| u32::try_from(count).ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use support::KernelVersion;

    fn refusal(
        release: Option<(u32, u32)>,
        lockdown: Option<&str>,
        clock_offset: Option<&str>,
        has_uprobes: bool,
    ) -> String {
        let release = release.map(|(major, minor)| KernelVersion { major, minor });
        let own = |text: Option<&str>| text.map(str::to_owned);
        let checked = check_kernel(release, own(lockdown), own(clock_offset), has_uprobes);
        checked.map_or_else(|error| error.to_string(), |()| "fine".to_owned())
    }

    #[test]
    fn a_kernel_that_cannot_work_is_refused_with_what_to_do() {
        let new = Some((6, 18));
        assert_eq!(refusal(new, None, None, true), "fine");
        assert_eq!(refusal(Some((5, 15)), None, None, true), "fine");
        assert_eq!(refusal(None, None, None, true), "fine", "an unknown release is tried");
        assert!(refusal(Some((5, 14)), None, None, true).contains("need 5.15 or newer"));
        let locked = refusal(new, Some("confidentiality"), None, true);
        assert!(locked.contains("lockdown=integrity"));
        assert!(refusal(new, None, Some("0 s, 7 ns"), true).contains("time namespace"));
        assert!(refusal(new, None, None, false).contains("CONFIG_UPROBE_EVENTS"));
    }

    #[test]
    fn the_room_is_half_for_all_and_half_for_the_cpus() {
        let room = |bytes, cpus| {
            let Room { shared_bytes, chunks_each } = Room::of(bytes, cpus, 4096);
            (shared_bytes, chunks_each)
        };
        assert_eq!(room(4 << 20, 2), (2 << 20, (1 << 20) / CHUNK));
        assert_eq!(room(4 << 20, 3), (2 << 20, (1 << 19) / CHUNK), "a power of two for each");
        assert_eq!(
            room(4 << 20, 1024),
            (2 << 20, 1),
            "a chunk for each, whatever that is together"
        );
        assert_eq!(room(4096, 2), (4096, 1));
        assert_eq!(room(1 << 30, 2), (1 << 29, (1 << 28) / CHUNK));
    }

    #[test]
    fn the_end_of_a_verifiers_log_is_the_reason() {
        let log = "0: (b7) r0 = 0\n1: (79) r1 = *(u64 *)(r2 +0)\nR2 invalid mem access\nprocessed 2 insns\n";
        assert_eq!(
            last_lines(log),
            "0: (b7) r0 = 0; 1: (79) r1 = *(u64 *)(r2 +0); R2 invalid mem access"
        );
    }
}
