//! What the user can ask for.

use super::Tab;

/// A request of the user; [`super::keymap`] says which keys make it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Leave.
    Quit,
    /// Stop, as a shell stops a job.
    Suspend,
    /// Interrupt the command whose output is shown; leave if there is none.
    Interrupt,
    /// Show the command's output, or hide it.
    ToggleOutput,
    /// Open the list of keys, or close it.
    ToggleHelp,
    /// Open the list of everything that keeps the numbers from being exact, or close it.
    ToggleNotes,
    /// Open a view.
    Show(Tab),
    /// Open the next view.
    NextTab,
    /// Open the view before.
    PreviousTab,
    /// Close what lies over the view; else go back to now, or to all rows.
    Close,
    /// Look into what the cursor is on.
    Enter,
    /// Open the call stack of what the cursor is on.
    CallStack,
    /// To the next target.
    NextTarget,
    /// To the target before.
    PreviousTarget,
    /// Have the live buffers read again.
    Resync,
    /// Hold what is shown, or go on.
    Freeze,
    /// Mark this moment; growth since is shown.
    Mark,
    /// Forget the mark.
    Unmark,
    /// Order rows by the next column.
    Sort,
    /// Turn the order round.
    Reverse,
    /// Type a filter.
    Filter,
    /// Type a size, to be told whether it would fit.
    Fit,
    /// Add rows up, another way each time.
    Group,
    /// Arrange the view another way.
    Layout,
    /// Show other columns.
    Columns,
    /// A shorter time, around the cursor.
    ZoomIn,
    /// A longer time.
    ZoomOut,
    /// To the next pool.
    NextPool,
    /// To the pool before.
    PreviousPool,
    /// Write the view to a file of JSON.
    ExportJson,
    /// Write the view to a file of comma-separated values.
    ExportCsv,
    /// Other colours.
    NextTheme,
    /// One step left, or back in time.
    Left,
    /// One step right, or forward in time.
    Right,
    /// One step up.
    Up,
    /// One step down.
    Down,
    /// One screen up.
    PageUp,
    /// One screen down.
    PageDown,
    /// To the first row.
    Top,
    /// To the last row.
    Bottom,
    /// What is at a column and a line of the terminal.
    Click(u16, u16),
    /// A character of what is being typed.
    Type(char),
    /// The last character of what is being typed goes.
    Erase,
}
