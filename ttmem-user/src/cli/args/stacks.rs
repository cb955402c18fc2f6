//! Arguments of call stacks.

use clap::Args;
use ttmem_common::record::STACK_PIECE;

/// Whether and how call stacks are recorded.
#[derive(Debug, Args)]
pub struct StackArgs {
    /// Record what calls for each buffer and each failed allocation: its call stack, in a Python program
    /// with functions and lines; costs the process two to three microseconds more per allocation.
    #[arg(long)]
    pub stacks: bool,
    /// How much of each call stack is copied, 1 to 64K; units: K or KiB; rounded up to 512. More
    /// reaches further out, and costs more.
    #[arg(long, value_name = "BYTES", default_value = "8K", value_parser = bytes,
          requires = "stacks")]
    pub stack_bytes: u32,
    /// Size of the ring buffer for call stacks, in KiB, 128 to 1048576; rounded up to a power of two.
    #[arg(long, value_name = "KIB", default_value_t = 16384, requires = "stacks",
          value_parser = clap::value_parser!(u32).range(128..=1_048_576))]
    pub stack_ring_size: u32,
}

/// Most of a stack that is copied, bytes.
const MOST: u64 = 64 << 10;

fn bytes(text: &str) -> Result<u32, String> {
    // Rounded up only then: what is near the end of all numbers cannot be.
    let bytes = super::size(text).ok().filter(|bytes| *bytes <= MOST);
    let rounded = bytes.map(|bytes| bytes.next_multiple_of(u64::from(STACK_PIECE)));
    let rounded = rounded.and_then(|bytes| u32::try_from(bytes).ok());
    rounded.ok_or_else(|| "bytes are needed, 1 to 64K".to_owned())
}
