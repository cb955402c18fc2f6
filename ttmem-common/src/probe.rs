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
    /// `tt_throw(…, args…)` as called when `BankManager::allocate_buffer` runs out of memory.
    Failure = 16,
}

/// Every probe, in attach order.
///
/// The order matters: probes become active one after the other, so the allocation comes last.
/// Then the worst that can be seen in between is the free of a buffer whose allocation was not
/// seen, which is what happens to every older buffer anyway; never an allocation without its free.
pub const PROBES: [ProbeId; 5] =
    [ProbeId::BulkFree, ProbeId::Free, ProbeId::DeviceOpen, ProbeId::Failure, ProbeId::Allocate];

impl ProbeId {
    /// Name in messages and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allocate => "allocate",
            Self::Free => "free",
            Self::BulkFree => "bulk_free",
            Self::DeviceOpen => "device_open",
            Self::Failure => "failure",
        }
    }

    /// Whether totals could be wrong without it.
    pub const fn is_essential(self) -> bool {
        !matches!(self, Self::DeviceOpen | Self::Failure)
    }

    /// The probe of a cookie's low half.
    pub const fn from_raw(raw: u16) -> Option<Self> {
        match raw {
            1 => Some(Self::Allocate),
            2 => Some(Self::Free),
            3 => Some(Self::BulkFree),
            4 => Some(Self::DeviceOpen),
            16 => Some(Self::Failure),
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
