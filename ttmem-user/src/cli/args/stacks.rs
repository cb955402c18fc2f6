//! Arguments of call stacks.

use clap::Args;
use ttmem_common::record::STACK_PIECE;

/// Whether and how call stacks are recorded.
#[derive(Debug, Args)]
pub struct StackArgs {
    /// Record what calls for each buffer and each failed allocation: its call stack; costs the process
    /// two to three microseconds more per allocation.
    #[arg(long)]
    pub stacks: bool,
    /// How much of each call stack is copied; units: K or KiB; rounded up to 512. More reaches further
    /// out, and costs more.
    #[arg(long, value_name = "BYTES", default_value = "8K", value_parser = bytes,
          requires = "stacks")]
    pub stack_bytes: u32,
    /// Size of the ring buffer for call stacks, in KiB; rounded up to a power of two.
    #[arg(long, value_name = "KIB", default_value_t = 16384, requires = "stacks",
          value_parser = clap::value_parser!(u32).range(128..=1_048_576))]
    pub stack_ring_size: u32,
}

/// Most of a stack that is copied, bytes.
const MOST: u64 = 64 << 10;

fn bytes(text: &str) -> Result<u32, String> {
    let bytes = super::size(text)?.next_multiple_of(u64::from(STACK_PIECE));
    match u32::try_from(bytes) {
        Ok(fits) if bytes <= MOST => Ok(fits),
        _ => Err("at most 64K is possible".to_owned()),
    }
}
