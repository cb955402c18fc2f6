//! Where an allocation fails, and where its numbers are then: on the stack of the thread that is
//! about to throw.
//!
//! The message of the exception is made from references to its numbers, which the throwing
//! function gets on the stack. Which is which, the agent has read in the text of the message.

use crate::layout::ABSENT;

/// Call sites of the throwing function that a table has room for; a power of two.
pub const FAILURE_SITES: usize = 4;

/// Call sites of `BankManager::allocate_buffer` that a table has room for; a power of two.
pub const FAILURE_CALLERS: usize = 8;

/// Number of [`FailureField`]s.
pub const FAILURE_FIELDS: usize = 8;

/// What the message of a failed allocation says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FailureField {
    /// Bytes of the whole buffer.
    Size = 0,
    /// Name of the buffer type.
    Type = 1,
    /// Number of banks that the buffer would lie on.
    Banks = 2,
    /// Bytes that each bank would have to give.
    BankBytes = 3,
    /// Bytes of one bank.
    BankSize = 4,
    /// Bytes of a bank that are allocated.
    Allocated = 5,
    /// Bytes of a bank that are free.
    Free = 6,
    /// Bytes of the largest free block of a bank.
    LargestFree = 7,
}

/// One call of the throwing function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct FailureSite {
    /// Where the call returns to, which is how it is known; 0: unused.
    pub return_address: u64,
    /// By [`FailureField`]: offset from the stack pointer at entry of the reference, in words;
    /// 0: the message does not say it.
    pub places: [u8; FAILURE_FIELDS],
    /// By [`FailureField`]: bytes of the number, 4 or 8; of the type it is 16.
    pub widths: [u8; FAILURE_FIELDS],
    /// Bytes from the stack pointer at entry to the return address of the function that calls;
    /// [`ABSENT`]: not known.
    pub to_caller: u32,
    /// Keeps the size a multiple of 8.
    pub reserved: u32,
}

/// One call of `BankManager::allocate_buffer`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct FailureCaller {
    /// Where the call returns to, which is how it is known; 0: unused.
    pub return_address: u64,
    /// Bytes from the place of that return address to that of the `Buffer*`.
    pub to_buffer: u32,
    /// Keeps the size a multiple of 8.
    pub reserved: u32,
}

/// Everything that is to be known of failing allocations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "bytes",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct FailureLayout {
    /// Calls of the throwing function.
    pub sites: [FailureSite; FAILURE_SITES],
    /// Calls of the function that throws.
    pub callers: [FailureCaller; FAILURE_CALLERS],
}

impl FailureSite {
    /// An entry that is not used.
    pub const UNUSED: Self = Self {
        return_address: 0,
        places: [0; FAILURE_FIELDS],
        widths: [0; FAILURE_FIELDS],
        to_caller: ABSENT,
        reserved: 0,
    };
}

impl FailureLayout {
    /// The layout of a library in which no allocation is seen to fail.
    pub const ABSENT: Self = Self {
        sites: [FailureSite::UNUSED; FAILURE_SITES],
        callers: [FailureCaller { return_address: 0, to_buffer: 0, reserved: 0 }; FAILURE_CALLERS],
    };

    /// Adds the load bias to every address.
    #[must_use]
    pub fn at_bias(mut self, bias: u64) -> Self {
        let sites = self.sites.iter_mut().map(|site| &mut site.return_address);
        let callers = self.callers.iter_mut().map(|caller| &mut caller.return_address);
        for address in sites.chain(callers).filter(|address| **address != 0) {
            *address = address.wrapping_add(bias);
        }
        self
    }
}

const _: () = assert!(size_of::<FailureSite>() == 32 && FAILURE_SITES.is_power_of_two());
const _: () = assert!(size_of::<FailureCaller>() == 16 && FAILURE_CALLERS.is_power_of_two());
