//! The live view.
//!
//! `Action → State::update → view(state, snapshot)`. The [`Snapshot`] is all it knows of the
//! target: nothing here reads a clock, the target or the ledger, so a recorded snapshot looks as
//! it did live. Keys live in one table ([`keymap`]) that also renders the help.
//!
//! [`Snapshot`]: crate::ledger::snapshot::Snapshot

mod action;
mod areas;
mod ascii;
pub mod export;
mod field;
mod filter;
mod grid;
pub mod keymap;
mod list;
mod notes;
mod output;
mod pools;
mod prompt;
mod rates;
mod request;
mod run;
mod state;
mod suspend;
mod tab;
mod table;
pub mod terminal;
mod theme;
mod ui;
mod view;

pub use action::Action;
pub use output::{OutputTail, TALLEST, output_size};
pub use request::Request;
pub use run::run;
pub use tab::Tab;
pub use terminal::{TerminalGuard, USUAL, usable};
pub use theme::{Palette, Theme};
pub use ui::{Flow, Ui};
