//! What the live view asks of whoever runs it.

use ratatui::layout::Size;

use super::export::File;
use crate::ledger::snapshot::Detail;

/// What the user asks for of whoever watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// To read the live buffers again, and compare.
    Resync,
    /// To interrupt the command.
    Interrupt,
    /// To tell the command how many columns and lines of its output are shown.
    OutputSize(Size),
    /// To put into the snapshots what the open view needs, and no more.
    Detail(Detail),
    /// To write a file.
    Export(File),
}
