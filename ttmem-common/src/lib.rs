//! What the eBPF side, the agent and outside readers agree on: record layouts,
//! the probes, the field offsets, the loss counters and the witness.
//!
//! Plain `repr(C)` data and constants. No allocation, no I/O, no `unsafe`.
#![no_std]

pub mod control;
pub mod cpu_ring;
pub mod failure;
pub mod layout;
pub mod loss;
pub mod probe;
pub mod python;
pub mod record;
pub mod table;
pub mod witness;
