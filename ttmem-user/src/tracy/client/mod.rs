//! Tracy's own client, for the viewers that it was made for.
//!
//! It answers a viewer's questions by reading its memory at whatever address it is asked for, and
//! an unknown question ends its process. So it runs in a process of its own, which has no rights,
//! reaches no file and knows nothing but what it is told to show; this program only writes
//! operations to it, and goes on without it if it ends.
//!
//! `nursery` starts such processes, `jail` takes their rights, `backend` is what they do, `emit` is
//! Tracy's C interface, `pace` is how far that is behind, `codec` is what goes between, and `serve`
//! is this program's end.

pub mod backend;
pub mod codec;
mod emit;
mod jail;
pub mod nursery;
mod pace;
pub mod serve;
