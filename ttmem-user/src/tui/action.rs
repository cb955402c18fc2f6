//! What the user can ask for.

/// A request of the user; [`super::keymap`] says which keys make it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Leave.
    Quit,
    /// Interrupt the command whose output is shown; leave if there is none.
    Interrupt,
    /// Show the command's output, or hide it.
    ToggleOutput,
    /// Open the list of keys, or close it.
    ToggleHelp,
    /// Open the list of everything that keeps the numbers from being exact, or close it.
    ToggleNotes,
    /// Close whatever lies over the overview.
    Close,
    /// To the next target.
    NextTarget,
    /// To the target before.
    PreviousTarget,
    /// Have the live buffers read again.
    Resync,
    /// One step up.
    Up,
    /// One step down.
    Down,
    /// One screen up.
    PageUp,
    /// One screen down.
    PageDown,
    /// To the first chip.
    Top,
    /// To the last chip.
    Bottom,
}
