//! The probes: what is observed, and what it means when one cannot be attached.

/// What a probe observes. The value travels in the attach cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
pub enum ProbeId {
    /// `GraphTracker::track_allocate(this, const Buffer*)`: a buffer has got its address.
    Allocate = 1,
    /// `AllocatorImpl::deallocate_buffer(this, Buffer*)`: a buffer gives its address back.
    Free = 2,
    /// `AllocatorImpl::deallocate_buffers(this)`: every buffer of one allocator is gone.
    BulkFree = 3,
    /// `SubDeviceManagerTracker(this, IDevice*, unique_ptr<AllocatorImpl>&&, …)`: a device or mesh
    /// has been opened and has its allocator.
    DeviceOpen = 4,
    /// `ProgramImpl::allocate_circular_buffers(this, const IDevice*)`: whose circular buffers
    /// this thread places next.
    CircularContext = 5,
    /// `ProgramImpl::allocate_dataflow_buffers(this, const IDevice*)`: whose dataflow buffers
    /// this thread places next.
    DataflowContext = 6,
    /// `GraphTracker::track_allocate_cb(this, const CoreRangeSet&, address, size, globally
    /// allocated, const IDevice*)`: a circular buffer has got its address.
    Circular = 7,
    /// `CircularBufferAllocator::mark_address(this, address, size, base)`: a range of cores gives
    /// memory to a circular or dataflow buffer.
    Dataflow = 8,
    /// `~ProgramImpl(this)`: a program is gone, and its circular and dataflow buffers with it.
    ProgramEnd = 9,
    /// `GraphTracker::track_program(this, Program*, const IDevice*)`: a program is dispatched.
    /// Only attached when asked for.
    Dispatch = 10,
    /// `tt_throw(…, args…)` as called when `BankManager::allocate_buffer` runs out of memory.
    Failure = 16,
    /// `AllocatorImpl::shrink_allocator_size(this, const BufferType&, size, bottom up)`: an
    /// allocator gives the start of its banks to sub-devices, or has just got it back.
    Resize = 17,
}

/// Every probe, in attach order.
///
/// The order matters: probes become active one after the other, so the allocation comes last.
/// Then the worst that can be seen in between is the free of a buffer whose allocation was not
/// seen, which is what happens to every older buffer anyway; never an allocation without its free.
///
/// The same for programs: first their end, then what says whose buffers are placed, then those.
pub const PROBES: [ProbeId; 12] = [
    ProbeId::ProgramEnd,
    ProbeId::CircularContext,
    ProbeId::DataflowContext,
    ProbeId::Circular,
    ProbeId::Dataflow,
    ProbeId::Dispatch,
    ProbeId::BulkFree,
    ProbeId::Free,
    ProbeId::DeviceOpen,
    ProbeId::Resize,
    ProbeId::Failure,
    ProbeId::Allocate,
];

impl ProbeId {
    /// Name in messages and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allocate => "allocate",
            Self::Free => "free",
            Self::BulkFree => "bulk_free",
            Self::DeviceOpen => "device_open",
            Self::CircularContext => "circular_context",
            Self::DataflowContext => "dataflow_context",
            Self::Circular => "circular",
            Self::Dataflow => "dataflow",
            Self::ProgramEnd => "program_end",
            Self::Dispatch => "dispatch",
            Self::Failure => "failure",
            Self::Resize => "resize",
        }
    }

    /// Whether totals of buffers could be wrong without it.
    pub const fn is_essential(self) -> bool {
        matches!(self, Self::Allocate | Self::Free | Self::BulkFree)
    }

    /// Whether it tells of programs rather than of buffers.
    pub const fn watches_programs(self) -> bool {
        (self as u16) >= (Self::CircularContext as u16) && (self as u16) <= (Self::Dispatch as u16)
    }

    /// The probe of a cookie's low half.
    pub const fn from_raw(raw: u16) -> Option<Self> {
        match raw {
            1 => Some(Self::Allocate),
            2 => Some(Self::Free),
            3 => Some(Self::BulkFree),
            4 => Some(Self::DeviceOpen),
            5 => Some(Self::CircularContext),
            6 => Some(Self::DataflowContext),
            7 => Some(Self::Circular),
            8 => Some(Self::Dataflow),
            9 => Some(Self::ProgramEnd),
            10 => Some(Self::Dispatch),
            16 => Some(Self::Failure),
            17 => Some(Self::Resize),
            _ => None,
        }
    }
}

/// What an attach cookie holds: the target's slot in the layout map, and the probe.
pub const fn cookie(slot: u32, probe: ProbeId) -> u64 {
    ((slot as u64) << 16) | probe as u64
}

/// The target's slot in a cookie.
pub const fn cookie_slot(cookie: u64) -> u32 {
    let [_, _, a, b, c, d, ..] = cookie.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// The probe number in a cookie.
pub const fn cookie_probe(cookie: u64) -> u16 {
    let [a, b, ..] = cookie.to_le_bytes();
    u16::from_le_bytes([a, b])
}
