//! The live view.
//!
//! `Action → State::update → view(state, snapshot)`. The [`Snapshot`] is all it knows of the
//! target: nothing here reads a clock, the target or the ledger, so a recorded snapshot looks as
//! it did live. Keys live in one table ([`keymap`]) that also renders the help.
//!
//! [`Snapshot`]: crate::ledger::snapshot::Snapshot

mod action;
mod grid;
pub mod keymap;
mod notes;
mod output;
mod rates;
mod run;
mod state;
pub mod terminal;
mod theme;
mod ui;
mod view;

pub use action::Action;
pub use output::{OutputTail, TALLEST, output_size};
pub use run::{Request, run};
pub use terminal::TerminalGuard;
pub use theme::Theme;
pub use ui::{Flow, Ui};
