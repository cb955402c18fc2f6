//! Image bytes in, [`plan::AttachPlan`] out. Pure: no process, no I/O.

pub mod plan;
pub mod symbolic;
